"""Interface of the denoisers, and classifier-free guidance."""

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
    """Prediction from a noisy latent of noise, clean latent or velocity, as of its ``Schedule``.

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
        """The prediction, as of a ``Denoiser``."""

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


def guided(denoiser: Denoiser, scale: float, null_condition: Float[Tensor, " e"]) -> Denoiser:
    """Classifier-free guidance: extrapolation from the unconditional to the conditional prediction.

    ``null + scale (conditional - null)``: scale 0 ignores the condition, 1 is the conditional denoiser unchanged,
    above 1 exaggerates it. The result does not depend on the prediction type, since the conversions between
    types are affine. Source: Ho & Salimans 2022, equation 6, with scale = 1 + w.

    The denoiser was trained with conditions dropped to ``null_condition`` now and then.
    """
    if scale == 1.0:
        return denoiser

    def guided_denoiser(
        z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"], cond: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        null = null_condition.to(cond).expand_as(cond)
        both = denoiser(torch.cat([z_t, z_t]), torch.cat([t, t]), torch.cat([cond, null]))
        conditional, unconditional = both.chunk(2)
        return torch.lerp(unconditional, conditional, scale)

    return guided_denoiser
