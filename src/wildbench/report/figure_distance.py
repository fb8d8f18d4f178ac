"""Figure: what generation gains as a function of how far a task's description lies from the seen ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildbench.interpolation.rank_correlation import spearman
from wildbench.sections import DISTANCES
from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.statistics import Gain, mean_interval, recovered_gain
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import Canvas, ReportFigure, render
from wildpdiff.report.findings import SplitFindings
from wildpdiff.report.palette import THEME, SourceStyle
from wildpdiff.report.wording import count, interval_text, listed, number, percentage

_MUTED = THEME["muted"].light
_OTHER = THEME["other"].light
_TEXT = THEME["text"].light
_MARKS = ("o", "^", "s", "v", "P", "X")
MOST_BINS = 5
FEWEST_IN_BIN = 5


@dataclass(frozen=True)
class _Task:
    """A task that the generator was not fitted to."""

    split: str
    distance: float
    pretrained: float
    generated: float
    finetuned: float


def distance_figure(
    results: Results, parts: Sequence[SplitFindings], styles: dict[str, SourceStyle], name: str, heading: str
) -> ReportFigure | None:
    """Gain of the generator against condition distance over all tasks that it was not fitted to, with binned means."""
    tasks = _tasks(results, parts)
    if len(tasks) < 2 * FEWEST_IN_BIN:
        return None
    title = f"{heading}Gain against the distance of the description"
    distance = np.array([task.distance for task in tasks])
    lost = np.array([task.finetuned - task.generated for task in tasks])
    splits = listed(list(dict.fromkeys(task.split for task in tasks)))
    caption = (
        f"One mark a task ({count(len(tasks), 'task')}, {splits}): how far its description lies from the nearest "
        "other seen task's (1 is the mean distance of two seen tasks), and what the generated adapter gains over the "
        "pretrained model. Bars are means of tasks of like distance, with 95 % intervals. "
    )
    near, far = _gain(tasks, distance <= np.median(distance)), _gain(tasks, distance > np.median(distance))
    correlation = spearman(distance, lost)
    if near is not None and near.value is not None and far is not None and far.value is not None:
        caption += (
            f"The nearer half recovers {percentage(near.value, 0)}{interval_text(near.interval, 0)} of fine-tuning's "
            f"gain, the farther half {percentage(far.value, 0)}{interval_text(far.interval, 0)}. "
        )
    if correlation is not None and correlation.interval is not None:
        low, high = correlation.interval
        verdict = (
            "the farther the description, the more is left to fine-tuning"
            if low > 0
            else "the farther the description, the less is left to fine-tuning"
            if high < 0
            else "within this range, distance does not tell how much is left to fine-tuning"
        )
        caption += f"Rank correlation of distance with what fine-tuning has more: {number(correlation.value)} "
        caption += f"[{number(low)}, {number(high)}]: {verdict}."
    drawing = render(lambda canvas: _draw(canvas, tasks, styles), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _tasks(results: Results, parts: Sequence[SplitFindings]) -> list[_Task]:
    distances = {(entry.split, entry.task): entry.distance for entry in DISTANCES.of(results) or ()}
    found = []
    for part in parts:
        columns = part.columns([part.of(PRETRAINED), part.generated, part.of(FINETUNED)])
        if part.split == "seen" or columns is None:
            continue
        for task, before, own, top in zip(columns.tasks, *columns.accuracy, strict=True):
            if (part.split, task) in distances:
                place = distances[part.split, task]
                found.append(_Task(part.split, place, float(before), float(own), float(top)))
    return found


def _gain(tasks: Sequence[_Task], chosen: Float[ndarray, " t"] | ndarray) -> Gain | None:
    kept = [task for task, keep in zip(tasks, chosen, strict=True) if keep]
    if not kept:
        return None
    own, before, top = ([getattr(task, name) for task in kept] for name in ("generated", "pretrained", "finetuned"))
    return recovered_gain(np.array(own), np.array(before), np.array(top))


def _draw(canvas: Canvas, tasks: Sequence[_Task], styles: dict[str, SourceStyle]) -> None:
    left, height = 52, 270 if canvas.narrow else 340
    splits = list(dict.fromkeys(task.split for task in tasks))
    columns = 2 if canvas.narrow else 5
    top = 12 + 22 * -(-(len(splits) + 1) // columns)
    canvas.resize(top + height + 48)
    axes = canvas.axes(left, top, canvas.width - left - 14, height)
    colour = styles[GENERATED].colour.light
    looks = []
    for split, shape in zip(splits, _MARKS * len(splits), strict=False):
        chosen = [task for task in tasks if task.split == split]
        look: dict[str, Any] = {
            "marker": shape,
            "color": colour,
            "markersize": 5.5,
            "alpha": 0.55,
            "markeredgewidth": 0,
        }
        gains = [100 * (task.generated - task.pretrained) for task in chosen]
        axes.plot([task.distance for task in chosen], gains, linestyle="none", **look)
        looks.append((f"{split} tasks", look))
    axes.axhline(0, color=_MUTED, linewidth=1.2)
    distance = np.array([task.distance for task in tasks])
    gain = np.array([task.generated - task.pretrained for task in tasks])
    bins = max(2, min(MOST_BINS, len(tasks) // FEWEST_IN_BIN))
    order = np.argsort(distance, kind="stable")
    for chunk in np.array_split(order, bins):
        estimate = mean_interval(gain[chunk])
        low, high, middle = distance[chunk].min(), distance[chunk].max(), float(np.median(distance[chunk]))
        axes.plot([low, high], [100 * estimate.value] * 2, color=_TEXT, linewidth=2.4, solid_capstyle="butt")
        if estimate.interval is not None:
            axes.plot([middle] * 2, [100 * end for end in estimate.interval], color=_TEXT, linewidth=1.2)
    axes.grid()
    axes.tick_params(axis="y", labelcolor=_MUTED)
    axes.set_xlabel("distance of the description to the nearest seen one")
    axes.set_ylabel("generated − pretrained, points")
    mean: dict[str, Any] = {"linestyle": "-", "color": _TEXT, "linewidth": 2.4, "marker": "none"}
    canvas.legend([*looks, ("mean of like tasks", mean)], columns)
