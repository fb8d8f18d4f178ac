"""Trust put to the test: generated adapters assessed without a label, beside the gain that was measured with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import ResultRow, Split
from wildpdiff.evaluate.summary import GENERATED, PRETRAINED
from wildpdiff.evaluate.trust_points import TrustPoint
from wildpdiff.rng import sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import Task
from wildpdiff.trust.model import TrustModel
from wildpdiff.zoo.features import ImageRows, TaskFeatures, image_keys


def assess_tasks(
    trust_model: TrustModel,
    generator: Source,
    tasks: Sequence[Task],
    test_scores: Mapping[str, float],
    *,
    world: str,
    split: Split,
    generator_number: int,
    samples: int,
    seed: int,
    images: Callable[[Task], Images | None] | None = None,
) -> list[TrustPoint]:
    """What a model of trust says of a generator's adapters on tasks, each beside its measured gain.

    With the seed, the split's name and the number of samples of :func:`~wildpdiff.evaluate.run.evaluate` these are the
    very adapters that it scored.

    Args:
        trust_model: calibrated for this generator.
        generator: gives the adapters.
        tasks: that were scored; no labelled image of theirs is read here.
        test_scores: by task name the measured gain, in points: :func:`measured_gains`. What trust reads does not depend
            on them.
        world: the suite, or its variant.
        split: of the tasks.
        generator_number: the seed that the generator was trained with.
        samples: adapters a task, where the source is stochastic.
        seed: of the samples.
        images: gives unlabelled images of a task beside its description, for example :class:`FreshImages`, never test
            images; without them the description's examples are looked at, or else its backgrounds.

    Raises:
        DataError: a task has no measured gain.
    """
    missing = [task.name for task in tasks if task.name not in test_scores]
    if missing:
        raise DataError(f"Task {missing[0]!r} has no measured gain. Evaluate the generator on it, or leave it out.")
    found = []
    for task in tasks:
        told = replace(task.description, task_id=task.name)
        count = samples if generator.stochastic else 1
        adapters = generator.sample(told, count, sub_seed(seed, split, task.name))
        report = trust_model.assess(adapters, told, None if images is None else images(task))
        found.append(
            TrustPoint(
                world=world,
                split=split,
                task=task.name,
                basis=report.basis,
                trust=report.trust,
                predicted=report.gain,
                low=report.low,
                high=report.high,
                gain=float(test_scores[task.name]),
                min_trust=report.min_trust,
                used=report.use_generated,
                generator=generator_number,
            )
        )
    return found


def measured_gains(
    rows: Iterable[ResultRow], split: Split, generator_seed: int | None, source: str = GENERATED
) -> dict[str, float]:
    """By task, accuracy with a generator's adapters (mean over samples) minus that of the pretrained model, in points.

    Args:
        rows: of one suite.
        split: which of its tasks.
        generator_seed: of the rows of one generator, given the tasks' own descriptions.
        source: its name in the rows.

    Raises:
        DataError: no task was scored with both.
    """
    kept = [row for row in rows if row.split == split]
    own = [row for row in kept if (row.source, row.condition, row.generator_seed) == (source, "own", generator_seed)]
    before = [row for row in kept if row.source == PRETRAINED]
    after_means, before_means = _task_means(own), _task_means(before)
    shared = [task for task in after_means if task in before_means]
    if not shared:
        raise DataError(
            f"No {split} task was scored with {source!r} of seed {generator_seed} and with {PRETRAINED!r}, so no gain "
            "is known. Evaluate both."
        )
    return {task: 100 * (after_means[task] - before_means[task]) for task in shared}


@dataclass(frozen=True)
class FreshImages:
    """What a task's camera has taken and no seen task learned from, without labels; never its test images.

    Where tasks draw their images from common ones, a generated adapter knows most training images of an unseen task
    too, and looks surer on them than it will be.

    Attributes:
        learned: keys of the images that seen tasks learn from.
    """

    learned: frozenset[bytes]

    @classmethod
    def of(cls, seen: Iterable[TaskFeatures]) -> FreshImages:
        """For a generator that was fitted to these tasks."""
        tasks = tuple(seen)
        found = ImageRows.of(tasks)
        return cls(
            frozenset(
                task.keys[row] for task, rows in zip(tasks, found, strict=True) if task.keys for row in rows.trained
            )
        )

    def __call__(self, task: Task) -> Images | None:
        """Training images, then the description's examples, each once; ``None`` where none is fresh."""
        examples = task.description.examples
        images = task.data("train").images
        if examples is not None and len(examples):
            images = np.concatenate([images, examples])
        first = {key: place for place, key in reversed(list(enumerate(image_keys(images)))) if key not in self.learned}
        return images[sorted(first.values())] if first else None


def _task_means(rows: Sequence[ResultRow]) -> dict[str, float]:
    by_task: dict[str, list[float]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row.accuracy)
    return {task: fmean(values) for task, values in by_task.items()}
