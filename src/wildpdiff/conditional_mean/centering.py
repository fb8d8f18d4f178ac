"""First-moment feature alignment: a share of a site's mean feature shift is subtracted before the classifier.

The scene adds the same to the features of all of a camera's pictures, and a classifier fitted to the average scene
takes it for evidence. The mean features of a site's unlabelled images show how far they lie from those of other sites,
d. With a share s of it subtracted from the features the logits are ``W (h - s d) + b``: an adapter whose bias is
``b - s W d``. Alignment of first moments is old in domain adaptation (Sun et al. 2016); here one number, s, is learned,
from the networks' predictions for seen tasks that they were trained without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import over_adapters
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.tasks.batch import merge
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import of_many

STRENGTHS = tuple(step / 20 for step in range(21))
"""Shares of the shift that are tried."""

TASKS_AT_ONCE = 16


@dataclass(frozen=True)
class FeatureAlignment:
    """Alignment of adapters with the mean feature shift of a site.

    Attributes:
        classifier: names of its weight, "classes f", and its bias in an adapter.
    """

    reader: FeatureShift
    codec: Codec
    classifier: tuple[str, str]
    strength: float
    seen: Float[Tensor, "t f"]

    @classmethod
    def of(
        cls, reader: FeatureShift | None, codec: Codec, descriptions: Sequence[Description]
    ) -> FeatureAlignment | None:
        """An alignment of strength 0; ``None`` where adapters hold no classifier of these features."""
        if reader is None:
            return None
        names = classifier_of(codec.layout, len(reader.center))
        return None if names is None else cls(reader, codec, names, 0.0, reader.of(descriptions))

    def without(self, rows: Bool[Tensor, " t"]) -> FeatureAlignment:
        """The alignment without some of the seen tasks."""
        return replace(self, seen=self.seen[~rows])

    def __call__(self, normalized: Float[Tensor, "n d"], shifts: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Normalised adapters with shifted biases."""
        bias = self.classifier[1]
        moved = self.codec.layout.unflatten(normalized.clone())
        scale = self.codec.layout.unflatten(self.codec.scale)[bias]
        moved[bias] = moved[bias] + self.strength * self.offsets(normalized, shifts) / scale
        return self.codec.layout.flatten_many(moved)

    def offsets(self, normalized: Float[Tensor, "n d"], shifts: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """Change of the logits of each adapter at full strength: ``-W d``."""
        weight = self.codec.layout.unflatten(self.codec.decode(normalized))[self.classifier[0]]
        return -torch.einsum("ncf,nf->nc", weight, shifts)

    def fitted(
        self, backbone: Backbone, predicted: Float[Tensor, "t d"], images: TaskExamples, evaluation_images: int
    ) -> FeatureAlignment:
        """The alignment whose strength has the lowest task loss on seen tasks.

        Args:
            predicted: normalised adapters of the seen tasks, each predicted without that task.
            evaluation_images: labelled images of each, of those that no other task is trained on.
        """
        strengths, losses = torch.tensor(STRENGTHS), torch.zeros(len(STRENGTHS))
        layout = self.codec.layout
        with torch.no_grad():
            for tasks in torch.split(torch.arange(len(predicted)), TASKS_AT_ONCE):
                batch = images.fixed(tasks, evaluation_images)
                adapters = layout.unflatten(self.codec.decode(predicted[tasks]))
                logits = over_adapters(backbone.outputs)(batch, adapters)
                offsets = self.offsets(predicted[tasks], self.seen[tasks])
                moved = logits + strengths[:, None, None, None] * offsets[:, None]
                each = of_many(backbone.objective.loss, moved.flatten(1, 2), merge(batch))
                losses += each.view(moved.shape[:3]).mean(2).sum(1)
        return replace(self, strength=STRENGTHS[int(losses.argmin())])

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore it."""
        return {"part": self.reader.part, "classifier": list(self.classifier), "strength": self.strength}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Mean features and shifts of the seen tasks."""
        return {"shift_center": self.reader.center, "shifts": self.seen}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], codec: Codec, backbone: Backbone
    ) -> FeatureAlignment:
        """Restored from :attr:`config` and :attr:`tensors`, with the codec and the backbone that it was fitted with."""
        reader = FeatureShift.restore(config["part"], tensors["shift_center"], backbone)
        weight, bias = config["classifier"]
        return cls(reader, codec, (weight, bias), config["strength"], tensors["shifts"])


def classifier_of(layout: Layout, features: int) -> tuple[str, str] | None:
    """Names of weight and bias of an adapter's only linear layer with so many inputs; ``None`` without."""
    shapes = dict(layout.entries)
    found = []
    for weight, shape in shapes.items():
        bias = weight.removesuffix("weight") + "bias"
        if weight.endswith(".weight") and len(shape) == 2 and shape[1] == features and shapes.get(bias) == shape[:1]:
            found.append((weight, bias))
    return found[0] if len(found) == 1 else None
