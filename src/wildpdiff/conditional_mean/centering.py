"""A classifier that does not take the scene for a species: the place's own backgrounds count as the origin.

The scene adds the same to the features of all of a camera's pictures, and a classifier made for the average scene reads
something into it. What its images tell without labels is how far their mean features lie from those of other places, d.
With a share s of it taken off the features the logits are ``W (h - s d) + b``: an adapter whose bias is ``b - s W d``.
Alignment of first moments is old in domain adaptation (Sun et al. 2016); here one number, s, is learned, on what the
networks predict for seen tasks that they were trained without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.task_images import TaskImages
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.tasks.description import Description

STRENGTHS = tuple(step / 20 for step in range(21))
"""Shares of the shift that are tried; 0 leaves everything as it is."""

TASKS_AT_ONCE = 16


@dataclass(frozen=True)
class Centering:
    """Takes a share of a place's shift off what the classifier reads.

    Attributes:
        reader: descriptions to shifts.
        codec: normalised vectors to adapters.
        classifier: names of its weight, "classes f", and its bias in an adapter.
        strength: the share.
        seen: shifts of the seen tasks.
    """

    reader: FeatureShift
    codec: Codec
    classifier: tuple[str, str]
    strength: float
    seen: Float[Tensor, "t f"]

    @classmethod
    def of(cls, reader: FeatureShift | None, codec: Codec, descriptions: Sequence[Description]) -> Centering | None:
        """One of no strength yet; ``None`` where adapters hold no classifier of the features that are read."""
        if reader is None:
            return None
        names = classifier_of(codec.layout, len(reader.center))
        return None if names is None else cls(reader, codec, names, 0.0, reader.of(descriptions))

    def without(self, rows: Bool[Tensor, " t"]) -> Centering:
        """The same without some of the seen tasks."""
        return replace(self, seen=self.seen[~rows])

    def __call__(self, normalized: Float[Tensor, "n d"], shifts: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Normalised adapters with their biases moved."""
        bias = self.classifier[1]
        moved = self.codec.layout.unflatten(normalized.clone())
        scale = self.codec.layout.unflatten(self.codec.normalizer.scale)[bias]
        moved[bias] = moved[bias] + self.strength * self.offsets(normalized, shifts) / scale
        return self.codec.layout.flatten_many(moved)

    def offsets(self, normalized: Float[Tensor, "n d"], shifts: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """What would be added to the logits of each adapter at full strength: ``-W d``."""
        weight = self.codec.layout.unflatten(self.codec.decode(normalized))[self.classifier[0]]
        return -torch.einsum("ncf,nf->nc", weight, shifts)

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
    ) -> Centering:
        """Restore from :attr:`config` and :attr:`tensors`, with the codec and the backbone that it was fitted with."""
        reader = FeatureShift.restore(config["part"], tensors["shift_center"], backbone)
        weight, bias = config["classifier"]
        return cls(reader, codec, (weight, bias), config["strength"], tensors["shifts"])


def classifier_of(layout: Layout, features: int) -> tuple[str, str] | None:
    """Names of weight and bias of the one linear layer of an adapter that reads so many features; ``None`` without."""
    shapes = dict(layout.entries)
    found = []
    for weight, shape in shapes.items():
        bias = weight.removesuffix("weight") + "bias"
        if weight.endswith(".weight") and len(shape) == 2 and shape[1] == features and shapes.get(bias) == shape[:1]:
            found.append((weight, bias))
    return found[0] if len(found) == 1 else None


def fit_centering(
    centering: Centering,
    backbone: Backbone,
    predicted: Float[Tensor, "t d"],
    images: TaskImages,
    looked_at: int,
) -> Centering:
    """With the strength at which adapters predicted for seen tasks, as if unseen, have the lowest task loss.

    Args:
        centering: of any strength.
        backbone: the frozen model.
        predicted: normalised adapters of the seen tasks, each made without that task.
        images: of the seen tasks.
        looked_at: labelled images of each that are looked at, of those that no other task trains on.
    """
    strengths, losses = torch.tensor(STRENGTHS), torch.zeros(len(STRENGTHS))
    with torch.no_grad():
        for start in range(0, len(predicted), TASKS_AT_ONCE):
            tasks = torch.arange(start, min(start + TASKS_AT_ONCE, len(predicted)))
            losses += _losses(centering, backbone, predicted[tasks], images, tasks, looked_at, strengths)
    return replace(centering, strength=STRENGTHS[int(losses.argmin())])


def _losses(
    centering: Centering,
    backbone: Backbone,
    predicted: Float[Tensor, "b d"],
    images: TaskImages,
    tasks: Int[Tensor, " b"],
    looked_at: int,
    strengths: Float[Tensor, " s"],
) -> Float[Tensor, " s"]:
    """Sum over these tasks of the mean cross-entropy at every strength."""
    batch = images.fixed(tasks, looked_at)
    adapters = centering.codec.layout.unflatten(centering.codec.decode(predicted))
    logits = torch.func.vmap(lambda x, adapter: backbone.logits(x, adapter))(batch.inputs, adapters)
    offsets = centering.offsets(predicted, centering.seen[tasks])
    moved = logits + strengths[:, None, None, None] * offsets[:, None]
    wanted = batch.labels.expand(len(strengths), -1, -1)
    each = cross_entropy(moved.flatten(0, 2), wanted.flatten(), reduction="none").view(wanted.shape)
    return each.mean(2).sum(1)
