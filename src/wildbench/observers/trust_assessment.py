"""Assessment of trust on scored tasks: trust without labels, next to the gain measured with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from wildpdiff.errors import DataError
from wildpdiff.evaluate.comparison import Comparison
from wildpdiff.evaluate.results import ResultRow, Split, TrustPoint, TrustSection
from wildpdiff.evaluate.run import Scored
from wildpdiff.evaluate.summary import GENERATED, PRETRAINED, scores_by_task
from wildpdiff.rng import sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.batch import chosen, count, example_keys, joined
from wildpdiff.tasks.description import Inputs
from wildpdiff.tasks.metric import ACCURACY, Metric
from wildpdiff.tasks.task import Task
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.report import TrustReport
from wildpdiff.zoo.features import ExampleRows, TaskFeatures


def assess_tasks(
    trust_model: TrustModel,
    generator: Source,
    tasks: Sequence[Task],
    *,
    split: Split,
    samples: int,
    seed: int,
    images: Callable[[Task], Inputs | None] | None = None,
) -> dict[str, TrustReport]:
    """Trust in a generator's adapters on each task, by the task's name.

    With the seed, the split's name and the number of samples of :func:`~wildpdiff.evaluate.run.evaluate` these are the
    very adapters that it scored.

    Args:
        trust_model: calibrated for this generator.
        tasks: scored tasks; no labelled image of theirs is read here.
        images: unlabelled images of a task besides its description, for example :class:`FreshImages`, never test
            images; without them, the description's examples or else its backgrounds are the evidence.
    """
    found = {}
    for task in tasks:
        description = replace(task.description, task_id=task.name)
        count = samples if generator.stochastic else 1
        adapters = generator.sample(description, count, sub_seed(seed, split, task.name))
        found[task.name] = trust_model.assess(adapters, description, None if images is None else images(task))
    return found


def trust_point(
    report: TrustReport, task: str, gains: Mapping[str, float], *, world: str, split: Split, generator: int
) -> TrustPoint:
    """A task's trust next to its measured gain.

    Args:
        gains: by task, in points: :func:`measured_gains`.
        world: the suite, or its variant.
        generator: the seed that the generator was trained with.

    Raises:
        DataError: the task has no measured gain.
    """
    if task not in gains:
        raise DataError(f"Task {task!r} has no measured gain. Evaluate the generator on it, or leave it out.")
    return TrustPoint(
        world=world,
        split=split,
        task=task,
        basis=report.basis,
        trust=report.trust,
        predicted=report.gain,
        low=report.low,
        high=report.high,
        gain=float(gains[task]),
        min_trust=report.min_trust,
        used=report.use_generated,
        generator=generator,
    )


def measured_gains(
    rows: Iterable[ResultRow],
    split: Split,
    generator_seed: int | None,
    *,
    source: str = GENERATED,
    metric: Metric = ACCURACY,
) -> dict[str, float]:
    """Score with a generator's adapters (mean over samples) minus that of the pretrained model, in points, by task.

    Positive is better. A point is a hundredth of the metric's span, or without bounds of the pretrained model's mean
    score, as in :class:`~wildpdiff.trust.report.TrustReport`.

    Raises:
        DataError: no task was scored with both.
    """
    kept = [row for row in rows if row.split == split]
    own = [row for row in kept if (row.source, row.condition, row.generator_seed) == (source, "own", generator_seed)]
    before = [row for row in kept if row.source == PRETRAINED]
    after_scores, before_scores = scores_by_task(own), scores_by_task(before)
    shared = [task for task in after_scores if task in before_scores]
    if not shared:
        raise DataError(
            f"No {split} task was scored with {source!r} (seed {generator_seed}) and {PRETRAINED!r}. Evaluate both."
        )
    usual = max(abs(fmean(fmean(before_scores[task]) for task in shared)), 1e-12)
    point = metric.sign * 100 / (metric.span or usual)
    return {task: point * (fmean(after_scores[task]) - fmean(before_scores[task])) for task in shared}


@dataclass(frozen=True)
class FreshImages:
    """Unlabelled images of a task that no seen task was trained on; never its test images.

    Where tasks draw their images from common ones, a generated adapter is overconfident on the training images of an
    unseen task that it shares with seen ones.

    Attributes:
        learned: keys of the images that seen tasks are trained on.
    """

    learned: frozenset[bytes]

    @classmethod
    def of(cls, seen: Iterable[TaskFeatures]) -> FreshImages:
        """For a generator that was fitted to these tasks."""
        tasks = tuple(seen)
        found = ExampleRows.of(tasks)
        return cls(
            frozenset(
                task.keys[row] for task, rows in zip(tasks, found, strict=True) if task.keys for row in rows.trained
            )
        )

    def __call__(self, task: Task) -> Inputs | None:
        """Training examples, then the description's examples, each once; ``None`` where none is fresh."""
        further, found = task.description.examples, task.data("train").inputs
        if further is not None and count(further):
            found = joined(found, further)
        first = {key: row for row, key in reversed(list(enumerate(example_keys(found)))) if key not in self.learned}
        return chosen(found, sorted(first.values())) if first else None


class TrustObserver:
    """Trust in the generators' adapters for unseen tasks, next to the measured gains: the section ``trust``."""

    section = "trust"

    def __init__(self, comparison: Comparison, seen: Iterable[TaskFeatures]) -> None:
        """A comparison with models of trust, and the seen tasks that its generators were fitted to."""
        self._world, self._metric = comparison.suite.name, comparison.backbone.objective.metric
        self._tasks = {task.name: task for task in comparison.suite.tasks("unseen")}
        self._models = list(zip(comparison.generators, comparison.trust, strict=True))
        self._images = FreshImages.of(seen)
        self._rows: list[ResultRow] = []
        self._reports: list[tuple[int, str, TrustReport]] = []

    def observe(self, scored: Scored) -> None:
        """Assess the adapters of a generator's estimate for one unseen task."""
        if scored.split != "unseen":
            return
        self._rows += scored.rows
        task, method = scored.test.task, scored.method
        for generator, model in self._models:
            if method.source is generator and method.condition == "own":
                report = model.assess(scored.adapters, scored.test.description, self._images(self._tasks[task]))
                self._reports.append((int(generator.training["seed"]), task, report))

    def result(self) -> TrustSection | None:
        """One point a generator and task; None where there is none."""
        gains = {
            number: measured_gains(self._rows, "unseen", number, metric=self._metric) for number, _, _ in self._reports
        }
        points = [
            trust_point(report, task, gains[number], world=self._world, split="unseen", generator=number)
            for number, task, report in self._reports
        ]
        return TrustSection(tuple(points)) if points else None
