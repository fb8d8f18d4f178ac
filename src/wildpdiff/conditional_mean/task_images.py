"""The labelled images of the seen tasks, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.errors import DataError
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.features import ImageRows, TaskFeatures


@dataclass(frozen=True)
class ImageBatch:
    """Labelled images of some tasks behind the stem; ``inputs`` is ``[b, m, …]``."""

    inputs: Tensor
    labels: Int[Tensor, "b m"]


@dataclass(frozen=True)
class TaskImages:
    """The labelled images of the seen tasks.

    Attributes:
        seed: of the images of an evaluation, the same at every evaluation.
        rows: of each task, its labelled images for training and for evaluation.
    """

    tasks: tuple[TaskFeatures, ...]
    seed: int
    rows: tuple[ImageRows, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for task in self.tasks:
            if not len(task.train_labels):
                raise DataError(f"Task {task.name!r} has no training images. Label some, or leave the task out.")
        if len(self.rows) != len(self.tasks):
            object.__setattr__(self, "rows", ImageRows.of(self.tasks))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(task.name for task in self.tasks)

    def of(self, tasks: Sequence[int]) -> TaskImages:
        """The images of some tasks, in this order; the others' training images stay excluded from evaluations."""
        return TaskImages(
            tuple(self.tasks[task] for task in tasks), self.seed, tuple(self.rows[task] for task in tasks)
        )

    def draw(self, tasks: Int[Tensor, " b"], images: int, draws: torch.Generator) -> ImageBatch:
        """``images`` random training images of each of these tasks, with replacement."""
        picked = []
        for number in tasks.tolist():
            rows = self.rows[number].trained
            picked.append(rows[torch.randint(len(rows), (images,), generator=draws)])
        return self._batch(tasks, picked)

    def fixed(self, tasks: Int[Tensor, " b"], images: int) -> ImageBatch:
        """The same evaluation images at every call; where there are fewer, some repeatedly."""
        picked = []
        for number in tasks.tolist():
            rows = self.rows[number].leak_free
            order = self._order(number, len(rows))
            picked.append(rows[order[torch.arange(images) % len(rows)]])
        return self._batch(tasks, picked)

    def evaluation(self, task: int, most: int, *, validation: bool = False) -> tuple[Tensor, Int[Tensor, " n"]]:
        """At most ``most`` images of one task that no other task is trained on, each once, with their labels.

        With ``validation`` of the validation images alone, where there are any.
        """
        rows = self.rows[task].leak_free
        if validation:
            late = rows[rows >= len(self.tasks[task].train_labels)]
            rows = late if len(late) else rows
        return self.tasks[task].labelled(rows[self._order(task, len(rows))[:most]])

    def _order(self, task: int, rows: int) -> Int[Tensor, " r"]:
        """Random order of some rows of a task, by its name: the task's index in a larger zoo may be another one."""
        return torch.randperm(rows, generator=torch_generator(self.seed, "evaluation images", self.tasks[task].name))

    def _batch(self, tasks: Int[Tensor, " b"], picked: Sequence[Int[Tensor, " m"]]) -> ImageBatch:
        found = [self.tasks[number].labelled(rows) for number, rows in zip(tasks.tolist(), picked, strict=True)]
        return ImageBatch(torch.stack([inputs for inputs, _ in found]), torch.stack([labels for _, labels in found]))
