"""Fitting the conditional mean to a training set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditional_mean.choice import Estimators, Scorer, cross_validated, without_images
from wildpdiff.conditional_mean.correction import HypernetworkEnsemble, TaskLossConfig, fit_hypernetworks
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.kernel import fit_kernel_mean
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.conditional_mean.simple import fit_simple_estimators
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.rng import sub_seed
from wildpdiff.threads import one_thread
from wildpdiff.training import Progress


@dataclass(frozen=True)
class FittedMean:
    """A conditional mean.

    Attributes:
        cross_validation: scores on held-out seen tasks; None where they have no images.
        images: of the seen tasks; None where they have none.
    """

    mean: ConditionalMean
    losses: Float[Tensor, " steps"] = field(repr=False)
    cross_validation: CrossValidation | None
    images: TaskExamples | None = None


def fit_conditional_mean(
    encoded: EncodedTasks,
    config: TaskLossConfig,
    seed: int,
    *,
    trained_folds: int | None = None,
    progress: Progress | None = None,
    store: Path | None = None,
    start: ConditionalMean | None = None,
) -> FittedMean:
    """Regression of the tasks' adapters on their descriptions, networks on top of it, and their blend.

    Args:
        encoded: the seen tasks; without their labelled images nothing is trained or scored.
        trained_folds: number of folds of the tasks without which networks are trained; all by default.
        start: of the first of these tasks, whose networks are trained further.

    Raises:
        TrainingError: a training diverged.
        DataError: a task has no training images.
    """
    own = encoded.of_tasks()
    # Errors are measured on raw adapters: normalised ones give small tensors as much weight as large ones.
    kernel = fit_kernel_mean(encoded.conditions, encoded.embeddings, own, encoded.codec.decode(own))
    simple = fit_simple_estimators(encoded.conditions.sizes, encoded.start, encoded.embeddings, own)
    first = None if start is None else HypernetworkEnsemble(start.members, {}, start.fold, torch.zeros(0))
    correction = fit_hypernetworks(
        encoded, kernel, config, seed=seed, trained_folds=trained_folds, progress=progress, store=store, start=first
    )
    estimators = Estimators(kernel, simple, correction)
    if len(encoded.labelled) < 2:  # one task alone cannot be held out
        return FittedMean(without_images(estimators, encoded.codec, encoded.tasks), correction.losses, None)
    images = encoded.images(sub_seed(seed, "cross-validation"))
    with one_thread():
        scorer = Scorer(encoded.backbone, encoded.codec, images)
        mean, table = cross_validated(estimators, scorer, encoded.centering, config.evaluation_images)
    return FittedMean(mean, correction.losses, table, images)
