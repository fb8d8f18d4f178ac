"""Identity of a seen task as a one-hot vector: the condition of the paper's RQ1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from wildpdiff.conditions.base import ConditionEmbedding, Featuriser
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description


@dataclass(frozen=True)
class TaskIdEncoder:
    """One-hot encoding of the names of the seen tasks.

    Attributes:
        task_ids: names in the order of the columns.
    """

    task_ids: tuple[str, ...]
    kind: ClassVar[str] = "task_id"
    part: ClassVar[str] = "task_id"

    @classmethod
    def fit(cls, descriptions: Sequence[Description]) -> TaskIdEncoder:
        """Names of the seen tasks; raises :class:`DescriptionError` where none has a name."""
        names = dict.fromkeys(entry.task_id for entry in descriptions if entry.task_id is not None)
        if not names:
            raise DescriptionError("None of the descriptions has a task_id. Give each seen task its name.")
        return cls(tuple(names))

    @property
    def size(self) -> int:
        """Number of seen tasks."""
        return len(self.task_ids)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """All columns together."""
        return (tuple(range(self.size)),)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        return {"task_ids": list(self.task_ids)}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state: none."""
        return {}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> TaskIdEncoder:
        """Inverse of :attr:`config`."""
        return cls(tuple(config["task_ids"]))

    def encode(self, description: Description) -> ConditionEmbedding:
        """One-hot ``[tasks]``; raises :class:`DescriptionError` on a name of no seen task."""
        values = torch.zeros(self.size)
        if description.task_id is None:
            return ConditionEmbedding(values, False)
        if description.task_id not in self.task_ids:
            some = ", ".join(self.task_ids[:5]) + (", …" if self.size > 5 else "")
            raise DescriptionError(
                f"Task {description.task_id!r} is not among the {self.size} seen tasks ({some}). "
                "Leave task_id out and describe the task by its other parts, or name a seen task."
            )
        values[self.task_ids.index(description.task_id)] = 1.0
        return ConditionEmbedding(values, True)
