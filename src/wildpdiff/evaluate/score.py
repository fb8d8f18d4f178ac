"""Scores of adapters on the test examples of tasks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import TARGETS, of_many
from wildpdiff.tasks.task import PictureTask, Task, title_of


@dataclass(frozen=True)
class TestSet:
    """A task's test examples, with its description.

    Attributes:
        task: the task's name.
        description: of the task, with the task's name as ``task_id`` for references that need labels.
        batch: the examples with their targets, of :meth:`Backbone.batch`.
        bursts: name of the burst of each example; None where examples are no pictures of a camera.
        crops: the same examples as crops of a detector, where there are boxes and the backbone takes none.
    """

    __test__ = False  # not a test class of pytest, whatever its name begins with

    task: str
    description: Description
    batch: Batch
    bursts: tuple[Hashable, ...] | None = None
    crops: Batch | None = None

    @property
    def labels(self) -> Tensor:
        """The targets."""
        return self.batch[TARGETS]


def test_set(backbone: Backbone, task: Task, *, crops: bool = False) -> TestSet:  # noqa: PT028  # no test
    """The test examples of a task, with crops where wanted; raises :class:`DataError` where it has none."""
    data = task.data("test")
    if len(data) == 0:
        raise DataError(f"Task {title_of(task)!r} has no test examples. Add some, or leave it out of the evaluation.")
    description = replace(task.description, task_id=task.name)
    bursts = task.bursts("test") if isinstance(task, PictureTask) else None
    cropped = task.crops("test") if crops and isinstance(task, PictureTask) else None
    return TestSet(
        task.name,
        description,
        backbone.batch(data),
        bursts,
        None if cropped is None else backbone.batch(cropped),
    )


test_set.__test__ = False  # type: ignore[attr-defined]


@runtime_checkable
class ReadingSource(Protocol):
    """A source with a way of its own to read test examples, besides its adapters."""

    def outputs(self, backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> Tensor:
        """The outputs of each adapter on one task's test examples, ``[a, n, …]``."""


def mean_scores(backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> tuple[float, ...]:
    """The mean score of each adapter on one task's test examples."""
    found = of_many(backbone.objective.score, outputs_of(backbone, test, adapters), test.batch)
    return tuple(found.double().mean(1).tolist())


def outputs_of(backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> Float[Tensor, "a n ..."]:
    """The outputs of each adapter on one task's test examples, all adapters in one vectorised pass."""
    for adapter in adapters:
        backbone.check(adapter)
    stacked: Mapping[str, Tensor] = {
        name: torch.stack([adapter.tensors[name] for adapter in adapters]) for name in adapters[0].tensors
    }
    return backbone.predict_many(test.batch, stacked)


def outputs_by(
    source: object, backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]
) -> Float[Tensor, "a n ..."]:
    """:func:`outputs_of` a source's adapters, or the source's own where it is a :class:`ReadingSource`."""
    return (source.outputs if isinstance(source, ReadingSource) else outputs_of)(backbone, test, adapters)
