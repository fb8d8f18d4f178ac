from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wildpdiff.trust.gain import GainPrediction, HeldOutGain
from wildpdiff.trust.summary import mean_over_tasks, summarise


def test_the_interval_is_students_over_tasks_and_not_over_rows() -> None:
    values = np.random.default_rng(0).normal(0.02, 0.05, 15)
    twice = {f"task {place}": (value - 0.01, value + 0.01) for place, value in enumerate(values)}
    middle, low, high = mean_over_tasks(twice)
    expected = ttest_1samp(100 * values, 0.0).confidence_interval(0.95)
    assert middle == pytest.approx(100 * values.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_one_task_decides_nothing() -> None:
    middle, low, high = mean_over_tasks({"only": [0.3]})
    assert low < 0 < middle < high


def test_who_gained_is_told_of_tasks_and_not_of_halves_of_their_images() -> None:
    gains = {"up": (0.06, -0.02), "down": (0.01, -0.05), "level": (0.0, 0.0), "partial": (0.4, 0.4), "far": (0.4, 0.4)}
    given = [
        HeldOutGain(task, "group" if task == "far" else "f0", task == "far", task == "partial", {}, gain, 50)
        for task, halves in gains.items()
        for gain in halves
    ]
    told = summarise(given, [GainPrediction(0.0, -0.03, 0.03, 0.5)] * len(given), 0.01, (1.0, 0.0, 2.0))
    assert (told.helped, told.harmed) == pytest.approx((1 / 3, 1 / 3))
    assert told.random_gain == pytest.approx(0.0)
    assert told.group_gain == pytest.approx(40.0)
    assert told.coverage == pytest.approx(4 / 10)
    assert told.tasks == 5
