"""The three figures: accuracy per task, recovered gain by source, gain against headroom; each with its caption."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from wildpdiff.evaluate.results import Results, SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import Canvas, Drawing, marker, render, shorten
from wildpdiff.report.findings import (
    SplitFindings,
    compare,
    count,
    findings,
    interval_text,
    percentage,
    signed_points,
    source_name,
)
from wildpdiff.report.palette import THEME, SourceStyle, source_styles

__all__ = ["ReportFigure", "report_figures"]

_BAND = THEME["band"].light
_GRID = THEME["grid"].light
_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light

MOST_LABELLED_TASKS = 45
GAIN_LIMITS = (-1.5, 2.5)
"""Recovered gains beyond are drawn at the edge, as an arrow with its number."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its file name (no suffix), title and caption."""

    name: str
    title: str
    caption: str
    drawing: Drawing


def report_figures(results: Results) -> list[ReportFigure]:
    """The figures of every suite: unseen tasks where there are any, seen ones otherwise."""
    parts = findings(results)
    styles = source_styles(row.source for row in results.summary)
    suites = list(dict.fromkeys(part.suite for part in parts))
    figures: list[ReportFigure] = []
    for suite in suites:
        # The unseen tasks come first, because they are the question.
        own = sorted((part for part in parts if part.suite == suite), key=lambda part: part.split != "unseen")
        main = own[0]
        prefix = "" if len(suites) == 1 else re.sub(r"[^\w-]+", "-", suite).strip("-").lower() + "-"
        heading = "" if len(suites) == 1 else f"{suite}: "
        figures.append(_accuracy_figure(main, styles, prefix, heading))
        if any(row.recovered_gain is not None for part in own for row in part.summary):
            figures.append(_gain_figure(own, styles, prefix, heading))
        if main.generated and main.of(PRETRAINED) and main.of(FINETUNED):
            figures.append(_headroom_figure(main, styles, prefix, heading))
    return figures


def _accuracy_figure(part: SplitFindings, styles: dict[str, SourceStyle], prefix: str, heading: str) -> ReportFigure:
    title = f"{heading}Accuracy of every {part.split} task"
    lead = compare(part, part.generated, part.of(PRETRAINED))
    each = count(len(part.tasks), f"{part.split} task")
    caption = (
        f"One line a task ({each}), hardest for the pretrained model at the top; the grey bar runs from "
        "pretrained to fine-tuned. "
    )
    if lead is not None:
        caption += (
            f"Generated adapters are better than the pretrained model on {lead.wins}, worse on {lead.losses} and "
            f"equal on {lead.ties} (mean difference {signed_points(lead.value)} points{interval_text(lead.interval)}). "
        )
    if part.generated is not None and part.generated.samples * part.generated.seeds > 1:
        caption += "The thin blue line spans all samples of all generators; the dot is their mean."
    drawing = render(lambda canvas: _draw_accuracy(canvas, part, styles), title)
    return ReportFigure(f"{prefix}accuracy-per-task", title, caption.strip(), drawing)


def _draw_accuracy(canvas: Canvas, part: SplitFindings, styles: dict[str, SourceStyle]) -> None:
    tasks = part.tasks
    labelled = len(tasks) <= MOST_LABELLED_TASKS
    row_height = 23.0 if labelled else 900 / len(tasks)
    longest = 13 if canvas.narrow else 30
    names = [shorten(task, longest) for task in tasks]
    left = 16 + (6.6 * max(map(len, names)) if labelled else 0)
    columns = 2 if canvas.narrow else 4
    legend_height = 22 * -(-len(part.summary) // columns) + 10
    height = max(row_height * len(tasks), 40)
    canvas.resize(legend_height + height + 44)
    axes = canvas.axes(left, legend_height, canvas.width - left - 12, height)
    places = np.arange(len(tasks))
    references = [part.per_task(row) for row in (part.of(PRETRAINED), part.of(FINETUNED)) if row is not None]
    if len(references) == 2:
        both = [place for place, task in enumerate(tasks) if all(task in table for table in references)]
        low, high = ([100 * table[tasks[place]] for place in both] for table in references)
        axes.hlines(both, low, high, color=_BAND, linewidth=min(9, row_height / 2), capstyle="round")
    _draw_sample_spread(axes, part, styles)
    main = {PRETRAINED, FINETUNED, GENERATED} | ({part.baseline.source} if part.baseline else set())
    # The important marks are drawn last, on top.
    order = sorted(part.summary, key=lambda row: (row.source in main, row.source == GENERATED, row.condition == "own"))
    for row in order:
        table = part.per_task(row)
        size = 7.5 if row.source in main and row.condition != "shuffled" else 5
        size = min(size, 2 + row_height / 3)
        axes.plot(
            [100 * table[task] for task in tasks if task in table],
            [place for place, task in zip(places, tasks, strict=True) if task in table],
            linestyle="none",
            markersize=size,
            **marker(styles[row.source], row.condition),
        )
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_yticks(places if labelled else [], names if labelled else [], parse_math=False)
    axes.set_xlabel("accuracy, %" if labelled else "accuracy, %; one line a task")
    axes.grid(axis="x")
    canvas.legend([(_short(row, canvas), styles[row.source], row.condition) for row in part.summary], columns)


def _draw_sample_spread(axes: Axes, part: SplitFindings, styles: dict[str, SourceStyle]) -> None:
    spread: dict[str, list[float]] = {}
    for row in part.rows:
        if (row.source, row.condition) == (GENERATED, "own"):
            spread.setdefault(row.task, []).append(100 * row.accuracy)
    if not spread:
        return
    several = [place for place, task in enumerate(part.tasks) if len(spread.get(task, [])) > 1]
    low, high = ([end(spread[part.tasks[place]]) for place in several] for end in (min, max))
    axes.hlines(several, low, high, color=styles[GENERATED].colour.light, linewidth=1.4)


def _short(row: SummaryRow, canvas: Canvas) -> str:
    """The label, where a phone has room for it only in part."""
    label = row.label.replace("kernel ridge regression", "kernel ridge") if canvas.narrow else row.label
    label = label.replace(", shuffled conditions", ", shuffled") if canvas.narrow else label
    return shorten(label, 24) if canvas.narrow else label


def _gain_figure(
    parts: Sequence[SplitFindings], styles: dict[str, SourceStyle], prefix: str, heading: str
) -> ReportFigure:
    title = f"{heading}Recovered gain by source"
    caption = "0 % is the pretrained model, 100 % is fine-tuning on the task's labels; lines are 95 % intervals. "
    for part in parts:
        ranked = [row for row in part.summary if row.recovered_gain is not None]
        if not ranked:
            caption += f"On {part.split} tasks fine-tuning gains nothing, so there is no gain to recover. "
            continue
        own = [row for row in ranked if row.condition != "shuffled"] or ranked
        best = max(own, key=lambda row: row.recovered_gain or 0.0)
        share = percentage(best.recovered_gain or 0.0, 0)
        caption += f"On {part.split} tasks most is recovered by {source_name(best)} "
        caption += f"({share}){_against_finetuning(best)}. "
        if any(row.recovered_gain_interval is None for row in ranked):
            caption += (
                f"Some sources have no interval on {part.split} tasks: one task, or fine-tuning's gain is unsure. "
            )
    drawing = render(lambda canvas: _draw_gain(canvas, parts, styles), title)
    return ReportFigure(f"{prefix}recovered-gain", title, caption.strip(), drawing)


def _against_finetuning(row: SummaryRow) -> str:
    """Where the interval of the gain lies against 100 %."""
    if row.recovered_gain_interval is None:
        return ""
    low, high = row.recovered_gain_interval
    if low <= 1 <= high:
        return ", which these tasks cannot tell from fine-tuning"
    return ", less than fine-tuning" if high < 1 else ", more than fine-tuning"


def _draw_gain(canvas: Canvas, parts: Sequence[SplitFindings], styles: dict[str, SourceStyle]) -> None:
    lines = dict.fromkeys(
        (row.source, row.condition) for part in parts for row in part.summary if row.recovered_gain is not None
    )
    keys = list(lines)
    labels = {(row.source, row.condition): _short(row, canvas) for part in parts for row in part.summary}
    left = 16 + 6.6 * max(len(labels[key]) for key in keys)
    height, gap = 30.0 * len(keys), 26.0
    stacked = canvas.narrow
    below = 72 if stacked else 56
    panels = len(parts)
    canvas.resize((height + below) * (panels if stacked else 1) + 22)
    width = canvas.width - left - 18 if stacked else (canvas.width - left - 18 - gap * (panels - 1)) / panels
    shown = [
        end
        for part in parts
        for row in part.summary
        if row.recovered_gain is not None
        for end in (row.recovered_gain, *(row.recovered_gain_interval or ()))
    ]
    low = max(GAIN_LIMITS[0], min(0.0, *shown, 0.0)) - 0.08
    high = min(GAIN_LIMITS[1], max(1.0, *shown, 1.0)) + 0.08
    for number, part in enumerate(parts):
        top = 26 + (number * (height + below) if stacked else 0)
        axes = canvas.axes(left + (0 if stacked else number * (width + gap)), top, width, height)
        axes.set_xlim(100 * low, 100 * high)
        axes.set_ylim(len(keys) - 0.5, -0.5)
        axes.set_title(
            count(len(part.tasks), f"{part.split} task"),
            loc="left",
            fontsize=12.5,
            fontweight="bold",
            color=_TEXT,
            pad=8,
        )
        axes.grid(axis="x")
        for reference in (0, 100):
            axes.axvline(reference, color=_MUTED, linewidth=1.2, dashes=(3, 3))
        for row in part.summary:
            if row.recovered_gain is not None:
                _draw_gain_line(axes, keys.index((row.source, row.condition)), row, styles[row.source], (low, high))
        show = stacked or number == 0
        axes.set_yticks(range(len(keys)), [labels[key] for key in keys] if show else [""] * len(keys), parse_math=False)
        axes.set_xlabel("share of fine-tuning's gain, %")


def _draw_gain_line(axes: Axes, place: int, row: SummaryRow, style: SourceStyle, limits: tuple[float, float]) -> None:
    value = row.recovered_gain
    assert value is not None
    colour, (low, high) = style.colour.light, limits
    if row.recovered_gain_interval is not None:
        ends = np.clip(row.recovered_gain_interval, low, high) * 100
        axes.plot(ends, [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
    if low <= value <= high:
        axes.plot([100 * value], [place], linestyle="none", markersize=8.5, **marker(style, row.condition))
        return
    edge, side, align = (low, "<", "left") if value < low else (high, ">", "right")
    axes.plot([100 * edge], [place], linestyle="none", markersize=8.5, color=colour, marker=side, clip_on=False)
    shift = 9 if align == "left" else -9
    axes.annotate(
        f"{percentage(value, 0)}",
        (100 * edge, place),
        (shift, 8),
        textcoords="offset points",
        ha=align,
        fontsize=10.5,
    )


def _headroom_figure(part: SplitFindings, styles: dict[str, SourceStyle], prefix: str, heading: str) -> ReportFigure:
    title = f"{heading}Where generation helps"
    table = _gains(part)
    lost = [task for task, (_, gain) in table.items() if gain < 0]
    beyond = sum(gain > room for room, gain in table.values())
    caption = (
        f"Each mark is one {part.split} task: what fine-tuning gains over the pretrained model (right) and what the "
        f"generated adapter gains (up). Above the dashed diagonal, generation beats fine-tuning: {beyond} of "
        f"{len(table)}. Below zero (crosses), the generated adapter does harm: {len(lost)} of {len(table)}. "
    )
    if len(table) >= 5:
        columns = np.array(list(table.values()))
        if columns.std(axis=0).min() > 0:
            correlation = float(np.corrcoef(columns.T)[0, 1])
            follows = (
                "follows" if correlation > 0.5 else "follows only in part" if correlation > 0.2 else "does not follow"
            )
            caption += f"The gain {follows} the headroom (correlation {correlation:.2f}).".replace(
                "-", "\N{MINUS SIGN}"
            )
    drawing = render(lambda canvas: _draw_headroom(canvas, part, styles), title)
    return ReportFigure(f"{prefix}gain-against-headroom", title, caption.strip(), drawing)


def _gains(part: SplitFindings) -> dict[str, tuple[float, float]]:
    """Headroom and gain of the generated adapter, for every task that has both."""
    pretrained, finetuned = part.of(PRETRAINED), part.of(FINETUNED)
    assert pretrained is not None
    assert finetuned is not None
    assert part.generated is not None
    base, top, own = part.per_task(pretrained), part.per_task(finetuned), part.per_task(part.generated)
    return {
        task: (top[task] - base[task], own[task] - base[task])
        for task in part.tasks
        if task in base and task in top and task in own
    }


def _draw_headroom(canvas: Canvas, part: SplitFindings, styles: dict[str, SourceStyle]) -> None:
    table = _gains(part)
    left, height = 52, 290 if canvas.narrow else 380
    canvas.resize(height + 62)
    axes = canvas.axes(left, 14, canvas.width - left - 14, height)
    values = 100 * np.array(list(table.values())).reshape(-1, 2)
    edge = 0.08 * max(float(np.ptp(np.append(values, 0.0))), 1.0)
    x_low, x_high = min(0.0, values[:, 0].min()) - edge, max(0.0, values[:, 0].max()) + edge
    y_low, y_high = min(0.0, values[:, 1].min()) - edge, max(0.0, values[:, 1].max()) + edge
    axes.set_xlim(x_low, x_high)
    axes.set_ylim(y_low, y_high)
    axes.grid()
    axes.axhline(0, color=_MUTED, linewidth=1.2)
    axes.axline((0, 0), slope=1, color=_MUTED, linewidth=1.2, dashes=(4, 3))
    colour = styles[GENERATED].colour.light
    for won, shape in ((True, "o"), (False, "x")):
        chosen = values[(values[:, 1] >= 0) == won]
        axes.plot(
            *chosen.T,
            linestyle="none",
            marker=shape,
            color=colour,
            markersize=7.5,
            markeredgewidth=0.8 if won else 2,
        )
    axes.tick_params(axis="y", labelcolor=_MUTED)
    _label_worst(axes, table, canvas)
    axes.set_xlabel("fine-tuned − pretrained, points")
    axes.set_ylabel("generated − pretrained, points")


def _label_worst(axes: Axes, table: dict[str, tuple[float, float]], canvas: Canvas) -> None:
    """Names of the three worst tasks beside their marks, pushed up where they would overlap."""
    x_low, x_high = axes.get_xlim()
    (y_low, y_high), height = axes.get_ylim(), axes.get_position().height * canvas.figure.get_size_inches()[1]
    line = 13 / 72 / height * (y_high - y_low)
    placed: list[tuple[float, float]] = []
    reach = (0.42 if canvas.narrow else 0.15) * (x_high - x_low)
    for task in sorted(table, key=lambda task: table[task][1])[:3]:
        room, gain = (100 * value for value in table[task])
        near = [y + line for x, y in placed if abs(x - room) < reach]
        place = max([gain, *near])
        placed.append((room, place))
        right = room < (x_low + x_high) / 2
        offset = (9 if right else -9, 0)
        axes.annotate(
            shorten(task, 18), (room, place), offset, textcoords="offset points", parse_math=False,
            ha="left" if right else "right", va="center", fontsize=11, color=_MUTED,
        )  # fmt: skip
