"""The table and the figure of trust hold the numbers of planted points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wildbench.report.trust import judged_points, tasks_text, trust_figure, trust_table
from wildbench.trust_summary import covered
from wildpdiff.evaluate.results import Results, TrustPoint, TrustSection
from wildpdiff.report.findings import findings
from wildpdiff.report.page import styles_of

TrustOf = Callable[..., TrustSection]
USED = TrustPoint("a", "unseen", "t", "examples", 0.9, 5.0, 1.0, 9.0, 4.0, 0.7, True, 0)
ABSTAINED = replace(USED, trust=0.2, used=False, gain=-6.0)


def section(*points: TrustPoint) -> TrustSection:
    """Each point a task of its own."""
    return TrustSection(tuple(replace(point, task=f"t{index}") for index, point in enumerate(points)))


def test_the_row_of_a_variant_has_gain_harm_abstention_ranking_and_coverage() -> None:
    others = [replace(ABSTAINED, gain=gain) for gain in (-6.0, -0.4, 2.0, 0.0)]
    (row,) = trust_table(section(*[USED] * 6, *others)).rows
    assert (row.head, row.small) == ("A", "10 tasks")
    assert [cell.text for cell in row.cells] == ["+2.0", "+2.4", "10.0", "0.0", "40", "0.93", "70"]
    assert row.cells[2].small == "0.0 to 30.0"


def test_ranking_is_undefined_where_every_task_gains() -> None:
    (row,) = trust_table(section(*[USED] * 5)).rows
    assert row.cells[5].text == "–"


def test_several_generators_on_a_task_are_one_task(trust_of: TrustOf) -> None:
    (row,) = trust_table(trust_of({"a": 0.2}, tasks=10, seen=0, generators=3)).rows
    assert row.small == "10 tasks, 3 generators"


def test_seen_tasks_have_a_row_but_do_not_count_together(trust_of: TrustOf) -> None:
    trust = trust_of({"a": 1.0, "b": -0.5}, tasks=10, seen=5)
    assert {point.split for point in judged_points(trust)} == {"unseen"}
    assert tasks_text(judged_points(trust)) == "20 unseen tasks of 2 variants"
    assert [(row.head, row.small) for row in trust_table(trust).rows] == [
        ("A", "unseen, 10 tasks"),
        ("A", "seen, 5 tasks"),
        ("B", "unseen, 10 tasks"),
        ("All together", "without seen tasks, 20 tasks"),
    ]
    only_seen = TrustSection(tuple(point for point in trust.points if point.split == "seen"))
    assert judged_points(only_seen) == only_seen.points
    assert [row.head for row in trust_table(only_seen).rows] == ["A"]


def test_the_figure_counts_intervals_and_is_reproducible(results: Results, trust_of: TrustOf) -> None:
    styles = styles_of(results, findings(results))
    trust = trust_of({"a": 0.6}, tasks=20, seen=0)
    figure = trust_figure(trust, styles)
    assert f"{sum(covered(point) for point in trust.points)} of 20" in figure.caption
    assert trust_figure(trust, styles) == figure
