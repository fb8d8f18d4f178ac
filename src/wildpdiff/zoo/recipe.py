"""The recipe of a zoo: fine-tuning chosen on a few seen tasks, from coarse to fine.

Suites differ by orders of magnitude in the learning rate that fine-tuning takes, and one too high makes adapters
oscillate around their optimum. The search takes a few tasks, drawn by the hash of their names: first short runs
over learning rates from 1e-4 to .3, then whole runs at the best of them and below, with shrinkage towards the shared
start, and of half the length. A candidate is judged by the validation loss of a task's adapter as everything downstream
reads it, the mean of the kept checkpoints. Unseen tasks have no part in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.recipe_search import (
    POOLED_BATCH,
    SEARCH_TASKS,
    RecipeSearch,
    RecipeTrial,
    Scores,
    of_length,
    rounded,
)
from wildpdiff.zoo.steps import FinetuneConfig

COARSE_TASKS = 4
"""Of these, the tasks that short runs are tried on."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
"""Learning rates of the short runs."""

SHORT = 4
"""Short runs have one step of so many."""

SHRINKAGES = (0.3, 1.0, 3.0)
"""Tried one after another, as long as each is better than the one before."""


@dataclass(frozen=True)
class ChosenRecipe:
    """The fine-tuning that was chosen, and the evidence.

    Attributes:
        config: the chosen fine-tuning.
        tasks: names of the seen tasks it was chosen on.
        trials: everything that was tried, in order.
        accuracy: mean validation accuracy of the chosen fine-tuning on these tasks.
        pretrained: that of the pretrained model.
        multi_task: that of one adapter fine-tuned on the pooled training images of these tasks, without the images that
            it is judged by; None where its training diverged, or there is one task alone.
    """

    config: FinetuneConfig
    tasks: tuple[str, ...]
    trials: tuple[RecipeTrial, ...]
    accuracy: float
    pretrained: float
    multi_task: float | None

    @property
    def remarks(self) -> tuple[str, ...]:
        """One sentence for each model without an adapter per task that beats the fine-tuned adapters."""
        rivals = (
            ("the pretrained model", self.pretrained, "fine-tuning on the labels of one task does harm here"),
            ("one adapter for all of them", self.multi_task, "the labels of one task teach less than those of all"),
        )
        return tuple(
            f"On the validation images of {len(self.tasks)} seen tasks, fine-tuned adapters reach "
            f"{100 * self.accuracy:.1f} % accuracy and {name} {100 * accuracy:.1f} %: {reason}, and a generator "
            "learns from these adapters."
            for name, accuracy, reason in rivals
            if accuracy is not None and accuracy > self.accuracy
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the configuration, which the zoo's plan holds for itself, as plain JSON values."""
        return {
            "tasks": list(self.tasks),
            "trials": [asdict(trial) for trial in self.trials],
            "accuracy": self.accuracy,
            "pretrained": self.pretrained,
            "multi_task": self.multi_task,
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_json(cls, finetuning: Mapping[str, Any], recipe: Mapping[str, Any], path: object) -> ChosenRecipe:
        """The inverse of :meth:`to_json`; ``path`` is named in errors.

        Raises:
            ArtifactError: a key is missing, or a value of another kind.
        """
        try:
            return cls(
                FinetuneConfig(**{name: finetuning[name] for name in FinetuneConfig.__dataclass_fields__}),
                tuple(map(str, recipe["tasks"])),
                tuple(RecipeTrial(**trial) for trial in recipe["trials"]),
                float(recipe["accuracy"]),
                float(recipe["pretrained"]),
                None if recipe["multi_task"] is None else float(recipe["multi_task"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, TrainingError) as error:
            raise ArtifactError(
                f"The recipe in {path} is damaged ({type(error).__name__}: {error}). Remove the folder and build anew."
            ) from error


def drawn_tasks(names: Iterable[str]) -> tuple[str, ...]:
    """The tasks that a recipe is searched on: up to :data:`SEARCH_TASKS`, by the hash of their names."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return tuple(ordered[:SEARCH_TASKS])


def search_work(config: FinetuneConfig, tasks: int) -> int:
    """Optimiser steps × tasks that a search takes at most, to tell progress by."""
    coarse = len(RATES) * of_length(config, config.steps // SHORT).steps * min(tasks, COARSE_TASKS)
    whole = (3 + len(SHRINKAGES)) * config.steps + of_length(config, config.steps // 2).steps
    return coarse + whole * tasks + 2 * POOLED_BATCH * config.steps


def choose_recipe(
    backbone: Backbone,
    tasks: Sequence[TaskFeatures],
    initial: Mapping[str, Tensor],
    default: FinetuneConfig,
    seed: int,
    *,
    together: int = 20,
    memory: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> ChosenRecipe:
    """Choose learning rate, steps and shrinkage on a few seen tasks.

    The default stays where it is within one standard error (over tasks, paired) of the best candidate's validation
    loss; otherwise the shortest of the candidates within it is taken, and of these the one with the smallest loss.

    Args:
        backbone: the frozen model.
        tasks: features of the tasks to search on, see :func:`drawn_tasks`.
        initial: the shared starting tensors.
        default: everything that is not searched, and the candidate that is preferred.
        seed: decides the order of images.
        together: tasks in one vectorised pass.
        memory: file in which finished candidates are kept, for a call that goes on; of these tasks and this backbone.
        progress: called with the optimiser steps × tasks done, never more than :func:`search_work`.

    Raises:
        DataError: there are no tasks.
        TrainingError: every candidate diverged.
    """
    if not tasks:
        raise DataError("There are no seen tasks to choose a recipe on. Give some, or give the fine-tuning's settings.")
    search = RecipeSearch(backbone, tasks, initial, seed, together, memory, progress)
    coarse = search.run([_coarse(default, rate) for rate in RATES], COARSE_TASKS)
    rate = min(coarse, key=lambda scores: scores.loss).config.learning_rate
    lower = RATES[max(0, RATES.index(rate) - 1)]
    others = [other for other in {rate: None, lower: None} if other != default.learning_rate or default.shrinkage]
    whole = search.run([default, *(replace(default, learning_rate=other, shrinkage=0.0) for other in others)])
    plain = min(whole, key=lambda scores: scores.loss).config
    before = math.inf
    for shrinkage in SHRINKAGES:
        whole += search.run([replace(default, learning_rate=rate, shrinkage=shrinkage)])
        if whole[-1].loss >= before:
            break
        before = whole[-1].loss
    best = min(whole, key=lambda scores: scores.loss)
    shorter = of_length(best.config, default.steps // 2)
    if shorter.steps < default.steps:
        whole += search.run([shorter])
    chosen = _preferred(whole)
    return ChosenRecipe(
        chosen.config,
        tuple(task.name for task in tasks),
        tuple(search.trials),
        rounded(chosen.accuracies),
        rounded(search.scores(default, [initial] * len(tasks)).accuracies),
        search.multi_task(plain),
    )


def _coarse(default: FinetuneConfig, rate: float) -> FinetuneConfig:
    return replace(of_length(default, default.steps // SHORT), learning_rate=rate, shrinkage=0.0)


def _preferred(whole: Sequence[Scores]) -> Scores:
    """The default, which comes first, where it is as good as any; otherwise the cheapest that is."""
    best = min(whole, key=lambda scores: scores.loss)
    if not math.isfinite(best.loss):
        raise TrainingError(
            "Fine-tuning diverged at every learning rate that was tried. Check the tasks' images, or give a learning "
            f"rate below {min(RATES):g}."
        )
    good = [scores for scores in whole if scores.within_noise_of(best)]
    return good[0] if good[0] is whole[0] else min(good, key=lambda scores: (scores.config.steps, scores.loss))
