"""The seam of diffusion: everything that samples or guides knows a network only as a ``Denoiser``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

Size = Literal["tiny", "small", "base"]
"""The one dial of a network's width and depth."""


@runtime_checkable
class Denoiser(Protocol):
    """Predicts what its ``Schedule`` says (noise, clean latent or velocity) from a noisy latent.

    Each row of the result depends on the same row of the arguments alone.
    """

    def __call__(
        self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"], cond: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        """The prediction for noisy latents ``z_t`` at the times ``t`` in [0, T), given condition embeddings."""
        ...


class DenoiserNetwork(nn.Module, ABC):
    """A trainable ``Denoiser``, rebuilt by its constructor from ``config`` and then given its ``state_dict``."""

    @abstractmethod
    def forward(
        self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"], cond: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        """The prediction, as ``Denoiser`` says."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the ``network``'s name."""


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time at geometric frequencies (Vaswani et al. 2017, section 3.5).

    Args:
        width: number of features, even; their periods reach from 2π to 20,000 π steps.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(width // 2, dtype=torch.float32) / (width // 2)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000.0) * exponents), persistent=False)

    def forward(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n f"]:
        """Features "n f" of the times "n"."""
        angles = t[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)
