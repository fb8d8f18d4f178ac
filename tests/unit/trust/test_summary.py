from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wildpdiff.trust.calibrate import mean_over_tasks, summarise
from wildpdiff.trust.gain import GainPrediction, HeldOutGain


def test_the_interval_is_students_over_tasks_and_not_over_rows() -> None:
    values = np.random.default_rng(0).normal(0.02, 0.05, 15)
    twice = [(f"task {index}", value + shift) for index, value in enumerate(values) for shift in (-0.01, 0.01)]
    middle, low, high = mean_over_tasks(*zip(*twice, strict=True))
    expected = ttest_1samp(100 * values, 0.0).confidence_interval(0.95)
    assert middle == pytest.approx(100 * values.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_one_task_decides_nothing() -> None:
    middle, low, high = mean_over_tasks(["only"], [0.3])
    assert low < 0 < middle < high


def test_gains_are_counted_by_task_and_not_of_halves_of_their_images() -> None:
    gains = {"up": (0.06, -0.02), "down": (0.01, -0.05), "level": (0.0, 0.0), "partial": (0.4, 0.4), "far": (0.4, 0.4)}
    given = [
        HeldOutGain(task, "group" if task == "far" else "f0", task == "far", task == "partial", {}, gain, 50)
        for task, halves in gains.items()
        for gain in halves
    ]
    summary = summarise(given, [GainPrediction(0.0, -0.03, 0.03, 0.5)] * len(given), 0.01, (1.0, 0.0, 2.0))
    assert (summary.helped, summary.harmed) == pytest.approx((1 / 3, 1 / 3))
    assert summary.random_gain == pytest.approx(0.0)
    assert summary.group_gain == pytest.approx(40.0)
    assert summary.coverage == pytest.approx(4 / 10)
    assert summary.tasks == 5
