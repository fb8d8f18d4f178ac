"""Intervals over tasks, against arithmetic that can be done by hand and against their own coverage."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.evaluate.statistics import mean_interval, paired_difference, recovered_gain


def test_gain_is_the_ratio_of_the_means_not_the_mean_of_the_ratios() -> None:
    gain = recovered_gain(np.array([0.6, 0.9]), np.array([0.5, 0.8]), np.array([0.9, 0.81]))
    assert gain.value == pytest.approx(0.2 / 0.41)
    assert gain.headroom == pytest.approx(0.205)


def test_the_references_recover_nothing_and_everything() -> None:
    random = np.random.default_rng(0)
    pretrained = random.uniform(0.5, 0.7, 20)
    finetuned = pretrained + random.uniform(0.05, 0.1, 20)
    assert recovered_gain(pretrained, pretrained, finetuned).interval == (0.0, 0.0)
    whole = recovered_gain(finetuned, pretrained, finetuned)
    assert whole.interval == pytest.approx((1.0, 1.0))


def test_gain_does_not_change_when_every_accuracy_is_shifted_and_scaled() -> None:
    random = np.random.default_rng(1)
    columns = [random.uniform(0.3, 0.4, 12), random.uniform(0.2, 0.3, 12), random.uniform(0.5, 0.6, 12)]
    first = recovered_gain(*columns, seed=3)
    second = recovered_gain(*(2 * column - 0.1 for column in columns), seed=3)
    assert second.value == pytest.approx(first.value)
    assert second.interval == pytest.approx(first.interval)


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_so() -> None:
    values = np.random.default_rng(2).normal(0.7, 0.1, 25)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    first, second = mean_interval(values, seed=4).interval, mean_interval(values, seed=5).interval
    assert first is not None
    assert second is not None
    assert first != second
    assert np.allclose(first, second, atol=0.004)


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(0.7, 0.1, 200)
    estimate = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(200)
    assert estimate.interval == pytest.approx((values.mean() - error, values.mean() + error), abs=0.0015)


def test_the_interval_of_the_gain_covers_the_true_gain() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for seed in range(60):
        pretrained = random.uniform(0.5, 0.8, 30)
        finetuned = pretrained + random.uniform(0.02, 0.12, 30)
        adapter = pretrained + 0.8 * (finetuned - pretrained) + random.normal(0, 0.03, 30)
        gain = recovered_gain(adapter, pretrained, finetuned, seed=seed)
        assert gain.low is not None
        assert gain.high is not None
        covered += gain.low <= 0.8 <= gain.high
    # 95 % of 60 is 57; the chance of fewer than 50 is below one in ten thousand.
    assert covered >= 50


@pytest.mark.parametrize("finetuned", [np.array([0.7, 0.8]), np.array([0.6, 0.8]), np.array([0.7005, 0.8005])])
def test_no_headroom_means_no_gain(finetuned: np.ndarray) -> None:
    gain = recovered_gain(np.array([0.8, 0.9]), np.array([0.7, 0.8]), finetuned)
    assert gain.value is None
    assert gain.interval is None


def test_an_uncertain_headroom_keeps_the_value_and_refuses_the_interval() -> None:
    pretrained = np.full(6, 0.7)
    finetuned = np.array([0.9, 0.65, 0.68, 0.69, 0.71, 0.66])
    gain = recovered_gain(np.full(6, 0.71), pretrained, finetuned)
    assert gain.value == pytest.approx(0.06 / 0.09)
    assert gain.interval is None


def test_rare_resamples_without_headroom_leave_a_finite_interval() -> None:
    random = np.random.default_rng(6)
    pretrained = np.full(12, 0.7)
    # Mean headroom .02 with a standard error of about .008: near 0.6 % of the resamples have none.
    finetuned = pretrained + 0.0205 + np.linspace(-0.045, 0.045, 12)
    gain = recovered_gain(pretrained + random.normal(0.01, 0.01, 12), pretrained, finetuned)
    assert gain.interval is not None
    assert np.isfinite(gain.interval).all()


def test_one_task_has_a_value_and_no_interval() -> None:
    assert mean_interval(np.array([0.4])).interval is None
    gain = recovered_gain(np.array([0.75]), np.array([0.7]), np.array([0.8]))
    assert gain.value == pytest.approx(0.5)
    assert gain.interval is None


def test_a_difference_counts_wins_and_knows_when_it_is_decided() -> None:
    a, b = np.array([0.5, 0.6, 0.7, 0.8]), np.array([0.4, 0.5, 0.7, 0.85])
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(0.0375)
    assert (difference.wins, difference.losses, difference.ties) == (2, 1, 1)
    assert not difference.decided
    assert paired_difference(b + 0.1, b).decided
    assert paired_difference(b - 0.1, b).decided
    reverse = paired_difference(b, a)
    assert reverse.interval == pytest.approx((-difference.high, -difference.low))


def test_different_tasks_are_not_paired_where_shapes_are_not_checked() -> None:
    # The tests' own check of shapes would refuse first; users run without it.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with refused(DataError, [1, 2]):
            paired_difference(np.array([0.5]), np.array([0.5, 0.6]))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_unusable_input_is_refused_in_one_sentence() -> None:
    with refused(DataError):
        mean_interval(np.array([], dtype=float))
    with refused(DataError):
        mean_interval(np.array([0.5, np.nan]))
