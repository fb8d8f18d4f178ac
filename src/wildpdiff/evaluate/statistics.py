"""Bootstrap intervals over tasks: mean, paired difference, recovered gain.

The unit is always the task: a stochastic source is first averaged over its samples and generator seeds, so that one
number per task enters here, and tasks are drawn with replacement. Intervals are percentile intervals (Efron and
Tibshirani 1993, An Introduction to the Bootstrap, chapter 13), somewhat too narrow below about ten tasks. All sources
share the draws, which scipy's bootstrap would make anew for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator

RESAMPLES = 10_000
CONFIDENCE = 0.95

SAME = 1e-9
"""Largest difference of two accuracies over the same images that is due to the order of a sum."""

MINIMUM_HEADROOM = 1e-3
"""Mean gain of fine-tuning (a fraction of 1) below which a share of that gain is undefined."""

UNUSABLE_SHARE = 0.01
"""Share of resamples without headroom above which the ratio has no interval."""


@dataclass(frozen=True)
class Interval:
    """Ends of a bootstrap interval; None where there is none, for example for one task."""

    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Estimate(Interval):
    """A mean over a number of tasks."""

    value: float
    tasks: int


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference over tasks, and the numbers of tasks where the first was better, worse or equal."""

    wins: int
    losses: int
    ties: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class Gain(Interval):
    """The share of fine-tuning's gain that an adapter recovers: 0 is pretrained, 1 is fine-tuned.

    Attributes:
        value: ratio of the means; None where fine-tuning gains (almost) nothing.
        headroom: mean accuracy of fine-tuning minus pretrained: the denominator.
        tasks: number of tasks.
    """

    value: float | None
    headroom: float
    tasks: int


def mean_interval(values: Float[ndarray, " t"], *, seed: int = 0) -> Estimate:
    """Mean over tasks with its interval; raises :class:`DataError` for no task or a value that is not finite."""
    column = checked(values)
    means = _bootstrap_means(column, seed)
    low, high = interval_ends(means[:, 0], means[:, 0]) if means is not None else (None, None)
    return Estimate(low, high, float(column.mean()), len(column))


def paired_difference(a: Float[ndarray, " t"], b: Float[ndarray, " t"], *, seed: int = 0) -> Difference:
    """Mean of ``a − b`` over the same tasks, with its interval and the number of wins of ``a``; raises as the mean."""
    columns = checked(a, b)
    difference = columns[:, 0] - columns[:, 1]
    mean = mean_interval(difference, seed=seed)
    wins, losses = int((difference > SAME).sum()), int((difference < -SAME).sum())
    return Difference(mean.low, mean.high, mean.value, mean.tasks, wins, losses, mean.tasks - wins - losses)


def recovered_gain(
    adapter: Float[ndarray, " t"],
    pretrained: Float[ndarray, " t"],
    finetuned: Float[ndarray, " t"],
    *,
    seed: int = 0,
) -> Gain:
    """Share of fine-tuning's gain that the adapter recovers, with an interval over tasks.

    ``(mean adapter − mean pretrained) / (mean fine-tuned − mean pretrained)``. The ratio of the means is used, not
    the mean of the ratios, because a task without headroom would dominate the latter.

    A ratio has no finite interval where its denominator may be zero (Fieller 1954). So: where the mean headroom is
    below :data:`MINIMUM_HEADROOM` there is no value; where more than 1 % of the resamples are below it there is a
    value and no interval; up to 1 % such resamples count as −∞ for the lower end and as +∞ for the upper, which
    can only widen the interval.

    Raises:
        DataError: no task, different tasks, or a value that is not finite.
    """
    columns = checked(adapter, pretrained, finetuned)
    tasks = len(columns)
    mean_adapter, mean_pretrained, mean_finetuned = columns.mean(axis=0)
    headroom = float(mean_finetuned - mean_pretrained)
    if headroom < MINIMUM_HEADROOM:
        return Gain(None, None, None, headroom, tasks)
    value = float(mean_adapter - mean_pretrained) / headroom
    means = _bootstrap_means(columns, seed)
    if means is None:
        return Gain(None, None, value, headroom, tasks)
    denominator = means[:, 2] - means[:, 1]
    unusable = denominator < MINIMUM_HEADROOM
    if float(unusable.mean()) > UNUSABLE_SHARE:
        return Gain(None, None, value, headroom, tasks)
    ratio = (means[:, 0] - means[:, 1]) / np.where(unusable, 1.0, denominator)
    low, high = interval_ends(np.where(unusable, -np.inf, ratio), np.where(unusable, np.inf, ratio))
    return Gain(low, high, value, headroom, tasks)


def checked(*columns: Float[ndarray, " _"]) -> Float[ndarray, "t ..."]:
    """The columns as float64, stacked where there are several; refused where they cannot be averaged together."""
    sizes = {len(column) for column in columns}
    if len(sizes) > 1:
        raise DataError(f"Accuracies over {sorted(sizes)} tasks cannot be paired: give the same tasks.")
    if sizes == {0}:
        raise DataError("There is no task to average over: evaluate at least one.")
    values = np.stack(columns, axis=-1).astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("An accuracy is not a finite number: evaluate the task again or leave it out.")
    return values[:, 0] if len(columns) == 1 else values


def _bootstrap_means(values: Float[ndarray, "t ..."], seed: int) -> Float[ndarray, "resamples c"] | None:
    """Means of every column over the same resampled tasks; None for a single task."""
    tasks = len(values)
    if tasks == 1:
        return None
    means: ndarray = task_draws(tasks, seed) @ values.reshape(tasks, -1) / tasks
    return means


@lru_cache(maxsize=8)
def task_draws(tasks: int, seed: int) -> Float[ndarray, "resamples t"]:
    """Number of times that each task is drawn in each resample."""
    generator = numpy_generator(seed, "bootstrap", "tasks")
    counts = generator.multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES).astype(np.float64)
    counts.flags.writeable = False
    return counts


def interval_ends(for_low: Float[ndarray, " resamples"], for_high: Float[ndarray, " resamples"]) -> tuple[float, float]:
    """Lower end of an interval from some resamples, upper end from others."""
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(for_low, tail)), float(np.quantile(for_high, 1 - tail))
