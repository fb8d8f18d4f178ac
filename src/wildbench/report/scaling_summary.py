"""Curves of the recovered gain against the number of training tasks, and the number of tasks that a gain takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildbench.study_sections import Scaling, ScalingCell
from wildpdiff.evaluate.statistics import MINIMUM_HEADROOM, UNUSABLE_SHARE
from wildpdiff.evaluate.summary import GENERATED
from wildpdiff.report.wording import interval_text, percentage, seconds_text
from wildpdiff.rng import numpy_generator

RESAMPLES = 4_000
TAIL = 0.025
ENOUGH = 0.5
"""Share of the largest draw's gain."""


@dataclass(frozen=True)
class ScalingPoint:
    """Recovered gain of the cells of one size.

    Attributes:
        tasks: training tasks.
        gain: (mean accuracy − pretrained) / (fine-tuned − pretrained) over unseen tasks and seeds.
        interval: 95 % bootstrap percentile interval; tasks and seeds are both drawn again.
        accuracy: mean over tasks and seeds.
        seeds: draws of training tasks.
        seconds: of a fit, mean over seeds.
    """

    tasks: int
    gain: float | None
    interval: tuple[float, float] | None
    accuracy: float
    seeds: int
    seconds: float


@dataclass(frozen=True)
class ScalingCurve:
    """Points of one source, diversity and number of checkpoints, by rising number of tasks."""

    source: str
    diversity: str
    checkpoints: int
    points: tuple[ScalingPoint, ...]


def scaling_curves(scaling: Scaling) -> list[ScalingCurve]:
    """Every curve of the grid; sources in the order of the cells, most checkpoints first."""
    sources = list(dict.fromkeys(cell.source for cell in scaling.cells))
    keys = {(cell.source, cell.diversity, cell.checkpoints) for cell in scaling.cells}
    curves = []
    for source, diversity, checkpoints in sorted(keys, key=lambda key: (sources.index(key[0]), key[1], -key[2])):
        own = [cell for cell in scaling.cells
               if (cell.source, cell.diversity, cell.checkpoints) == (source, diversity, checkpoints)]  # fmt: skip
        sizes = sorted({cell.tasks for cell in own})
        points = tuple(_point(scaling, [cell for cell in own if cell.tasks == size]) for size in sizes)
        curves.append(ScalingCurve(source, diversity, checkpoints, points))
    return curves


def _point(scaling: Scaling, cells: Sequence[ScalingCell]) -> ScalingPoint:
    accuracy = np.array([cell.accuracy for cell in cells])
    before, top = np.array(scaling.pretrained), np.array(scaling.finetuned)
    headroom = float((top - before).mean())
    gain = None if headroom < MINIMUM_HEADROOM else float(accuracy.mean() - before.mean()) / headroom
    interval = None if gain is None else _interval(accuracy, before, top)
    seconds = float(np.mean([cell.seconds for cell in cells]))
    return ScalingPoint(cells[0].tasks, gain, interval, float(accuracy.mean()), len(cells), seconds)


def _interval(
    accuracy: Float[ndarray, "seeds t"], before: Float[ndarray, " t"], top: Float[ndarray, " t"]
) -> tuple[float, float] | None:
    """Tasks and seeds are drawn again, crossed, since every seed is scored on the same tasks."""
    seeds, tasks = accuracy.shape
    if tasks == 1:
        return None
    generator = numpy_generator(0, "bootstrap", "scaling")
    over_tasks = generator.multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES) / tasks
    over_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    own = ((over_seeds @ accuracy) * over_tasks).sum(axis=1)
    headroom = over_tasks @ (top - before)
    if (headroom < MINIMUM_HEADROOM).mean() > UNUSABLE_SHARE:
        return None
    ratio = (own - over_tasks @ before) / np.maximum(headroom, MINIMUM_HEADROOM)
    return float(np.quantile(ratio, TAIL)), float(np.quantile(ratio, 1 - TAIL))


def _first(curve: ScalingCurve, floor: float) -> ScalingPoint | None:
    """The smallest number of tasks from which on every interval lies above a gain."""
    found = None
    for point in reversed(curve.points):
        if point.interval is None or point.interval[0] <= floor:
            break
        found = point
    return found


def scaling_sentences(scaling: Scaling) -> list[str]:
    """Numbers of tasks with a gain surely above zero and above half of the largest draw's; empty without wide draws."""
    curves = [curve for curve in scaling_curves(scaling) if (curve.source, curve.diversity) == (GENERATED, "wide")]
    if not curves:
        return []
    main = max(curves, key=lambda curve: curve.checkpoints)
    last = main.points[-1]
    if last.gain is None:
        return ["Fine-tuning gains nothing on the unseen tasks of the scaling study: there is no gain to recover."]
    above, half = _first(main, 0.0), _first(main, ENOUGH * last.gain) if last.gain > 0 else None
    sizes = ["at no size" if point is None else f"from {point.tasks} tasks on" for point in (above, half)]
    return [
        f"{last.tasks} wide tasks recover {percentage(last.gain, 0)}{interval_text(last.interval, 0)} of fine-tuning's "
        f"gain (a fit takes {seconds_text(last.seconds)}); intervals lie above zero {sizes[0]}, above half of "
        f"that gain {sizes[1]}."
    ]
