"""Quality of trust on tasks with measured gains, summarised over points; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import TrustPoint
from wildpdiff.evaluate.statistics import UNUSABLE_SHARE, Estimate, checked, interval_ends, mean_interval, task_draws

LOSS = 1.0
"""A task is harmed where it loses more points than this against the pretrained model."""


def harmed(point: TrustPoint) -> bool:
    """Whether the generated adapters lose more than :data:`LOSS` points."""
    return point.gain < -LOSS


def helped(point: TrustPoint) -> bool:
    """Whether they beat the pretrained model; equal but for the order of a sum is no gain."""
    return point.gain > 1e-7


def covered(point: TrustPoint) -> bool:
    """Whether the measured gain lies in the interval."""
    return point.low <= point.gain <= point.high


@dataclass(frozen=True)
class TrustSummary:
    """Quality of trust: means over tasks of the means over generators, with 95 % bootstrap intervals over tasks.

    Attributes:
        tasks, generators: their numbers.
        trust: its mean.
        auroc: probability that trust is higher where the adapter helped than where it did not; None where only one of
            the two happened.
        coverage: share whose measured gain lies in the interval; 0.9 is nominal.
        used_share: share on which the generated adapter was used.
        harmed_with, harmed_without: share of all tasks that lose more than :data:`LOSS` points, with the pretrained
            model used below the threshold, and with every generated adapter used.
        gain_with, gain_without: mean gain in points of the same two.
    """

    tasks: int
    generators: int
    trust: Estimate
    auroc: Estimate | None
    coverage: Estimate
    used_share: Estimate
    harmed_with: Estimate
    harmed_without: Estimate
    gain_with: Estimate
    gain_without: Estimate


class ThresholdOutcome(NamedTuple):
    """Outcome of one threshold for all tasks: shares of all tasks, and the mean gain in points."""

    threshold: float
    used: float
    harmed: float
    gain: float


def worlds_of(points: Sequence[TrustPoint]) -> tuple[str, ...]:
    """The variants in order of appearance."""
    return tuple(dict.fromkeys(point.world for point in points))


def summarise_trust(points: Sequence[TrustPoint], *, seed: int = 0) -> TrustSummary:
    """Quality of trust over all these points, at least one; several generators on one task count as one task."""
    tasks = _tasks(points)

    def mean(value: Callable[[TrustPoint], float]) -> Estimate:
        values = np.array([value(point) for point in points], dtype=np.float64)
        return mean_interval(np.bincount(tasks, weights=values) / np.bincount(tasks), seed=seed)

    trust, gained = np.array([point.trust for point in points], float), np.array([helped(point) for point in points])
    return TrustSummary(
        tasks=int(tasks.max()) + 1,
        generators=len({point.generator for point in points}),
        trust=mean(lambda point: point.trust),
        auroc=area_under_curve(trust, gained, tasks, seed=seed),
        coverage=mean(lambda point: float(covered(point))),
        used_share=mean(lambda point: float(point.used)),
        harmed_with=mean(lambda point: float(point.used and harmed(point))),
        harmed_without=mean(lambda point: float(harmed(point))),
        gain_with=mean(lambda point: point.gain if point.used else 0.0),
        gain_without=mean(lambda point: point.gain),
    )


def summarise_worlds(points: Sequence[TrustPoint], *, seed: int = 0) -> dict[str, TrustSummary]:
    """:func:`summarise_trust` of each variant, by its name."""
    return {
        world: summarise_trust([point for point in points if point.world == world], seed=seed)
        for world in worlds_of(points)
    }


def threshold_outcomes(points: Sequence[TrustPoint]) -> tuple[ThresholdOutcome, ...]:
    """Outcome of every threshold at which something changes, from 0 (all used) to 1, rising.

    An outcome holds from just above the previous threshold up to its own.
    """
    tasks = _tasks(points)
    weights = 1 / np.bincount(tasks)[tasks] / (int(tasks.max()) + 1)
    trust = np.array([point.trust for point in points])
    gain = np.array([point.gain for point in points])
    losses = np.array([harmed(point) for point in points])
    found = []
    for threshold in sorted({0.0, 1.0, *(float(value) for value in trust)}):
        own = weights * (trust >= threshold)
        found.append(ThresholdOutcome(threshold, float(own.sum()), float(own @ losses), float(own @ gain)))
    return tuple(found)


def _tasks(points: Sequence[TrustPoint]) -> ndarray:
    """Index of each point's task."""
    if not points:
        raise DataError("There is no assessed task: trust cannot be summarised. Assess at least one.")
    numbers: dict[tuple[str, str, str], int] = {}
    return np.array([numbers.setdefault((point.world, point.split, point.task), len(numbers)) for point in points])


def area_under_curve(
    scores: Float[ndarray, " n"], positive: Bool[ndarray, " n"], tasks: Int[ndarray, " n"], *, seed: int = 0
) -> Estimate | None:
    """Area under the receiver operating characteristic; None where there are only positives or only negatives.

    Scores of one task share its weight of 1. Resamples without a positive or without a negative are left out, up to
    1 % of them; with more there is no interval.

    Args:
        scores: higher for presumed positives.
        positive: true labels.
        tasks: index of each score's task, from 0 without a gap.
    """
    values = checked(scores)
    if positive.all() or not positive.any():
        return None
    amount = int(tasks.max()) + 1
    weights = 1 / np.bincount(tasks)[tasks]
    above = values[positive][:, None] - values[~positive][None]
    wins = np.where(above > 0, 1.0, np.where(above == 0, 0.5, 0.0))

    def area(counts: Float[ndarray, "r t"]) -> Float[ndarray, " r"]:
        drawn = counts[:, tasks] * weights
        for_positive, for_negative = drawn[:, positive], drawn[:, ~positive]
        pairs = for_positive.sum(1) * for_negative.sum(1)
        won = ((for_positive @ wins) * for_negative).sum(1)
        found: ndarray = np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan)
        return found

    value = float(area(np.ones((1, amount)))[0])
    drawn = area(task_draws(amount, seed)) if amount > 1 else np.full(1, np.nan)
    usable = drawn[np.isfinite(drawn)]
    if len(usable) < (1 - UNUSABLE_SHARE) * len(drawn):
        return Estimate(None, None, value, amount)
    return Estimate(*interval_ends(usable, usable), value, amount)
