"""Interface of the autoencoders: normalised adapter vectors to latents of about unit variance, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class Autoencoder(nn.Module, ABC):
    """Encodes vectors "n d" to latents "n l" and decodes them; both directions differentiable and batch-independent.

    An implementation is rebuilt by its constructor from ``config`` and then given its ``state_dict``.
    """

    @abstractmethod
    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n l"]:
        """Normalised vectors to latents, without noise."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Latents to normalised vectors."""

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """Length l of a latent."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the ``kind`` of the autoencoder."""
