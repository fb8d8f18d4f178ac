"""Interface of the conditions: an encoder of one part of a description, fitted by statistics of the seen tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, Inputs

CLIP = 4.0
"""Bound of standardised values: a network must not be driven by a value far outside the seen tasks."""

Featuriser = Callable[[Inputs], Tensor]
"""Images ``uint8 [n, h, w, 3]`` or other inputs to features ``[n, f]``; ``Backbone.image_features`` is one."""

ConditionSampler = Callable[[Tensor, torch.Generator], Tensor]
"""Task indices ``int64 [b]`` and a generator to condition embeddings ``[b, e]``, drawn anew at every training step."""


@runtime_checkable
class BlockFeaturiser(Protocol):
    """Featuriser of images with named blocks of features; a plain function counts as one block."""

    @property
    def identity(self) -> str:
        """Identity of the features, weights included: a condition is restored with the same one only."""

    @property
    def blocks(self) -> Mapping[str, int]:
        """Kinds of features in their order, with the number of each; an image set gives every kind equal weight."""

    @property
    def factors(self) -> tuple[str, ...]:
        """Blocks that are also a factor of their own."""

    def __call__(self, images: Inputs) -> Tensor:
        """Images ``uint8 [n, h, w, 3]`` to features ``[n, f]``."""


@dataclass(frozen=True)
class ConditionEmbedding:
    """A description, or one part of it, as a vector.

    Attributes:
        values: the embedding; all zero where the part is missing.
        present: whether the description has the part.
    """

    values: Float[Tensor, " e"]
    present: bool


@runtime_checkable
class ConditionEncoder(Protocol):
    """Encoder of one part of a description. Deterministic; nothing in it is learned by gradient."""

    @property
    def kind(self) -> str:
        """Registered name of the stored state."""

    @property
    def part(self) -> str:
        """The part of a description, one of ``PARTS``."""

    @property
    def size(self) -> int:
        """Length of the embedding."""

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Columns of the embedding that are one factor each; a regression may be additive over them."""

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state, by name."""

    def encode(self, description: Description) -> ConditionEmbedding:
        """Embedding of the part, zero where it is missing; raises :class:`DescriptionError` on a bad value."""

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> ConditionEncoder:
        """Inverse of :attr:`config` and :attr:`tensors`; the featuriser of images is not part of the state."""


def feature_blocks(featurise: Featuriser, width: int) -> dict[str, int]:
    """Blocks of a featuriser whose features are ``width`` long; a plain function has one.

    Raises:
        DescriptionError: the featuriser's blocks are of another length, so the features are not its own.
    """
    if not isinstance(featurise, BlockFeaturiser):
        return {"features": width}
    blocks = dict(featurise.blocks)
    if sum(blocks.values()) != width:
        raise DescriptionError(
            f"The image features are {width} long; those of {featurise.identity!r} are {sum(blocks.values())} long. "
            "Give the featuriser that made them."
        )
    return blocks
