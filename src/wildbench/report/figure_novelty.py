"""Figure: accuracy against novelty for every source (Zeng et al. 2025), in weights and in behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from wildbench.sections import MEMORISATION, Memorisation, NoveltyPoint
from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.summary import GENERATED, display_label
from wildpdiff.report.drawing import Canvas, ReportFigure, marker, render, shorten
from wildpdiff.report.figure_accuracy import abbreviated
from wildpdiff.report.findings import Key
from wildpdiff.report.labels import Label, place_labels
from wildpdiff.report.palette import THEME, SourceStyle
from wildpdiff.report.wording import number, percentage

_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light
_BAND = THEME["band"].light

SMALLEST = 0.01
"""Distances below are drawn here: a logarithm has no zero, and a copy is a copy."""
_TICKS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

Measure = Literal["distance", "overlap"]


@dataclass(frozen=True)
class NoveltyMean:
    """A source in the plane: means over tasks of the means over samples and seeds."""

    source: str
    condition: str
    accuracy: float
    distance: float
    overlap: float


def novelty_means(memorisation: Memorisation, split: str) -> list[NoveltyMean]:
    """Every source and condition of a split, in the order of the points."""
    by_key: dict[Key, dict[str, list[NoveltyPoint]]] = {}
    for point in memorisation.points:
        if point.split == split:
            by_key.setdefault((point.source, point.condition), {}).setdefault(point.task, []).append(point)
    means = []
    for (source, condition), tasks in by_key.items():
        table = [
            np.mean([(point.accuracy, point.distance, point.overlap) for point in points], axis=0)
            for points in tasks.values()
        ]
        accuracy, distance, overlap = (float(value) for value in np.mean(table, axis=0))
        means.append(NoveltyMean(source, condition, accuracy, distance, overlap))
    return means


def novelty_figure(
    results: Results, styles: Mapping[str, SourceStyle], verdict: str | None, name: str, heading: str
) -> ReportFigure | None:
    """The planes of unseen and of seen tasks; None where novelty was not measured."""
    found = MEMORISATION.of(results)
    if found is None or not found.points:
        return None
    measured = {point.split for point in found.points}
    splits = [split for split in ("unseen", "seen") if split in measured] or sorted(measured)[:2]
    title = f"{heading}Accuracy and novelty"
    caption = f"{verdict} " if verdict else ""
    caption += (
        "One number a source, mean over tasks; small blue dots are the generated adapters of single tasks. Left: "
        "distance to the nearest stored checkpoint; 1 is how far a fine-tuned adapter lies from the nearest checkpoint "
        "of another run, the grey band ends at the distance within a run, where copies lie. Right: the largest overlap "
        "of the wrong predictions with those of a stored checkpoint; lower is newer behaviour. Good and new is the "
        "upper right on the left, the upper left on the right. "
    )
    for split in splits:
        caption += _measured(found, split)
    order = [(row.source, row.condition) for row in results.summary]
    keys = dict.fromkeys(
        sorted(
            {(mean.source, mean.condition) for split in splits for mean in novelty_means(found, split)},
            key=lambda key: order.index(key) if key in order else len(order),
        )
    )
    drawing = render(lambda canvas: _draw(canvas, found, splits, list(keys), styles), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _measured(found: Memorisation, split: str) -> str:
    own = next(
        (mean for mean in novelty_means(found, split) if (mean.source, mean.condition) == (GENERATED, "own")), None
    )
    if own is None:
        return ""
    text = f"On {split} tasks generated adapters lie {number(own.distance)} from the nearest checkpoint and share "
    text += f"{percentage(own.overlap, 0)} of their errors with the most alike one"
    if found.checkpoint_overlap:
        text += f" (checkpoints of other runs: {percentage(float(np.mean(found.checkpoint_overlap)), 0)})"
    return text + ". "


def _draw(
    canvas: Canvas,
    found: Memorisation,
    splits: Sequence[str],
    keys: Sequence[Key],
    styles: Mapping[str, SourceStyle],
) -> None:
    height, below, left, above = (240, 52, 46, 26) if canvas.narrow else (320, 54, 48, 28)
    columns = 2 if canvas.narrow else 4
    key_height = 17.0 * -(-len(keys) // columns) + 12
    measures: tuple[Measure, ...] = ("distance", "overlap")
    rows = len(splits) * (2 if canvas.narrow else 1)
    canvas.resize(rows * (above + height + below) + key_height)
    width = canvas.width - left - 12 if canvas.narrow else (canvas.width - 2 * left - 30) / 2
    for down, split in enumerate(splits):
        for across, measure in enumerate(measures):
            row = down * 2 + across if canvas.narrow else down
            start = left if canvas.narrow else left + across * (width + left + 16)
            axes = canvas.axes(start, above + row * (above + height + below), width, height)
            axes.set_title(f"{split} tasks", loc="left", fontsize=12.5, fontweight="bold", color=_TEXT, pad=8)
            _draw_plane(canvas, axes, found, split, measure, keys, styles)
    _draw_key(canvas, keys, styles, columns, key_height)


def _place(value: float, measure: Measure) -> float:
    return float(np.log10(max(value, SMALLEST))) if measure == "distance" else 100 * value


def _draw_plane(
    canvas: Canvas,
    axes: Axes,
    found: Memorisation,
    split: str,
    measure: Measure,
    keys: Sequence[Key],
    styles: Mapping[str, SourceStyle],
) -> None:
    means = novelty_means(found, split)
    cloud = _cloud(found, split)
    spots = [(_place(getattr(mean, measure), measure), 100 * mean.accuracy) for mean in means]
    dots = [(_place(getattr(mean, measure), measure), 100 * mean.accuracy) for mean in cloud]
    _limits(axes, spots, dots, measure)
    if measure == "distance":
        axes.axvspan(axes.get_xlim()[0], _place(found.within_run, measure), color=_BAND, linewidth=0, zorder=0)
        axes.axvline(0, color=_MUTED, linewidth=1.2, dashes=(3, 3))
        low, high = axes.get_xlim()
        ticks = [tick for tick in _TICKS if low <= np.log10(tick) <= high]
        axes.set_xticks([float(np.log10(tick)) for tick in ticks], [f"≤ {tick:g}" if tick == SMALLEST else f"{tick:g}"
                                                                    for tick in ticks])  # fmt: skip
    axes.grid()
    colour = styles[GENERATED].colour.light if GENERATED in styles else _MUTED
    axes.plot(*np.array(dots).reshape(-1, 2).T, linestyle="none", marker=".", markersize=4, color=colour, alpha=0.5)
    labels = []
    for mean, (x, y) in zip(means, spots, strict=True):
        style = styles[mean.source]
        size = 8.5 if (mean.source, mean.condition) == (GENERATED, "own") else 6.5
        axes.plot([x], [y], linestyle="none", markersize=size, **marker(style, mean.condition))
        text = str(1 + list(keys).index((mean.source, mean.condition)))
        labels.append(Label(text, x, y, style.colour.light))
    place_labels(canvas, axes, labels, spots, size=10.5)
    axes.tick_params(axis="y", labelcolor=_MUTED)
    axes.set_xlabel("distance to the nearest checkpoint" if measure == "distance" else "overlap of errors, %")
    axes.set_ylabel("accuracy, %")


def _cloud(found: Memorisation, split: str) -> list[NoveltyMean]:
    """The generator's adapters, one mean a task."""
    own = [point for point in found.points if (point.source, point.condition) == (GENERATED, "own")]
    tasks: dict[str, list[NoveltyPoint]] = {}
    for point in own:
        if point.split == split:
            tasks.setdefault(point.task, []).append(point)
    return [
        NoveltyMean(GENERATED, "own", *(float(np.mean([getattr(point, name) for point in points]))
                                        for name in ("accuracy", "distance", "overlap")))
        for points in tasks.values()
    ]  # fmt: skip


def _limits(
    axes: Axes, spots: Sequence[tuple[float, float]], dots: Sequence[tuple[float, float]], measure: Measure
) -> None:
    """The sources' means decide; single tasks outside are cut off."""
    xs = [x for x, _ in spots] + ([0.0] if measure == "distance" else [])
    ys = [y for _, y in spots]
    for values, limit in ((xs, axes.set_xlim), (ys, axes.set_ylim)):
        edge = 0.09 * max(max(values) - min(values), 0.2)
        limit(min(values) - edge, max(values) + edge)


def _draw_key(
    canvas: Canvas, keys: Sequence[Key], styles: Mapping[str, SourceStyle], columns: int, height: float
) -> None:
    total = canvas.figure.get_size_inches()[1] * 72
    lines = -(-len(keys) // columns)
    width = (canvas.width - 8) / columns
    for place, (source, condition) in enumerate(keys):
        x, y = 8 + width * (place // lines), total - height + 14 + 17 * (place % lines)
        label = display_label(source, condition)
        text = f"{place + 1}  {shorten(abbreviated(label), 26) if canvas.narrow else shorten(label, 36)}"
        colour = styles[source].colour.light
        canvas.figure.text(x / canvas.width, 1 - y / total, text, fontsize=10.5, color=colour, va="center",
                           parse_math=False)  # fmt: skip
