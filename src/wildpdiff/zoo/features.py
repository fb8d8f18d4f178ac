"""Examples of tasks, computed up to the first adapted module once and read by every training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.prefix import Prefix
from wildpdiff.disk import content_hash, json_bytes
from wildpdiff.errors import DataError
from wildpdiff.parallel import in_parallel
from wildpdiff.tasks.batch import Batch, batch_size, example_keys, take
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.tasks.task import Examples, Task, title_of


@dataclass(frozen=True)
class TaskFeatures:
    """A task's training and validation examples with their targets, as batches of :meth:`Backbone.batch`.

    Attributes:
        name: of the task.
        keys: one an example, training examples first; equal for equal examples. Without them a task is taken to
            share no example with another.
    """

    name: str
    train: Batch
    validation: Batch
    keys: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        labelled = self.train_size + self.validation_size
        if len(self.keys) not in (0, labelled):
            raise DataError(f"Task {self.name!r} has {len(self.keys)} keys for {labelled} examples. Give all.")

    @classmethod
    def of_few(cls, name: str, batch: Batch) -> TaskFeatures:
        """A task of which these examples are all that is known; they are its validation examples too."""
        return cls(name, batch, batch)

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return batch_size(self.train)

    @property
    def validation_size(self) -> int:
        """Number of validation examples."""
        return batch_size(self.validation)

    @property
    def data_hash(self) -> str:
        """SHA-256 of the task's examples and targets."""
        return _data_hash(self.keys, self.train[TARGETS], self.validation[TARGETS])

    def without_validation(self, keys: Container[bytes]) -> TaskFeatures:
        """The same without the validation examples of these keys."""
        first = self.train_size
        kept = [row for row, key in enumerate(self.keys[first:]) if key not in keys]
        if not self.keys or len(kept) == self.validation_size:
            return self
        return replace(
            self,
            validation=take(self.validation, torch.tensor(kept, dtype=torch.int64)),
            keys=(*self.keys[:first], *(self.keys[first + row] for row in kept)),
        )

    def labelled(self, rows: Int[Tensor, " r"], into: Batch | None = None) -> dict[str, Tensor]:
        """Some examples, numbered with the training examples first, written ``into`` tensors where these are given.

        Raises:
            DataError: the tensors are not of these examples' shape.
        """
        late, first = (rows >= self.train_size).nonzero()[:, 0], rows.clamp(max=self.train_size - 1)
        own, found = rows[late] - self.train_size, {}
        for name, values in self.train.items():
            given, shape = None if into is None else into[name], (len(rows), *values.shape[1:])
            if given is not None and given.shape != shape:
                raise DataError(f"Examples of task {self.name!r} are {shape}, others {tuple(given.shape)}. Pad them.")
            found[name] = torch.index_select(values, 0, first, out=given)
            if len(late):
                found[name].index_copy_(0, late, self.validation[name].index_select(0, own))
        return found


@dataclass(frozen=True)
class ExampleRows:
    """Row indices, as of :meth:`TaskFeatures.labelled`, of a task's training examples and of its leak-free examples.

    Attributes:
        trained: the training examples, and the validation examples that no other task has.
        leak_free: examples for the evaluation of the task when it is held out: no other task learns from them, so a
            model trained without the task has never seen them.
    """

    trained: Int[Tensor, " n"]
    leak_free: Int[Tensor, " m"]

    @classmethod
    def of(cls, tasks: Sequence[TaskFeatures], earlier: Sequence[int] = ()) -> tuple[ExampleRows, ...]:
        """The rows of some tasks, which may share examples.

        A task of fewer than two leak-free examples gets its validation examples instead, or all where those are too
        few.

        Args:
            earlier: numbers of first tasks that a model was trained on before the others were added: it may have
                learned from all of their examples, which are not leak-free for the others then.
        """
        splits = [(set(task.keys[: task.train_size]), set(task.keys)) for task in tasks]
        learned = Counter(key for train, _ in splits for key in train)
        held = Counter(key for _, every in splits for key in every)
        found = []
        for number, (task, (train, _)) in enumerate(zip(tasks, splits, strict=True)):
            before = set().union(*(keys for _, keys in splits[: max((n for n in earlier if n <= number), default=0)]))
            first, size = task.train_size, task.train_size + task.validation_size
            trained = [row for row in range(size) if row < first or not task.keys or held[task.keys[row]] == 1]
            own = [row for row, key in enumerate(task.keys) if learned[key] == int(key in train) and key not in before]
            choices = (own if task.keys else range(size), range(first, size))
            leak_free = next((rows for rows in choices if len(rows) > 1), range(size))
            found.append(cls(torch.tensor(trained), torch.tensor(leak_free)))
        return tuple(found)


def task_features(backbone: Backbone, task: Task, least: int = 2) -> TaskFeatures:
    """The batches of a task.

    Args:
        backbone: the frozen model.
        task: its training and validation splits are read.
        least: fewest training examples. A batch may be larger: examples then come in it several times.

    Raises:
        DataError: too few training examples, only one class, no validation examples, or a target that the objective
            does not know.
    """
    data, held_out = task.data("train"), task.data("validation")
    if len(data) < least:
        raise DataError(f"Task {title_of(task)!r} has {len(data)} training examples, fewer than {least}. Add some.")
    if not len(held_out):
        raise DataError(f"Task {title_of(task)!r} has no validation examples. Add some, or leave the task out.")
    train = _batch(backbone, task, data)
    classes = set(train[TARGETS].tolist()) if backbone.classes else set()
    if len(classes) == 1:
        raise DataError(
            f"Task {title_of(task)!r} has training examples of one class only ({backbone.classes[classes.pop()]!r}). "
            "Add examples of a second class, or leave the task out."
        )
    validation = _batch(backbone, task, held_out)
    return TaskFeatures(task.name, train, validation, (*example_keys(data.inputs), *example_keys(held_out.inputs)))


def _batch(backbone: Backbone, task: Task, data: Examples) -> dict[str, Tensor]:
    try:
        return backbone.batch(data)
    except DataError as error:
        raise DataError(f"Task {title_of(task)!r}: {error}") from None


def data_hash(backbone: Backbone, task: Task) -> str:
    """The :attr:`TaskFeatures.data_hash` of a task, without running the model."""
    splits = [task.data(split) for split in ("train", "validation")]
    keys = tuple(key for split in splits for key in example_keys(split.inputs))
    return _data_hash(keys, *(backbone.targets(split) for split in splits))


def _data_hash(keys: Sequence[bytes], train: Tensor, validation: Tensor) -> str:
    return content_hash(b"".join(keys) + json_bytes([train.tolist(), validation.tolist()]))


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

    def keep(self, features: Sequence[TaskFeatures], prefixes: Mapping[Hashable, Prefix]) -> None:
        """Features of some of the tasks, as another process has computed them, with its :attr:`Backbone.prefixes`."""
        self._backbone.prefixes.update(prefixes)  # without them nothing could run on these features
        for entry in features:
            self._kept.setdefault(entry.name, entry)

    def fill(self, names: Sequence[str]) -> None:
        """Compute the features of some tasks, on all cores."""
        missing = [name for name in names if name not in self._kept]

        def compute(name: str, _: Callable[[float], None]) -> tuple[TaskFeatures, dict[Hashable, Prefix]]:
            return task_features(self._backbone, self._tasks[name], self._least), self._backbone.prefixes

        for entry, prefixes in in_parallel(compute, missing):
            self.keep([entry], prefixes)


def features_of(features: Callable[[str], TaskFeatures], names: Sequence[str]) -> list[TaskFeatures]:
    """The features of several tasks; those that a cache does not have yet are computed on all cores."""
    if isinstance(features, FeatureCache):
        features.fill(names)
    return [features(name) for name in names]
