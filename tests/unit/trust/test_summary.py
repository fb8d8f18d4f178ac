from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wildpdiff.trust.summary import mean_over_tasks


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
