"""What the conditions see of a set of images: features by the frozen backbone and of the light, in named blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from wildpdiff.backbones.feature_memory import FeatureMemory
from wildpdiff.tasks.description import Images

BATCH = 256
"""Images that go through a frozen model at once."""

LIGHT = "light"
PROBABILITIES = "class probabilities"
BANDS = 4
DARKEST = 0.02
"""Added to values in [0, 1] before their logarithm, about the noise of a camera."""
GREY = 0.02
"""Mean difference between the channels below which a frame is taken to be infrared."""


@runtime_checkable
class FrozenModel(Protocol):
    """What image features need of a backbone, which stands above this room."""

    @property
    def module(self) -> nn.Module:
        """The pretrained module; its method ``embed``, where it has one, gives the embedding."""

    @property
    def image_size(self) -> int:
        """Height and width of the inputs in pixels."""

    @property
    def split(self) -> bool:
        """Whether :meth:`stem` computes anything."""

    @property
    def memory(self) -> FeatureMemory:
        """Features of image sets seen before."""

    def stem(self, images: Images) -> Tensor:
        """What comes before any adapted layer, ``[n, …]``."""

    def predict(self, features: Tensor) -> Float[Tensor, "n c"]:
        """The pretrained model's logits from the stem's features."""


@dataclass(frozen=True, eq=False)
class ImageFeaturiser:
    """Features of a set of images for conditions: light, colour, pooled stem, embedding, class probabilities.

    Light, colour and stem statistics tell the place and the camera; the embedding and the pretrained model's own
    probabilities tell what is in the picture. A set of images that was seen before is looked up in the backbone's
    memory. It is a :class:`~wildpdiff.conditions.base.BlockFeaturiser`.

    *Light* is the mean logarithm of each colour channel in four horizontal bands, in which a cast or an exposure is a
    shift. Infrared frames are grey and know nothing of it: they are given the mean of the set's colour frames, and
    where a set has none its light is nan, not known.

    Attributes:
        backbone: whose frozen weights make the features.
    """

    backbone: FrozenModel

    def __call__(self, images: Images) -> Float[Tensor, "n f"]:
        """Features of ``uint8 [n, h, w, 3]``; raises :class:`DataError` as the backbone's ``preprocess``."""
        return self.backbone.memory(images, lambda new: torch.cat(list(self._compute(new).values()), dim=1))

    @property
    def identity(self) -> str:
        """``backbone``: a generator's backbone has one set of weights, which it is checked for elsewhere."""
        return "backbone"

    @cached_property
    def blocks(self) -> dict[str, int]:
        """The kinds of features in their order, with the number of each."""
        size = self.backbone.image_size
        blank = np.zeros((1, size, size, 3), dtype=np.uint8)
        return {name: values.shape[1] for name, values in self._compute(blank).items()}

    def columns(self, block: str) -> slice | None:
        """Where a block's features are; ``None`` where the backbone has no such block."""
        start = 0
        for name, width in self.blocks.items():
            if name == block:
                return slice(start, start + width)
            start += width
        return None

    @property
    def factors(self) -> tuple[str, ...]:
        """The light, and class probabilities: each is a cause of its own of how tasks differ."""
        return (LIGHT, PROBABILITIES)

    def _compute(self, images: Images) -> dict[str, Tensor]:
        module = self.backbone.module
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float().div_(255.0)
        features = self.backbone.stem(images)
        grey = (pixels.amax(3) - pixels.amin(3)).mean((1, 2)) < GREY
        colour = [pixels.mean((1, 2)), pixels.std((1, 2)), grey.float()[:, None]]
        blocks = {LIGHT: _light(pixels, grey), "colour": torch.cat(colour, dim=1)}
        with torch.inference_mode():
            if self.backbone.split:
                maps = features.flatten(2)
                blocks |= {"stem mean": maps.mean(2), "stem spread": maps.std(2, correction=0)}
            if hasattr(module, "embed"):
                rows = range(0, len(features), BATCH)
                embedded = [module.embed(features[i : i + BATCH]) for i in rows]  # type: ignore[operator]
                blocks["embedding"] = torch.cat(embedded)
            blocks[PROBABILITIES] = self.backbone.predict(features).softmax(1)
        return {name: values.clone() for name, values in blocks.items()}


def _light(pixels: Float[Tensor, "n h w 3"], grey: Bool[Tensor, " n"]) -> Float[Tensor, "n l"]:
    """Mean log of each channel in horizontal bands; of colour frames alone."""
    logs = (pixels + DARKEST).log().permute(0, 3, 1, 2)
    light = adaptive_avg_pool2d(logs, (BANDS, 1)).flatten(1)
    if bool(grey.any()):
        light[grey] = light[~grey].mean(0)  # nan where every frame is grey
    return light
