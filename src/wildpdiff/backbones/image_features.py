"""Features of sets of images, or of other inputs, for conditions: by the frozen backbone and of the light; cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from wildpdiff.backbones.prefix import KEY
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import Batch, concatenate, count, examples_hash, part
from wildpdiff.tasks.description import Images, Inputs
from wildpdiff.tasks.objective import NextToken

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone

BATCH = 256
"""Images that go through a frozen model at once."""

LIGHT = "light"
PROBABILITIES = "class probabilities"
BANDS = 4
MOST_VALUES = 1024
"""Numbers of an input that is no image, and of an output that is no class, that are features as they are."""
DARKEST = 0.02
"""Added to values in [0, 1] before their logarithm, about the noise of a camera."""
GREY = 0.02
"""Mean difference between the channels below which a frame is taken to be infrared."""

MOST_BYTES = 128 * 2**20
"""Kept by default: the descriptions of a few thousand small tasks."""


class FeatureMemory:
    """Cache of the features of whole sets by the hash of their inputs; the longest unused are dropped.

    Every source of an evaluation and every fit needs the features of the same descriptions. May be shared by threads.

    Attributes:
        widths: numbers of features of each kind, where these are known from a first set only.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Keep at most ``most_bytes`` of features; 0 keeps nothing."""
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[tuple[int, ...], str, str], Tensor] = OrderedDict()
        self.widths: dict[str, int] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[type[FeatureMemory], tuple[int]]:
        """An empty memory for another process."""
        return FeatureMemory, (self._most,)

    def __call__(self, images: Inputs, compute: Callable[[Inputs], Tensor]) -> Float[Tensor, "n f"]:
        """The features of a set, computed by ``compute`` unless they are known. The caller owns the result.

        Args:
            images: ``uint8 [n, h, w, 3]``, or other inputs.
            compute: inputs to features; always the same function for one memory.
        """
        key = (tuple(getattr(images, "shape", ())), str(getattr(images, "dtype", "")), examples_hash(images))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].clone()
        features = compute(images)
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

    Of other inputs there are the embedding, the class probabilities (or few outputs that are no classes), and the
    inputs themselves where they are few real numbers: a signal's mean and spread describe its source.

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

    def __call__(self, images: Inputs) -> Float[Tensor, "n f"]:
        """Features of ``uint8 [n, h, w, 3]``, or of other inputs; raises :class:`DataError` as the backbone's stem."""
        return self.backbone.memory(images, lambda new: torch.cat(list(self._compute(new).values()), dim=1))

    @property
    def identity(self) -> str:
        """``backbone``: a generator's backbone has one set of weights, which it is checked for elsewhere."""
        return "backbone"

    @property
    def blocks(self) -> dict[str, int]:
        """The kinds of features in their order, with the number of each; of other inputs known from the first set."""
        widths, size = self.backbone.memory.widths, self.backbone.image_size
        if size and not widths:
            self._compute(np.zeros((1, size, size, 3), dtype=np.uint8))
        return widths

    def columns(self, block: str, width: int | None = None) -> slice | None:
        """The columns of a block; ``None`` where the backbone has no such block.

        Args:
            width: of an embedding, where it is known; that of other inputs comes first.
        """
        if width is not None and not self.backbone.image_size:
            return slice(0, width)
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

    def _compute(self, images: Inputs) -> dict[str, Tensor]:
        batch = self.backbone.stem(images)
        blocks = self._of_images(images, batch) if self.backbone.image_size else {}
        embedding = self.backbone.embedding(batch)
        if embedding is not None:
            blocks["embedding"] = embedding
        if not self.backbone.image_size:
            blocks |= self._of_others(images, batch)
        elif self.backbone.classes:
            blocks[PROBABILITIES] = self.backbone.predict(batch).softmax(1)
        if not blocks:
            raise DescriptionError(
                f"The model {self.backbone.name!r} gives no features of examples: its outputs are neither classes "
                "nor few numbers, and its last layer is not linear. Leave examples out, or give a featuriser."
            )
        self.backbone.memory.widths.update((name, values.shape[1]) for name, values in blocks.items())
        return {name: values.clone() for name, values in blocks.items()}

    def _of_others(self, examples: Inputs, batch: Batch) -> dict[str, Tensor]:
        """Class probabilities or outputs, and small inputs; none of a language model, whose inputs are tokens."""
        backbone = self.backbone
        if isinstance(backbone.objective, NextToken):
            return {}
        outputs = backbone.predict(batch).flatten(1)
        blocks = {PROBABILITIES: outputs.softmax(1)} if backbone.classes else {}
        if not blocks and outputs.shape[1] <= MOST_VALUES:
            blocks["outputs"] = outputs
        starts = range(0, count(examples), BATCH)
        given = concatenate([backbone.collate(part(examples, slice(start, start + BATCH))) for start in starts])
        rows = [values.reshape(len(values), -1) for values in given.values() if values.is_floating_point()]
        if rows and sum(row.shape[1] for row in rows) <= MOST_VALUES:
            blocks["inputs"] = torch.cat(rows, 1)
        return blocks

    def _of_images(self, images: Images, batch: Batch) -> dict[str, Tensor]:
        """Light, colour and pooled maps."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float().div_(255.0)
        grey = (pixels.amax(3) - pixels.amin(3)).mean((1, 2)) < GREY
        colour = [pixels.mean((1, 2)), pixels.std((1, 2)), grey.float()[:, None]]
        blocks = {LIGHT: _light(pixels, grey), "colour": torch.cat(colour, dim=1)}
        with torch.inference_mode():
            kept = [value.flatten(2) for name, value in batch.items() if name.startswith(KEY) and value.ndim == 4]
            for maps in kept[:1]:
                blocks |= {"stem mean": maps.mean(2), "stem spread": maps.std(2, correction=0)}
        return blocks


def _light(pixels: Float[Tensor, "n h w 3"], grey: Bool[Tensor, " n"]) -> Float[Tensor, "n l"]:
    """Mean log of each channel in horizontal bands; of colour frames alone."""
    logs = (pixels + DARKEST).log().permute(0, 3, 1, 2)
    light = adaptive_avg_pool2d(logs, (BANDS, 1)).flatten(1)
    if bool(grey.any()):
        light[grey] = light[~grey].mean(0)  # nan where every frame is grey
    return light
