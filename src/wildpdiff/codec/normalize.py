"""Normalisation of adapter vectors: z-score per coordinate, or one scale per tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.errors import TrainingError

NormalizationMode = Literal["coordinate", "tensor"]

# Columns taken to float64 at a time, so that a large zoo is never copied whole.
_COLUMNS = 16384
# A coordinate whose spread is below this share of its mean is constant up to float32 rounding.
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Normalizer:
    """An invertible affine map per coordinate: ``(x - mean) / scale``.

    Attributes:
        mean: mean of every coordinate, "d".
        scale: strictly positive divisor of every coordinate, "d"; 1 where the training vectors are constant.
    """

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]

    @classmethod
    def fit(
        cls, vectors: Float[Tensor, "n d"], mode: NormalizationMode = "coordinate", layout: Layout | None = None
    ) -> Normalizer:
        """Mean and scale of training vectors.

        Args:
            vectors: training vectors, "n d".
            mode: ``coordinate`` divides each coordinate by its own standard deviation (z-score, Zhang et al. 2025);
                ``tensor`` divides all coordinates of one tensor by the root of their mean variance, which keeps the
                relative importance of its directions and does not amplify coordinates that hardly move.
            layout: which coordinates form one tensor; needed by ``tensor`` only.

        Raises:
            TrainingError: there are no vectors, they are not finite, or ``tensor`` comes without a layout that fits.
        """
        if vectors.shape[0] == 0:
            raise TrainingError("There are no vectors to normalise; build the zoo first.")
        means, variances = [], []
        for columns in torch.split(vectors, _COLUMNS, dim=1):
            variance, mean = torch.var_mean(columns.double(), dim=0, correction=0)
            means.append(mean)
            variances.append(variance)
        mean = torch.cat(means)
        variance = torch.cat(variances)
        if not bool(torch.isfinite(variance).all()):
            bad = int((~torch.isfinite(variance)).nonzero()[0])
            raise TrainingError(
                f"The training vectors hold NaN or infinity (first in coordinate {bad}); remove the adapters whose "
                "fine-tuning diverged."
            )
        if mode == "tensor":
            variance = _mean_variance_per_tensor(variance, layout)
        deviation = variance.sqrt()
        constant = deviation <= _CONSTANT * mean.abs() + torch.finfo(torch.float32).tiny
        return cls(mean.float(), torch.where(constant, torch.ones_like(deviation), deviation).float())

    def normalize(self, vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Raw to normalised vectors."""
        return (vectors - self.mean) / self.scale

    def denormalize(self, normalized: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Normalised to raw vectors."""
        return normalized * self.scale + self.mean


def _mean_variance_per_tensor(variance: Tensor, layout: Layout | None) -> Tensor:
    if layout is None or layout.size != variance.shape[0]:
        found = "no layout" if layout is None else f"a layout of {layout.size} values"
        raise TrainingError(
            f"Normalisation per tensor of vectors of {variance.shape[0]} values was given {found}; "
            "pass the layout of these vectors."
        )
    parts = torch.split(variance, list(layout.sizes))
    return torch.cat([part.mean().expand_as(part) for part in parts])
