"""Spearman's rank correlation against closed forms, and where it is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from refusals import refused
from wildbench.interpolation.rank_correlation import spearman
from wildpdiff.errors import DataError


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_scipys_value_also_with_ties(ties: bool) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=40)
    y = x + random.normal(size=40)
    if ties:
        x, y = np.round(x), np.round(y)
    found = spearman(x, y)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.count == 40
    assert found.interval is not None
    assert found.interval[0] < found.value < found.interval[1]


def test_any_rising_function_correlates_perfectly() -> None:
    x = np.linspace(-2.0, 2.0, 9)
    found = spearman(x, -np.exp(x))
    assert found is not None
    assert found.value == pytest.approx(-1)
    assert found.interval == pytest.approx((-1, -1))


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    held = 0
    for seed in range(25):
        found = spearman(random.normal(size=30), random.normal(size=30), seed=seed)
        assert found is not None
        assert found.interval is not None
        held += found.interval[0] <= 0 <= found.interval[1]
    assert 20 <= held <= 25


def test_it_is_undefined_for_few_pairs_and_for_a_side_that_does_not_vary() -> None:
    assert spearman(np.arange(3.0), np.arange(3.0)) is None
    assert spearman(np.arange(9.0), np.full(9, 0.3)) is None


def test_what_was_not_measured_is_refused() -> None:
    with refused(DataError):
        spearman(np.array([0.0, 1.0, np.nan, 2.0]), np.arange(4.0))
