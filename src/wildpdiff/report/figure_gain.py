"""Figures of the gain over the pretrained model: recovered by each source, and against the headroom of each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from numpy import ndarray

from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import Canvas, ReportFigure, marker, render, shorten
from wildpdiff.report.figure_accuracy import short_label
from wildpdiff.report.findings import TIE, Key, SplitFindings
from wildpdiff.report.groups import grouped, joined_groups
from wildpdiff.report.labels import Label, place_labels
from wildpdiff.report.palette import THEME, SourceStyle
from wildpdiff.report.sentences import source_name, split_name
from wildpdiff.report.wording import number, percentage

_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light
_TINT = THEME["tint"].light

GAIN_LIMITS = (-1.5, 2.5)
"""Recovered gains beyond are drawn at the edge, as an arrow with its number."""
HEADING_HEIGHT = 1.15
"""Of a group's heading, in lines."""


def gain_figure(
    parts: Sequence[SplitFindings], styles: dict[str, SourceStyle], name: str, heading: str
) -> ReportFigure:
    """Recovered gain of every source with its interval, in groups, one panel a split."""
    title = f"{heading}Recovered gain by source"
    caption = "0 % is the pretrained model, 100 % is fine-tuning on the task's labels; lines are 95 % intervals. "
    for part in parts:
        caption += _gain_sentences(part)
    drawing = render(lambda canvas: _draw_gain(canvas, parts, styles), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _gain_sentences(part: SplitFindings) -> str:
    ranked = [row for row in part.summary if row.recovered_gain is not None]
    if not ranked:
        return f"On {part.split} tasks fine-tuning gains nothing, so there is no gain to recover. "
    free = [row for row in ranked if part.is_rival(row) or row is part.generated]
    text = ""
    if free:
        best = max(free, key=lambda row: row.recovered_gain or 0.0)
        share = percentage(best.recovered_gain or 0.0, 0)
        text = f"On {part.split} tasks, without labels, most is recovered by {source_name(best)} "
        text += f"({share}){_against_finetuning(best)}. "
        useless = [row for row in free if row.recovered_gain_interval and row.recovered_gain_interval[1] < 0]
        if useless:
            who = "source does harm: its" if len(useless) == 1 else "sources do harm: their"
            text += f"{len(useless)} {who} interval lies below 0. "
    if any(row.recovered_gain_interval is None for row in ranked):
        text += f"Some sources have no interval on {part.split} tasks: one task, or fine-tuning's gain is unsure. "
    return text


def _against_finetuning(row: SummaryRow) -> str:
    """Where the interval of the gain lies against 100 %."""
    if row.recovered_gain_interval is None:
        return ""
    low, high = row.recovered_gain_interval
    if low <= 1 <= high:
        return ", which these tasks cannot tell from fine-tuning"
    return ", less than fine-tuning" if high < 1 else ", more than fine-tuning"


@dataclass(frozen=True)
class _Places:
    """Where each line and each heading stands, from the top, in heights of a line."""

    lines: dict[Key, float]
    headings: dict[float, str]
    labels: dict[Key, str]
    total: float


def _places(parts: Sequence[SplitFindings], narrow: bool) -> _Places:
    lines: dict[Key, float] = {}
    headings: dict[float, str] = {}
    labels: dict[Key, str] = {}
    shown = [
        group
        for part in parts
        for group in grouped(part, [row for row in part.summary if row.recovered_gain is not None])
    ]
    down = 0.0
    for group in joined_groups(shown):
        headings[down] = group.title.split(":")[0]
        down += HEADING_HEIGHT
        for row in group.lines:
            lines[row.source, row.condition] = down
            labels[row.source, row.condition] = short_label(row, narrow)
            down += 1
        down += 0.35
    return _Places(lines, headings, labels, down)


def _draw_gain(canvas: Canvas, parts: Sequence[SplitFindings], styles: dict[str, SourceStyle]) -> None:
    places = _places(parts, canvas.narrow)
    line = 21.0 if len(places.lines) > 10 else 26.0
    left = 16 + 6.5 * max(map(len, places.labels.values()))
    height, gap = line * places.total, 26.0
    stacked, below, panels = canvas.narrow, 72 if canvas.narrow else 56, len(parts)
    canvas.resize((height + below) * (panels if stacked else 1) + 22)
    width = canvas.width - left - 18 if stacked else (canvas.width - left - 18 - gap * (panels - 1)) / panels
    gains = [row for part in parts for row in part.summary if row.recovered_gain is not None]
    shown = [end for row in gains for end in (row.recovered_gain or 0.0, *(row.recovered_gain_interval or ()))]
    low = max(GAIN_LIMITS[0], min(0.0, *shown, 0.0)) - 0.08
    high = min(GAIN_LIMITS[1], max(1.0, *shown, 1.0)) + 0.08
    for number_, part in enumerate(parts):
        top = 26 + (number_ * (height + below) if stacked else 0)
        axes = canvas.axes(left + (0 if stacked else number_ * (width + gap)), top, width, height)
        axes.set_xlim(100 * low, 100 * high)
        axes.set_ylim(places.total - 0.4, -0.5)
        title = split_name(part.split, len(part.tasks))
        axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=_TEXT, pad=8)
        axes.grid(axis="x")
        for reference in (0, 100):
            axes.axvline(reference, color=_MUTED, linewidth=1.2, dashes=(3, 3))
        if part.generated is not None and (GENERATED, "own") in places.lines:
            middle = places.lines[GENERATED, "own"]
            axes.axhspan(middle - 0.5, middle + 0.5, color=_TINT, linewidth=0, zorder=0)
        for row in part.summary:
            if row.recovered_gain is not None:
                _draw_gain_line(axes, places.lines[row.source, row.condition], row, styles[row.source], (low, high))
        show = stacked or number_ == 0
        keys = list(places.lines)
        texts = [places.labels[key] for key in keys] if show else [""] * len(keys)
        axes.set_yticks(list(places.lines.values()), texts, parse_math=False)
        if show:
            for down, text in places.headings.items():
                axes.annotate(text, (0, down), (-left + 1, 0), xycoords=("axes fraction", "data"),
                              textcoords="offset points", va="center", fontsize=10.5, color=_MUTED,
                              fontstyle="italic", annotation_clip=False)  # fmt: skip
        axes.set_xlabel("share of fine-tuning's gain, %")


def _draw_gain_line(axes: Axes, place: float, row: SummaryRow, style: SourceStyle, limits: tuple[float, float]) -> None:
    value = row.recovered_gain
    assert value is not None
    colour, (low, high) = style.colour.light, limits
    if row.recovered_gain_interval is not None:
        ends = np.clip(row.recovered_gain_interval, low, high) * 100
        axes.plot(ends, [place, place], color=colour, linewidth=2.0, solid_capstyle="butt")
    if low <= value <= high:
        axes.plot([100 * value], [place], linestyle="none", markersize=7.5, **marker(style, row.condition))
        return
    edge, side, align = (low, "<", "left") if value < low else (high, ">", "right")
    axes.plot([100 * edge], [place], linestyle="none", markersize=8, color=colour, marker=side, clip_on=False)
    shift = (9 if align == "left" else -9, 7)
    text = percentage(value, 0)
    axes.annotate(text, (100 * edge, place), shift, textcoords="offset points", ha=align, fontsize=10)


def headroom_figure(
    part: SplitFindings, styles: dict[str, SourceStyle], name: str, heading: str
) -> ReportFigure | None:
    """What generation gains on each task against what fine-tuning gains; None where a line is missing."""
    columns = part.columns([part.of(PRETRAINED), part.of(FINETUNED), part.generated])
    if columns is None:
        return None
    title = f"{heading}Where generation helps"
    before, top, own = columns.accuracy
    gains = np.stack([top - before, own - before], axis=1)
    amount = len(columns.tasks)
    lost = int((gains[:, 1] < -TIE).sum())
    equal = int((np.abs(gains[:, 1]) <= TIE).sum())
    beyond = int((gains[:, 1] > gains[:, 0] + TIE).sum())
    caption = (
        f"Each mark is one {part.split} task: what fine-tuning gains over the pretrained model (right) and what the "
        f"generated adapter gains (up). Above the dashed diagonal, generation beats fine-tuning: {beyond} of "
        f"{amount}. Below zero (crosses), the generated adapter does harm: {lost} of {amount}"
        f"{f', and {_unchanged(equal)}' if equal else ''}. "
    )
    if amount >= 5 and gains.std(axis=0).min() > 0:
        correlation = float(np.corrcoef(gains.T)[0, 1])
        follows = "follows" if correlation > 0.5 else "follows only in part" if correlation > 0.2 else "does not follow"
        caption += f"The gain {follows} the headroom (correlation {number(correlation)})."
    drawing = render(lambda canvas: _draw_headroom(canvas, columns.tasks, 100 * gains, styles), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _unchanged(amount: int) -> str:
    return "1 stays as it was" if amount == 1 else f"{amount} stay as they were"


def _draw_headroom(
    canvas: Canvas, tasks: tuple[str, ...], values: Float[ndarray, "t 2"], styles: dict[str, SourceStyle]
) -> None:
    left, height = 52, 290 if canvas.narrow else 380
    canvas.resize(height + 62)
    axes = canvas.axes(left, 14, canvas.width - left - 14, height)
    edge = 0.08 * max(float(np.ptp(np.append(values, 0.0))), 1.0)
    axes.set_xlim(min(0.0, values[:, 0].min()) - edge, max(0.0, values[:, 0].max()) + edge)
    axes.set_ylim(min(0.0, values[:, 1].min()) - edge, max(0.0, values[:, 1].max()) + edge)
    axes.grid()
    axes.axhline(0, color=_MUTED, linewidth=1.2)
    axes.axline((0, 0), slope=1, color=_MUTED, linewidth=1.2, dashes=(4, 3))
    colour = styles[GENERATED].colour.light
    lost = values[:, 1] < -100 * TIE
    for harmed, shape in ((False, "o"), (True, "x")):
        look: dict[str, Any] = {
            "marker": shape,
            "color": colour,
            "markersize": 7.5,
            "markeredgewidth": 2 if harmed else 0.8,
        }
        axes.plot(*values[lost == harmed].T, linestyle="none", **look)
    axes.tick_params(axis="y", labelcolor=_MUTED)
    worst = [int(place) for place in np.argsort(values[:, 1], kind="stable")[:3]]
    labels = [Label(shorten(tasks[place], 18), float(values[place, 0]), float(values[place, 1])) for place in worst]
    # The names keep off the two lines as well.
    (x_low, x_high), y_high = axes.get_xlim(), axes.get_ylim()[1]
    lines = [(float(x), y) for x in np.linspace(x_low, x_high, 60) for y in (0.0, float(x)) if y <= y_high]
    place_labels(canvas, axes, labels, [*((float(x), float(y)) for x, y in values), *lines])
    axes.set_xlabel("fine-tuned − pretrained, points")
    axes.set_ylabel("generated − pretrained, points")
