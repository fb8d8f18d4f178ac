"""What the report says of trust: the numbers of planted points, good and bad, and no praise that they do not earn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

from rich.console import Console

from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.trust_points import TrustPoint, TrustSection
from wildpdiff.report.figure_trust import trust_figure
from wildpdiff.report.figures import styles_of
from wildpdiff.report.findings import findings
from wildpdiff.report.terminal import results_table
from wildpdiff.report.trust_findings import judged_points, tasks_text, trust_lines, trust_sentences, trust_table

TrustOf = Callable[..., TrustSection]
USED = TrustPoint("a", "unseen", "t", "examples", 0.9, 5.0, 1.0, 9.0, 4.0, 0.7, True, 0)
KEPT = replace(USED, trust=0.2, used=False, gain=-6.0)


def section(*points: TrustPoint) -> TrustSection:
    """Each point a task of its own."""
    return TrustSection(tuple(replace(point, task=f"t{place}") for place, point in enumerate(points)))


def told(trust: TrustSection) -> str:
    return " ".join(trust_sentences(trust)).replace("\N{NO-BREAK SPACE}", " ")


def test_what_was_kept_back_and_whether_rightly() -> None:
    found = told(section(*[USED] * 6, KEPT, replace(KEPT, gain=-0.4), replace(KEPT, gain=2.0), replace(KEPT, gain=0.0)))
    assert "Trust kept back 4 of 10 unseen tasks" in found
    assert "2 would have lost with the generated adapter (1 of them more than a point)" in found
    assert "1 would have gained, 2.0 points and 1 would have stayed as they were" in found
    assert "More than a point is lost on 0.0 %" in found
    assert "on 10.0 % [0.0, 30.0] without; the mean gain is +2.4 points with and +2.0 without." in found


def test_trust_that_only_costs_is_said_to() -> None:
    found = told(section(*[USED] * 5, replace(KEPT, gain=4.0)))
    assert "1 would have gained with the generated adapter, 4.0 points" in found
    assert "here trust only cost gain" in found
    assert "helped on every task, so whether trust tells them apart cannot be seen" in found


def test_safety_has_a_price() -> None:
    assert "safety cost 0.8 points of gain" in told(
        section(*[USED] * 8, replace(KEPT, gain=10.0), replace(KEPT, gain=-2.0))
    )


def test_trust_that_does_not_rank_and_intervals_that_do_not_hold_are_not_praised() -> None:
    wrong = [replace(USED, gain=-3.0)] * 15 + [replace(KEPT, gain=3.0)] * 15
    found = told(section(*wrong))
    assert "it does not tell them apart" in found
    assert "they are too narrow here" in told(section(*[replace(USED, gain=20.0)] * 9))
    nothing = told(section(*[replace(USED, gain=-3.0)] * 3))
    assert "kept back none of 3 unseen tasks" in nothing
    assert "helped on no task" in nothing
    wide = told(section(*[replace(USED, low=-50.0, high=50.0)] * 30))
    assert "wider than they need be" in wide


def test_several_generators_on_a_task_are_told_as_such(trust_of: TrustOf) -> None:
    trust = trust_of({"a": 0.2}, tasks=10, seen=0, generators=3)
    assert "of 30 pairs of a task and a generator (10 unseen tasks, 3 generators)" in told(trust)
    (line,) = trust_lines(trust)
    assert (line.summary.tasks, line.summary.generators) == (10, 3)


def test_seen_tasks_have_a_line_but_do_not_judge(trust_of: TrustOf) -> None:
    trust = trust_of({"a": 1.0, "b": -0.5}, tasks=10, seen=5)
    assert {point.split for point in judged_points(trust)} == {"unseen"}
    assert tasks_text(judged_points(trust)) == "20 unseen tasks of 2 worlds"
    assert [(line.name, line.small, line.summary.tasks) for line in trust_lines(trust)] == [
        ("a", "unseen", 10),
        ("a", "seen", 5),
        ("b", "unseen", 10),
        ("all together", "without seen tasks", 20),
    ]
    only_seen = TrustSection(tuple(point for point in trust.points if point.split == "seen"))
    assert judged_points(only_seen) == only_seen.points
    heads = [(row.head, row.small) for row in trust_table(trust).rows]
    assert heads[1] == ("A", "seen, 5 tasks")
    assert [row.head for row in trust_table(only_seen).rows] == ["A"]


def test_the_terminal_has_a_table_of_trust_only_where_it_was_measured(results: Results, trust_of: TrustOf) -> None:
    def shown(drawn: Results) -> str:
        stream = StringIO()
        Console(file=stream, width=150).print(results_table(drawn))
        return stream.getvalue()

    assert "trust" not in shown(results)
    text = shown(replace(results, trust=trust_of({"both": 1.0, "nothing told": -0.5}, tasks=8, seen=0)))
    assert "trust in the generated adapters" in text
    assert "All together" in text


def test_the_figure_says_how_many_intervals_reach_the_line_and_what_the_thresholds_do(
    results: Results, trust_of: TrustOf
) -> None:
    styles = styles_of(results, findings(results))
    trust = trust_of({"a": 0.6}, tasks=20, seen=0)
    figure = trust_figure(trust, styles, "trust", "")
    covered = sum(point.covered for point in trust.points)
    assert f"{covered} of 20 intervals reach it" in figure.caption
    assert "With the threshold chosen on held-out seen tasks, 0.70 (dotted)" in figure.caption
    assert trust_figure(trust, styles, "trust", "").drawing == figure.drawing
    many = TrustSection(tuple(replace(point, min_trust=0.3 + place / 100, used=point.trust >= 0.3 + place / 100)
                              for place, point in enumerate(trust.points)))  # fmt: skip
    assert (
        "thresholds chosen on held-out seen tasks, 0.30 to 0.49 (dotted)" in trust_figure(many, styles, "t", "").caption
    )
