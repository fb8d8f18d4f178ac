"""How good trust was, against arithmetic by hand; what a results file with trust must not say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from refusals import refused
from wildbench.trust_summary import area_under_curve, summarise_trust, summarise_worlds, threshold_outcomes, worlds_of
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import TrustPoint, contradiction

GOOD = TrustPoint("both", "unseen", "a", "examples", 0.9, 5.0, 1.0, 9.0, 4.0, 0.7, True, 0)
SMALL = replace(GOOD, task="b", trust=0.8, gain=0.5)
WRONGLY_USED = replace(GOOD, task="c", trust=0.75, gain=-3.0)
RIGHTLY_KEPT = replace(GOOD, task="d", trust=0.2, gain=-6.0, used=False)
WRONGLY_KEPT = replace(GOOD, task="e", trust=0.4, gain=2.0, used=False)
FIVE = (GOOD, SMALL, WRONGLY_USED, RIGHTLY_KEPT, WRONGLY_KEPT)


def test_the_summary_is_that_of_a_hand_calculation() -> None:
    found = summarise_trust(FIVE)
    assert (found.tasks, found.generators) == (5, 1)
    # Of the six pairs of helped (.9, .8, .4) and not (.75, .2) five are in the right order.
    assert found.auroc is not None
    assert found.auroc.value == pytest.approx(5 / 6)
    assert found.coverage.value == pytest.approx(2 / 5), "4 and 2 lie within 1 to 9; 0.5, -3 and -6 do not"
    assert found.used_share.value == pytest.approx(3 / 5)
    assert found.harmed_with.value == pytest.approx(1 / 5)
    assert found.harmed_without.value == pytest.approx(2 / 5)
    assert found.gain_with.value == pytest.approx((4 + 0.5 - 3) / 5)
    assert found.gain_without.value == pytest.approx((4 + 0.5 - 3 - 6 + 2) / 5)
    for estimate in (found.coverage, found.used_share, found.harmed_with, found.gain_with):
        assert estimate.interval is not None
        assert estimate.interval[0] <= estimate.value <= estimate.interval[1]
    assert found.auroc.interval is None, "resamples of five tasks often hold none of the two that lost"


def test_a_task_counts_once_however_many_generators_it_has() -> None:
    """Three generators on the first task, one on the second: means over tasks, not over points."""
    again = [replace(GOOD, generator=number) for number in (1, 2)]
    found = summarise_trust([GOOD, *again, replace(RIGHTLY_KEPT, used=True, trust=0.9)])
    assert (found.tasks, found.generators) == (2, 3)
    assert found.harmed_with.value == pytest.approx(0.5)
    assert found.gain_without.value == pytest.approx((4 - 6) / 2)
    mixed = summarise_trust([GOOD, replace(RIGHTLY_KEPT, task="a", generator=1)])
    assert mixed.used_share.value == pytest.approx(0.5)
    assert mixed.tasks == 1
    assert mixed.gain_with.interval is None, "one task gives no interval over tasks"


def test_variants_are_distinct_even_where_their_tasks_have_the_same_names() -> None:
    other = [replace(point, world="uninformative", gain=-point.gain) for point in FIVE]
    points = [*FIVE, *other]
    assert worlds_of(points) == ("both", "uninformative")
    assert summarise_trust(points).tasks == 10
    by_world = summarise_worlds(points)
    assert by_world["both"] == summarise_trust(FIVE)
    assert by_world["uninformative"].gain_without.value == pytest.approx(-by_world["both"].gain_without.value)


def test_no_area_where_only_one_thing_happened_and_no_summary_of_nothing() -> None:
    assert summarise_trust([GOOD, SMALL]).auroc is None
    assert summarise_trust([RIGHTLY_KEPT, WRONGLY_USED]).auroc is None
    with refused(DataError):
        summarise_trust([])


def test_thresholds_lead_from_all_used_to_none_used() -> None:
    found = threshold_outcomes(FIVE)
    assert [entry.threshold for entry in found] == [0.0, 0.2, 0.4, 0.75, 0.8, 0.9, 1.0]
    assert (found[0].used, found[0].harmed) == pytest.approx((1.0, 0.4))
    assert found[0].gain == pytest.approx(summarise_trust(FIVE).gain_without.value)
    at_75 = found[3]
    assert (at_75.used, at_75.harmed, at_75.gain) == pytest.approx((0.6, 0.2, 0.3)), "the threshold itself is used"
    assert (found[4].used, found[4].harmed, found[4].gain) == pytest.approx((0.4, 0.0, 0.9))
    assert (found[-1].used, found[-1].harmed, found[-1].gain) == (0.0, 0.0, 0.0)
    assert all(first.used >= second.used for first, second in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trust": 1.2}, "trust is 1.2"),
        ({"min_trust": -0.1}, "min_trust is -0.1"),
        ({"low": 10.0}, "10.0 to 9.0"),
        ({"used": False}, "used is False"),
        ({"task": "b"}, "'b'"),
    ],
)
def test_a_contradiction_is_found(change: dict[str, object], words: str) -> None:
    assert contradiction(FIVE) is None
    odd = contradiction([SMALL, replace(GOOD, **change)])
    assert odd is not None
    assert words in odd
    assert odd.startswith("points[1]")


def area(scores: list[float], positive: list[bool], tasks: list[int] | None = None) -> float:
    numbers = np.arange(len(scores)) if tasks is None else np.array(tasks)
    found = area_under_curve(np.array(scores), np.array(positive), numbers)
    assert found is not None
    return found.value


def test_area_is_one_for_perfect_order_half_for_none_and_counts_ties_as_half() -> None:
    assert area([0.9, 0.8, 0.1], [True, True, False]) == 1.0
    assert area([0.1, 0.2, 0.9], [True, True, False]) == 0.0
    assert area([0.5, 0.5, 0.5, 0.5], [True, False, True, False]) == 0.5
    assert area([0.7, 0.5, 0.5], [True, True, False]) == 0.75


def test_area_weighs_tasks_alike() -> None:
    """Task 0 is right in both of its points, task 1 wrong in its one."""
    once = area([0.9, 0.2, 0.5], [True, True, False], [0, 1, 2])
    twice = area([0.9, 0.9, 0.2, 0.5], [True, True, True, False], [0, 0, 1, 2])
    assert once == twice == 0.5


def test_interval_of_the_area_holds_the_truth_as_often_as_it_says() -> None:
    """Scores of positives and negatives a standard deviation apart: the true area is Phi(1 / sqrt 2) = 0.760."""
    random = np.random.default_rng(0)
    covered = 0
    for draw in range(30):
        positive = random.random(80) < 0.6
        scores = random.normal(positive.astype(float), 1.0)
        found = area_under_curve(scores, positive, np.arange(80), seed=draw)
        assert found is not None
        assert found.interval is not None
        covered += found.interval[0] <= 0.7602 <= found.interval[1]
    assert 25 <= covered <= 30


def test_no_interval_where_resamples_lose_all_of_one_kind() -> None:
    found = area_under_curve(np.array([0.9, 0.1, 0.2, 0.3]), np.array([True, False, False, False]), np.arange(4))
    assert found is not None
    assert found.value == 1.0
    assert found.interval is None
