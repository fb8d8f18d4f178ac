"""Denoising networks: a residual perceptron for flat latents, the paper's one-dimensional U-Net, and their registry."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wildpdiff.diffusion.denoiser import DenoiserNetwork, Size, TimeEmbedding
from wildpdiff.errors import ArtifactError

_TIME_FEATURES = 64


class _Conditioned(DenoiserNetwork):
    """Base of the networks that read the sum of the embeddings of time and condition."""

    def __init__(self, config: dict[str, Any], embedding: int) -> None:
        super().__init__()
        self._config = config
        self.time = TimeEmbedding(_TIME_FEATURES)
        self.embed_time = nn.Linear(_TIME_FEATURES, embedding)
        self.embed_condition = nn.Linear(config["condition_size"], embedding)
        self.embed = nn.Linear(embedding, embedding)

    def embedded(self, t: Tensor, cond: Tensor) -> Tensor:
        first = functional.silu(self.embed_time(self.time(t)) + self.embed_condition(cond))
        return functional.silu(self.embed(first))

    @property
    def config(self) -> dict[str, Any]:
        return dict(self._config)


# width of the hidden layers and number of blocks
_WIDTHS: dict[Size, tuple[int, int]] = {"tiny": (128, 2), "small": (256, 3), "base": (512, 4)}


class ResidualDenoiser(_Conditioned):
    """Blocks ``h + W₂ silu(norm(W₁ h) (1 + scale) + shift)``, scale and shift from time and condition.

    The modulation is FiLM (Perez et al. 2018) where Dhariwal & Nichol 2021 put it ("adaptive group norm"). The
    output starts at zero, so that training starts from the mean of the target.

    Args:
        size: ``tiny`` (128 wide, 2 blocks), ``small`` (256, 3) or ``base`` (512, 4).
        dropout: share of hidden units dropped in training.
        width: hidden width instead of the size's.
        depth: number of blocks instead of the size's.
    """

    def __init__(
        self,
        latent_size: int,
        condition_size: int,
        size: Size = "small",
        *,
        dropout: float = 0.0,
        width: int | None = None,
        depth: int | None = None,
    ) -> None:
        config = {
            "network": "residual",
            "latent_size": latent_size,
            "condition_size": condition_size,
            "size": size,
            "dropout": dropout,
            "width": width,
            "depth": depth,
        }
        width, depth = width or _WIDTHS[size][0], depth or _WIDTHS[size][1]
        embedding = max(width // 4, 64)
        super().__init__(config, embedding)
        self.dropout = dropout
        # One product gives scale and shift of every block.
        self.modulate = nn.Linear(embedding, depth * 2 * width)
        self.enter = nn.Linear(latent_size, width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, latent_size)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, z_t: Float[Tensor, "n d"], t: Float[Tensor, " n"], cond: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n d"]:
        """The prediction, as of a ``Denoiser``."""
        embedded = self.embedded(t, cond)
        modulation = self.modulate(embedded).chunk(2 * len(self.first), dim=1)
        h = self.enter(z_t)
        for block, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            scale, shift = modulation[2 * block], modulation[2 * block + 1]
            inner = functional.layer_norm(first(h), (h.shape[1],))
            inner = functional.silu(torch.addcmul(inner + shift, inner, scale))
            if self.dropout > 0.0:
                inner = functional.dropout(inner, self.dropout, self.training)
            h = h + second(inner)
        prediction: Tensor = self.leave(functional.layer_norm(h, (h.shape[1],)))
        return prediction


# channels at each resolution; the sequence is halved between them
_CHANNELS: dict[Size, tuple[int, ...]] = {"tiny": (16, 32), "small": (32, 64, 128), "base": (64, 128, 256)}


class UNet1d(_Conditioned):
    """U-Net (Ronneberger et al. 2015; Ho et al. 2020, appendix B) in one dimension.

    The condition embedding is added to the embedding of the timestep (Zhang et al. 2025). Latents of any length are
    padded inside with zeros to a multiple of the coarsest stride. Unlike the pixels of an image, the coordinates of
    a latent are not alike, so each has a learned vector.

    Args:
        size: ``tiny`` (16-32 channels), ``small`` (32-64-128) or ``base`` (64-128-256).
        dropout: share of channels' values dropped in training.
    """

    def __init__(self, latent_size: int, condition_size: int, size: Size = "small", dropout: float = 0.0) -> None:
        config = {
            "network": "unet",
            "latent_size": latent_size,
            "condition_size": condition_size,
            "size": size,
            "dropout": dropout,
        }
        channels = _CHANNELS[size]
        embedding = 4 * channels[0]
        stride = 2 ** (len(channels) - 1)
        super().__init__(config, embedding)
        self.padding = -latent_size % stride
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
        """The prediction, as of a ``Denoiser``."""
        embedded = self.embedded(t, cond)
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


NetworkName = Literal["residual", "unet"]

NETWORKS: dict[str, type[DenoiserNetwork]] = {"residual": ResidualDenoiser, "unet": UNet1d}
"""Every network by name."""


def build_denoiser(config: Mapping[str, Any]) -> DenoiserNetwork:
    """A network with fresh weights from a ``DenoiserNetwork.config``.

    Raises:
        ArtifactError: the network's name or an argument is unknown.
    """
    arguments = dict(config)
    name = arguments.pop("network", None)
    if name not in NETWORKS:
        raise ArtifactError(f"The stored network is {name!r}; known are {sorted(NETWORKS)}.")
    try:
        return NETWORKS[name](**arguments)
    except (TypeError, KeyError) as error:
        raise ArtifactError(f"The stored configuration of network {name!r} is unreadable: {error}.") from error


def restore_denoiser(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> DenoiserNetwork:
    """The network whose ``config`` and ``state_dict`` these are, in evaluation mode.

    Raises:
        ArtifactError: the tensors do not belong to the configuration.
    """
    model = build_denoiser(config)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ArtifactError(f"The stored weights do not fit their configuration: {error}") from error
    return model.eval()
