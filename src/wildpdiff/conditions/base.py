"""The seam of the conditions: an encoder of one part of a description, fitted on the seen tasks by statistics alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.tasks.description import Description, Images

__all__ = ["CLIP", "ConditionEmbedding", "ConditionEncoder", "ConditionSampler", "Featuriser"]

CLIP = 4.0
"""Standardised values are clipped to ±CLIP: a network must not be driven by a value far outside the seen tasks."""

Featuriser = Callable[[Images], Tensor]
"""Images ``uint8 [n, h, w, 3]`` to features ``[n, f]``; ``Backbone.image_features`` is one."""

ConditionSampler = Callable[[Tensor, torch.Generator], Tensor]
"""Task indices ``int64 [b]`` and a generator to condition embeddings ``[b, e]``, drawn anew at every training step."""


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
    """Encodes one part of a description. Deterministic; nothing in it is learned by gradient."""

    @property
    def kind(self) -> str:
        """The registered name of the class."""

    @property
    def part(self) -> str:
        """The part of a description that it reads, one of ``PARTS``."""

    @property
    def size(self) -> int:
        """Length of the embedding."""

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Columns of the embedding that are one factor each; a regression may be additive over them."""

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the encoder."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fitted statistics, by name."""

    def encode(self, description: Description) -> ConditionEmbedding:
        """The embedding of the part, zero where it is missing; raises :class:`DescriptionError` on a bad value."""

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> ConditionEncoder:
        """Restore from :attr:`config` and :attr:`tensors`; encoders of images are given their featuriser again."""
