"""The examples of the seen tasks, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.errors import DataError
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.features import ExampleRows, TaskFeatures


@dataclass(frozen=True)
class TaskExamples:
    """The examples of the seen tasks.

    Attributes:
        seed: of the examples of an evaluation, the same at every evaluation.
        rows: of each task, its examples for training and for evaluation.
    """

    tasks: tuple[TaskFeatures, ...]
    seed: int
    rows: tuple[ExampleRows, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for task in self.tasks:
            if not task.train_size:
                raise DataError(f"Task {task.name!r} has no training examples. Add some, or leave the task out.")
        if len(self.rows) != len(self.tasks):
            object.__setattr__(self, "rows", ExampleRows.of(self.tasks))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(task.name for task in self.tasks)

    def of(self, tasks: Sequence[int]) -> TaskExamples:
        """The examples of some tasks, in this order; the others' training examples stay excluded from evaluations."""
        return TaskExamples(
            tuple(self.tasks[task] for task in tasks), self.seed, tuple(self.rows[task] for task in tasks)
        )

    def draw(self, tasks: Int[Tensor, " b"], most: int, draws: torch.Generator) -> dict[str, Tensor]:
        """``most`` random training examples of each of these tasks, with replacement, "b m …"."""
        picked = []
        for number in tasks.tolist():
            rows = self.rows[number].trained
            picked.append(rows[torch.randint(len(rows), (most,), generator=draws)])
        return self._batch(tasks, picked)

    def fixed(self, tasks: Int[Tensor, " b"], most: int) -> dict[str, Tensor]:
        """The same evaluation examples at every call, "b m …"; where there are fewer, some repeatedly."""
        picked = []
        for number in tasks.tolist():
            rows = self.rows[number].leak_free
            order = self._order(number, len(rows))
            picked.append(rows[order[torch.arange(most) % len(rows)]])
        return self._batch(tasks, picked)

    def evaluation(self, task: int, most: int, *, validation: bool = False) -> dict[str, Tensor]:
        """At most ``most`` examples of one task that no other task is trained on, each once.

        With ``validation`` of the validation examples alone, where there are any.
        """
        rows = self.rows[task].leak_free
        if validation:
            late = rows[rows >= self.tasks[task].train_size]
            rows = late if len(late) else rows
        return self.tasks[task].labelled(rows[self._order(task, len(rows))[:most]])

    def _order(self, task: int, rows: int) -> Int[Tensor, " r"]:
        """Random order of some rows of a task, by its name: the task's index in a larger zoo may be another one."""
        return torch.randperm(rows, generator=torch_generator(self.seed, "evaluation images", self.tasks[task].name))

    def _batch(self, tasks: Int[Tensor, " b"], picked: Sequence[Int[Tensor, " m"]]) -> dict[str, Tensor]:
        chosen, shape = [self.tasks[number] for number in tasks.tolist()], (len(picked), len(picked[0]))
        batch = {name: value.new_empty(*shape, *value.shape[1:]) for name, value in chosen[0].train.items()}
        for number, (task, rows) in enumerate(zip(chosen, picked, strict=True)):
            task.labelled(rows, {name: value[number] for name, value in batch.items()})
        return batch
