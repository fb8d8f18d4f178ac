"""The sentences follow the numbers, also where the generator loses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.sections import SourceInfo
from wildpdiff.report.findings import findings
from wildpdiff.report.groups import grouped
from wildpdiff.report.sentences import (
    ahead_sentence,
    control_sentences,
    finetuned_sentence,
    headline,
    labels_sentence,
    samples_sentence,
    seeds_sentence,
    table_sentences,
)
from wildpdiff.report.wording import listed, percent, seconds_text, signed_points

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
    (used,) = control_sentences(findings(build_results())[-1])
    assert "uses what it is told" in used
    (ignored,) = control_sentences(findings(build_results(gains={("generated", "shuffled"): 0.95}, noise=0.02))[-1])
    assert "do not show that the description is used" in ignored


def test_random_conditions_are_a_control_of_their_own(whole_results: Results) -> None:
    (unseen,) = (part for part in findings(whole_results) if part.split == "unseen")
    shuffled, random = control_sentences(unseen)
    assert "descriptions of other tasks" in shuffled
    assert "parts of many tasks" in random


LABELS = (SourceInfo("fine-tuned, 5 labels a class", "labels", None, ""), SourceInfo("copy", "checkpoints", None, ""))


def test_sources_with_labels_and_controls_never_win_but_are_told(build_results: Callable[..., Results]) -> None:
    few = ("fine-tuned, 5 labels a class", "own")
    results = build_results(gains={few: 1.3, ("copy", "none"): 1.4, OWN: 0.9}, sources=LABELS)
    part = findings(results)[-1]
    assert part.winner is part.generated
    assert headline(part).winner == "generated adapters"
    assert {row.source for row in part.ahead} >= {"copy", "fine-tuned, 5 labels a class"}
    assert "fine-tuned, 5 labels a class (+" in (labels_sentence(part) or "")
    assert "None of the" in (ahead_sentence(part) or "")
    titles = [group.title for group in grouped(part)]
    assert titles.index("With labels of the task: no rivals of the above") > titles.index("From the description")
    assert [row.source for row in grouped(part)[-1].lines] == ["copy"]


def test_the_generators_own_samples_are_no_rivals_and_are_named_where_they_are_ahead(
    build_results: Callable[..., Results],
) -> None:
    best = ("best of 8 by unlabelled images", "own")
    infos = (SourceInfo(best[0], "unlabelled images", None, ""),)
    part = findings(build_results(gains={best: 1.5, OWN: 0.9}, sources=infos))[-1]
    assert headline(part).winner == "generated adapters"
    assert "None of the" in (ahead_sentence(part) or "")
    assert "best of 8 by unlabelled images (+" in (samples_sentence(part) or "")
    assert samples_sentence(part) in table_sentences(part)
    behind = findings(build_results(gains={best: 0.5, OWN: 0.9}, sources=infos))[-1]
    assert samples_sentence(behind) is None
    assert None not in table_sentences(behind)


def test_what_passes_fine_tuning_without_labels_is_named(build_results: Callable[..., Results]) -> None:
    plain = build_results(gains={("fine-tuned, 5 labels a class", "own"): 1.3, OWN: 0.9}, sources=LABELS[:1])
    assert finetuned_sentence(findings(plain)[-1]) is None  # labels of the task are no news
    told = finetuned_sentence(findings(build_results(gains={KERNEL: 1.6, OWN: 1.2}))[-1]) or ""
    assert told.index("kernel ridge regression (by") < told.index("generated adapters (by")
    assert "chance errors" in told


def test_numbers_of_labels_rise_down_the_table(build_results: Callable[..., Results]) -> None:
    names = [f"{kind} {count} labels a class" for count in (5, 20, 10) for kind in ("fine-tuned,", "refined on")]
    results = build_results(
        gains={(name, "own"): 1.1 for name in names},
        sources=tuple(SourceInfo(name, "labels", None, "") for name in names),
    )
    (group,) = (group for group in grouped(findings(results)[-1]) if group.title.startswith("With labels"))
    told = [row.source for row in group.lines if row.source != "fine-tuned"]
    assert told == [f"{kind} {count} labels a class" for kind in ("fine-tuned,", "refined on") for count in (5, 10, 20)]


def test_every_rival_that_is_ahead_is_named_with_what_the_tasks_decide(build_results: Callable[..., Results]) -> None:
    results = build_results(gains={KERNEL: 1.6, ("nearest task", "own"): 1.5, OWN: 0.4})
    told = ahead_sentence(findings(results)[-1]) or ""
    assert "2 of 5 sources" in told
    assert told.index("kernel ridge regression") < told.index("nearest task")
    assert "undecided" not in told


def test_a_winner_with_unlabelled_images_is_said_to_have_them(build_results: Callable[..., Results]) -> None:
    infos = (SourceInfo("EM prior correction", "unlabelled images", None, ""),)
    results = build_results(gains={("EM prior correction", "own"): 1.5, OWN: 0.3}, sources=infos)
    assert headline(findings(results)[-1]).winner == "EM prior correction"
    assert "is given the task's unlabelled images" in sentence(results)


def test_differences_are_generated_minus_source(results: Results) -> None:
    part = findings(results)[-1]
    pretrained, generated = part.of("pretrained"), part.generated
    assert pretrained is not None
    assert generated is not None
    difference = part.difference(pretrained)
    assert difference is not None
    assert difference.value == pytest.approx(generated.accuracy - pretrained.accuracy)
    assert part.difference(generated) is None


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
