"""p-diff's published settings and networks: convolutions over vector and latent (Wang et al. 2024, 2402.13144)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.autoencoder.vae import VariationalAutoencoder
from wildpdiff.diffusion.denoiser import DenoiserNetwork, TimeEmbedding
from wildpdiff.errors import TrainingError

DENOISER_CHANNELS = (64, 128, 256, 512, 256, 128, 64)
"""Channels between the published denoiser's eight convolutions; before the first and after the last there is one."""

ENCODER_CHANNELS = (64, 128, 256, 256, 32)
"""Channels of the published encoder's five convolutions of stride 2."""

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
        pool: adapters that are sampled, all at once, at the first request.
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
        for index, norm in enumerate(self.norms):
            h = torch.nn.functional.elu(norm(self.convolutions[index](h + time)))
            if index < middle:
                kept.append(h)
            elif index > middle:
                h = h + kept.pop()
        result: Tensor = self.convolutions[-1](h + time)[:, 0]
        return result

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the network's name."""
        return {"network": "p-diff", "latent_size": self._latent_size, "channels": list(self._channels)}


class ConvolutionalEncoder(nn.Module):
    """Zero padding, five halving convolutions with batch norm and leaky ReLU, one linear layer."""

    def __init__(self, size: int, latent_size: int) -> None:
        """For vectors of ``size`` values."""
        super().__init__()
        stride = 2 ** len(ENCODER_CHANNELS)
        self.padding = -size % stride
        layers: list[nn.Module] = []
        for before, after in zip((1, *ENCODER_CHANNELS[:-1]), ENCODER_CHANNELS, strict=True):
            layers += [nn.Conv1d(before, after, KERNEL, 2, KERNEL // 2), nn.BatchNorm1d(after), nn.LeakyReLU()]
        self.layers = nn.Sequential(*layers)
        self.leave = nn.Linear(ENCODER_CHANNELS[-1] * (size + self.padding) // stride, latent_size)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n l"]:
        """Latents, not standardised."""
        h = self.layers(nn.functional.pad(x, (0, self.padding))[:, None])
        result: Tensor = self.leave(h.flatten(1))
        return result


class ConvolutionalDecoder(nn.Module):
    """One linear layer, five doubling convolutions with batch norm and ELU, a last convolution to one channel."""

    def __init__(self, latent_size: int, size: int) -> None:
        """For vectors of ``size`` values."""
        super().__init__()
        stride = 2 ** len(ENCODER_CHANNELS)
        self.size = size
        self.length = (size + -size % stride) // stride
        self.enter = nn.Linear(latent_size, ENCODER_CHANNELS[-1] * self.length)
        layers: list[nn.Module] = []
        channels = tuple(reversed(ENCODER_CHANNELS))
        for before, after in zip(channels, (*channels[1:], channels[-1]), strict=True):
            up = nn.ConvTranspose1d(before, after, KERNEL, 2, KERNEL // 2, output_padding=1)
            layers += [up, nn.BatchNorm1d(after), nn.ELU()]
        self.layers = nn.Sequential(*layers, nn.Conv1d(channels[-1], 1, KERNEL, padding=KERNEL // 2))

    def forward(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Vectors."""
        h = self.layers(self.enter(z).unflatten(1, (ENCODER_CHANNELS[-1], self.length)))
        result: Tensor = h[:, 0, : self.size]
        return result


def convolutional_autoencoder(size: int, latent_size: int) -> VariationalAutoencoder:
    """p-diff's autoencoder."""
    networks = ConvolutionalEncoder(size, latent_size), ConvolutionalDecoder(latent_size, size)
    return VariationalAutoencoder(size, latent_size, networks=networks)
