"""Comparison of an adapter with the pretrained model on a user's labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.camera_traps.exposure import with_times
from wildpdiff.errors import DataError
from wildpdiff.evaluate.statistics import Interval, interval_ends
from wildpdiff.prediction import burst_numbers, class_probabilities, text_probabilities
from wildpdiff.records import encode
from wildpdiff.refine.labels import LabelledFiles
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.task import title_of
from wildpdiff.texts import TextTask

RESAMPLES = 2000
PART = 100
"""Resamples at a time: with many bursts, all of them would take too much memory."""

FEW = 10
"""Bursts below which an interval is no more than a hint."""


@dataclass(frozen=True)
class Lead(Interval):
    """The adapter's score minus the pretrained model's, with its 95 % interval."""

    value: float


@dataclass(frozen=True)
class ClassScore:
    """Right answers on the pictures of one class: recalls as shares of its pictures."""

    name: str
    pictures: int
    adapter: float
    pretrained: float


@dataclass(frozen=True)
class Check:
    """Scores of an adapter and of the pretrained model on the same pictures or other examples, 0 to 1.

    Attributes:
        units: independent units that the intervals are over: bursts, or pictures where no burst is known.
        bursts: whether units are bursts of several pictures.
        skipped: pictures that could not be read.
        accuracy, macro_f1: of (adapter, pretrained); macro-F1 is the mean of F1 over the classes that labels show.
        classes: by class, the most frequent first.
        kind: one example, as sentences name it.
    """

    pictures: int
    units: int
    bursts: bool
    skipped: int
    accuracy: tuple[float, float]
    macro_f1: tuple[float, float]
    accuracy_lead: Lead
    macro_f1_lead: Lead
    classes: tuple[ClassScore, ...]
    kind: str = "picture"

    @property
    def better(self) -> str:
        """``adapter`` or ``pretrained`` where the interval of the accuracies' difference excludes zero, else empty."""
        ends = self.accuracy_lead.interval
        if ends is None:
            return ""
        return "adapter" if ends[0] > 0 else "pretrained" if ends[1] < 0 else ""

    @property
    def verdict(self) -> str:
        """One sentence: which of the two to use, and how sure that is."""
        lead, ends = 100 * self.accuracy_lead.value, self.accuracy_lead.interval
        unit = "burst" if self.bursts else self.kind
        of_each = f" of each {unit}" if unit != self.kind else ""
        over = f"over {self.units} {unit}{'s' if self.units != 1 else ''}"
        if ends is None:
            more = f"pictures of at least {FEW} bursts" if self.kind == "picture" else f"at least {FEW}"
            return f"One {unit} decides nothing: label {more}."
        if ends == (0.0, 0.0):
            return f"No difference: both models are right on as many {self.kind}s{of_each}, {over}."
        found = f"{lead:+.1f} points of accuracy, 95 % interval {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f} {over}"
        few = f" Few {unit}s: label more before relying on it." if self.units < FEW else ""
        if self.better == "adapter":
            return f"Use the adapter: {found}.{few}"
        if self.better == "pretrained":
            return f"Keep the pretrained model: the adapter is {found}.{few}"
        return f"Not decided: {found}. Label more {self.kind}s, or keep the pretrained model.{few}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**encode(self), "better": self.better, "verdict": self.verdict}


def check_adapter(
    adapter: Adapter,
    backbone: Backbone,
    labelled: LabelledFiles,
    *,
    seed: int = 0,
    skipped: Callable[[DataError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Check:
    """Score an adapter and the pretrained model on labelled pictures.

    Args:
        seed: of the resamples.
        skipped: called with the error of each file that cannot be read, which is then left out.
        progress: called with (pictures read, in all).

    Raises:
        AdapterMismatchError, ArtifactError, DataError: as :func:`wildpdiff.prediction.class_probabilities`.
    """
    views = labelled.views(backbone.framing)
    report = None if skipped is None else lambda _, error: skipped(error)
    found = class_probabilities([adapter, None], backbone, views, skipped=report, progress=progress)
    read = ~np.isnan(found[0, :, 0])
    if not read.any():
        raise DataError(f"None of the {len(views)} images could be read. Give at least one readable image.")
    index = {name: number for number, name in enumerate(backbone.classes)}
    labels = np.array([index[label] for label in labelled.labels])[read]
    answers = (found[0, read].argmax(1), found[1, read].argmax(1))
    trios = zip(labelled.pictures, labelled.files, read, strict=True)
    timed = with_times(replace(picture, path=str(file)) for picture, file, good in trios if good)
    return compare(labels, answers, burst_numbers(timed), backbone.classes, seed=seed, skipped=int((~read).sum()))


def check_texts(adapter: Adapter, backbone: Backbone, task: TextTask, *, seed: int = 0) -> Check:
    """Score an adapter and the pretrained model on all labelled texts of a task; equal texts count once.

    Raises:
        AdapterMismatchError, ArtifactError, DataError: as :func:`wildpdiff.prediction.text_probabilities`, and where
            the task has no labels.
    """
    labels = task.labels
    if not labels:
        raise DataError(f"Task {title_of(task)!r} has no labelled texts. Label some.")
    found = text_probabilities([adapter, None], backbone, list(labels))
    answers = (found[0].argmax(1), found[1].argmax(1))
    check = compare(np.array(list(labels.values())), answers, list(labels), backbone.classes, seed=seed)
    return replace(check, kind="text")


def compare(
    labels: Int[np.ndarray, " n"],
    answers: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]],
    units: Sequence[Hashable],
    classes: Sequence[str],
    *,
    seed: int = 0,
    skipped: int = 0,
) -> Check:
    """The check of the answers of an adapter and of the pretrained model, as indices of classes.

    Whole units are drawn with replacement, the same ones for both models.

    Args:
        units: name of each picture's burst, or of the picture.
        skipped: pictures that could not be read.
    """
    number = {unit: position for position, unit in enumerate(dict.fromkeys(units))}
    of_unit = np.array([number[unit] for unit in units])
    counts = np.stack([_counts(labels, answer, of_unit, count=len(number), classes=len(classes)) for answer in answers])
    accuracy, f1 = _scores(counts.sum(1))
    leads = _leads(counts, seed) if len(number) > 1 else None
    support = np.bincount(labels, minlength=len(classes))
    right = [
        np.bincount(labels[answer == labels], minlength=len(classes)) / np.maximum(support, 1) for answer in answers
    ]
    order = [int(label) for label in np.argsort(-support, kind="stable") if support[label]]
    rows = [ClassScore(classes[c], int(support[c]), float(right[0][c]), float(right[1][c])) for c in order]
    return Check(
        len(labels),
        len(number),
        len(number) < len(labels),
        skipped,
        (float(accuracy[0]), float(accuracy[1])),
        (float(f1[0]), float(f1[1])),
        _lead(accuracy, None if leads is None else leads[:, 0]),
        _lead(f1, None if leads is None else leads[:, 1]),
        tuple(rows),
    )


def _lead(scores: Float[np.ndarray, " m"], drawn: Float[np.ndarray, " resamples"] | None) -> Lead:
    low, high = (None, None) if drawn is None else interval_ends(drawn, drawn)
    return Lead(low, high, float(scores[0] - scores[1]))


def _counts(
    labels: Int[np.ndarray, " n"],
    answers: Int[np.ndarray, " n"],
    units: Int[np.ndarray, " n"],
    *,
    count: int,
    classes: int,
) -> Float[np.ndarray, "u 3 c"]:
    """Pictures of each class by unit: labelled so, answered so, and both."""
    found = np.zeros((count, 3, classes))
    both = answers == labels
    for kind, (rows, columns) in enumerate(((units, labels), (units, answers), (units[both], labels[both]))):
        np.add.at(found[:, kind], (rows, columns), 1.0)
    return found


def _scores(counts: Float[np.ndarray, "m 3 c"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Accuracy, and the mean F1 of the classes that labels show."""
    labelled, answered, both = counts[:, 0], counts[:, 1], counts[:, 2]
    shown = labelled > 0
    f1 = np.where(shown, 2 * both / np.maximum(labelled + answered, 1.0), 0.0)
    return both.sum(1) / labelled.sum(1), f1.sum(1) / shown.sum(1)


def _leads(counts: Float[np.ndarray, "2 u 3 c"], seed: int) -> Float[np.ndarray, "resamples 2"]:
    """Differences of accuracy and of macro-F1 in every resample."""
    units = counts.shape[1]
    generator = numpy_generator(seed, "bootstrap", "bursts")
    flat, parts = counts.reshape(2, units, -1), []
    for _ in range(RESAMPLES // PART):
        draws = generator.multinomial(units, np.full(units, 1 / units), size=PART).astype(np.float64)
        accuracy, f1 = zip(*(_scores((draws @ model).reshape(PART, 3, -1)) for model in flat), strict=True)
        parts.append(np.stack([accuracy[0] - accuracy[1], f1[0] - f1[1]], axis=1))
    return np.concatenate(parts)
