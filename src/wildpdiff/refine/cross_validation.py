"""Cross-validation of starts: each refined on some of the labels and scored on the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import TrainingError
from wildpdiff.refine.frequencies import class_frequencies, label_offsets
from wildpdiff.refine.runs import RefineConfig, Run, refine_runs
from wildpdiff.refine.starts import Start
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.features import TaskFeatures

DOUBT = 0.1
"""Share of a uniform distribution in the probabilities by which starts are compared."""

LEFT_OUT = -1e4
"""Offset of a logit that excludes its class from the softmax."""


@dataclass(frozen=True)
class TaskStarts:
    """Labelled images of a task and the starts of its refinement.

    Attributes:
        frequencies: of the classes as predicted by each start; ``None`` where the labels are a random sample.
    """

    features: TaskFeatures
    points: Sequence[Start]
    frequencies: Sequence[Float[Tensor, " c"] | None]

    @classmethod
    def of(
        cls, backbone: Backbone, features: TaskFeatures, points: Sequence[Start], unlabelled: Tensor | None
    ) -> TaskStarts:
        """With the class frequencies that each start predicts on unlabelled images, ``[n, …]`` behind the stem."""
        if unlabelled is None or not len(unlabelled):
            return cls(features, tuple(points), (None,) * len(points))
        adapters = {id(point.adapter): point.adapter for point in points}
        found = {key: class_frequencies(backbone, unlabelled, entry.tensors) for key, entry in adapters.items()}
        return cls(features, tuple(points), tuple(found[id(point.adapter)] for point in points))

    def losses(self, backbone: Backbone) -> Float[Tensor, " s"]:
        """Cross-entropy of the labels at each start, before refining, with offset logits."""
        losses = []
        for index, point in enumerate(self.points):
            logits = backbone.predict(self.features.train, point.adapter.tensors)
            losses.append(cross_entropy(logits + self.offsets(index, self.labels, logits.shape[1]), self.labels))
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
        """Class indices of the images."""
        return self.features.train_labels

    def offsets(self, index: int, labels: Int[Tensor, " n"], classes: int) -> Float[Tensor, " c"]:
        """Offsets of the logits in the loss, from one start, for some of the task's labels.

        A class that only other labels of the task have is excluded from the softmax: its absence is an artefact of the
        folds.
        """
        frequencies = self.frequencies[index]
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
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Float[Tensor, "s n"]]:
    """Cross-entropy of each label under every start, refined without that label's fold, for each task.

    All folds and starts of all tasks run together, with fewer steps than the refinement
    (:attr:`RefineConfig.shorter`). Logits are offset as in the refinement's loss, by the frequencies of the labels
    that are learned from. Where a start's loss is not finite, all its labels have an infinite one.

    Args:
        tasks: any number, with at least two labels each.

    Raises:
        TrainingError: the loss of a task is not finite from any start.
    """
    try:
        return _held_out(backbone, tasks, config, seed, progress)
    except TrainingError:
        losses = [torch.full((len(task.points), len(task.labels)), math.inf) for task in tasks]
    for task, found in zip(tasks, losses, strict=True):
        for index in range(len(task.points)):
            with suppress(TrainingError):
                found[index] = _held_out(backbone, [task.only([index])], config, seed, None)[0][0]
        if not bool(torch.isfinite(found).any()):
            raise TrainingError(
                f"The loss of task {task.features.name!r} is not finite from any start. Check its images and the "
                "adapters."
            )
    return losses


def _held_out(
    backbone: Backbone,
    tasks: Sequence[TaskStarts],
    config: RefineConfig,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> list[Float[Tensor, "s n"]]:
    classes = len(backbone.classes)
    runs: list[Run] = []
    held: list[tuple[int, int, Tensor]] = []
    for number, task in enumerate(tasks):
        fold = label_folds(task.labels, config.folds, seed, task.features.name)
        for index, point in enumerate(task.points):
            for left_out in range(int(fold.max()) + 1):
                rest = _rows(task.features, fold != left_out)
                runs.append(Run(rest, point, task.offsets(index, rest.train_labels, classes)))
                held.append((number, index, (fold == left_out).nonzero()[:, 0]))
    refined = refine_runs(backbone, runs, config.shorter, seed, progress)
    losses = [torch.zeros(len(task.points), len(task.labels)) for task in tasks]
    for (number, index, rows), tensors in zip(held, refined, strict=True):
        task = tasks[number]
        logits = backbone.predict(task.features.train[rows], tensors) + task.offsets(index, task.labels, classes)
        losses[number][index, rows] = cross_entropy(logits, task.labels[rows], reduction="none")
    return losses


def preferred(losses: Float[Tensor, "s n"], classes: int, margin: float) -> int:
    """Index of the start to take: the first, unless another is ahead by ``margin`` standard errors of the difference.

    Compared are the labels' losses with :data:`DOUBT` mixed into the probabilities, so that no single label, wrong
    perhaps, decides alone. The standard error is that of the paired differences.
    """
    scores = -(DOUBT / classes + (1 - DOUBT) * (-losses.double()).exp()).log()
    best = int(scores.mean(1).argmin())
    ahead = scores[0] - scores[best]
    error = float(ahead.std()) / len(ahead) ** 0.5 if len(ahead) > 1 else 0.0
    return best if float(ahead.mean()) > margin * error else 0


def _rows(task: TaskFeatures, chosen: Tensor) -> TaskFeatures:
    images, labels = task.train[chosen], task.train_labels[chosen]
    return replace(task, train=images, train_labels=labels, validation=images, validation_labels=labels, keys=())
