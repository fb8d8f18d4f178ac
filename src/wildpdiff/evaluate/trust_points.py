"""Trust in generated adapters and their measured gains, point by point and summarised.

Trust is a share from 0 to 1; gains and the ends of their intervals are points of accuracy (a point is 0.01) against the
pretrained model. Plain values: nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from wildpdiff.errors import DataError
from wildpdiff.evaluate.statistics import Estimate, area_under_curve, mean_interval

LOSS = 1.0
"""A task is harmed where it loses more points than this against the pretrained model."""


@dataclass(frozen=True)
class TrustPoint:
    """One generator on one task: trust without labels, and the gain measured with them.

    Attributes:
        world: the suite, or its variant, that the task belongs to.
        split: as in a row of the results.
        task: its name within suite and split.
        basis: evidence: ``examples`` (unlabelled images of the task), ``backgrounds`` or ``description``.
        trust: probability, 0 to 1, that the generated adapters beat the pretrained model.
        predicted: expected gain, in points.
        low, high: its 90 % interval, in points.
        gain: measured on the test images: accuracy with the generated adapters, mean over samples, minus pretrained, in
            points.
        min_trust: the threshold that was chosen on held-out seen tasks.
        used: whether trust reaches it; the pretrained model is used otherwise.
        generator: the seed that the generator was trained with.
    """

    world: str
    split: str
    task: str
    basis: str
    trust: float
    predicted: float
    low: float
    high: float
    gain: float
    min_trust: float
    used: bool
    generator: int

    @property
    def harmed(self) -> bool:
        """Whether the generated adapters lose more than :data:`LOSS` points."""
        return self.gain < -LOSS

    @property
    def helped(self) -> bool:
        """Whether they beat the pretrained model; equal but for the order of a sum is no gain."""
        return self.gain > 1e-7

    @property
    def covered(self) -> bool:
        """Whether the measured gain lies in the interval."""
        return self.low <= self.gain <= self.high


@dataclass(frozen=True)
class TrustSection:
    """Trust and measured gains, one point a variant, split, task and generator."""

    points: tuple[TrustPoint, ...]


@dataclass(frozen=True)
class TrustSummary:
    """Quality of trust: means over tasks of the means over generators, with 95 % bootstrap intervals over tasks.

    Attributes:
        tasks, generators: their numbers.
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

    trust, helped = np.array([point.trust for point in points], float), np.array([point.helped for point in points])
    return TrustSummary(
        tasks=int(tasks.max()) + 1,
        generators=len({point.generator for point in points}),
        auroc=area_under_curve(trust, helped, tasks, seed=seed),
        coverage=mean(lambda point: float(point.covered)),
        used_share=mean(lambda point: float(point.used)),
        harmed_with=mean(lambda point: float(point.used and point.harmed)),
        harmed_without=mean(lambda point: float(point.harmed)),
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
    harmed = np.array([point.harmed for point in points])
    found = []
    for threshold in sorted({0.0, 1.0, *(float(value) for value in trust)}):
        own = weights * (trust >= threshold)
        found.append(ThresholdOutcome(threshold, float(own.sum()), float(own @ harmed), float(own @ gain)))
    return tuple(found)


def contradiction(points: Sequence[TrustPoint]) -> str | None:
    """The first contradiction within a point, as a message that begins with its index; None where there is none."""
    seen = set()
    for index, point in enumerate(points):
        shares = {"trust": point.trust, "min_trust": point.min_trust}
        odd = next((name for name, value in shares.items() if not 0 <= value <= 1), None)
        if odd is not None:
            return f"points[{index}].{odd} is {shares[odd]}; a share from 0 to 1 is needed"
        if point.low > point.high:
            return f"points[{index}] has an interval from {point.low} to {point.high}; low must not be above high"
        if point.used != (point.trust >= point.min_trust):
            return f"points[{index}].used is {point.used}, against trust {point.trust} and min_trust {point.min_trust}"
        key = (point.world, point.split, point.task, point.generator)
        if key in seen:
            return f"points[{index}] repeats the task {point.task!r}"
        seen.add(key)
    return None


def _tasks(points: Sequence[TrustPoint]) -> ndarray:
    """Index of each point's task."""
    if not points:
        raise DataError("There is no assessed task: trust cannot be summarised. Assess at least one.")
    numbers: dict[tuple[str, str, str], int] = {}
    return np.array([numbers.setdefault((point.world, point.split, point.task), len(numbers)) for point in points])
