"""Mean shift of a site's image features from those of the seen tasks, before the frozen backbone's classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description, Inputs

PARTS = ("backgrounds", "examples")
"""Parts that are images; the first that the seen descriptions have is read."""


@dataclass(frozen=True)
class FeatureShift:
    """Mean features of a description's images, less their mean over the seen tasks; zero where it has no images.

    Unlike the embedding of a condition it keeps every feature: it is not learned from, only subtracted.

    Attributes:
        center: mean over the seen tasks of each one's mean features.
        embed: images to the features before the backbone's classifier.
    """

    part: str
    center: Float[Tensor, " f"]
    embed: Callable[[Inputs], Tensor]

    @classmethod
    def fit(cls, descriptions: Sequence[Description], backbone: Backbone, parts: Sequence[str]) -> FeatureShift | None:
        """Center of the seen tasks, of the first of ``parts`` that is images.

        ``None`` where fewer than two tasks have images, or the backbone has no such features.
        """
        embed = embedder(backbone)
        for part in PARTS:
            sets = [getattr(entry, part) for entry in descriptions]
            known = [images for images in sets if images is not None and count(images)]
            if embed is not None and part in parts and len(known) > 1:
                return cls(part, torch.stack([embed(images).mean(0) for images in known]).mean(0), embed)
        return None

    @classmethod
    def restore(cls, part: str, center: Float[Tensor, " f"], backbone: Backbone) -> FeatureShift:
        """From its stored state; raises :class:`DescriptionError` where the backbone has no such features."""
        embed = embedder(backbone, len(center))
        if embed is None:
            raise DescriptionError(
                f"The generator reads features that {backbone.name!r} does not give: its outputs are not those of "
                "a linear layer. Give the backbone that it was fitted with."
            )
        return cls(part, center, embed)

    def of(self, descriptions: Sequence[Description]) -> Float[Tensor, "n f"]:
        """One shift a description."""
        return torch.stack([self._one(getattr(entry, self.part)) for entry in descriptions])

    def _one(self, images: Inputs | None) -> Tensor:
        if images is None or not count(images):
            return torch.zeros_like(self.center)
        return self.embed(images).mean(0) - self.center


def embedder(backbone: Backbone, width: int | None = None) -> Callable[[Inputs], Tensor] | None:
    """Inputs to the features before the classifier; ``None`` where no linear layer is last.

    Args:
        width: number of these features, where it is known.
    """
    features = backbone.image_features
    columns = features.columns("embedding", width)
    return None if columns is None else lambda images: features(images)[:, columns]
