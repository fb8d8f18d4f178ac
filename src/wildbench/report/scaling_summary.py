"""How many training tasks does a user need? Curves and the answer in words, from the scaling section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildbench.study_sections import Scaling, ScalingCell
from wildpdiff.evaluate.statistics import MINIMUM_HEADROOM, UNUSABLE_SHARE
from wildpdiff.evaluate.summary import GENERATED
from wildpdiff.report.wording import count, interval_text, listed, percentage, seconds_text

RESAMPLES = 4_000
TAIL = 0.025
ENOUGH = 0.5
"""Share of the largest draw's gain at which half of what can be had is reached."""


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
    # Imported late, as in statistics.py.
    from wildpdiff.rng import numpy_generator

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
    """How many tasks a user needs, what failure looks like before that, and what diversity and checkpoints add."""
    curves = [curve for curve in scaling_curves(scaling) if curve.source == GENERATED]
    wide = [curve for curve in curves if curve.diversity == "wide"]
    if not wide:
        return []
    main = max(wide, key=lambda curve: curve.checkpoints)
    last = main.points[-1]
    if last.gain is None:
        return ["Fine-tuning gains nothing on the unseen tasks of the scaling study: there is no gain to recover."]
    sentences = [_need(main, last), _failure(main)]
    narrow = [curve for curve in curves if curve.diversity == "narrow" and curve.checkpoints == main.checkpoints]
    if narrow:
        sentences.append(_diversity(main, narrow[0]))
    fewest = min(wide, key=lambda curve: curve.checkpoints)
    shared = [point for point in fewest.points if point.tasks == last.tasks]
    if fewest is not main and shared and shared[0].gain is not None:
        sentences.append(
            f"With {count(fewest.checkpoints, 'checkpoint')} a task instead of {main.checkpoints}, "
            f"{last.tasks} tasks recover {percentage(shared[0].gain, 0)}{interval_text(shared[0].interval, 0)}."
        )
    return [text for text in sentences if text]


def _need(main: ScalingCurve, last: ScalingPoint) -> str:
    gain = last.gain or 0.0
    above, half = _first(main, 0.0), _first(main, ENOUGH * gain)
    top = (
        f"{last.tasks} wide tasks recover {percentage(gain, 0)}{interval_text(last.interval, 0)} of fine-tuning's gain"
    )
    if above is None:
        return f"A user needs more than {last.tasks} tasks: {top}, and no size is surely above the pretrained model."
    text = f"A user needs about {above.tasks} varied tasks for a gain that is surely above zero"
    if gain > 0 and half is not None:
        text += f" and {half.tasks} for surely more than half of what {last.tasks} give"
    elif gain > 0:
        text += f"; for surely more than half of what {last.tasks} give, more than these are needed"
    return f"{text}: {top} (a fit takes {seconds_text(last.seconds)})."


def _failure(main: ScalingCurve) -> str:
    above = _first(main, 0.0)
    early = [point for point in main.points if above is None or point.tasks < above.tasks]
    early = [point for point in early if point.gain is not None]
    if not early:
        return f"Even {main.points[0].tasks} tasks are enough for that; no failure was seen." if above else ""
    told = [
        f"{point.tasks} tasks {percentage(point.gain or 0.0, 0)}{interval_text(point.interval, 0)}" for point in early
    ]
    harmful = [point for point in early if (point.gain or 0.0) < 0]
    looks = "harm: adapters worse than none" if harmful else "no sure gain"
    return f"Below that, failure looks like {looks} ({listed(told)})."


def _diversity(wide: ScalingCurve, narrow: ScalingCurve) -> str:
    shared = sorted({point.tasks for point in wide.points} & {point.tasks for point in narrow.points})
    if not shared:
        return ""
    size = shared[-1]
    one, other = (next(point for point in curve.points if point.tasks == size) for curve in (wide, narrow))
    if one.gain is None or other.gain is None:
        return ""
    return (
        f"Drawn from one half of the tasks instead of all, {size} tasks recover {percentage(other.gain, 0)}"
        f"{interval_text(other.interval, 0)} instead of {percentage(one.gain, 0)}{interval_text(one.interval, 0)}."
    )
