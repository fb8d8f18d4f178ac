"""Features of image sets for conditions, by the frozen backbone and of the light, in named blocks; and their cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from wildpdiff.backbones.prefix import KEY
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.examples import examples_hash

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone

BATCH = 256
"""Images that go through a frozen model at once."""

LIGHT = "light"
PROBABILITIES = "class probabilities"
BANDS = 4
DARKEST = 0.02
"""Added to values in [0, 1] before their logarithm, about the noise of a camera."""
GREY = 0.02
"""Mean difference between the channels below which a frame is taken to be infrared."""

MOST_BYTES = 128 * 2**20
"""Kept by default: the descriptions of a few thousand small tasks."""


class FeatureMemory:
    """Cache of the features of whole sets of images or other examples by their hash; the longest unused are dropped.

    Every source of an evaluation and every fit needs the features of the same descriptions. May be shared by threads.

    Attributes:
        blocks: kinds of features that :class:`ExampleFeaturiser` has found, with the number of each.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Keep at most ``most_bytes`` of features; 0 keeps nothing."""
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], Tensor] = OrderedDict()
        self.blocks: Mapping[str, int] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[type[FeatureMemory], tuple[int]]:
        """An empty memory for another process."""
        return FeatureMemory, (self._most,)

    def __call__(self, examples: Any, compute: Callable[[Any], Tensor]) -> Float[Tensor, "n f"]:
        """The features of a set of examples, computed by ``compute`` unless they are known. The caller owns the result.

        Args:
            examples: images ``uint8 [n, h, w, 3]``, or others as the backbone takes them.
            compute: examples to features; always the same function for one memory.
        """
        kind = f"{examples.dtype} {examples.shape}" if isinstance(examples, np.ndarray) else type(examples).__name__
        key = (kind, examples_hash(examples))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].clone()
        features = compute(examples)
        with self._lock:
            if key not in self._kept and _size(features) <= self._most:
                self._kept[key] = features.clone()
                self._bytes += _size(features)
            while self._bytes > self._most:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= _size(oldest)
        return features


def _size(values: Tensor) -> int:
    return values.numel() * values.element_size()


@dataclass(frozen=True, eq=False)
class ImageFeaturiser:
    """Features of a set of images for conditions: light, colour, pooled maps, embedding, class probabilities.

    Light, colour and stem statistics depend on site and camera, the embedding and the pretrained model's class
    probabilities on the content. The features are cached in the backbone's memory. It is a
    :class:`~wildpdiff.conditions.base.BlockFeaturiser`.

    *Light* is the mean logarithm of each colour channel in four horizontal bands, in which a cast or an exposure is a
    shift. Infrared frames are grey and without light: they are given the mean of the set's colour frames, and where a
    set has none its light is nan.

    Attributes:
        backbone: whose frozen weights make the features.
    """

    backbone: Backbone

    def __call__(self, images: Images) -> Float[Tensor, "n f"]:
        """Features of ``uint8 [n, h, w, 3]``; raises :class:`DataError` as the backbone's ``preprocess``."""
        return self.backbone.memory(images, lambda new: torch.cat(list(self._compute(new).values()), dim=1))

    @property
    def identity(self) -> str:
        """``backbone``: a generator's backbone has one set of weights, which it is checked for elsewhere."""
        return "backbone"

    @cached_property
    def blocks(self) -> dict[str, int]:
        """The kinds of features in their order, with the number of each; none where the model takes no images."""
        size = self.backbone.image_size
        if not size:
            return {}
        blank = np.zeros((1, size, size, 3), dtype=np.uint8)
        return {name: values.shape[1] for name, values in self._compute(blank).items()}

    def columns(self, block: str) -> slice | None:
        """The columns of a block; ``None`` where the backbone has no such block."""
        return columns_of(self.blocks, block)

    @property
    def factors(self) -> tuple[str, ...]:
        """The light, and class probabilities: each is a cause of its own of how tasks differ."""
        return (LIGHT, PROBABILITIES)

    def _compute(self, images: Images) -> dict[str, Tensor]:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float().div_(255.0)
        batch = self.backbone.stem(images)
        grey = (pixels.amax(3) - pixels.amin(3)).mean((1, 2)) < GREY
        colour = [pixels.mean((1, 2)), pixels.std((1, 2)), grey.float()[:, None]]
        blocks = {LIGHT: _light(pixels, grey), "colour": torch.cat(colour, dim=1)}
        with torch.inference_mode():
            kept = [value.flatten(2) for name, value in batch.items() if name.startswith(KEY) and value.ndim == 4]
            for maps in kept[:1]:
                blocks |= {"stem mean": maps.mean(2), "stem spread": maps.std(2, correction=0)}
            embedding = self.backbone.embedding(batch)
            if embedding is not None:
                blocks["embedding"] = embedding
            if self.backbone.classes:
                blocks[PROBABILITIES] = self.backbone.predict(batch).softmax(1)
        return {name: values.clone() for name, values in blocks.items()}


def columns_of(blocks: Mapping[str, int], block: str) -> slice | None:
    """The columns of a block among blocks of these widths; ``None`` where it is not one of them."""
    start = 0
    for name, width in blocks.items():
        if name == block:
            return slice(start, start + width)
        start += width
    return None


def _light(pixels: Float[Tensor, "n h w 3"], grey: Bool[Tensor, " n"]) -> Float[Tensor, "n l"]:
    """Mean log of each channel in horizontal bands; of colour frames alone."""
    logs = (pixels + DARKEST).log().permute(0, 3, 1, 2)
    light = adaptive_avg_pool2d(logs, (BANDS, 1)).flatten(1)
    if bool(grey.any()):
        light[grey] = light[~grey].mean(0)  # nan where every frame is grey
    return light
