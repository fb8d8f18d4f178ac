"""Refinement of generated adapters on a few labels: a start chosen by cross-validation, its prior, and all labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.refine.cross_validation import TaskStarts, held_out_losses, preferred
from wildpdiff.refine.runs import RefineConfig, Run, refine_runs
from wildpdiff.refine.starts import Start, Starts
from wildpdiff.tasks.batch import Batch, batch_size
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.zoo.features import TaskFeatures


@dataclass(frozen=True)
class LabelledTask:
    """One task to refine.

    Attributes:
        features: its labelled examples, as training examples; no other part is read.
        starts: candidate starts, the generated adapter first.
        unlabelled: a batch of more examples of the task, as they come, for the frequencies of the
            classes. Without them the labels are taken as a random sample of the task.
    """

    features: TaskFeatures
    starts: Sequence[Start]
    unlabelled: Batch | None = None


@dataclass(frozen=True)
class Refined:
    """A refined adapter and the choice of its start.

    Attributes:
        adapter: refined; its provenance has start, losses, labels, steps, and the provenance of the generated adapter.
        start: name of the start.
        losses: mean loss on the labels before refining, for each start where it is finite.
        cross_validated: mean loss of held-out labels, for each start that was cross-validated; empty where
            the first start was taken unchecked.
    """

    adapter: Adapter
    start: str
    losses: dict[str, float]
    cross_validated: dict[str, float]


def refine(
    backbone: Backbone,
    start: Adapter,
    task: TaskFeatures,
    config: RefineConfig | None = None,
    *,
    points: Starts | None = None,
    unlabelled: Batch | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Refined:
    """Refine one generated adapter on a few labels.

    Args:
        task: the labelled examples as its training examples.
        config: defaults by measurement on seen tasks.
        points: prior and other starts, best :meth:`Starts.of_generator` of the adapter's generator; without
            it all values move freely, which takes several times the labels.
        unlabelled: a batch of more examples of the task, see :class:`LabelledTask`.

    Raises:
        AdapterMismatchError: the adapter is of another backbone or LoRA setting.
        DataError: there are no labelled images, or a label that the backbone does not know.
        TrainingError: the loss is not finite.
    """
    starts = (points or Starts.without_generator(backbone))(start)
    return refine_tasks(backbone, [LabelledTask(task, starts, unlabelled)], config, seed=seed, progress=progress)[0]


def refine_tasks(
    backbone: Backbone,
    tasks: Sequence[LabelledTask],
    config: RefineConfig | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Refined]:
    """Refine one adapter a task, many tasks in one forward pass.

    Where a prior is known, the adapter is the most probable one given prior and labels
    (:func:`maximum_a_posteriori`), else the end of a short fine-tuning. The start is chosen by cross-validation:
    every start is refined on all folds of the labels but one and scored on that one; the first start is kept unless
    another is ahead by ``config.margin`` standard errors. Of further candidates (those named ``sample``),
    ``config.finalists`` take part, by their loss on the labels. The choice is fair where no start has seen the
    labels: seen tasks that share images with this one favour adapters made of them. With a single label the first
    start is taken. Raises as :func:`refine`."""
    config = config or RefineConfig()
    found = []
    for task in tasks:
        _check(backbone, task)
        found.append(_finalists(backbone, task, config))
    chosen = _choose(backbone, [starts for starts, _ in found], config, seed, progress=_half(progress, 0))
    runs = [
        Run(starts.features, starts.points[index], starts.offsets(index, starts.labels))
        for (starts, _), (index, _) in zip(found, chosen, strict=True)
    ]
    refined = refine_runs(backbone, runs, config, seed=seed, progress=_half(progress, 1))
    return [
        Refined(
            Adapter(
                tensors, task.starts[0].adapter.config, _provenance(task, run, (losses, scores), config, seed=seed)
            ),
            run.start.name,
            losses,
            scores,
        )
        for task, run, (_, losses), (_, scores), tensors in zip(tasks, runs, found, chosen, refined, strict=True)
    ]


def _half(progress: Callable[[int, int], None] | None, number: int) -> Callable[[int, int], None] | None:
    """Progress of the first or the second of two parts."""
    return None if progress is None else lambda done, total: progress(done + number * total, 2 * total)


def _check(backbone: Backbone, task: LabelledTask) -> None:
    labels, name = task.features.train[TARGETS], task.features.name
    if not len(labels):
        raise DataError(f"Task {name!r} has no labelled examples. Label at least one.")
    if not task.starts:
        raise DataError(f"Task {name!r} has no adapter to start from. Give one.")
    if backbone.classes and not 0 <= int(labels.min()) <= int(labels.max()) < len(backbone.classes):
        raise DataError(
            f"Task {name!r} has label {int(labels.max())}; the backbone knows {len(backbone.classes)} "
            "classes. Use the class list that the backbone was pretrained with."
        )
    for start in task.starts:
        backbone.check(start.adapter)


def _finalists(backbone: Backbone, task: LabelledTask, config: RefineConfig) -> tuple[TaskStarts, dict[str, float]]:
    """The starts to cross-validate, and the loss of the labels at every start."""
    every = TaskStarts.of(backbone, task.features, task.starts, task.unlabelled)
    losses = _finite(task.starts, every.losses(backbone))
    further = [start.name for start in task.starts if start.further]
    further.sort(key=lambda name: losses.get(name, math.inf))
    dropped = set(further[config.finalists :])
    return every.only([index for index, start in enumerate(task.starts) if start.name not in dropped]), losses


def _finite(starts: Sequence[Start], losses: Tensor) -> dict[str, float]:
    """Finite losses by name."""
    pairs = zip(starts, losses.tolist(), strict=True)
    return {start.name: loss for start, loss in pairs if math.isfinite(loss)}


def _choose(
    backbone: Backbone,
    tasks: Sequence[TaskStarts],
    config: RefineConfig,
    seed: int,
    *,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[int, dict[str, float]]]:
    """Index of each task's start, and the mean held-out losses of those that were cross-validated."""
    rows = [row for row, task in enumerate(tasks) if len(task.points) > 1 and len(task.labels) > 1]
    losses = held_out_losses(backbone, [tasks[row] for row in rows], config, seed=seed, progress=progress)
    chosen: list[tuple[int, dict[str, float]]] = [(0, {})] * len(tasks)
    for row, found in zip(rows, losses, strict=True):
        scores = _finite(tasks[row].points, found.mean(1))
        chosen[row] = (preferred(found, len(backbone.classes), config.margin), scores)
    return chosen


def _provenance(
    task: LabelledTask, run: Run, losses: tuple[dict[str, float], dict[str, float]], config: RefineConfig, *, seed: int
) -> dict[str, Any]:
    generated, prior = task.starts[0].adapter.provenance, run.start.prior
    return {
        "source": "refined",
        "task": generated.get("task"),
        "start": run.start.name,
        "start_losses": losses[0],
        "cross_validated_losses": losses[1],
        "labels": task.features.train_size,
        "classes_labelled": len({str(target) for target in task.features.train[TARGETS].tolist()}),
        "unlabelled": 0 if task.unlabelled is None else batch_size(task.unlabelled),
        "seed": seed,
        "steps": config.free.steps if prior is None else config.posterior.steps,
        "prior": None if prior is None else f"{len(prior.directions)} directions, {prior.of}",
        "refined_from": dict(generated),
    }
