"""The sentences follow the numbers, also where the generator loses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wildpdiff.evaluate.results import Results
from wildpdiff.report.findings import control_sentence, findings, headline, percent, seeds_sentence, signed_points

KERNEL = ("kernel ridge regression", "own")
OWN = ("generated", "own")


def sentence(results: Results) -> str:
    return str(headline(findings(results)[-1])).replace("\N{NO-BREAK SPACE}", " ")


def test_a_generator_that_wins_is_named_with_its_margin(results: Results) -> None:
    part = findings(results)[-1]
    assert headline(part).winner == "generated adapters"
    assert "On 15 unseen tasks" in sentence(results)
    assert "above the best baseline, kernel ridge regression" in sentence(results)
    assert "without a label" in sentence(results)
    assert "not decide" not in sentence(results)


def test_a_baseline_that_wins_is_the_winner(build_results: Callable[..., Results]) -> None:
    results = build_results(gains={KERNEL: 1.1, OWN: 0.4})
    assert headline(findings(results)[-1]).winner == "kernel ridge regression"
    assert "is ahead of the generator" in sentence(results)
    assert "a lead of −" not in sentence(results)
    assert "not decide" not in sentence(results)


def test_a_generator_below_the_pretrained_model_is_said_to_be(build_results: Callable[..., Results]) -> None:
    others = {
        ("kernel ridge regression", "own"): -0.4,
        ("nearest task", "own"): -0.4,
        ("EM prior correction", "own"): -0.4,
    }
    results = build_results(gains={OWN: -0.6, ("mean adapter", "none"): -0.4, **others})
    assert headline(findings(results)[-1]).winner == "the pretrained model without any adapter"
    assert "fall below the pretrained model" in sentence(results)


def test_a_close_race_is_called_undecided(build_results: Callable[..., Results]) -> None:
    results = build_results(gains={KERNEL: 0.95, OWN: 0.95}, noise=0.03)
    assert "these tasks do not decide" in sentence(results)


def test_seen_tasks_are_not_said_to_be_without_labels(build_results: Callable[..., Results]) -> None:
    results = build_results(splits={"seen": 12})
    assert "On 12 seen tasks" in sentence(results)
    assert "without a label" not in sentence(results)


def test_one_task_decides_nothing(build_results: Callable[..., Results]) -> None:
    results = build_results(splits={"unseen": 1})
    assert "one task does not decide" in sentence(results)


def test_the_control_says_whether_the_description_is_used(build_results: Callable[..., Results]) -> None:
    used = control_sentence(findings(build_results())[-1])
    assert used is not None
    assert "uses what it is told" in used
    ignored = control_sentence(findings(build_results(gains={("generated", "shuffled"): 0.95}, noise=0.02))[-1])
    assert ignored is not None
    assert "do not show that the description is used" in ignored


def test_seeds_are_told_apart_only_where_there_are_several(build_results: Callable[..., Results]) -> None:
    assert "3 seeds" in (seeds_sentence(findings(build_results())[-1]) or "")
    assert seeds_sentence(findings(build_results(seeds=1))[-1]) is None


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [(0.0, "0.0", "0.0"), (-0.0001, "0.0", "0.0"), (-0.012, "−1.2", "−1.2"), (0.5, "50.0", "+50.0")],
)
def test_numbers_are_set_with_a_true_minus_and_no_negative_zero(value: float, plain: str, signed: str) -> None:
    assert percent(value) == plain
    assert signed_points(value) == signed
