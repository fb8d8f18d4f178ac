"""Trust on unseen tasks as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildbench.report.wording import number_range
from wildbench.trust_summary import covered, harmed, summarise_trust, threshold_outcomes, worlds_of
from wildpdiff.evaluate.results import TrustPoint, TrustSection
from wildpdiff.evaluate.statistics import Estimate
from wildpdiff.evaluate.summary import GENERATED, PRETRAINED
from wildpdiff.report.blocks import Cell, DataTable, TableRow
from wildpdiff.report.drawing import Caption, ReportFigure, add_legend, render
from wildpdiff.report.palette import HEAT, MUTED, TEXT, SourceStyle
from wildpdiff.report.wording import (
    capital,
    count,
    listed,
    number,
    percent,
    percent_range,
    percentage,
    signed,
)


def judged_points(section: TrustSection) -> tuple[TrustPoint, ...]:
    """Points of tasks that the generator was not fitted to; all points where there are none."""
    return tuple(point for point in section.points if point.split != "seen") or section.points


def tasks_text(points: Sequence[TrustPoint]) -> str:
    """``150 unseen tasks of 5 variants``."""
    tasks = len({(point.world, point.split, point.task) for point in points})
    splits = list(dict.fromkeys(point.split for point in points))
    variants = len(worlds_of(points))
    text = count(tasks, f"{splits[0]} task") if len(splits) == 1 else f"{count(tasks, 'task')} ({listed(splits)})"
    return text + (f" of {count(variants, 'variant')}" if variants > 1 else "")


def trust_table(section: TrustSection) -> DataTable:
    """Gain and harm with and without trust, AUROC and coverage, by variant and split, then of all held-out tasks."""
    keys = list(dict.fromkeys((point.world, point.split) for point in section.points))
    judged = judged_points(section)
    lines = [(*key, [point for point in section.points if (point.world, point.split) == key]) for key in keys]
    together = {(point.world, point.split) for point in judged}
    if len(together) > 1:
        lines.append(("all together", "without seen tasks" if len(together) < len(keys) else "", list(judged)))
    several = len({split for _, split, _ in lines}) > 1
    rows = []
    for name, split, points in lines:
        own = summarise_trust(points)
        small = [split if several else "", count(own.tasks, "task")]
        small += [count(own.generators, "generator")] if own.generators > 1 else []
        cells = (
            _gain(own.gain_without),
            _gain(own.gain_with),
            _share(own.harmed_without),
            _share(own.harmed_with),
            Cell(percent(1 - own.used_share.value, 0)),
            Cell("–") if own.auroc is None else Cell(number(own.auroc.value), number_range(own.auroc.interval).strip()),
            _share(own.coverage, 0),
        )
        tone = frozenset({"own"} if name == "all together" else ())
        rows.append(TableRow(capital(name), cells, tone, ", ".join(text for text in small if text)))
    columns = ("Variant", "Gain without trust, points", "Gain with trust, points", "Harmed without, %",
               "Harmed with, %", "Abstained, %", "AUROC", "Coverage of 90 % intervals, %")  # fmt: skip
    note = (
        "With trust, the pretrained model is used below the threshold chosen on held-out seen tasks (abstained). "
        "Harmed: tasks that lose more than a point against the pretrained model. AUROC: of trust, for tasks with a "
        "positive gain; – where all tasks gain or none. 95 % bootstrap intervals over tasks."
    )
    return DataTable("Trust in the generated adapters", columns, tuple(rows), note)


def _gain(estimate: Estimate) -> Cell:
    return Cell(signed(number(estimate.value, 1)), _points_range(estimate.interval))


def _share(estimate: Estimate, digits: int = 1) -> Cell:
    return Cell(percent(estimate.value, digits), percent_range(estimate.interval, digits))


def _points_range(interval: tuple[float, float] | None) -> str:
    return "no interval" if interval is None else " to ".join(signed(number(end, 1)) for end in interval)


def trust_figure(section: TrustSection, styles: Mapping[str, SourceStyle]) -> ReportFigure:
    """Predicted against measured gain, one mark a task and generator; mean gain and harm for every threshold."""
    points = judged_points(section)
    summary = summarise_trust(points)
    outcomes = threshold_outcomes(points)
    used, abstained = styles[GENERATED].colour, styles[PRETRAINED].colour
    marks: dict[str, dict[str, Any]] = {
        "generated used": {"marker": "o", "color": used},
        "used, and harmed": {"marker": "D", "color": HEAT[0], "markersize": 4.5},
        "abstained": {"marker": "s", "color": abstained, "markerfacecolor": "none"},
    }
    thresholds = sorted({point.min_trust for point in points})

    def draw(figure: Figure) -> None:
        scatter, gain, harm = figure.subplots(3, height_ratios=(5, 2, 2))
        for label, mark in marks.items():
            _draw_outcome(scatter, [point for point in points if _outcome(point) == label], mark)
        scatter.axhline(0, color=MUTED, linewidth=1.0)
        scatter.axvline(0, color=MUTED, linewidth=1.0)
        scatter.axline((0, 0), slope=1, color=MUTED, linewidth=1.2, dashes=(4, 3))
        scatter.set_xlabel("predicted gain, points")
        scatter.set_ylabel("measured gain, points")
        steps = [outcome.threshold for outcome in outcomes]
        gain.step(steps, [outcome.gain for outcome in outcomes], color=used)
        gain.axhline(summary.gain_with.value, color=TEXT, linewidth=1.2, dashes=(3, 3))
        gain.set_title("mean gain, points")
        harm.step(steps, [100 * outcome.harmed for outcome in outcomes], color=HEAT[0])
        harm.axhline(100 * summary.harmed_with.value, color=TEXT, linewidth=1.2, dashes=(3, 3))
        harm.set_title("tasks that lose more than a point, %")
        harm.set_xlabel("threshold of trust")
        for axes in (gain, harm):
            axes.set_xlim(0, 1)
            axes.plot(
                thresholds, [0] * len(thresholds), "|", color=TEXT, markersize=10, transform=axes.get_xaxis_transform()
            )
        line = {"color": TEXT, "linestyle": (0, (3, 3)), "linewidth": 1.2}
        add_legend(figure, marks | {"at the chosen thresholds": line})

    inside = sum(covered(point) for point in points)
    text = (
        f"One mark a task and generator ({tasks_text(points)}), with the 90 % interval of the predicted gain: {inside} "
        f"of {len(points)} intervals hold the measured gain (the diagonal). Ticks: thresholds chosen on held-out seen "
        f"tasks; with them {percentage(summary.harmed_with.value)} of tasks are harmed, without "
        f"{percentage(summary.harmed_without.value)}."
    )
    return render(Caption("trust", "Predicted and measured gain", text), 700, draw)


def _outcome(point: TrustPoint) -> str:
    return "abstained" if not point.used else "used, and harmed" if harmed(point) else "generated used"


def _draw_outcome(axes: Axes, points: Sequence[TrustPoint], mark: Mapping[str, Any]) -> None:
    gains = [point.gain for point in points]
    low, high = [point.low for point in points], [point.high for point in points]
    axes.hlines(gains, low, high, color=mark["color"], linewidth=1.0, alpha=min(0.5, max(0.12, 40 / (len(points) + 1))))
    size = {"markersize": 5.0 if len(points) <= 60 else 3.8}
    axes.plot([point.predicted for point in points], gains, linestyle="none", **(size | dict(mark)))
