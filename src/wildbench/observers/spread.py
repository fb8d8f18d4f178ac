"""Spread of generated parameters, and of their accuracy, over samples and over training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.sections import ParameterSpread
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.evaluate.run import Scored


def relative_spread(vectors: Float[Tensor, "n d"], origin: Float[Tensor, " d"]) -> float | None:
    """Root mean square distance of vectors to their mean, as a share of that mean's distance to ``origin``.

    The mean square is over n − 1, so that few vectors do not seem to vary less. None for a single vector, and where
    the mean is the origin.
    """
    if len(vectors) < 2:
        return None
    mean = vectors.double().mean(0)
    length = float((mean - origin.double()).norm())
    if length == 0:
        return None
    squares = (vectors.double() - mean).square().sum()
    return float((squares / (len(vectors) - 1)).sqrt()) / length


@dataclass(frozen=True)
class _Draws:
    """Mean, relative spread and accuracies of the samples of one source with one training seed on one task."""

    mean: Float[Tensor, " d"]
    spread: float | None
    accuracies: tuple[float, ...]


class SpreadObserver:
    """Spread of stochastic sources and of those trained with a seed, with the task's own description.

    Of each (source, seed, task) one mean adapter is kept, nothing else of that size.
    """

    section = "spread"

    def __init__(self, initial: Adapter) -> None:
        """Empty; ``initial``, the zoo's shared initialisation, is the origin of the distances."""
        self._layout = Layout.of(initial.tensors)
        self._origin = self._layout.flatten(initial.tensors)
        self._draws: dict[tuple[str, str], dict[str, list[_Draws]]] = {}

    def observe(self, scored: Scored) -> None:
        """Measure the samples of a method on a task."""
        method = scored.method
        varies = method.source.stochastic or method.generator_seed is not None
        if method.condition != "own" or not varies:
            return
        vectors = torch.stack([self._layout.flatten(adapter.tensors) for adapter in scored.adapters])
        scores = tuple(row.accuracy for row in scored.rows)
        draws = _Draws(vectors.mean(0), relative_spread(vectors, self._origin), scores)
        tasks = self._draws.setdefault((scored.split, method.source.name), {})
        tasks.setdefault(scored.test.task, []).append(draws)

    def result(self) -> tuple[ParameterSpread, ...]:
        """One for each split and source, in the order in which they were observed."""
        return tuple(self._spread(*key, tasks) for key, tasks in self._draws.items())

    def _spread(self, split: str, source: str, tasks: Mapping[str, Sequence[_Draws]]) -> ParameterSpread:
        seeds = [
            relative_spread(torch.stack([draws.mean for draws in entries]), self._origin) for entries in tasks.values()
        ]
        return ParameterSpread(
            split,
            source,
            over_samples=_mean([_mean([draws.spread for draws in entries]) for entries in tasks.values()]),
            over_seeds=_mean(seeds),
            accuracy_over_samples=_mean(
                [_mean([_deviation(draws.accuracies) for draws in entries]) for entries in tasks.values()]
            ),
            accuracy_over_seeds=_mean(
                [_deviation([fmean(draws.accuracies) for draws in entries]) for entries in tasks.values()]
            ),
        )


def _deviation(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
