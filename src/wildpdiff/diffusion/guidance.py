"""Classifier-free guidance: a denoiser made of the conditional and the unconditional branch of another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.diffusion.denoiser import Denoiser


def guided(denoiser: Denoiser, scale: float, null_condition: Float[Tensor, " e"]) -> Denoiser:
    """Extrapolate from the unconditional to the conditional prediction; both are computed in one batch.

    ``null + scale (conditional - null)``: scale 0 ignores the condition, 1 is the conditional denoiser unchanged,
    above 1 exaggerates it. The result does not depend on the prediction type, since the conversions between
    types are affine. Source: Ho & Salimans 2022, equation 6, with scale = 1 + w.

    Args:
        denoiser: a denoiser trained with conditions dropped to ``null_condition`` now and then.
        scale: strength of the guidance.
        null_condition: the embedding that stands for "no condition", "e".
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
