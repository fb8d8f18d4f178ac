"""Novelty of adapters: distance to the stored checkpoints, and overlap of errors with theirs.

The measures of Zeng et al. 2025 (Generative Modeling of Weights: Generalization or Memorization?, 2506.07998): the L2
distance to the nearest checkpoint, against that of training checkpoints with the checkpoints of their own run left
out; and the largest intersection over union of the wrong test predictions. The distance to averages of checkpoints
distinguishes an average from a new adapter.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildbench.observers.checkpoint_geometry import CheckpointGeometry, Located, nearest_average_distances
from wildbench.sections import Memorisation, NoveltyPoint
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Split
from wildpdiff.evaluate.run import Scored
from wildpdiff.evaluate.score import TestSet
from wildpdiff.parallel import in_parallel
from wildpdiff.tasks.batch import take
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.zoo.store import Zoo

CHUNK = 24
"""Checkpoints run in one pass: more at once fall out of the processor's cache and take three times as long."""

PRECISION = 2e-3
"""Tolerance of the distance to the nearest average, as a share of the unit."""


def largest_overlap(wrong: Bool[Tensor, " n"], stored: Bool[Tensor, "m n"]) -> float:
    """Largest intersection over union of a mask of wrong predictions with stored ones; 1 for two without any."""
    shared = (stored & wrong).sum(1).double()
    either = (stored | wrong).sum(1).double()
    return float(torch.where(either > 0, shared / either.clamp_min(1), 1.0).max())


@dataclass(frozen=True)
class _Reference:
    """Predictions of the stored checkpoints on a task's test set.

    Attributes:
        step: errors are compared on every ``step``-th test image.
        masks: wrong predictions of every run's last checkpoint and, on a seen task, of its own run's others.
        accuracy: on all test images, by row of the zoo, where it was needed.
        mean_accuracy: of the mean of all checkpoints.
        own: distance, overlap and distance to the mean of the seen task's fine-tuned adapter; None on unseen tasks.
    """

    step: int
    masks: Bool[Tensor, "m n"]
    accuracy: dict[int, float]
    mean_accuracy: float
    own: tuple[float, float, float] | None


class NoveltyObserver:
    """Novelty of every adapter of an evaluation.

    Running all checkpoints on every test set would take hours. The errors are those of every run's last checkpoint
    (checkpoints of one run lie far nearer to each other than to those of other runs) and, on a seen task, of
    all of its own run, where a generator is most likely to have copied.
    """

    section = "memorisation"

    def __init__(
        self,
        backbone: Backbone,
        zoo: Zoo,
        *,
        finetuned: Mapping[str, Adapter] | None = None,
        splits: Collection[str] = ("seen", "unseen"),
        conditions: Collection[str] = ("own", "none"),
        most_tasks: int | None = None,
        most_images: int | None = 100,
    ) -> None:
        """Read the checkpoints.

        Args:
            backbone: of the adapters.
            zoo: the checkpoints that the sources were trained on: for a split that was held out, those of the rest.
            finetuned: fine-tuned adapters of unseen tasks by name; those of seen tasks are the zoo's.
            splits: measured ones.
            conditions: measured ones.
            most_tasks: at most so many tasks of each split, the first ones.
            most_images: errors are compared on at most so many test images of a task, evenly chosen; all checkpoints
                of the zoo are run on them, which is nearly all of the cost.

        Raises:
            DataError: the zoo has fewer than two runs.
        """
        self._backbone = backbone
        self._zoo = zoo
        self._geometry = CheckpointGeometry(zoo)
        self._splits, self._conditions = splits, conditions
        self._most_tasks, self._most_images = most_tasks, most_images
        geometry = self._geometry
        self._finetuned = {task: geometry.vectors[rows].mean(0) for task, rows in geometry.rows.items()}
        self._finals = {task: rows[-1] for task, rows in geometry.rows.items()}
        others = [
            geometry.locate(geometry.vectors[self._finals[task]], without=task).distance for task in geometry.tasks
        ]
        self._unit = sum(others) / len(others)
        if self._unit == 0:
            raise DataError(
                "All fine-tuned adapters of the zoo are equal, so novelty is undefined. Build the zoo again."
            )
        for task, adapter in (finetuned or {}).items():
            self._finetuned.setdefault(task, geometry.layout.flatten(adapter.tensors))
        self._references: dict[tuple[str, str], _Reference] = {}
        self._points: list[NoveltyPoint] = []
        self._products: list[Float[Tensor, " t"]] = []
        self._squares: list[float] = []

    def prepare(self, tests: Mapping[Split, Sequence[TestSet]]) -> None:
        """Run the checkpoints on the test sets that will be measured, each a job of its own."""
        wanted = [
            (split, test) for split, part in tests.items() if split in self._splits for test in part[: self._most_tasks]
        ]
        found = in_parallel(lambda entry, _: self._measure(entry[1]), wanted)
        self._references |= {
            (split, test.task): reference for (split, test), reference in zip(wanted, found, strict=True)
        }

    def observe(self, scored: Scored) -> None:
        """Measure every adapter of a method on a task."""
        if scored.split not in self._splits or scored.method.condition not in self._conditions:
            return
        reference = self._reference(scored.split, scored.test)
        if reference is None:
            return
        vectors = [self._geometry.layout.flatten(adapter.tensors) for adapter in scored.adapters]
        found = [self._geometry.locate(vector) for vector in vectors]
        unknown = sorted({entry.row for entry in found} - set(reference.accuracy))
        if unknown:
            wrong = self._wrong(scored.test, unknown)
            reference.accuracy.update(zip(unknown, (1 - wrong.double().mean(1)).tolist(), strict=True))
        for sample, (vector, entry) in enumerate(zip(vectors, found, strict=True)):
            self._add(scored, reference, sample, vector, found=entry)

    def result(self) -> Memorisation:
        """Everything measured, in units of the mean distance of a fine-tuned adapter to the nearest of another run.

        Raises:
            DataError: nothing was observed.
        """
        if not self._points:
            raise DataError("No adapter was observed. Evaluate a source on the tasks first.")
        geometry, unit = self._geometry, self._unit
        products = torch.stack(self._products)
        squares = torch.tensor(self._squares, dtype=torch.float64)
        averages = nearest_average_distances(products, squares, geometry.gram, tolerance=PRECISION * unit) / unit
        spans = geometry.span_distances(products, squares) / unit
        points = tuple(
            replace(point, average_distance=average, span_distance=span)
            for point, average, span in zip(self._points, averages.tolist(), spans.tolist(), strict=True)
        )
        own = [reference.own for reference in self._references.values() if reference.own is not None]
        return Memorisation(
            unit=unit,
            checkpoint_distance=tuple(entry[0] / unit for entry in own),
            checkpoint_overlap=tuple(entry[1] for entry in own),
            checkpoint_mean_distance=tuple(entry[2] / unit for entry in own),
            within_run=geometry.within_run / unit,
            directions=geometry.directions,
            parameters=geometry.parameters,
            points=points,
        )

    def _add(self, scored: Scored, reference: _Reference, sample: int, vector: Tensor, *, found: Located) -> None:
        geometry, unit, task = self._geometry, self._unit, scored.test.task
        wrong = scored.outputs[sample].argmax(-1) != scored.test.labels
        self._products.append(found.products)
        self._squares.append(found.square)
        own = self._finetuned.get(task)
        self._points.append(
            NoveltyPoint(
                split=scored.split,
                source=scored.method.source.name,
                condition=scored.method.condition,
                generator_seed=scored.method.generator_seed,
                task=task,
                sample=sample,
                accuracy=1 - float(wrong.double().mean()),
                distance=found.distance / unit,
                overlap=largest_overlap(wrong[:: reference.step], reference.masks),
                nearest_own=found.row in geometry.rows.get(task, ()),
                nearest_accuracy=reference.accuracy[found.row],
                mean_accuracy=reference.mean_accuracy,
                mean_distance=math.sqrt(found.square) / unit,
                average_distance=0.0,  # both are solved for all points together, in result()
                span_distance=0.0,
                finetuned_distance=None if own is None else float((vector.double() - own.double()).norm()) / unit,
            )
        )

    def _reference(self, split: str, test: TestSet) -> _Reference | None:
        """Predictions of the checkpoints on a task, computed on first use; None beyond the largest number of tasks."""
        key = (split, test.task)
        if key not in self._references:
            if self._most_tasks is not None and sum(name == split for name, _ in self._references) >= self._most_tasks:
                return None
            self._references[key] = self._measure(test)
        return self._references[key]

    def _measure(self, test: TestSet) -> _Reference:
        geometry = self._geometry
        mean = geometry.layout.unflatten(geometry.centre.float())
        right = self._backbone.predict(test.batch, mean).argmax(-1) == test.labels
        count = len(test.labels)
        step = 1 if self._most_images is None else math.ceil(count / self._most_images)
        finals = self._wrong(test, list(self._finals.values()), step)
        own = None
        masks = finals
        if test.task in geometry.rows:
            number = geometry.tasks.index(test.task)
            others = torch.arange(len(finals)) != number
            final = geometry.vectors[self._finals[test.task]]
            found = geometry.locate(final, without=test.task)
            own = (found.distance, largest_overlap(finals[number], finals[others]), math.sqrt(found.square))
            rest = geometry.rows[test.task][:-1]
            masks = torch.cat([finals, self._wrong(test, rest, step)]) if rest else finals
        return _Reference(step, masks, {}, float(right.double().mean()), own)

    def _wrong(self, test: TestSet, rows: list[int], step: int = 1) -> Bool[Tensor, "m n"]:
        """Which test images checkpoints get wrong, looking at every ``step``-th."""
        batch = take(test.batch, slice(None, None, step))
        parts = []
        for start in range(0, len(rows), CHUNK):
            vectors = self._geometry.vectors[rows[start : start + CHUNK]]
            tensors = self._geometry.layout.unflatten(vectors)
            parts.append(self._backbone.predict_many(batch, tensors).argmax(-1) != batch[TARGETS])
        return torch.cat(parts)
