"""Intervals over tasks: mean, paired difference, recovered gain, area under the curve, each with a bootstrap interval.

The unit is always the task: a stochastic source is first averaged over its samples and generator seeds, so that one
number per task enters here. Drawing tasks again (with replacement) then says how far the result depends on which tasks
happened to be tested. Intervals are percentile intervals (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
chapter 13); with fewer than about ten tasks they are somewhat too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from wildpdiff.errors import DataError

RESAMPLES = 10_000
CONFIDENCE = 0.95

MINIMUM_HEADROOM = 1e-3
"""Mean gain of fine-tuning (a fraction of 1) below which a share of that gain means nothing."""

UNUSABLE_SHARE = 0.01
"""Share of resamples without headroom above which the ratio has no interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks.

    Attributes:
        value: the mean.
        low, high: ends of the interval; None where there is only one task.
        tasks: how many tasks it rests on.
    """

    value: float
    low: float | None
    high: float | None
    tasks: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference over tasks, and in how many tasks the first was better, worse or equal."""

    wins: int
    losses: int
    ties: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class Gain:
    """The share of fine-tuning's gain that an adapter recovers: 0 is pretrained, 1 is fine-tuned.

    Attributes:
        value: ratio of the means; None where fine-tuning gains (almost) nothing.
        low, high: ends of the interval; None where there is none.
        headroom: mean accuracy of fine-tuning minus pretrained: the denominator.
        tasks: how many tasks it rests on.
        reason: why the value or its interval is missing, as one sentence; None where both are there.
    """

    value: float | None
    low: float | None
    high: float | None
    headroom: float
    tasks: int
    reason: str | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def mean_interval(values: Float[ndarray, " t"], *, seed: int = 0) -> Estimate:
    """Mean over tasks with its bootstrap percentile interval.

    Args:
        values: one value a task.
        seed: of the resampling.

    Raises:
        DataError: no task, or a value that is not finite.
    """
    checked = _checked(values)
    means = _bootstrap_means(checked, seed)
    low, high = _ends(means[:, 0], means[:, 0]) if means is not None else (None, None)
    return Estimate(float(checked.mean()), low, high, len(checked))


def paired_difference(a: Float[ndarray, " t"], b: Float[ndarray, " t"], *, seed: int = 0) -> Difference:
    """Mean of ``a − b`` over the same tasks, with its bootstrap percentile interval and the count of wins of ``a``.

    Raises:
        DataError: no task, different tasks, or a value that is not finite.
    """
    columns = _checked(a, b)
    difference = columns[:, 0] - columns[:, 1]
    mean = mean_interval(difference, seed=seed)
    # Accuracies over the same images that differ by less than this are equal but for the order of a sum.
    wins, losses = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
    return Difference(mean.value, mean.low, mean.high, mean.tasks, wins, losses, mean.tasks - wins - losses)


def recovered_gain(
    adapter: Float[ndarray, " t"],
    pretrained: Float[ndarray, " t"],
    finetuned: Float[ndarray, " t"],
    *,
    seed: int = 0,
) -> Gain:
    """Share of fine-tuning's gain that the adapter recovers: a ratio of means, with an interval over tasks.

    ``(mean adapter − mean pretrained) / (mean fine-tuned − mean pretrained)``. The ratio of the means is used, not
    the mean of the ratios, because a task without headroom would dominate the latter.

    A ratio has no finite interval where its denominator may be zero (Fieller 1954). So: where the mean headroom is
    below :data:`MINIMUM_HEADROOM` there is no value; where more than 1 % of the resamples are below it there is a
    value and no interval; up to 1 % such resamples count as −∞ for the lower end and as +∞ for the upper, which
    can only widen the interval.

    Args:
        adapter: accuracy per task (fractions of 1), averaged over samples and generator seeds before.
        pretrained: accuracy of the backbone without an adapter, same tasks.
        finetuned: accuracy after fine-tuning on the task's own labels, same tasks.
        seed: of the resampling.

    Raises:
        DataError: no task, different tasks, or a value that is not finite.
    """
    columns = _checked(adapter, pretrained, finetuned)
    tasks = len(columns)
    mean_adapter, mean_pretrained, mean_finetuned = columns.mean(axis=0)
    headroom = float(mean_finetuned - mean_pretrained)
    if headroom < MINIMUM_HEADROOM:
        reason = f"Fine-tuning gains {100 * headroom:.2f} points on these tasks: there is no gain to recover."
        return Gain(None, None, None, headroom, tasks, reason)
    value = float(mean_adapter - mean_pretrained) / headroom
    means = _bootstrap_means(columns, seed)
    if means is None:
        return Gain(value, None, None, headroom, tasks, "One task gives no interval over tasks.")
    denominator = means[:, 2] - means[:, 1]
    unusable = denominator < MINIMUM_HEADROOM
    share = float(unusable.mean())
    if share > UNUSABLE_SHARE:
        reason = f"Fine-tuning's own gain vanishes in {share:.0%} of the resamples: the ratio has no finite interval."
        return Gain(value, None, None, headroom, tasks, reason)
    ratio = (means[:, 0] - means[:, 1]) / np.where(unusable, 1.0, denominator)
    low, high = _ends(np.where(unusable, -np.inf, ratio), np.where(unusable, np.inf, ratio))
    return Gain(value, low, high, headroom, tasks, None)


def area_under_curve(
    scores: Float[ndarray, " n"], positive: Bool[ndarray, " n"], tasks: Int[ndarray, " n"], *, seed: int = 0
) -> Estimate | None:
    """Area under the receiver operating characteristic: how often a positive scores above a negative; a tie is a half.

    Several scores of one task share its weight of 1. Where all positives or all negatives are of few tasks, some
    resamples hold none of them; up to 1 % of such are left out, with more there is no interval.

    Args:
        scores: higher for what is held to be positive.
        positive: what is.
        tasks: number of each score's task, from 0 without a gap.
        seed: of the resampling.

    Returns:
        None where there are only positives or only negatives.

    Raises:
        DataError: no score, or one that is not finite.
    """
    checked = _checked(scores)
    if positive.all() or not positive.any():
        return None
    amount = int(tasks.max()) + 1
    weights = 1 / np.bincount(tasks)[tasks]
    above = checked[positive][:, None] - checked[~positive][None]
    wins = np.where(above > 0, 1.0, np.where(above == 0, 0.5, 0.0))

    def area(counts: Float[ndarray, "r t"]) -> Float[ndarray, " r"]:
        drawn = counts[:, tasks] * weights
        for_positive, for_negative = drawn[:, positive], drawn[:, ~positive]
        pairs = for_positive.sum(1) * for_negative.sum(1)
        won = ((for_positive @ wins) * for_negative).sum(1)
        found: ndarray = np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan)
        return found

    value = float(area(np.ones((1, amount)))[0])
    if amount == 1:
        return Estimate(value, None, None, amount)
    drawn = area(_draws(amount, seed))
    usable = drawn[np.isfinite(drawn)]
    if len(usable) < (1 - UNUSABLE_SHARE) * len(drawn):
        return Estimate(value, None, None, amount)
    low, high = _ends(usable, usable)
    return Estimate(value, low, high, amount)


def _checked(*columns: Float[ndarray, " _"]) -> Float[ndarray, "t ..."]:
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
    """Means of every column over tasks drawn again; the columns share each draw. None for a single task."""
    tasks = len(values)
    if tasks == 1:
        return None
    means: ndarray = _draws(tasks, seed) @ values.reshape(tasks, -1) / tasks
    return means


@lru_cache(maxsize=8)
def _draws(tasks: int, seed: int) -> Float[ndarray, "resamples t"]:
    """How often each task is drawn in each resample: all that a mean needs, and the same for every source."""
    # Imported late: the seeds' module loads torch, which reading a table of results should not wait for.
    from wildpdiff.rng import numpy_generator

    generator = numpy_generator(seed, "bootstrap", "tasks")
    counts = generator.multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES).astype(np.float64)
    # Shared by every caller, so nobody may change it.
    counts.flags.writeable = False
    return counts


def _ends(for_low: Float[ndarray, " resamples"], for_high: Float[ndarray, " resamples"]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(for_low, tail)), float(np.quantile(for_high, 1 - tail))
