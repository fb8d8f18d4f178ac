"""Winners, rivals, groups and sentences follow the numbers, also where the generator loses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wildpdiff.evaluate.results import Results, SourceInfo
from wildpdiff.report.findings import SplitFindings, findings, grouped
from wildpdiff.report.sentences import ahead_sentence, control_sentences, headline, seeds_sentence
from wildpdiff.report.wording import listed, percent, seconds_text, signed_points

KERNEL = ("kernel ridge regression", "own")
OWN = ("generated", "own")
LABELS = (SourceInfo("fine-tuned, 5 labels a class", "labels", None, ""), SourceInfo("copy", "checkpoints", None, ""))


def part_of(results: Results, split: str = "unseen") -> SplitFindings:
    return next(part for part in findings(results) if part.split == split)


def sentence(part: SplitFindings) -> str:
    return str(headline(part)).replace("\N{NO-BREAK SPACE}", " ")


def test_a_generator_that_wins_is_named_with_its_margin(results: Results) -> None:
    part = part_of(results)
    assert part.winner is part.generated
    assert part.lead is not None
    assert headline(part).winner == "generated adapters"
    text = sentence(part)
    for value in ("15 unseen tasks", f"{percent(part.lead.value)} points", "kernel ridge regression"):
        assert value in text
    assert "undecided" not in text


def test_a_baseline_that_wins_is_the_winner(build_results: Callable[..., Results]) -> None:
    part = part_of(build_results(gains={KERNEL: 1.1, OWN: 0.4}))
    assert part.winner is part.baseline is part.of(*KERNEL)
    assert headline(part).winner == "kernel ridge regression"
    assert part.lead is not None
    assert f"{percent(-part.lead.value)} points" in sentence(part)
    assert "−" not in sentence(part)


def test_the_pretrained_model_may_win(build_results: Callable[..., Results]) -> None:
    others = {(name, "own"): -0.4 for name in ("kernel ridge regression", "nearest task", "EM prior correction")}
    part = part_of(build_results(gains={OWN: -0.6, ("mean adapter", "none"): -0.4, **others}))
    assert headline(part).winner == "the pretrained model"


@pytest.mark.parametrize(
    "settings", [{"gains": {KERNEL: 0.95, OWN: 0.95}, "noise": 0.03}, {"splits": {"unseen": 1}}], ids=["close", "one"]
)
def test_a_lead_whose_interval_holds_zero_or_is_missing_is_undecided(
    settings: dict[str, object], build_results: Callable[..., Results]
) -> None:
    assert "(undecided)" in sentence(part_of(build_results(**settings)))


def test_controls_have_their_accuracy_and_the_difference_to_own_descriptions(whole_results: Results) -> None:
    part = part_of(whole_results)
    for text, condition in zip(control_sentences(part), ("shuffled", "random"), strict=True):
        row = part.of("generated", condition)
        assert row is not None
        difference = part.difference(row)
        assert difference is not None
        assert percent(row.accuracy) in text
        assert signed_points(difference.value) in text


def test_sources_with_labels_and_controls_never_win(build_results: Callable[..., Results]) -> None:
    few = ("fine-tuned, 5 labels a class", "own")
    part = part_of(build_results(gains={few: 1.3, ("copy", "none"): 1.4, OWN: 0.9}, sources=LABELS))
    assert part.winner is part.generated
    assert {row.source for row in part.ahead} >= {"copy", "fine-tuned, 5 labels a class"}
    assert (ahead_sentence(part) or "").startswith("0 of ")
    assert [[row.source for row in rows] for rows in list(grouped([part]).values())[-2:]] == [
        ["fine-tuned, 5 labels a class", "fine-tuned"],
        ["copy"],
    ]


def test_the_generators_own_samples_are_no_rivals(build_results: Callable[..., Results]) -> None:
    best = ("best of 8 by unlabelled images", "own")
    infos = (SourceInfo(best[0], "unlabelled images", None, ""),)
    part = part_of(build_results(gains={best: 1.5, OWN: 0.9}, sources=infos))
    assert part.winner is part.generated
    assert part.ahead[0].source == best[0]
    assert (ahead_sentence(part) or "").startswith("0 of ")


def test_numbers_of_labels_rise_down_the_table(build_results: Callable[..., Results]) -> None:
    names = [f"{kind} {count} labels a class" for count in (5, 20, 10) for kind in ("fine-tuned,", "refined on")]
    infos = tuple(SourceInfo(name, "labels", None, "") for name in names)
    part = part_of(build_results(gains={(name, "own"): 1.1 for name in names}, sources=infos))
    sources = [row.source for row in list(grouped([part]).values())[-1] if row.source != "fine-tuned"]
    assert sources == [
        f"{kind} {count} labels a class" for kind in ("fine-tuned,", "refined on") for count in (5, 10, 20)
    ]


def test_every_rival_that_is_ahead_is_named_best_first(build_results: Callable[..., Results]) -> None:
    text = ahead_sentence(part_of(build_results(gains={KERNEL: 1.6, ("nearest task", "own"): 1.5, OWN: 0.4}))) or ""
    assert text.startswith("2 of 5 sources")
    assert text.index("kernel ridge regression") < text.index("nearest task")


def test_differences_are_generated_minus_source(results: Results) -> None:
    part = part_of(results)
    pretrained, generated = part.of("pretrained"), part.generated
    assert pretrained is not None
    assert generated is not None
    difference = part.difference(pretrained)
    assert difference is not None
    assert difference.value == pytest.approx(generated.accuracy - pretrained.accuracy)
    assert part.difference(generated) is None


def test_seeds_are_compared_only_where_there_are_several(build_results: Callable[..., Results]) -> None:
    assert (seeds_sentence(part_of(build_results())) or "").count("%") == 3
    assert seeds_sentence(part_of(build_results(seeds=1))) is None


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [(0.0, "0.0", "0.0"), (-0.0001, "0.0", "0.0"), (-0.012, "−1.2", "−1.2"), (0.5, "50.0", "+50.0")],
)
def test_numbers_are_set_with_a_true_minus_and_no_negative_zero(value: float, plain: str, signed: str) -> None:
    assert percent(value) == plain
    assert signed_points(value) == signed


def test_words_are_listed() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0002, "< 1 ms"),
        (0.0042, "4.2 ms"),
        (0.42, "0.42 s"),
        (14.2, "14 s"),
        (184.3, "3 min 04 s"),
        (7384, "2 h 03 min"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert seconds_text(float(seconds)) == text
