"""Gain kept by interpolation between two tasks, and its rank correlation with alignment; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildbench.interpolation.rank_correlation import RankCorrelation, spearman
from wildbench.study_sections import Interpolation, InterpolationPair, InterpolationPath
from wildpdiff.evaluate.statistics import MINIMUM_HEADROOM, Gain, recovered_gain

WAYS = ("conditions", "latents", "adapters")
GROUPS = ("high", "middle", "low")
MIDDLE = 0.5
SIMILARITY = "condition similarity"
"""Name of the negative distance of two tasks' descriptions among the alignment numbers."""


@dataclass(frozen=True)
class MidpointKept:
    """Share of fine-tuning's gain that one pair keeps half-way; 0 is the pretrained model.

    Attributes:
        pair: the tasks.
        pooled: (both accuracies − both pretrained) / (both fine-tuned − both pretrained).
        lower: of the two tasks each for itself, the one that keeps less; among the tasks that have a gain to keep.
    """

    pair: InterpolationPair
    pooled: float
    lower: float


@dataclass(frozen=True)
class Midpoint:
    """All pairs half-way.

    Attributes:
        way: interpolated quantity.
        pairs: those whose tasks together have a gain to keep.
        skipped: number of others.
        correlations: Spearman's rank correlation of each alignment number with the pooled share; None where it is
            undefined. Negative condition distance is among them, as :data:`SIMILARITY`, for comparison.
        correlations_lower: the same with the lower share.
    """

    way: str
    pairs: tuple[MidpointKept, ...]
    skipped: int
    correlations: dict[str, RankCorrelation | None]
    correlations_lower: dict[str, RankCorrelation | None]


@dataclass(frozen=True)
class KeptCurve:
    """Share of its gain that a task keeps on the way to the other, over all tasks of a group's pairs.

    Attributes:
        positions: 0 is the task itself, 1 the other task.
        gains: at each position; ratio of means over tasks, with intervals.
    """

    positions: tuple[float, ...]
    gains: tuple[Gain, ...]


def ways_of(interpolation: Interpolation) -> tuple[str, ...]:
    """Interpolated quantities, in a fixed order."""
    measured = {path.way for path in interpolation.paths}
    return tuple(way for way in WAYS if way in measured)


def midpoint_kept(interpolation: Interpolation, way: str, *, seed: int = 0) -> Midpoint:
    """Share of the recovered gain that each pair keeps at the midpoint, and its rank correlations.

    Accuracies at the midpoint are interpolated linearly between the two nearest positions where it was not measured.

    Args:
        interpolation: the section of the results.
        way: ``conditions``, ``latents`` or ``adapters``.
        seed: of the bootstrap over pairs.
    """
    kept, skipped = [], 0
    for pair, path in _paired(interpolation, way):
        middle = np.array(
            [np.interp(MIDDLE, path.places, line) for line in (path.first_accuracy, path.second_accuracy)]
        )
        before, headroom = np.array(pair.pretrained), np.array(pair.finetuned) - np.array(pair.pretrained)
        own = headroom >= MINIMUM_HEADROOM
        if headroom.sum() < MINIMUM_HEADROOM or not own.any():
            skipped += 1
            continue
        pooled = float((middle - before).sum() / headroom.sum())
        lower = float(((middle - before)[own] / headroom[own]).min())
        kept.append(MidpointKept(pair, pooled, lower))
    pooled_shares = np.array([entry.pooled for entry in kept])
    lower_shares = np.array([entry.lower for entry in kept])
    numbers = {name: np.array([entry.pair.alignment.get(name, np.nan) for entry in kept])
               for name in interpolation.alignments}  # fmt: skip
    numbers[SIMILARITY] = -np.array([entry.pair.condition_distance for entry in kept])
    return Midpoint(
        way,
        tuple(kept),
        skipped,
        {name: _correlation(values, pooled_shares, seed) for name, values in numbers.items()},
        {name: _correlation(values, lower_shares, seed) for name, values in numbers.items()},
    )


def _correlation(values: Float[ndarray, " n"], shares: Float[ndarray, " n"], seed: int) -> RankCorrelation | None:
    known = np.isfinite(values)
    return spearman(values[known], shares[known], seed=seed)


def kept_curve(interpolation: Interpolation, way: str, group: str, *, seed: int = 0) -> KeptCurve | None:
    """Mean over both tasks of every pair of a group; None where none was measured.

    A pair's second task is read from its own end, so that position 0 is always the task itself.
    """
    found = [(pair, path) for pair, path in _paired(interpolation, way) if pair.group == group]
    if not found:
        return None
    positions = tuple(sorted({position for _, path in found for position in path.places}))
    curves: list[ndarray] = []
    before: list[float] = []
    top: list[float] = []
    for pair, path in found:
        curves.append(np.interp(positions, path.places, path.first_accuracy))
        curves.append(np.interp(positions, *_reversed(path)))
        before += pair.pretrained
        top += pair.finetuned
    table = np.stack(curves)
    columns = [np.array(before), np.array(top)]
    gains = [recovered_gain(table[:, number], *columns, seed=seed) for number in range(len(positions))]
    return KeptCurve(positions, tuple(gains))


def _reversed(path: InterpolationPath) -> tuple[Sequence[float], Sequence[float]]:
    return [1 - position for position in reversed(path.places)], list(reversed(path.second_accuracy))


def _paired(interpolation: Interpolation, way: str) -> list[tuple[InterpolationPair, InterpolationPath]]:
    paths = {(path.first, path.second): path for path in interpolation.paths if path.way == way}
    return [
        (pair, paths[pair.first, pair.second]) for pair in interpolation.pairs if (pair.first, pair.second) in paths
    ]
