"""Figures of accuracy, gain, trust and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from wildpdiff.disk import visible
from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import Caption, ReportFigure, add_legend, marker, render, shorten
from wildpdiff.report.findings import SplitFindings, compare, grouped
from wildpdiff.report.palette import BAND, HEAT, MUTED, OTHER, SURFACE, TINT, SourceStyle
from wildpdiff.report.sentences import split_name
from wildpdiff.report.wording import capital, count
from wildpdiff.tasks.metric import ACCURACY

Styles = Mapping[str, SourceStyle]

GAIN_LIMITS = (-1.5, 2.5)
"""Recovered gains beyond are drawn at the edge, as an arrow."""

HEAT_EDGES = (-20, -10, -5, -1, 1, 5, 10, 20)
"""Changes of accuracy, in points, between the colours of the heat map."""

MOST_LABELLED_TASKS = 45
LABEL_LENGTH = 31


def gain_figure(parts: Sequence[SplitFindings], styles: Styles, name: str, heading: str) -> ReportFigure | None:
    """Recovered gain of every source with its interval, one panel a split; None where there is no gain to recover."""
    parts = [part for part in parts if any(row.recovered_gain is not None for row in part.summary)]
    lines = [row for rows in grouped(parts, lambda row: row.recovered_gain is not None).values() for row in rows]
    if not lines:
        return None

    def draw(figure: Figure) -> None:
        keys = [(row.source, row.condition) for row in lines]
        panels = figure.subplots(len(parts), sharex=True, squeeze=False)[:, 0]
        rows = [row for part in parts for row in part.summary if row.recovered_gain is not None]
        ends = [end for row in rows for end in (row.recovered_gain or 0.0, *(row.recovered_gain_interval or ()))]
        limits = (max(GAIN_LIMITS[0], min(0.0, *ends)), min(GAIN_LIMITS[1], max(1.0, *ends)))
        for axes, part in zip(panels, parts, strict=True):
            for row in part.summary:
                if row.recovered_gain is not None:
                    _draw_gain(axes, keys.index((row.source, row.condition)), row, styles[row.source], limits=limits)
            if (GENERATED, "own") in keys:
                y = keys.index((GENERATED, "own"))
                axes.axhspan(y - 0.5, y + 0.5, color=TINT, linewidth=0, zorder=0)
            for reference in (0, 100):
                axes.axvline(reference, color=MUTED, linewidth=1.2, dashes=(3, 3))
            axes.grid(visible=False, axis="y")
            axes.set_ylim(len(lines) - 0.4, -0.6)
            axes.set_yticks(range(len(lines)), [shorten(row.label, LABEL_LENGTH) for row in lines])
            axes.set_title(split_name(part.split, len(part.tasks)))
        panels[-1].set_xlabel("recovered gain, %")

    text = "Share of fine-tuning's gain over the pretrained model, with 95 % intervals; arrows lie beyond the axis."
    height = len(parts) * (22 * len(lines) + 30) + 40
    return render(Caption(name, f"{heading}Recovered gain by source", text), height, draw)


def _draw_gain(axes: Axes, y: int, row: SummaryRow, style: SourceStyle, *, limits: tuple[float, float]) -> None:
    value = row.recovered_gain or 0.0
    low, high = limits
    if row.recovered_gain_interval is not None:
        ends = 100 * np.clip(row.recovered_gain_interval, low, high)
        axes.plot(ends, [y, y], color=style.colour, linewidth=2.0, solid_capstyle="butt")
    mark = marker(style, row.condition)
    if not low <= value <= high:
        mark = {"marker": "<" if value < low else ">", "color": style.colour}
    axes.plot([100 * float(np.clip(value, low, high))], [y], linestyle="none", markersize=6.5, clip_on=False, **mark)


def accuracy_figure(part: SplitFindings, styles: Styles, name: str, heading: str) -> ReportFigure:
    """Accuracy of the references, the generator and the best baseline on every task; other sources as thin ticks."""
    tasks = part.tasks
    main = [row for row in (part.of(PRETRAINED), part.of(FINETUNED), part.baseline, part.generated) if row is not None]
    main = list(dict.fromkeys(main)) or list(part.summary)
    others = [row for row in part.summary if part.is_rival(row) and row not in main]
    labelled = len(tasks) <= MOST_LABELLED_TASKS
    row_height = 19.0 if labelled else 800 / len(tasks)
    tick: dict[str, Any] = {"marker": "|", "color": OTHER, "markersize": min(9.0, row_height / 2)}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rows = {task: y for y, task in enumerate(tasks)}
        references = part.columns([part.of(PRETRAINED), part.of(FINETUNED)])
        if references is not None:
            ys = [rows[task] for task in references.tasks]
            axes.hlines(ys, *(part.metric.scale * references.accuracy), color=BAND, linewidth=min(8, row_height / 2))
        size = min(6.5, 2 + row_height / 4)
        for row in [*others, *main]:
            properties = tick if row in others else {"markersize": size, **marker(styles[row.source], row.condition)}
            table = part.per_task(row)
            values = [part.metric.scale * value for value in table.values()]
            axes.plot(values, [rows[task] for task in table], linestyle="none", **properties)
        _draw_sample_range(axes, part, styles)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        names = [shorten(" ".join(visible(task).split()), 20) for task in tasks] if labelled else []
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(part.metric.heading)
        entries = {shorten(row.label, LABEL_LENGTH): marker(styles[row.source], row.condition) for row in main}
        add_legend(figure, entries | ({"other sources without labels": tick} if others else {}))

    lead = compare(part, part.generated, part.of(PRETRAINED))
    text = "One row a task, hardest for the pretrained model first; the thin blue line is the range of the samples."
    if lead is not None:
        difference = "Generated − pretrained" if part.metric.higher_is_better else "Lead over pretrained"
        text += (
            f" {difference}: {part.scores.signed(lead.value)} {part.metric.difference_unit}"
            f"{part.scores.interval(lead.interval)}; better on "
            f"{count(lead.wins, 'task')}, worse on {lead.losses}, equal on {lead.ties}."
        )
    height = row_height * max(len(tasks), 3) + 110
    return render(Caption(name, f"{heading}{capital(part.metric.name)} of every {part.split} task", text), height, draw)


def _draw_sample_range(axes: Axes, part: SplitFindings, styles: Styles) -> None:
    values: dict[str, list[float]] = {}
    for row in part.rows:
        if (row.source, row.condition) == (GENERATED, "own"):
            values.setdefault(row.task, []).append(part.metric.scale * row.accuracy)
    several = [y for y, task in enumerate(part.tasks) if len(values.get(task, [])) > 1]
    low, high = ([end(values[part.tasks[y]]) for y in several] for end in (min, max))
    axes.hlines(several, low, high, color=styles[GENERATED].colour, linewidth=1.4)


def heat_map_figure(part: SplitFindings, name: str, heading: str) -> ReportFigure | None:
    """Accuracy minus pretrained of every source on every task; None without the pretrained model or another source,
    or of another metric: colours are steps of points."""
    pretrained = part.of(PRETRAINED)
    rows = [row for rows in grouped([part], lambda row: row.source != PRETRAINED).values() for row in rows]
    if pretrained is None or not rows or len(part.tasks) < 2 or part.metric != ACCURACY:
        return None
    before = part.per_task(pretrained)
    change = [
        [100 * (table[task] - before[task]) if task in table and task in before else np.nan for task in part.tasks]
        for table in (part.per_task(row) for row in rows)
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        norm = BoundaryNorm(HEAT_EDGES, len(HEAT), extend="both")
        cells = axes.pcolormesh(
            np.array(change), cmap=ListedColormap(HEAT), norm=norm, edgecolors=SURFACE, linewidth=0.6
        )
        axes.grid(visible=False)
        axes.set_ylim(len(rows), 0)
        axes.set_yticks(np.arange(len(rows)) + 0.5, [shorten(row.label, LABEL_LENGTH) for row in rows])
        axes.set_xticks([])
        axes.set_xlabel("tasks, hardest for the pretrained model first")
        scale = figure.colorbar(cells, ax=axes, location="top", aspect=40, pad=0.02, ticks=HEAT_EDGES)
        scale.outline.set_visible(False)
        scale.set_label("points above the pretrained model")

    text = f"Change of accuracy against the pretrained model on {split_name(part.split, len(part.tasks))}."
    return render(Caption(name, f"{heading}Every source on every {part.split} task", text), 17 * len(rows) + 110, draw)
