"""Figure: recovered gain on fixed unseen tasks against the number of training tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from wildbench.report.scaling_summary import ScalingCurve, scaling_curves, scaling_sentences
from wildbench.study_sections import Scaling
from wildpdiff.evaluate.summary import GENERATED
from wildpdiff.report.drawing import Canvas, ReportFigure, render
from wildpdiff.report.palette import THEME, family_colour
from wildpdiff.report.wording import count

_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light
_BLUE = THEME["accent"].light
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
_RIVAL_COLOURS = (
    family_colour("description").light,
    family_colour("no description").light,
    family_colour("unlabelled images").light,
    family_colour("labels").light,
    family_colour("checkpoints").light,
)
_RIVAL_MARKERS = ("s", "^", "v", "P", "X")
GAIN_LIMITS = (-150.0, 200.0)


def scaling_figure(scaling: Scaling, name: str, heading: str) -> ReportFigure | None:
    """One panel for wide and one for narrow draws; None without a cell of the generator."""
    curves = scaling_curves(scaling)
    if not any(curve.source == GENERATED for curve in curves):
        return None
    title = f"{heading}Gain against the number of training tasks"
    seeds = max(point.seeds for curve in curves for point in curve.points)
    most = max(curve.checkpoints for curve in curves)
    rivals = any(curve.source != GENERATED for curve in curves)
    caption = " ".join(scaling_sentences(scaling)) + (
        f" Gain on the same {count(len(scaling.unseen), 'unseen task')} throughout; bars are 95 % intervals over tasks "
        f"and {count(seeds, 'draw')} of the training tasks. Blue is the generator, its dashes tell how many "
        "checkpoints of each task it was trained on"
    )
    caption += f"; the others were fitted to the same tasks, {count(most, 'checkpoint')} each." if rivals else "."
    drawing = render(lambda canvas: _draw(canvas, curves), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _draw(canvas: Canvas, curves: Sequence[ScalingCurve]) -> None:
    panels = [diversity for diversity in ("wide", "narrow") if any(curve.diversity == diversity for curve in curves)]
    depths = sorted({curve.checkpoints for curve in curves if curve.source == GENERATED}, reverse=True)
    rivals = list(dict.fromkeys(curve.source for curve in curves if curve.source != GENERATED))
    entries = _entries(depths, rivals)
    columns = 1 if canvas.narrow else 3
    top = 22 * -(-len(entries) // columns) + 44
    height, below, left = (220, 66, 62) if canvas.narrow else (300, 56, 64)
    rows = len(panels) if canvas.narrow else 1
    canvas.resize(top + rows * (height + below))
    across = 1 if canvas.narrow else len(panels)
    width = (canvas.width - 14 - left * across) / across
    sizes = sorted({point.tasks for curve in curves for point in curve.points})
    ends = [
        100 * end
        for curve in curves
        for point in curve.points
        if point.gain is not None
        for end in (point.gain, *((point.interval or ()) if curve.source == GENERATED else ()))
    ]
    low = max(GAIN_LIMITS[0], min(0.0, *ends, 0.0)) - 8
    high = min(GAIN_LIMITS[1], max(100.0, *ends, 100.0)) + 8
    for place, diversity in enumerate(panels):
        start = left if canvas.narrow else left + place * (width + left)
        axes = canvas.axes(start, top + (place * (height + below) if canvas.narrow else 0), width, height)
        axes.set_xscale("log")
        axes.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
        axes.set_ylim(low, high)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.grid()
        for reference in (0, 100):
            axes.axhline(reference, color=_MUTED, linewidth=1.2, dashes=(3, 3))
        words = "drawn from all tasks (wide)" if diversity == "wide" else "drawn from one half (narrow)"
        axes.set_title(words, loc="left", fontsize=12.5, fontweight="bold", color=_TEXT, pad=8)
        _draw_panel(axes, [curve for curve in curves if curve.diversity == diversity], depths, rivals)
        axes.tick_params(axis="y", labelcolor=_MUTED)
        axes.set_xlabel("training tasks")
        if canvas.narrow or place == 0:
            axes.set_ylabel("recovered gain, %")
    canvas.legend(entries, columns, line=True)


def _entries(depths: Sequence[int], rivals: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = [
        (f"generated, {count(depth, 'checkpoint')} a task", _own_look(number)) for number, depth in enumerate(depths)
    ]
    return lines + [(source, _rival_look(number)) for number, source in enumerate(rivals)]


def _own_look(number: int) -> dict[str, Any]:
    line = _LINES[number % len(_LINES)]
    return {"color": _BLUE, "linestyle": line, "marker": "o", "linewidth": 2.0, "markersize": 5}


def _rival_look(number: int) -> dict[str, Any]:
    turn = number % len(_RIVAL_COLOURS)
    return {"color": _RIVAL_COLOURS[turn], "linestyle": "-", "marker": _RIVAL_MARKERS[turn], "linewidth": 1.1,
            "markersize": 4.5}  # fmt: skip


def _draw_panel(axes: Axes, curves: Sequence[ScalingCurve], depths: Sequence[int], rivals: Sequence[str]) -> None:
    """The generator's curves over those of the others, which are drawn at the most checkpoints only."""
    most = {source: max(curve.checkpoints for curve in curves if curve.source == source)
            for source in {curve.source for curve in curves}}  # fmt: skip
    for curve in sorted(curves, key=lambda curve: curve.source == GENERATED):
        known = [point for point in curve.points if point.gain is not None]
        if not known or (curve.source != GENERATED and curve.checkpoints != most[curve.source]):
            continue
        own = curve.source == GENERATED
        number = depths.index(curve.checkpoints) if own else rivals.index(curve.source)
        shift = 1 + 0.025 * (number - (len(depths) - 1) / 2) if own else 1.0
        x = [point.tasks * shift for point in known]
        gains = np.clip([100 * (point.gain or 0.0) for point in known], *GAIN_LIMITS)
        if own:
            for place, point in zip(x, known, strict=True):
                if point.interval is not None:
                    ends = np.clip([100 * end for end in point.interval], *GAIN_LIMITS)
                    axes.plot([place] * 2, ends, color=_BLUE, linewidth=1.0, alpha=0.6)
        axes.plot(x, gains, **(_own_look(number) if own else _rival_look(number)))
