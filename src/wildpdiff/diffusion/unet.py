"""The paper's denoiser: a one-dimensional convolutional U-Net over the latent as a sequence of one channel."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wildpdiff.diffusion.denoiser import DenoiserNetwork, Size, TimeEmbedding

# channels at each resolution; the sequence is halved between them
_SIZES: dict[Size, tuple[int, ...]] = {"tiny": (16, 32), "small": (32, 64, 128), "base": (64, 128, 256)}
_TIME_FEATURES = 64


class UNet1d(DenoiserNetwork):
    """U-Net (Ronneberger et al. 2015; Ho et al. 2020, appendix B) in one dimension.

    The condition embedding is added to the embedding of the timestep (Zhang et al. 2025). Latents of any length are
    padded inside with zeros to a multiple of the coarsest stride. Unlike the pixels of an image, the coordinates of
    a latent are not alike, so a learned vector says which is which.

    Args:
        latent_size: d, coordinates of a latent.
        condition_size: e, length of a condition embedding.
        size: ``tiny`` (16-32 channels), ``small`` (32-64-128) or ``base`` (64-128-256).
        dropout: share of channels' values dropped in training.
    """

    def __init__(self, latent_size: int, condition_size: int, size: Size = "small", dropout: float = 0.0) -> None:
        super().__init__()
        self._config = {
            "network": "unet",
            "latent_size": latent_size,
            "condition_size": condition_size,
            "size": size,
            "dropout": dropout,
        }
        channels = _SIZES[size]
        embedding = 4 * channels[0]
        stride = 2 ** (len(channels) - 1)
        self.padding = -latent_size % stride
        self.time = TimeEmbedding(_TIME_FEATURES)
        self.embed_time = nn.Linear(_TIME_FEATURES, embedding)
        self.embed_condition = nn.Linear(condition_size, embedding)
        self.embed = nn.Linear(embedding, embedding)
        self.enter = nn.Conv1d(1, channels[0], 3, padding=1)
        self.position = nn.Parameter(torch.zeros(channels[0], latent_size + self.padding))
        nn.init.normal_(self.position, std=0.1)
        self.down = nn.ModuleList(_Block(width, width, embedding, dropout) for width in channels)
        self.shrink = nn.ModuleList(
            nn.Conv1d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(channels)
        )
        self.middle = _Block(channels[-1], channels[-1], embedding, dropout)
        self.up = nn.ModuleList(_Block(2 * width, width, embedding, dropout) for width in reversed(channels))
        self.grow = nn.ModuleList(
            nn.Conv1d(coarse, fine, 3, padding=1) for coarse, fine in pairwise(reversed(channels))
        )
        self.normalize = nn.GroupNorm(_groups(channels[0]), channels[0])
        self.leave = nn.Conv1d(channels[0], 1, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(
        self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"], cond: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        """The prediction, as ``Denoiser`` says."""
        embedded = functional.silu(self.embed_time(self.time(t)) + self.embed_condition(cond))
        embedded = functional.silu(self.embed(embedded))
        h = self.enter(functional.pad(z_t, (0, self.padding))[:, None]) + self.position
        skips = []
        for level, block in enumerate(self.down):
            h = block(h, embedded)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(h, embedded)
        for level, block in enumerate(self.up):
            h = block(torch.cat([h, skips.pop()], dim=1), embedded)
            if level < len(self.grow):
                h = self.grow[level](functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        prediction: Tensor = self.leave(functional.silu(self.normalize(h)))[:, 0]
        return prediction[:, : z_t.shape[1]]

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the network's name."""
        return dict(self._config)


class _Block(nn.Module):
    """Two convolutions with group norm, the embedding added between them, and a residual connection."""

    def __init__(self, before: int, after: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.GroupNorm(_groups(before), before)
        self.conv_1 = nn.Conv1d(before, after, 3, padding=1)
        self.embed = nn.Linear(embedding, after)
        self.norm_2 = nn.GroupNorm(_groups(after), after)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = nn.Conv1d(after, after, 3, padding=1)
        self.skip = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        inner = self.conv_1(functional.silu(self.norm_1(h))) + self.embed(embedded)[:, :, None]
        inner = self.conv_2(self.dropout(functional.silu(self.norm_2(inner))))
        result: Tensor = self.skip(h) + inner
        return result


def _groups(channels: int) -> int:
    return min(8, channels)
