"""Cross-validation of starts: each refined on some of the labels and scored on the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import TrainingError
from wildpdiff.refine.frequencies import class_frequencies, label_offsets
from wildpdiff.refine.runs import RefineConfig, Run, refine_runs
from wildpdiff.refine.starts import Start
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import Batch, batch_size, take
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.zoo.features import TaskFeatures

DOUBT = 0.1
"""Share of a uniform distribution in the probabilities by which starts are compared."""

LEFT_OUT = -1e4
"""Offset of a logit that excludes its class from the softmax."""


@dataclass(frozen=True)
class TaskStarts:
    """Labelled examples of a task and the starts of its refinement.

    Attributes:
        classes: their number; 0 where targets are no classes.
        frequencies: of the classes as predicted by each start; ``None`` where the labels are a random sample.
    """

    features: TaskFeatures
    points: Sequence[Start]
    frequencies: Sequence[Float[Tensor, " c"] | None]
    classes: int

    @classmethod
    def of(
        cls, backbone: Backbone, features: TaskFeatures, points: Sequence[Start], unlabelled: Batch | None
    ) -> TaskStarts:
        """With the class frequencies that each start predicts on a batch of unlabelled examples."""
        classes = len(backbone.classes)
        if unlabelled is None or not batch_size(unlabelled) or not classes:
            return cls(features, tuple(points), (None,) * len(points), classes)
        adapters = {id(point.adapter): point.adapter for point in points}
        found = {key: class_frequencies(backbone, unlabelled, entry.tensors) for key, entry in adapters.items()}
        return cls(features, tuple(points), tuple(found[id(point.adapter)] for point in points), classes)

    def losses(self, backbone: Backbone) -> Float[Tensor, " s"]:
        """Mean loss of the labels at each start, before refining, with offset outputs."""
        losses = []
        for index, point in enumerate(self.points):
            outputs = backbone.predict(self.features.train, point.adapter.tensors) + self.offsets(index, self.labels)
            losses.append(backbone.objective.loss(outputs, self.features.train).mean())
        return torch.stack(losses)

    def only(self, indices: Sequence[int]) -> TaskStarts:
        """A selection of the starts."""
        return replace(
            self,
            points=tuple(self.points[index] for index in indices),
            frequencies=tuple(self.frequencies[index] for index in indices),
        )

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Class indices of the examples; 0 for all where targets are no classes."""
        targets = self.features.train[TARGETS]
        return targets if self.classes else torch.zeros(len(targets), dtype=torch.int64)

    def offsets(self, index: int, labels: Int[Tensor, " n"]) -> Float[Tensor, ...]:
        """Offsets of the outputs in the loss, from one start, for some of the task's labels.

        Zero where targets are no classes. A class that only other labels of the task have is excluded from the softmax:
        its absence is an artefact of the folds.
        """
        classes, frequencies = self.classes, self.frequencies[index]
        if not classes:
            return torch.zeros(())
        offsets = torch.zeros(classes) if frequencies is None else label_offsets(labels, frequencies)
        missing = torch.bincount(labels, minlength=classes).eq(0) & torch.bincount(self.labels, minlength=classes).gt(0)
        return offsets.masked_fill(missing, LEFT_OUT)


def label_folds(labels: Int[Tensor, " n"], folds: int, seed: int, name: str) -> Int[Tensor, " n"]:
    """Fold of each label: every class spread over the folds, folds alike in size, the order drawn.

    With fewer labels than folds each label is a fold.
    """
    order = torch.randperm(len(labels), generator=torch_generator(seed, "folds", name))
    by_class = order[torch.argsort(labels[order], stable=True)]
    result = torch.empty(len(labels), dtype=torch.long)
    result[by_class] = torch.arange(len(labels)) % folds
    return result


def held_out_losses(
    backbone: Backbone,
    tasks: Sequence[TaskStarts],
    config: RefineConfig,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Float[Tensor, "s n"]]:
    """Loss of each label under every start, refined without that label's fold, for each task.

    All folds and starts of all tasks run together, with fewer steps than the refinement
    (:attr:`RefineConfig.shorter`). Outputs are offset as in the refinement's loss, by the frequencies of the labels
    that are learned from. Where a start's loss is not finite, all its labels have an infinite one.

    Args:
        tasks: any number, with at least two labels each.

    Raises:
        TrainingError: the loss of a task is not finite from any start.
    """
    try:
        return _held_out(backbone, tasks, config, seed, progress=progress)
    except TrainingError:
        losses = [torch.full((len(task.points), len(task.labels)), math.inf) for task in tasks]
    for task, found in zip(tasks, losses, strict=True):
        for index in range(len(task.points)):
            with suppress(TrainingError):
                found[index] = _held_out(backbone, [task.only([index])], config, seed, progress=None)[0][0]
        if not bool(torch.isfinite(found).any()):
            raise TrainingError(
                f"The loss of task {task.features.name!r} is not finite from any start. Check its examples and the "
                "adapters."
            )
    return losses


def _held_out(
    backbone: Backbone,
    tasks: Sequence[TaskStarts],
    config: RefineConfig,
    seed: int,
    *,
    progress: Callable[[int, int], None] | None,
) -> list[Float[Tensor, "s n"]]:
    runs: list[Run] = []
    held: list[tuple[int, int, Tensor]] = []
    for number, task in enumerate(tasks):
        fold = label_folds(task.labels, config.folds, seed, task.features.name)
        for index, point in enumerate(task.points):
            for left_out in range(int(fold.max()) + 1):
                rest = TaskFeatures.of_few(task.features.name, take(task.features.train, fold != left_out))
                runs.append(Run(rest, point, task.offsets(index, task.labels[fold != left_out])))
                held.append((number, index, (fold == left_out).nonzero()[:, 0]))
    refined = refine_runs(backbone, runs, config.shorter, seed=seed, progress=progress)
    losses = [torch.zeros(len(task.points), len(task.labels)) for task in tasks]
    for (number, index, rows), tensors in zip(held, refined, strict=True):
        task = tasks[number]
        batch = take(task.features.train, rows)
        outputs = backbone.predict(batch, tensors) + task.offsets(index, task.labels)
        losses[number][index, rows] = backbone.objective.loss(outputs, batch)
    return losses


def preferred(losses: Float[Tensor, "s n"], classes: int, margin: float) -> int:
    """Index of the start to take: the first, unless another is ahead by ``margin`` standard errors of the difference.

    Compared are the labels' losses, of classes with :data:`DOUBT` mixed into the probabilities, so that no single
    label, wrong perhaps, decides alone. The standard error is that of the paired differences.
    """
    scores = losses.double()
    if classes:
        scores = -(DOUBT / classes + (1 - DOUBT) * (-scores).exp()).log()
    best = int(scores.mean(1).argmin())
    ahead = scores[0] - scores[best]
    error = float(ahead.std()) / len(ahead) ** 0.5 if len(ahead) > 1 else 0.0
    return best if float(ahead.mean()) > margin * error else 0
