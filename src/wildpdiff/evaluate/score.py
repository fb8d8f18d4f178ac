"""Accuracy of adapters on the test images of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import Task


@dataclass(frozen=True)
class TestSet:
    """A task's test images behind the frozen stem, with its description.

    Attributes:
        task: the task's name.
        description: of the task, with the task's name as ``task_id`` for references that need labels.
        features: output of the stem, ``[n, …]``.
        labels: class indices.
    """

    __test__ = False  # not a test class of pytest, whatever its name begins with

    task: str
    description: Description
    features: Tensor
    labels: Int[Tensor, " n"]


def test_set(backbone: Backbone, task: Task) -> TestSet:
    """Run a task's test images through the frozen stem; raises :class:`DataError` where it has none."""
    data = task.data("test")
    if len(data) == 0:
        raise DataError(f"Task {task.name!r} has no test images. Label some, or leave it out of the evaluation.")
    description = replace(task.description, task_id=task.name)
    return TestSet(task.name, description, backbone.stem(data.images), torch.from_numpy(data.labels))


test_set.__test__ = False  # type: ignore[attr-defined]


def accuracies(backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> tuple[float, ...]:
    """The accuracy of each adapter on one task's test images."""
    right = logits_of(backbone, test, adapters).argmax(-1) == test.labels
    return tuple(right.double().mean(1).tolist())


def logits_of(backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> Float[Tensor, "a n c"]:
    """The logits of each adapter on one task's test images, all adapters in one vectorised pass."""
    for adapter in adapters:
        backbone.check(adapter)
    stacked: Mapping[str, Tensor] = {
        name: torch.stack([adapter.tensors[name] for adapter in adapters]) for name in adapters[0].tensors
    }
    return backbone.predict_many(test.features, stacked)
