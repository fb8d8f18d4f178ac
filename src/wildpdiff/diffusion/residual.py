"""A residual multi-layer perceptron for flat latents of some tens to hundreds of coordinates."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wildpdiff.diffusion.denoiser import DenoiserNetwork, Size, TimeEmbedding

# width of the hidden layers and number of blocks
_SIZES: dict[Size, tuple[int, int]] = {"tiny": (128, 2), "small": (256, 3), "base": (512, 4)}
_TIME_FEATURES = 64


class ResidualDenoiser(DenoiserNetwork):
    """Blocks ``h + W₂ silu(norm(W₁ h) (1 + scale) + shift)``, scale and shift from time and condition.

    The modulation is FiLM (Perez et al. 2018) where Dhariwal & Nichol 2021 put it ("adaptive group norm"). The
    output starts at zero, so that training starts from the mean of the target.

    Args:
        latent_size: d, coordinates of a latent.
        condition_size: e, length of a condition embedding.
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
        dropout: float = 0.0,
        width: int | None = None,
        depth: int | None = None,
    ) -> None:
        super().__init__()
        self._config = {
            "network": "residual",
            "latent_size": latent_size,
            "condition_size": condition_size,
            "size": size,
            "dropout": dropout,
            "width": width,
            "depth": depth,
        }
        width, depth = width or _SIZES[size][0], depth or _SIZES[size][1]
        embedding = max(width // 4, 64)
        self.dropout = dropout
        self.time = TimeEmbedding(_TIME_FEATURES)
        self.embed_time = nn.Linear(_TIME_FEATURES, embedding)
        self.embed_condition = nn.Linear(condition_size, embedding)
        self.embed = nn.Linear(embedding, embedding)
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
        """The prediction, as ``Denoiser`` says."""
        embedded = functional.silu(self.embed_time(self.time(t)) + self.embed_condition(cond))
        embedded = functional.silu(self.embed(embedded))
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

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the network's name."""
        return dict(self._config)
