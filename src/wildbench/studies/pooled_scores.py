"""Scores of all examples of several tasks together, for example macro-F1, from counts that add up over tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.sections import POOLED_SCORES, PooledCounts
from wildpdiff.evaluate.run import Scored
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.metric import Metric
from wildpdiff.tasks.objective import TARGETS


@dataclass(frozen=True)
class PooledScore:
    """A score of many examples that is no mean over them.

    Attributes:
        metric: its name, unit and scale.
        counts: outputs ``[n, …]`` and their batch to numbers ``[k]`` that add up over examples.
        value: their sums ``[…, k]`` over all examples of one or more sets of tasks to the scores ``[…]``.
    """

    metric: Metric
    counts: Callable[[Tensor, Batch], Float[Tensor, " k"]]
    value: Callable[[Float[Tensor, "*r k"]], Float[Tensor, "*r"]]


def confusion(outputs: Float[Tensor, "n c"], batch: Batch) -> Float[Tensor, " k"]:
    """Flat counts of (target, prediction)."""
    classes = outputs.shape[-1]
    return torch.bincount(batch[TARGETS] * classes + outputs.argmax(-1), minlength=classes**2).double()


def macro_f1(classes: int, only: Sequence[int] | None = None, name: str = "macro-F1") -> PooledScore:
    """Mean F1 of the classes that occur among the targets, or of ``only`` those of these numbers that do; else 0."""

    def value(counts: Tensor) -> Tensor:
        table = counts.reshape(*counts.shape[:-1], classes, classes)
        true, predicted = table.sum(-1), table.sum(-2)
        wanted = torch.tensor([only is None or label in only for label in range(classes)]) & (true > 0)
        f1 = 2 * table.diagonal(dim1=-2, dim2=-1) / (true + predicted).clamp_min(1e-12)
        result: Tensor = (f1 * wanted).sum(-1) / wanted.sum(-1).clamp_min(1)
        return result

    return PooledScore(Metric(name, "%", 100.0, low=0.0, high=1.0), confusion, value)


@dataclass(frozen=True)
class PooledObserver:
    """Counts of some scores for every method and task: the section ``pooled_scores``."""

    scores: Sequence[PooledScore]
    found: list[PooledCounts] = field(default_factory=list)
    section: ClassVar[str] = POOLED_SCORES

    def observe(self, scored: Scored) -> None:
        """Mean counts of a method's adapters on one task."""
        method, test = scored.method, scored.test
        key = (scored.split, test.task, method.source.name, method.condition, method.generator_seed)
        self.found.extend(pooled_counts(self.scores, key, scored.outputs, test.batch))

    def result(self) -> tuple[PooledCounts, ...]:
        """All counts."""
        return tuple(self.found)


def pooled_counts(
    scores: Sequence[PooledScore],
    key: tuple[str, str, str, str, int | None],
    outputs: Float[Tensor, "a n ..."],
    batch: Batch,
) -> list[PooledCounts]:
    """Mean counts of several adapters' outputs on one task; the key is split, task, source, condition and seed."""
    found = []
    for score in scores:
        mean = torch.stack([score.counts(own, batch) for own in outputs]).double().mean(0)
        found.append(PooledCounts(score.metric.name, *key, tuple(mean.tolist())))
    return found
