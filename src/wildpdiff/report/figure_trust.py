"""Figure: the gain that was predicted without a label against the measured one, and what each threshold would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wildpdiff.evaluate.summary import GENERATED, PRETRAINED
from wildpdiff.evaluate.trust_points import (
    ThresholdOutcome,
    TrustPoint,
    TrustSection,
    TrustSummary,
    summarise_trust,
    threshold_outcomes,
)
from wildpdiff.report.drawing import Canvas, ReportFigure, render
from wildpdiff.report.palette import HEAT, THEME, SourceStyle
from wildpdiff.report.trust_findings import judged_points, tasks_text
from wildpdiff.report.wording import count, percentage

_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light
_SURFACE = THEME["surface"].light
_HARM = HEAT[0].light
KEPT, USED, HARMED = "kept back", "generated used", "used, and harmed"
MOST_LINES = 4
"""More thresholds than these are drawn as ticks."""


def trust_figure(section: TrustSection, styles: Mapping[str, SourceStyle], name: str, heading: str) -> ReportFigure:
    """Left, one mark a task and generator; right, mean gain and share of harmed tasks for every threshold."""
    points = judged_points(section)
    summary = summarise_trust(points)
    title = f"{heading}What trust said, and what came out"
    mark = "a task" if summary.generators == 1 else f"a task and generator ({count(summary.generators, 'generator')})"
    inside = sum(point.covered for point in points)
    caption = (
        f"One mark {mark}, {tasks_text(points)}: the gain that was predicted without a label, with its 90 % "
        f"interval, and the gain measured on the test images. On the dashed line they agree; {inside} of {len(points)} "
        "intervals reach it. Hollow marks were kept back, and the pretrained model used instead. The curves "
        "are the mean gain and the share of tasks that lose more than a point, over all tasks, were one threshold of "
        "trust to decide for all. "
    )
    thresholds = sorted({point.min_trust for point in points})
    chosen = (
        f"threshold chosen on held-out seen tasks, {thresholds[0]:.2f}"
        if len(thresholds) == 1
        else f"thresholds chosen on held-out seen tasks, {thresholds[0]:.2f} to {thresholds[-1]:.2f}"
    )
    caption += (
        f"With the {chosen} (dotted), {percentage(summary.harmed_with.value)} of tasks are harmed (dashed); every "
        f"generated adapter used would harm {percentage(summary.harmed_without.value)}."
    )
    looks = _looks(styles)
    outcomes = threshold_outcomes(points)
    drawing = render(lambda canvas: _draw(canvas, points, summary, outcomes, looks), title)
    return ReportFigure(name, title, caption, drawing)


def _looks(styles: Mapping[str, SourceStyle]) -> dict[str, dict[str, Any]]:
    """How a mark looks, by what became of the generated adapter: in the colour of the model that was used."""
    used, kept = styles[GENERATED].colour.light, styles[PRETRAINED].colour.light
    return {
        KEPT: {"marker": "s", "color": kept, "markerfacecolor": _SURFACE, "markeredgecolor": kept},
        USED: {"marker": "o", "color": used, "markerfacecolor": used, "markeredgecolor": used},
        HARMED: {"marker": "D", "color": _HARM, "markerfacecolor": _HARM, "markeredgecolor": _HARM},
    }


def _outcome(point: TrustPoint) -> str:
    return KEPT if not point.used else HARMED if point.harmed else USED


def _draw(
    canvas: Canvas,
    points: Sequence[TrustPoint],
    summary: TrustSummary,
    outcomes: Sequence[ThresholdOutcome],
    looks: Mapping[str, dict[str, Any]],
) -> None:
    left, below, gap, right = (52, 50, 30, 14) if canvas.narrow else (56, 48, 76, 14)
    # Below the legend is room for the titles of the curves, which stand beside it where the figure is wide.
    legend = 22 * 2 + 14
    if canvas.narrow:
        width, side, small = canvas.width - left - right, 300, 140.0
        boxes: list[tuple[float, float, float, float]] = [(left, legend, width, side)]
        start = legend + side + below + gap
        boxes += [(left, start, width, small), (left, start + small + gap, width, small)]
        canvas.resize(start + 2 * small + gap + below)
    else:
        side = 400
        width = canvas.width - left - side - gap - right
        small = (side - 34) / 2
        boxes = [(left, legend, side, side)]
        start = left + side + gap
        boxes += [(start, legend, width, small), (start, legend + small + 34, width, small)]
        canvas.resize(legend + side + below)
    _draw_points(canvas.axes(*boxes[0]), points, looks)
    thresholds = sorted({point.min_trust for point in points})
    gains = [outcome.gain for outcome in outcomes]
    harmed = [100 * outcome.harmed for outcome in outcomes]
    places = [outcome.threshold for outcome in outcomes]
    upper, lower = canvas.axes(*boxes[1]), canvas.axes(*boxes[2])
    _draw_curve(upper, places, gains, summary.gain_with.value, thresholds, looks[USED]["color"])
    _draw_curve(lower, places, harmed, 100 * summary.harmed_with.value, thresholds, _HARM)
    upper.set_title("mean gain, points", loc="left", fontsize=11.5, color=_TEXT, pad=6)
    lower.set_title("tasks that lose more than a point, %", loc="left", fontsize=11.5, color=_TEXT, pad=6)
    upper.set_xticklabels([])
    lower.set_xlabel("threshold of trust")
    entries: list[tuple[str, dict[str, Any]]] = [
        (USED, {**looks[USED], "markersize": 6}),
        (HARMED, {**looks[HARMED], "markersize": 5}),
        (KEPT, {**looks[KEPT], "markersize": 6}),
        ("the thresholds as chosen", {"linestyle": (0, (3, 3)), "color": _TEXT, "linewidth": 1.2}),
    ]
    canvas.legend(entries, 2 if canvas.narrow else 4)


def _draw_points(axes: Axes, points: Sequence[TrustPoint], looks: Mapping[str, dict[str, Any]]) -> None:
    values = [value for point in points for value in (point.predicted, point.gain)]
    room = 0.06 * max(max(values) - min(values), 1.0)
    limits = (min(0.0, *values) - room, max(0.0, *values) + room)
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.grid()
    axes.axhline(0, color=_MUTED, linewidth=1.0)
    axes.axvline(0, color=_MUTED, linewidth=1.0)
    axes.plot(limits, limits, color=_MUTED, linewidth=1.2, dashes=(4, 3))
    faint = min(0.5, max(0.12, 40 / len(points)))
    size = 6.0 if len(points) <= 60 else 5.0 if len(points) <= 200 else 3.8
    for outcome, look in looks.items():
        own = [point for point in points if _outcome(point) == outcome]
        gains = [point.gain for point in own]
        axes.hlines(gains, [point.low for point in own], [point.high for point in own], color=look["color"],
                    linewidth=1.0, alpha=faint)  # fmt: skip
        axes.plot([point.predicted for point in own], gains, linestyle="none", markersize=size, markeredgewidth=1.1,
                  alpha=0.9 if len(points) <= 200 else 0.6, **look)  # fmt: skip
    axes.tick_params(axis="y", labelcolor=_MUTED)
    axes.set_xlabel("predicted gain, points")
    axes.set_ylabel("measured gain, points")


def _draw_curve(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[float],
    chosen: float,
    thresholds: Sequence[float],
    colour: str,
) -> None:
    axes.set_xlim(0, 1)
    # Where nothing happens the axis still has a scale that means something.
    low, high = min(0.0, *values), max(1.0, *values)
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.grid()
    axes.axhline(0, color=_MUTED, linewidth=1.0)
    axes.plot([0, 1], [chosen] * 2, color=_TEXT, linewidth=1.2, dashes=(3, 3))
    if len(thresholds) <= MOST_LINES:
        for threshold in thresholds:
            axes.axvline(threshold, color=_MUTED, linewidth=1.0, dashes=(1, 2))
    else:
        axes.vlines(thresholds, low - room, low, color=_MUTED, linewidth=1.0)
    axes.plot(places, values, color=colour, linewidth=2.0, drawstyle="steps-pre")
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", labelcolor=_MUTED)
