"""Images of tasks behind the frozen stem, computed once and read by every training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.disk import content_hash, json_bytes
from wildpdiff.errors import DataError
from wildpdiff.parallel import in_parallel
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import LabelledImages, Task


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

    @property
    def data_hash(self) -> str:
        """SHA-256 of the task's images and labels."""
        return _data_hash(self.keys, self.train_labels, self.validation_labels)

    def without_validation(self, keys: Container[bytes]) -> TaskFeatures:
        """The same without the validation images of these keys."""
        first = len(self.train_labels)
        kept = [row for row, key in enumerate(self.keys[first:]) if key not in keys]
        if not self.keys or len(kept) == len(self.validation_labels):
            return self
        return replace(
            self,
            validation=self.validation[kept],
            validation_labels=self.validation_labels[kept],
            keys=(*self.keys[:first], *(self.keys[first + row] for row in kept)),
        )

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


@dataclass(frozen=True)
class ImageRows:
    """Row indices, as of :meth:`TaskFeatures.labelled`, of a task's training images and of its leak-free images.

    Attributes:
        trained: the training images, and the validation images that no other task has.
        leak_free: images for the evaluation of the task when it is held out: no other task learns from them, so a
            model trained without the task has never seen them.
    """

    trained: Int[Tensor, " n"]
    leak_free: Int[Tensor, " m"]

    @classmethod
    def of(cls, tasks: Sequence[TaskFeatures], earlier: Sequence[int] = ()) -> tuple[ImageRows, ...]:
        """The rows of some tasks, which may share images.

        A task of fewer than two leak_free images gets its validation images instead, or all where those are too few.

        Args:
            earlier: numbers of first tasks that a model was trained on before the others were added: it may have
                learned from all of their images, which are not leak-free for the others then.
        """
        splits = [(set(task.keys[: len(task.train_labels)]), set(task.keys)) for task in tasks]
        learned = Counter(key for train, _ in splits for key in train)
        held = Counter(key for _, every in splits for key in every)
        found = []
        for number, (task, (train, _)) in enumerate(zip(tasks, splits, strict=True)):
            before = set().union(*(keys for _, keys in splits[: max((n for n in earlier if n <= number), default=0)]))
            first, count = len(task.train_labels), len(task.train_labels) + len(task.validation_labels)
            trained = [row for row in range(count) if row < first or not task.keys or held[task.keys[row]] == 1]
            own = [row for row, key in enumerate(task.keys) if learned[key] == int(key in train) and key not in before]
            choices = (own if task.keys else range(count), range(first, count))
            leak_free = next((rows for rows in choices if len(rows) > 1), range(count))
            found.append(cls(torch.tensor(trained), torch.tensor(leak_free)))
        return tuple(found)


def task_features(backbone: Backbone, task: Task, least: int = 2) -> TaskFeatures:
    """Run a task's images through the frozen stem.

    Args:
        backbone: the frozen model.
        task: its training and validation splits are read.
        least: fewest training images. A batch may be larger: images then come in it several times.

    Raises:
        DataError: too few training images, only one class, no validation images, or a label that the
            backbone does not know.
    """
    train, validation = task.data("train"), task.data("validation")
    if len(train) and len(set(train.labels.tolist())) == 1:
        raise DataError(
            f"Task {task.name!r} has training images of one class only ({backbone.classes[int(train.labels[0])]!r}). "
            "Add images of a second class, or leave the task out."
        )
    train_features, train_labels = _features(backbone, task, train, least)
    if not len(validation):
        raise DataError(f"Task {task.name!r} has no validation images. Add some, or leave the task out.")
    held_out, held_out_labels = _features(backbone, task, validation, 1)
    keys = (*image_keys(train.images), *image_keys(validation.images))
    return TaskFeatures(task.name, train_features, train_labels, held_out, held_out_labels, keys)


def data_hash(task: Task) -> str:
    """The :attr:`TaskFeatures.data_hash` of a task, without the backbone."""
    splits = [task.data(split) for split in ("train", "validation")]
    keys = tuple(key for split in splits for key in image_keys(split.images))
    return _data_hash(keys, *(torch.from_numpy(split.labels) for split in splits))


def _data_hash(keys: Sequence[bytes], train_labels: Tensor, validation_labels: Tensor) -> str:
    labels = json_bytes([train_labels.tolist(), validation_labels.tolist()])
    return content_hash(b"".join(keys) + labels)


def image_keys(images: Images) -> tuple[bytes, ...]:
    """One key an image, equal for equal images."""
    return tuple(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)


class FeatureCache:
    """Features of tasks by name, each computed once and kept in memory."""

    def __init__(self, backbone: Backbone, tasks: Sequence[Task], least: int = 2) -> None:
        self._backbone = backbone
        self._tasks = {task.name: task for task in tasks}
        self._least = least
        self._kept: dict[str, TaskFeatures] = {}

    def __call__(self, name: str) -> TaskFeatures:
        """The features of one task; raises as :func:`task_features`."""
        if name not in self._kept:
            self._kept[name] = task_features(self._backbone, self._tasks[name], self._least)
        return self._kept[name]

    def keep(self, features: Sequence[TaskFeatures]) -> None:
        """Features of some of the tasks, as another process has computed them."""
        for entry in features:
            self._kept.setdefault(entry.name, entry)

    def fill(self, names: Sequence[str]) -> None:
        """Compute the features of some tasks, on all cores."""
        missing = [name for name in names if name not in self._kept]

        def compute(name: str, _: Callable[[float], None]) -> TaskFeatures:
            return task_features(self._backbone, self._tasks[name], self._least)

        for entry in in_parallel(compute, missing):
            self._kept[entry.name] = entry


def features_of(features: Callable[[str], TaskFeatures], names: Sequence[str]) -> list[TaskFeatures]:
    """The features of several tasks; those that a cache does not have yet are computed on all cores."""
    if isinstance(features, FeatureCache):
        features.fill(names)
    return [features(name) for name in names]


def _features(backbone: Backbone, task: Task, data: LabelledImages, least: int) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(data.labels)
    if len(data) < least:
        raise DataError(
            f"Task {task.name!r} has {len(data)} training images, fewer than the {least} that it takes to "
            "fine-tune. Add images, or leave the task out."
        )
    if len(data) and int(labels.max()) >= len(backbone.classes):
        raise DataError(
            f"Task {task.name!r} has label {int(labels.max())}; the backbone knows {len(backbone.classes)} classes. "
            "Use the class list that the backbone was pretrained with."
        )
    return backbone.stem(data.images), labels
