"""The labelled images of the seen tasks: which are learned from, and which are looked at."""

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
    """Some labelled images of some tasks, behind the stem, with the labels; ``inputs`` is ``[b, m, …]``."""

    inputs: Tensor
    labels: Int[Tensor, "b m"]


@dataclass(frozen=True)
class TaskImages:
    """The labelled images of the seen tasks.

    Attributes:
        tasks: one a seen task.
        seed: of the images on which a network is looked at, the same at every look.
        rows: of each task, which of its labelled images are learned from and which are looked at.
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
        """Of the tasks."""
        return tuple(task.name for task in self.tasks)

    def of(self, tasks: Sequence[int]) -> TaskImages:
        """Those of some tasks, in this order; images that the others learn from stay out of what is looked at."""
        return TaskImages(
            tuple(self.tasks[task] for task in tasks), self.seed, tuple(self.rows[task] for task in tasks)
        )

    def draw(self, tasks: Int[Tensor, " b"], images: int, draws: torch.Generator) -> ImageBatch:
        """``images`` random images of each of these tasks to learn from, with replacement."""
        picked = []
        for number in tasks.tolist():
            rows = self.rows[number].trained
            picked.append(rows[torch.randint(len(rows), (images,), generator=draws)])
        return self._batch(tasks, picked)

    def fixed(self, tasks: Int[Tensor, " b"], images: int) -> ImageBatch:
        """The same images at every call, of those to look at; where there are fewer, some repeatedly."""
        picked = []
        for number in tasks.tolist():
            rows = self.rows[number].unshared
            order = torch.randperm(len(rows), generator=torch_generator(self.seed, "looked at", number))
            picked.append(rows[order[torch.arange(images) % len(rows)]])
        return self._batch(tasks, picked)

    def judged(self, task: int, most: int, *, validation: bool = False) -> tuple[Tensor, Int[Tensor, " n"]]:
        """At most so many images of one task that no other task learns from, each once, with their labels.

        Args:
            task: its index.
            most: how many at most.
            validation: of the validation images alone, where there are any.
        """
        rows = self.rows[task].unshared
        if validation:
            late = rows[rows >= len(self.tasks[task].train_labels)]
            rows = late if len(late) else rows
        order = torch.randperm(len(rows), generator=torch_generator(self.seed, "looked at", task))
        return self.tasks[task].labelled(rows[order[:most]])

    def _batch(self, tasks: Int[Tensor, " b"], picked: Sequence[Int[Tensor, " m"]]) -> ImageBatch:
        found = [self.tasks[number].labelled(rows) for number, rows in zip(tasks.tolist(), picked, strict=True)]
        return ImageBatch(torch.stack([inputs for inputs, _ in found]), torch.stack([labels for _, labels in found]))
