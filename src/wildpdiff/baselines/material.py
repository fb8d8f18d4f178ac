"""Training set of the baselines: the seen tasks with their adapters, descriptions and labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import Zoo

LabelledData = Callable[[str], TaskFeatures]
"""Labelled training and validation images of a task, behind the frozen stem, by the task's name."""


@dataclass(frozen=True)
class SeenTasks:
    """Seen tasks of one zoo, in the zoo's order.

    Attributes:
        encoder: descriptions to embeddings, fitted on these tasks.
        features: image features of ``descriptions`` by part.
    """

    backbone: Backbone
    zoo: Zoo
    descriptions: Sequence[Description]
    encoder: FusionEncoder
    features: Mapping[str, ImageFeatures]
    data: LabelledData
    seed: int

    @cached_property
    def adapters(self) -> tuple[Adapter, ...]:
        """One fine-tuned adapter a task, see :meth:`Zoo.task_adapters`."""
        return tuple(self.zoo.task_adapters().values())

    @cached_property
    def embeddings(self) -> Float[Tensor, "t e"]:
        """The fused embedding of each task's description."""
        return torch.stack([self.encoder.encode(entry).values for entry in self.descriptions])
