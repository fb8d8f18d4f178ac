"""p-diff's published settings, and its denoiser: eight convolutions over the latent (Wang et al. 2024, 2402.13144)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.diffusion.denoiser import DenoiserNetwork, TimeEmbedding
from wildpdiff.errors import TrainingError

DENOISER_CHANNELS = (64, 128, 256, 512, 256, 128, 64)
"""Channels between the published denoiser's eight convolutions; before the first and after the last there is one."""

KERNEL = 7


@dataclass(frozen=True)
class PDiffConfig:
    """The published settings.

    Attributes:
        latent_size: length of a latent, even.
        channels: of the denoiser, between its convolutions.
        autoencoder_steps: optimiser steps of the autoencoder.
        autoencoder_rate: its learning rate at the start; half a cosine down to 0.
        denoiser_steps: optimiser steps of the denoiser.
        denoiser_rate: its learning rate at the start; half a cosine down to 0.
        batch: checkpoints a step.
        input_noise: standard deviation of the noise on normalised vectors while the autoencoder is trained.
        latent_noise: the same on latents.
        times: number T of the diffusion's times, β linear from 1e-4 to 0.02; sampling takes as many steps.
        pool: adapters that are sampled, all at once, when the first is asked for.
    """

    latent_size: int = 128
    channels: tuple[int, ...] = DENOISER_CHANNELS
    autoencoder_steps: int = 500
    autoencoder_rate: float = 2e-5
    denoiser_steps: int = 1000
    denoiser_rate: float = 1e-4
    batch: int = 50
    input_noise: float = 0.001
    latent_noise: float = 0.1
    times: int = 1000
    pool: int = 32

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PDiffConfig:
        """The inverse of :meth:`to_json`."""
        return cls(**{**data, "channels": tuple(data["channels"])})


class PDiffDenoiser(DenoiserNetwork):
    """Noise prediction from a noisy latent, which is read as a signal of one channel; no condition is read.

    Convolutions of kernel 7 and stride 1, each but the last followed by batch norm and ELU. The time's embedding is
    added along the signal before every convolution, and what left the first convolutions is added to what leaves the
    last ones of the same width. The description leaves open how the time is embedded (here: sines and cosines, then
    one two-layer network for all convolutions), and what follows the last convolution (here: nothing, because noise
    has no lower bound and ELU has one).

    Batch norm makes rows depend on each other while training; in evaluation mode they do not.

    Args:
        latent_size: length l of a latent, even.
        channels: channels between the convolutions, the same read from both ends.
    """

    def __init__(self, latent_size: int, channels: Sequence[int] = DENOISER_CHANNELS) -> None:
        super().__init__()
        self._channels = tuple(channels)
        if not self._channels or self._channels != self._channels[::-1] or len(self._channels) % 2 == 0:
            raise TrainingError(
                f"The denoiser's channels are {list(self._channels)}; additive skips need an odd number of them that "
                "reads the same from both ends."
            )
        self._latent_size = latent_size
        self.time = nn.Sequential(
            TimeEmbedding(latent_size),
            nn.Linear(latent_size, latent_size),
            nn.ELU(),
            nn.Linear(latent_size, latent_size),
        )
        widths = (1, *self._channels, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, KERNEL, padding=KERNEL // 2) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in self._channels)

    def forward(
        self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"], cond: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        """The noise in ``z_t``; ``cond`` is not read."""
        time = self.time(t)[:, None]
        middle = len(self._channels) // 2
        kept: list[Tensor] = []
        h = z_t[:, None]
        for place, norm in enumerate(self.norms):
            h = torch.nn.functional.elu(norm(self.convolutions[place](h + time)))
            if place < middle:
                kept.append(h)
            elif place > middle:
                h = h + kept.pop()
        result: Tensor = self.convolutions[-1](h + time)[:, 0]
        return result

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the network's name."""
        return {"network": "p-diff", "latent_size": self._latent_size, "channels": list(self._channels)}
