"""Images of tasks behind the frozen stem, computed once and read by every training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import LabelledImages, Task

__all__ = ["FeatureCache", "TaskFeatures", "task_features", "unshared_rows"]


@dataclass(frozen=True)
class TaskFeatures:
    """A task's training and validation images behind the frozen stem, computed once.

    Attributes:
        name: of the task.
        train, train_labels: of the training split.
        validation, validation_labels: of the validation split.
        keys: one a labelled image, training images first; equal for equal images. Without them a task is taken to
            share no image with another.
    """

    name: str
    train: Tensor
    train_labels: Int[Tensor, " n"]
    validation: Tensor
    validation_labels: Int[Tensor, " m"]
    keys: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        labelled = len(self.train_labels) + len(self.validation_labels)
        if len(self.keys) not in (0, labelled):
            raise DataError(f"Task {self.name!r} has {len(self.keys)} keys for {labelled} labelled images. Give all.")

    def labelled(self, rows: Int[Tensor, " r"]) -> tuple[Tensor, Int[Tensor, " r"]]:
        """Some labelled images with their labels, numbered with the training images first."""
        count = len(self.train_labels)
        inputs = self.train.new_empty(len(rows), *self.train.shape[1:])
        labels = self.train_labels.new_empty(len(rows))
        early = rows < count
        inputs[early], labels[early] = self.train[rows[early]], self.train_labels[rows[early]]
        late = rows[~early] - count
        inputs[~early], labels[~early] = self.validation[late], self.validation_labels[late]
        return inputs, labels


def unshared_rows(tasks: Sequence[TaskFeatures]) -> tuple[Int[Tensor, " r"], ...]:
    """For each task the labelled images that none of the others trains on.

    What was trained on the others has never seen them, as it has not seen the images of an unseen task. Where tasks
    draw their training images from common ones, these are the validation images.

    Returns:
        rows as :meth:`TaskFeatures.labelled` numbers them. Of a task that has fewer than two such images they are the
        validation images, and all images where those are fewer than two as well.
    """
    trained = Counter(key for task in tasks for key in set(task.keys[: len(task.train_labels)]))
    found = []
    for task in tasks:
        first = len(task.train_labels)
        own, every = set(task.keys[:first]), range(first + len(task.validation_labels))
        alone = [row for row, key in enumerate(task.keys) if not trained[key] - (key in own)] if task.keys else every
        found.append(torch.tensor(next((rows for rows in (alone, every[first:]) if len(rows) > 1), every)))
    return tuple(found)


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
    keys = tuple(_key(image) for split in (train, validation) for image in split.images)
    return TaskFeatures(task.name, train_features, train_labels, held_out, held_out_labels, keys)


def _key(image: Images) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


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
