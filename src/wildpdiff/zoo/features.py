"""Images of tasks behind the frozen stem, computed once and read by every training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import LabelledImages, Task

__all__ = ["FeatureCache", "TaskFeatures", "task_features"]


@dataclass(frozen=True)
class TaskFeatures:
    """A task's training and validation images behind the frozen stem, computed once."""

    name: str
    train: Tensor
    train_labels: Int[Tensor, " n"]
    validation: Tensor
    validation_labels: Int[Tensor, " m"]


def task_features(backbone: Backbone, task: Task, batch: int) -> TaskFeatures:
    """Run a task's images through the frozen stem.

    Raises:
        DataError: fewer training images than a batch, only one class, no validation images, or a label that the
            backbone does not know.
    """
    train, validation = task.data("train"), task.data("validation")
    if len(train) and len(set(train.labels.tolist())) == 1:
        raise DataError(
            f"Task {task.name!r} has training images of one class only ({backbone.classes[int(train.labels[0])]!r}). "
            "Add images of a second class, or leave the task out."
        )
    train_features, train_labels = _features(backbone, task, train, batch)
    if not len(validation):
        raise DataError(f"Task {task.name!r} has no validation images. Add some, or leave the task out.")
    held_out, held_out_labels = _features(backbone, task, validation, 1)
    return TaskFeatures(task.name, train_features, train_labels, held_out, held_out_labels)


class FeatureCache:
    """Features of tasks by name, each computed when first asked for and kept in memory."""

    def __init__(self, backbone: Backbone, tasks: Sequence[Task], batch: int) -> None:
        self._backbone = backbone
        self._tasks = {task.name: task for task in tasks}
        self._batch = batch
        self._kept: dict[str, TaskFeatures] = {}

    def __call__(self, name: str) -> TaskFeatures:
        """The features of one task; raises as :func:`task_features`."""
        if name not in self._kept:
            self._kept[name] = task_features(self._backbone, self._tasks[name], self._batch)
        return self._kept[name]


def _features(backbone: Backbone, task: Task, data: LabelledImages, least: int) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(data.labels)
    if len(data) < least:
        raise DataError(
            f"Task {task.name!r} has {len(data)} training images, fewer than a batch of {least}. "
            "Add images, lower the batch size, or leave the task out."
        )
    if len(data) and int(labels.max()) >= len(backbone.classes):
        raise DataError(
            f"Task {task.name!r} has label {int(labels.max())}; the backbone knows {len(backbone.classes)} classes. "
            "Use the class list that the backbone was pretrained with."
        )
    return backbone.stem(data.images), labels
