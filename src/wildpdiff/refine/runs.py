"""Refinements in parallel: each from its own start, labels and offsets, those of a kind in one vectorised pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import TrainingError
from wildpdiff.posterior.maximum_a_posteriori import MapConfig, maximum_a_posteriori
from wildpdiff.refine.starts import Start
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

TOGETHER = 20
"""Refinements in one pass."""


@dataclass(frozen=True)
class RefineConfig:
    """Settings of a refinement.

    Attributes:
        posterior: of the search where a prior is known.
        free: of the fine-tuning where none is; the end of the run is the result.
        folds: of the cross-validation.
        finalists: number of further candidates that are cross-validated, by the probability of the labels.
        margin: standard errors by which another start must be ahead of the first.
    """

    posterior: MapConfig = field(default_factory=MapConfig)
    free: FinetuneConfig = field(
        default_factory=lambda: FinetuneConfig(steps=100, learning_rate=0.01, checkpoints=1, interval=1)
    )
    folds: int = 5
    finalists: int = 2
    margin: float = 1.5

    @property
    def shorter(self) -> RefineConfig:
        """Settings of cross-validation: half the steps and images, at twice the rate where all values move freely."""
        posterior, free = self.posterior, self.free
        return replace(
            self,
            posterior=replace(posterior, steps=_half(posterior.steps), batch=_half(posterior.batch)),
            free=replace(
                free,
                steps=_half(free.steps),
                batch=_half(free.batch),
                warmup=free.warmup // 2,
                learning_rate=2 * free.learning_rate,
                checkpoints=1,
                interval=1,
            ),
        )

    def __post_init__(self) -> None:
        if self.folds < 2 or self.finalists < 0 or not 0 <= self.margin < math.inf:
            raise TrainingError(
                f"The start is chosen by {self.folds} folds among {self.finalists} further candidates with a margin of "
                f"{self.margin:g} standard errors; give at least 2 folds and no negative number."
            )


def _half(count: int) -> int:
    return -(-count // 2)


@dataclass(frozen=True)
class Run:
    """One refinement.

    Attributes:
        offsets: of the outputs in the loss (:func:`~wildpdiff.refine.frequencies.label_offsets`).
    """

    features: TaskFeatures
    start: Start
    offsets: Float[Tensor, ...]


def refine_runs(
    backbone: Backbone,
    runs: Sequence[Run],
    config: RefineConfig,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Tensor]]:
    """The refined tensors of every run, in the runs' order; a run's result does not depend on the others.

    Under a prior the most probable adapter (:func:`maximum_a_posteriori`), without one the end of a short
    fine-tuning. A step takes no more images than the run has.

    Raises:
        TrainingError: the loss of a run is not finite.
    """
    groups = _groups(runs, config)
    steps = [config.free.steps if runs[group[0]].start.prior is None else config.posterior.steps for group in groups]
    results: dict[int, dict[str, Tensor]] = {}
    for number, group in enumerate(groups):

        def report(done: int, _: int, before: int = sum(steps[:number])) -> None:
            if progress is not None:
                progress(before + done, sum(steps))

        stacked = _pass(backbone, [runs[index] for index in group], config, seed, progress=report)
        for row, index in enumerate(group):
            results[index] = {name: value[row].clone() for name, value in stacked.items()}
    return [results[index] for index in range(len(runs))]


def _batch(run: Run, config: RefineConfig) -> int:
    batch = config.free.batch if run.start.prior is None else config.posterior.batch
    return min(batch, run.features.train_size)


def _groups(runs: Sequence[Run], config: RefineConfig) -> list[list[int]]:
    """Indices of runs of one prior and batch, at most :data:`TOGETHER` a group."""
    alike: dict[tuple[int, int], list[int]] = {}
    for index, run in enumerate(runs):
        alike.setdefault((id(run.start.prior), _batch(run, config)), []).append(index)
    return [group[i : i + TOGETHER] for group in alike.values() for i in range(0, len(group), TOGETHER)]


def _pass(
    backbone: Backbone,
    runs: Sequence[Run],
    config: RefineConfig,
    seed: int,
    *,
    progress: Callable[[int, int], None],
) -> dict[str, Tensor]:
    """Tensors stacked as ``[run, …]``."""
    prior = runs[0].start.prior
    features = [run.features for run in runs]
    offsets = torch.stack([run.offsets for run in runs])
    batch = _batch(runs[0], config)
    if prior is None:
        free = replace(config.free, batch=batch, checkpoints=1, interval=1)
        starts = [run.start.adapter.tensors for run in runs]
        found = finetune(backbone, features, starts, config=free, seed=seed, progress=progress, offsets=offsets)
        return {name: value[:, -1] for name, value in found.tensors.items()}
    flat = torch.stack([prior.layout.flatten(run.start.adapter.tensors) for run in runs])
    posterior = replace(config.posterior, batch=batch)
    return prior.layout.unflatten(
        maximum_a_posteriori(
            backbone, flat, prior, features, offsets=offsets, config=posterior, seed=seed, progress=progress
        )
    )
