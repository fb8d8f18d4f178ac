"""Verdict on memorisation from the points of the novelty plane: copies, averages, noise, or generalisation.

Zeng et al. 2025 (2506.07998) found that weight generators reproduce or interpolate their checkpoints, and lose to
noise and averaging. Each of these has a measurable mark:

- a **copy** lies no further from a stored checkpoint than the checkpoints of one run lie apart, or lies close to it
  in a direction in which runs differ and is no better: a copy through an imprecise decoder;
- an **average** lies on a weighted average of stored runs, or near the middle of them all and no better than it;
- **noise** on a checkpoint moves it where no two tasks differ, or further than its errors change, and does not make
  it better than that checkpoint;
- a source that does none of these and classifies unseen tasks better than the nearest checkpoint, than the mean of
  all, and than the nearest task's adapter, **generalises**.

On seen tasks a generator is meant to be near the task's own run, so the unseen tasks decide where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy import ndarray

from wildbench.sections import MEMORISATION, Memorisation, NoveltyPoint
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.statistics import Difference, paired_difference
from wildpdiff.evaluate.summary import GENERATED

VerdictKind = Literal["copies", "averages", "adds noise", "generalises", "undecided"]

COPY = 0.02
"""Distance, in units, up to which an adapter is a copy even where a run's checkpoints lie nearer together."""

JITTER = 0.1
"""Distance, in units, up to which lying within the scatter of one run makes a copy, whatever the accuracy."""

AVERAGE = 0.05
"""An adapter is an average where the nearest average is this share as far as the nearest checkpoint."""

MIDDLE = 0.5
"""Near the middle: this share as far from the mean of all checkpoints as fine-tuned adapters are."""

CLOSE = 1 / 3
"""Distance, in units, below which an adapter is a stored checkpoint moved a little."""

OUTSIDE = 0.85
"""Share of the way from the nearest checkpoint that lies outside the span of the runs, from which it is noise.
Isotropic noise in p values next to k directions has √(1 − k / p)."""

INFORMATIVE = 0.25
"""Largest share of the parameters that the runs may span for the span to tell noise: √(1 − .25) is above OUTSIDE."""

FLAT = 0.6
"""Noise changes errors less, for its distance, than this share of what the same distance between runs changes."""

NEAREST_TASK = "nearest task"


@dataclass(frozen=True)
class Verdict:
    """Verdict on a source, with its numbers in one sentence."""

    kind: VerdictKind
    sentence: str


@dataclass(frozen=True)
class _Part:
    """A source's points of one split, each the mean over samples and seeds of a task; one value a task.

    ``rivals`` are the accuracies, per task, of the alternatives, by name.
    """

    words: str
    accuracy: ndarray
    distance: ndarray
    overlap: ndarray
    average: ndarray
    span: ndarray
    middle: ndarray
    own: ndarray
    rivals: dict[str, ndarray]

    def ahead_of(self, rival: str, seed: int) -> Difference:
        return paired_difference(self.accuracy, self.rivals[rival], seed=seed)


NEAREST = "the nearest checkpoint"
MEAN = "the mean of all checkpoints"
RETRIEVED = "the nearest task's adapter"


def verdict(memorisation: Memorisation, *, source: str = "generated", condition: str = "own", seed: int = 0) -> Verdict:
    """Verdict on a source from its points, those of the nearest task and those of the checkpoints.

    Args:
        memorisation: as :class:`~wildbench.observers.novelty.NoveltyObserver` measured it.
        source: the source.
        condition: of its descriptions.
        seed: of the intervals.

    Raises:
        DataError: the source has no points.
    """
    mine = [point for point in memorisation.points if (point.source, point.condition) == (source, condition)]
    if not mine:
        raise DataError(f"There are no points of {source!r} with {condition} descriptions. Evaluate it with novelty.")
    seen = [point for point in mine if point.split == "seen"]
    new = [point for point in mine if point.split != "seen"]
    part = _part(memorisation, new or seen, "unseen" if new else "seen")
    kind, reason = _decide(memorisation, part, seed)
    if not new and kind == "generalises":
        kind = "undecided"
    name = "the generator" if source == GENERATED else f"“{source}”"
    sentence = f"On {part.words}, {_CLAIM[kind].format(name=name)}: {reason}"
    if not new:
        return Verdict(kind, f"{sentence}; these tasks trained it, and only unseen ones can show more than recall.")
    if seen:
        sentence += f"; {_recall(memorisation, _part(memorisation, seen, 'seen'))}"
    return Verdict(kind, f"{sentence}.")


def verdict_sentence(results: Results) -> str | None:
    """Sentence of the generator's verdict; None where the generator is not among the points."""
    found = MEMORISATION.of(results)
    if found is None or not any((point.source, point.condition) == (GENERATED, "own") for point in found.points):
        return None
    return verdict(found).sentence


_CLAIM: dict[VerdictKind, str] = {
    "copies": "{name} copies stored checkpoints",
    "averages": "{name} averages stored checkpoints",
    "adds noise": "{name} adds noise to stored checkpoints",
    "generalises": "{name} generalises",
    "undecided": "generalisation of {name} is undecided",
}


def _part(memorisation: Memorisation, points: Sequence[NoveltyPoint], split: str) -> _Part:
    tasks = list(dict.fromkeys((point.split, point.task) for point in points))
    owners = np.array([tasks.index((point.split, point.task)) for point in points])

    def mean(values: Sequence[float]) -> ndarray:
        total: ndarray = np.bincount(owners, np.array(values, float), len(tasks)) / np.bincount(owners)
        return total

    rivals = {NEAREST: mean([point.nearest_accuracy for point in points]),
              MEAN: mean([point.mean_accuracy for point in points])}  # fmt: skip
    retrieved: dict[tuple[str, str], list[float]] = {}
    for point in memorisation.points:
        if (point.source, point.condition) == (NEAREST_TASK, "own"):
            retrieved.setdefault((point.split, point.task), []).append(point.accuracy)
    if points[0].source != NEAREST_TASK and all(task in retrieved for task in tasks):
        rivals[RETRIEVED] = np.array([float(np.mean(retrieved[task])) for task in tasks])
    return _Part(
        f"{len(tasks)} {split} task{'' if len(tasks) == 1 else 's'}",
        mean([point.accuracy for point in points]),
        mean([point.distance for point in points]),
        mean([point.overlap for point in points]),
        mean([point.average_distance for point in points]),
        mean([point.span_distance for point in points]),
        mean([point.mean_distance for point in points]),
        mean([float(point.nearest_own) for point in points]),
        rivals,
    )


def _decide(memorisation: Memorisation, part: _Part, seed: int) -> tuple[VerdictKind, str]:
    """The kind and its reason; the geometry first, which needs no interval, then paired differences of accuracy."""
    distance, average = float(part.distance.mean()), float(part.average.mean())
    ahead = {rival: part.ahead_of(rival, seed) for rival in part.rivals}
    nearest = ahead[NEAREST]
    scale = "1 is from one fine-tuned run to the next"
    within = memorisation.within_run
    better = all(_better(difference) for difference in ahead.values())
    # Runs saved from their beginning spread wide; what is better than all that is stored is then no copy of it.
    if distance <= max(COPY, min(within, JITTER)) or (distance <= min(within, CLOSE) and not better):
        return "copies", (
            f"its adapters lie {_number(distance)} from the nearest one, where checkpoints of one run lie "
            f"{_number(within)} apart and {scale}"
        )
    if average <= AVERAGE * distance or (average <= min(within, MIDDLE * distance) and not better):
        return "averages", (
            f"its adapters lie {_number(distance)} from the nearest checkpoint ({scale}) but only {_number(average)} "
            f"from a weighted average of runs, and classify {_against(ahead, MEAN)} and {_against(ahead, NEAREST)}"
        )
    if better:
        return "generalises", (
            f"its adapters lie {_number(distance)} from the nearest stored checkpoint ({scale}) and "
            f"{_number(average)} from the nearest average of runs, and classify "
            + _joined([_against(ahead, rival) for rival in ahead])
        )
    middle = memorisation.checkpoint_mean_distance
    if middle and part.middle.mean() <= MIDDLE * np.mean(middle) and not _better(ahead[MEAN]):
        return "averages", (
            f"its adapters lie {_number(float(part.middle.mean()))} from the mean of all checkpoints, where fine-tuned "
            f"ones lie {_number(float(np.mean(middle)))}, and classify {_against(ahead, MEAN)}"
        )
    both = f"{_against(ahead, NEAREST)} and {_against(ahead, MEAN)}"
    if not (_better(nearest) and _better(ahead[MEAN])):
        marks = _noise(memorisation, part)
        if marks or (nearest.decided and nearest.value < 0):
            moved = f"its adapters lie {_number(distance)} from the nearest one ({scale})"
            return "adds noise", _joined([moved, *marks, f"they classify {both}"])
    if distance <= CLOSE and not _better(nearest):
        near = f"its adapters lie {_number(distance)} from the nearest one ({scale})"
        if _informative(memorisation):
            return "copies", f"{near}, moved where runs differ, and classify {_against(ahead, NEAREST)}"
        between = f"further than checkpoints of one run ({_number(within)}) but far nearer than another run"
        return "adds noise", f"{near}, {between}, and classify {both}"
    return "undecided", (
        f"its adapters are new, {_number(distance)} from the nearest stored checkpoint ({scale}), but classify "
        + _joined([_against(ahead, rival) for rival in ahead])
    )


def _better(difference: Difference) -> bool:
    return difference.decided and difference.value > 0


def _informative(memorisation: Memorisation) -> bool:
    """Whether the runs' directions are few enough among all that a random move would leave them."""
    return memorisation.directions <= INFORMATIVE * memorisation.parameters


def _noise(memorisation: Memorisation, part: _Part) -> list[str]:
    """Marks of noise among the points, in words."""
    marks = []
    outside = float(np.sqrt((part.span**2).mean() / (part.distance**2).mean()))
    if _informative(memorisation) and outside >= OUTSIDE:
        marks.append(f"{100 * min(outside, 1.0):.0f} % of that way leads where no two tasks differ")
    if memorisation.checkpoint_overlap:
        between = (1 - np.mean(memorisation.checkpoint_overlap)) / np.mean(memorisation.checkpoint_distance)
        changed = (1 - part.overlap.mean()) / part.distance.mean()
        if between and changed <= FLAT * between:
            share = 100 * changed / between
            marks.append(f"their errors change only {share:.0f} % as much as over the same way from run to run")
    return marks


def _against(ahead: dict[str, Difference], rival: str) -> str:
    """``4.1 points better than the mean of all checkpoints [2.9, 5.3]``."""
    difference = ahead[rival]
    words = "better" if difference.value > 0 else "worse"
    if difference.wins == difference.losses == 0:
        return f"exactly as well as {rival}"
    if difference.interval is None:
        return f"{_points(abs(difference.value))} points {words} than {rival} on the one task, undecided"
    ends = f"[{_points(difference.interval[0])}, {_points(difference.interval[1])}]"
    if difference.decided:
        return f"{_points(abs(difference.value))} points {words} than {rival} {ends}"
    return f"neither decidedly better nor worse than {rival} ({_points(difference.value)} points {ends})"


def _recall(memorisation: Memorisation, part: _Part) -> str:
    """Distance and own-run share on the tasks that trained it."""
    share, distance = float(part.own.mean()), float(part.distance.mean())
    copied = distance <= max(memorisation.within_run, COPY)
    near = f"on {part.words} {'they are copies, ' if copied else 'they lie '}{_number(distance)} from the nearest one"
    amount = f"{100 * share:.0f} %" if share > 0 else "none"
    if share > 0.5:
        return f"{near}, {amount} of them nearest to the task's own run, as expected of tasks that trained it"
    return f"{near}, {amount} of them nearest to the task's own run"


def _points(value: float) -> str:
    text = f"{100 * value:.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.1g}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
