"""Figure: where fine-tuned and generated adapters lie among each other, on the seen tasks' first two components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wildbench.sections import LATENT_MAP, LatentMap, LatentPoint
from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.summary import FINETUNED, GENERATED
from wildpdiff.report.drawing import Canvas, ReportFigure, render
from wildpdiff.report.palette import THEME, SourceStyle
from wildpdiff.report.wording import count, number, percentage

_MUTED = THEME["muted"].light
_OTHER = THEME["other"].light


def latent_map_figure(
    results: Results, styles: Mapping[str, SourceStyle], name: str, heading: str
) -> ReportFigure | None:
    """Latents of seen, unseen and generated adapters in a plane; None where they were not recorded."""
    found = LATENT_MAP.of(results)
    if found is None or not found.points:
        return None
    title = f"{heading}Map of the latents"
    first, second = found.explained
    new = "unseen" if any(point.split == "unseen" for point in found.points) else "seen"
    caption = (
        f"Mean adapter of each task on the first two principal components of the seen tasks' fine-tuned ones "
        f"({percentage(first, 0)} and {percentage(second, 0)} of their variance"
        f"{', so most differences do not show here' if first + second < 0.5 else ''}). A thin line joins the generated "
        f"and the fine-tuned adapter of one {new} task. "
    )
    caption += _nearness(found, new)
    drawing = render(lambda canvas: _draw(canvas, found, new, styles), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _of(found: LatentMap, split: str, kind: str) -> dict[str, LatentPoint]:
    return {point.task: point for point in found.points if (point.split, point.kind) == (split, kind)}


def _nearness(found: LatentMap, split: str) -> str:
    """For how many tasks the generated adapter is nearer to its own fine-tuned one than to every other task's."""
    tuned, made = _of(found, split, "fine-tuned"), _of(found, split, "generated")
    others = [(point.task, point.x, point.y) for point in found.points if point.kind == "fine-tuned"]
    shared = [task for task in made if task in tuned]
    if not shared or len(others) < 2:
        return ""
    own_distances, other_distances = [], []
    for task in shared:
        here = np.array([made[task].x, made[task].y])
        own_distances.append(float(np.hypot(*(here - (tuned[task].x, tuned[task].y)))))
        apart = [float(np.hypot(here[0] - x, here[1] - y)) for other, x, y in others if other != task]
        other_distances.append(float(np.median(apart)))
    own, other = float(np.median(own_distances)), float(np.median(other_distances))
    if other == 0:
        return ""
    ratio = own / other
    verdict = (
        "generated adapters follow their own tasks"
        if ratio < 0.5
        else "generated adapters follow their own tasks only in part"
        if ratio < 0.9
        else "in this plane generated adapters do not follow their own tasks"
    )
    return (
        f"Over {count(len(shared), f'{split} task')}, the median distance to the own fine-tuned adapter is "
        f"{number(ratio)} of that to another task's: {verdict}."
    )


def _draw(canvas: Canvas, found: LatentMap, new: str, styles: Mapping[str, SourceStyle]) -> None:
    height, top = (300, 54) if canvas.narrow else (420, 34)
    canvas.resize(top + height + 46)
    left = 46
    axes = canvas.axes(left, top, canvas.width - left - 12, height)
    blue, dark = styles[GENERATED].colour.light, styles[FINETUNED].colour.light
    seen_tuned: dict[str, Any] = {"marker": "o", "color": _OTHER, "markersize": 4.5, "markeredgewidth": 0}
    seen_made: dict[str, Any] = {"marker": "o", "color": blue, "markersize": 4.5, "mew": 0, "alpha": 0.45}
    tuned_look: dict[str, Any] = {"marker": "D", "color": dark, "markersize": 5.5, "markeredgewidth": 0}
    made_look: dict[str, Any] = {"marker": "o", "color": blue, "markersize": 6.5, "markeredgewidth": 0}
    entries = []
    if new == "unseen":
        for kind, look in (("fine-tuned", seen_tuned), ("generated", seen_made)):
            points = list(_of(found, "seen", kind).values())
            if points:
                axes.plot(*_columns(points), linestyle="none", **look)
                entries.append((f"seen, {kind}", look))
    tuned, made = _of(found, new, "fine-tuned"), _of(found, new, "generated")
    for task in made:
        if task in tuned:
            ends = _columns([tuned[task], made[task]])
            axes.plot(*ends, color=_MUTED, linewidth=0.8)
    for table, look, kind in ((tuned, tuned_look, "fine-tuned"), (made, made_look, "generated")):
        if table:
            axes.plot(*_columns(list(table.values())), linestyle="none", **look)
            entries.append((f"{new}, {kind}", look))
    axes.grid()
    axes.margins(0.06)
    axes.tick_params(axis="y", labelcolor=_MUTED)
    axes.set_xlabel(f"first component ({percentage(found.explained[0], 0)} of the variance)")
    axes.set_ylabel(f"second component ({percentage(found.explained[1], 0)})")
    canvas.legend(entries, 2 if canvas.narrow else 4)


def _columns(points: Sequence[LatentPoint]) -> tuple[list[float], list[float]]:
    return [point.x for point in points], [point.y for point in points]
