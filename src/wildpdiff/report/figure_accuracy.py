"""Figures task by task: accuracies with the samples' spread, and the change of every source on every task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.path import Path

from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import Canvas, ReportFigure, marker, render, shorten
from wildpdiff.report.findings import TIE, SplitFindings, compare
from wildpdiff.report.groups import grouped
from wildpdiff.report.palette import HEAT, THEME, SourceStyle
from wildpdiff.report.sentences import split_name
from wildpdiff.report.wording import count, interval_text, listed, percentage, signed_points

_BAND = THEME["band"].light
_OTHER = THEME["other"].light
_MUTED = THEME["muted"].light

MOST_LABELLED_TASKS = 45
HEAT_EDGES = (-0.2, -0.1, -0.05, -0.01, 0.01, 0.05, 0.1, 0.2)
"""Changes of accuracy between which a colour of the heat map lies."""
_SHORTER = {
    "kernel ridge regression": "kernel ridge",
    "linear ridge regression": "linear ridge",
    "additive kernel regression": "additive kernel",
    "multi-task adapter": "multi-task",
    "hypernetwork": "hypernet",
    "checkpoint + ": "ckpt + ",
    "relative noise": "rel. noise",
    "checkpoints": "ckpts",
    "per coordinate": "per coord.",
    "unconditional": "uncond.",
    "prior by EM on unlabelled images": "prior by EM, unlab.",
    "from the description": "from descr.",
    "with description": "+ descr.",
    "no description": "no descr.",
    ", reconstruction": ", reconstr.",
    "labels a class": "labels",
    "in the latent space": "latent",
    "on raw LoRA": "raw",
    ", shuffled conditions": ", shuffled",
    ", random conditions": ", random",
}


def short_label(row: SummaryRow, narrow: bool, length: int = 24) -> str:
    """The label of a line, where a phone has room for it only in part."""
    return shorten(abbreviated(row.label), length) if narrow else shorten(row.label, 44)


def abbreviated(label: str) -> str:
    """A source's label in fewer letters, still telling the sources apart."""
    for long, short in _SHORTER.items():
        label = label.replace(long, short)
    return label


def accuracy_figure(part: SplitFindings, styles: dict[str, SourceStyle], name: str, heading: str) -> ReportFigure:
    """Accuracy of the references, the generator and the best baseline on every task; other sources as thin ticks."""
    title = f"{heading}Accuracy of every {part.split} task"
    lead = compare(part, part.generated, part.of(PRETRAINED))
    caption = (
        f"One line a task ({split_name(part.split, len(part.tasks))}), hardest for the pretrained model at the top; "
        "the grey bar runs from pretrained to fine-tuned. "
    )
    if _others(part):
        caption += "Grey ticks are the other sources without labels. "
    if part.generated is not None and part.generated.samples * part.generated.seeds > 1:
        caption += "The thin blue line spans all samples of all generators; the dot is their mean. "
    if lead is not None:
        caption += (
            f"Generated adapters are better than the pretrained model on {lead.wins}, worse on {lead.losses} and "
            f"equal on {lead.ties} (mean difference {signed_points(lead.value)} points{interval_text(lead.interval)})."
        )
    drawing = render(lambda canvas: _draw_accuracy(canvas, part, styles), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _main_lines(part: SplitFindings) -> list[SummaryRow]:
    """The lines drawn as marks, the most important last; the generator's is on top."""
    wanted = [part.of(PRETRAINED), part.of(FINETUNED), part.baseline, part.generated]
    return list(dict.fromkeys(row for row in wanted if row is not None)) or list(part.summary)


def _others(part: SplitFindings) -> list[SummaryRow]:
    main = _main_lines(part)
    return [row for row in part.summary if part.is_rival(row) and row not in main]


def _draw_accuracy(canvas: Canvas, part: SplitFindings, styles: dict[str, SourceStyle]) -> None:
    tasks = part.tasks
    labelled = len(tasks) <= MOST_LABELLED_TASKS
    row_height = 23.0 if labelled else 900 / len(tasks)
    names = [shorten(task, 13 if canvas.narrow else 30) for task in tasks]
    left = 16 + (6.6 * max(map(len, names)) if labelled else 0)
    lines, others = _main_lines(part), _others(part)
    columns = 2 if canvas.narrow else 5
    legend_height = 22 * -(-(len(lines) + bool(others)) // columns) + 10
    height = max(row_height * len(tasks), 40)
    canvas.resize(legend_height + height + 44)
    axes = canvas.axes(left, legend_height, canvas.width - left - 12, height)
    references = part.columns([part.of(PRETRAINED), part.of(FINETUNED)])
    place = {task: number for number, task in enumerate(tasks)}
    if references is not None:
        where = [place[task] for task in references.tasks]
        thickness = min(9, row_height / 2)
        axes.hlines(where, *(100 * references.accuracy), color=_BAND, linewidth=thickness, capstyle="round")
    size = min(7.5, 2 + row_height / 3)
    tick: dict[str, Any] = {
        "marker": "|",
        "color": _OTHER,
        "markersize": min(9.0, row_height / 2),
        "markeredgewidth": 1.0,
    }
    for row in others:
        _mark(axes, part, row, place, tick)
    _draw_sample_spread(axes, part, styles)
    for row in lines:
        _mark(axes, part, row, place, {"markersize": size, **marker(styles[row.source], row.condition)})
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    axes.set_yticks(range(len(tasks)) if labelled else [], names if labelled else [], parse_math=False)
    axes.set_xlabel("accuracy, %" if labelled else "accuracy, %; one line a task")
    axes.grid(axis="x")
    entries = [
        (short_label(row, canvas.narrow), marker(styles[row.source], row.condition))
        for row in part.summary
        if row in lines
    ]
    canvas.legend([*entries, *([("other sources", tick)] if others else [])], columns)


def _mark(axes: Axes, part: SplitFindings, row: SummaryRow, place: dict[str, int], look: dict[str, Any]) -> None:
    table = part.per_task(row)
    axes.plot([100 * value for value in table.values()], [place[task] for task in table], linestyle="none", **look)


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


def heat_map_figure(part: SplitFindings, name: str, heading: str) -> ReportFigure | None:
    """Accuracy minus pretrained of every source on every task; None where no source stands beside the pretrained."""
    pretrained = part.of(PRETRAINED)
    groups = [group.lines for group in grouped(part, [row for row in part.summary if row.source != PRETRAINED])]
    lines = [row for group in groups for row in group]
    if pretrained is None or not lines or len(part.tasks) < 2:
        return None
    title = f"{heading}Every source on every {part.split} task"
    harmed = {row: compare(part, row, pretrained) for row in lines}
    caption = (
        f"Columns are the {split_name(part.split, len(part.tasks))}, hardest for the pretrained model at the left; "
        "blue is better than the pretrained model, orange worse, in points. "
    )
    candidates = [row for row in lines if row is part.generated or part.is_rival(row)]
    known = [(row, found) for row in candidates if (found := harmed[row]) is not None]
    if known:
        least = min(found.losses / found.tasks for _, found in known)
        names = [row.label for row, found in known if found.losses / found.tasks <= least + TIE]
        fewest = f"Of the sources without labels, {listed(names[:3])}" + (" and others" if len(names) > 3 else "")
        verb = "is" if len(names) == 1 else "are"
        caption += f"{fewest} {verb} worse than the pretrained model on fewest tasks ({percentage(least, 0)})"
        own = harmed.get(part.generated) if part.generated is not None else None
        if own is not None and part.generated is not None and part.generated.label not in names:
            caption += f"; the generator is on {count(own.losses, 'task')}"
        caption += "."
    drawing = render(lambda canvas: _draw_heat_map(canvas, part, groups), title)
    return ReportFigure(name, title, caption, drawing)


def _draw_heat_map(canvas: Canvas, part: SplitFindings, groups: Sequence[Sequence[SummaryRow]]) -> None:
    lines = [row for group in groups for row in group]
    starts = [number + 0.4 * place for place, group in enumerate(groups) for number in _numbers(groups, place, group)]
    labels = [short_label(row, canvas.narrow) for row in lines]
    left = 14 + 6.3 * max(map(len, labels))
    top, row_height = 52 if canvas.narrow else 34, 15.0 if canvas.narrow else 19.0
    labelled = not canvas.narrow and len(part.tasks) <= MOST_LABELLED_TASKS
    names = [shorten(task, 16) for task in part.tasks]
    below = 12 + 6.2 * max(map(len, names)) if labelled else 26
    rows = starts[-1] + 1
    height = row_height * rows
    canvas.resize(top + height + below)
    width = canvas.width - left - 4
    axes = canvas.axes(left, top, width, height)
    axes.set_xlim(0, len(part.tasks))
    axes.set_ylim(rows, 0)
    before = part.accuracy[PRETRAINED, next(row.condition for row in part.summary if row.source == PRETRAINED)]
    gap = min(0.06, 0.6 * len(part.tasks) / width)
    cells: dict[int, list[tuple[float, float]]] = {}
    for down, row in zip(starts, lines, strict=True):
        table = part.per_task(row)
        for across, task in enumerate(part.tasks):
            if task in table and task in before:
                step = int(np.searchsorted(HEAT_EDGES, table[task] - before[task], side="right"))
                cells.setdefault(step, []).append((float(across), float(down)))
    for step, corners in sorted(cells.items()):
        # One path for all cells of a colour: hundreds of small ones would make the page heavy.
        axes.add_collection(PathCollection([_squares(corners, gap)], facecolors=[HEAT[step].light], linewidths=0))
    axes.set_yticks([start + 0.5 for start in starts], labels, parse_math=False, fontsize=10.5)
    ticks = [place + 0.5 for place in range(len(part.tasks))] if labelled else []
    axes.set_xticks(ticks, names if labelled else [], rotation=90, fontsize=10, parse_math=False)
    if not labelled:
        axes.set_xlabel("one column a task")
    _heat_legend(canvas, left, width)


def _numbers(groups: Sequence[Sequence[SummaryRow]], place: int, group: Sequence[SummaryRow]) -> range:
    """How many lines stand above each line of a group."""
    above = sum(len(other) for other in groups[:place])
    return range(above, above + len(group))


def _squares(corners: Sequence[tuple[float, float]], gap: float) -> Path:
    square = np.array([(gap, 0.05), (1 - gap, 0.05), (1 - gap, 0.95), (gap, 0.95), (gap, 0.05)])
    points = np.concatenate([square + corner for corner in corners])
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
    return Path(points, codes)


def _heat_legend(canvas: Canvas, left: float, width: float) -> None:
    start, length = (6.0, canvas.width - 12.0) if canvas.narrow else (left, min(width, 380.0))
    axes = canvas.axes(start, 4, length, 9)
    axes.set_xlim(0, len(HEAT))
    axes.set_ylim(0, 1)
    for step, colour in enumerate(HEAT):
        axes.fill_between([step + 0.03, step + 0.97], 0, 1, color=colour.light, linewidth=0)
    texts = [signed_points(edge).removesuffix(".0") for edge in HEAT_EDGES]
    axes.set_xticks(range(1, len(HEAT)), texts, fontsize=9.5)
    axes.set_yticks([])
    axes.tick_params(pad=1.5)
    if canvas.narrow:
        canvas.figure.text(6 / canvas.width, 1 - 43 / (canvas.figure.get_size_inches()[1] * 72),
                           "points more than the pretrained model", fontsize=10, color=_MUTED)  # fmt: skip
    else:
        height = canvas.figure.get_size_inches()[1] * 72
        canvas.figure.text((start + length + 14) / canvas.width, 1 - 14 / height,
                           "points more than the pretrained model", fontsize=10.5, color=_MUTED)  # fmt: skip
