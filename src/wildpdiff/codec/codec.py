"""The codec: raw adapter vectors to normalised vectors and back, with the layout that gives the vectors meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.canonical import Gauge, canonical
from wildpdiff.adapters.layout import Layout
from wildpdiff.errors import AdapterMismatchError, ArtifactError, TrainingError

NormalizationMode = Literal["coordinate", "tensor"]

# Columns taken to float64 at a time, so that a large zoo is never copied whole.
_COLUMNS = 16384
# A coordinate whose spread is below this share of its mean is constant up to float32 rounding.
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Codec:
    """Layout and normalisation of one zoo's adapters: ``(x - mean) / scale`` of every coordinate, differentiable.

    Attributes:
        scale: strictly positive; 1 where the training vectors are constant.
        gauge: ``canonical`` brings LoRA factors to their canonical form before they are normalised, so that vectors
            depend on the updates ``ΔW = B A`` alone; decoding then gives other factors of the same updates. Only for
            zoos that train A: where all adapters share A, it would make equal A factors unequal.
    """

    layout: Layout
    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    gauge: Gauge = "raw"

    def __post_init__(self) -> None:
        if self.layout.size != self.mean.shape[0]:
            raise AdapterMismatchError(f"The layout has {self.layout.size} values, the mean {self.mean.shape[0]}.")

    @classmethod
    def fit(
        cls,
        layout: Layout,
        vectors: Float[Tensor, "n d"],
        mode: NormalizationMode = "coordinate",
        gauge: Gauge = "raw",
    ) -> Codec:
        """A codec normalised on these raw training vectors.

        Args:
            mode: ``coordinate`` divides each coordinate by its own standard deviation (z-score, Zhang et al. 2025);
                ``tensor`` divides all coordinates of one tensor by the root of their mean variance, which keeps the
                relative importance of its directions and does not amplify coordinates that hardly move.

        Raises:
            TrainingError: there are no vectors, or they are not finite.
        """
        if vectors.shape[0] == 0:
            raise TrainingError("There are no vectors to normalise; build the zoo first.")
        columns = torch.split(_in_gauge(layout, vectors, gauge), _COLUMNS, dim=1)
        moments = [torch.var_mean(part.double(), dim=0, correction=0) for part in columns]
        variance, mean = (torch.cat(parts) for parts in zip(*moments, strict=True))
        if not bool(torch.isfinite(variance).all()):
            bad = int((~torch.isfinite(variance)).nonzero()[0])
            raise TrainingError(f"The vectors hold NaN or infinity (coordinate {bad}). Remove adapters that diverged.")
        if mode == "tensor":
            parts = torch.split(variance, list(layout.sizes))
            variance = torch.cat([part.mean().expand_as(part) for part in parts])
        deviation = variance.sqrt()
        constant = deviation <= _CONSTANT * mean.abs() + torch.finfo(torch.float32).tiny
        return cls(layout, mean.float(), torch.where(constant, 1.0, deviation).float(), gauge)

    @property
    def size(self) -> int:
        """Length d of the vectors."""
        return self.layout.size

    def encode(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Raw adapter vectors, as of ``Layout.flatten_many``, to normalised vectors."""
        self._check(vectors)
        return (_in_gauge(self.layout, vectors, self.gauge) - self.mean) / self.scale

    def decode(self, normalized: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Normalised vectors to raw adapter vectors, for ``Layout.unflatten``."""
        self._check(normalized)
        return normalized * self.scale + self.mean

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :meth:`state`, restore the codec."""
        # Left out where it is the default: generators of earlier versions have the same bytes, and stay readable.
        return {"layout": self.layout.to_json()} | ({} if self.gauge == "raw" else {"gauge": self.gauge})

    def state(self) -> dict[str, Tensor]:
        """Mean and scale."""
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Codec:
        """Restored from :meth:`state` and :attr:`config`.

        Raises:
            ArtifactError: a part is missing, or the gauge is one that this version does not know.
        """
        gauge = config.get("gauge", "raw")
        if gauge not in get_args(Gauge):
            raise ArtifactError(f"The stored codec has the gauge {gauge!r}, which is not known. Update wildpdiff.")
        try:
            return cls(Layout.from_json(config["layout"]), tensors["mean"], tensors["scale"], gauge)
        except KeyError as error:
            raise ArtifactError(f"The stored codec lacks {error}; build the codec again from the zoo.") from error

    def _check(self, vectors: Tensor) -> None:
        if vectors.shape[-1] != self.size:
            raise AdapterMismatchError(
                f"The vectors have {vectors.shape[-1]} values, but the codec's layout has {self.size}; "
                "use adapters of the zoo's backbone and LoRA configuration."
            )


def _in_gauge(layout: Layout, vectors: Tensor, gauge: Gauge) -> Tensor:
    if gauge == "raw":
        return vectors
    return layout.flatten_many(canonical(layout.unflatten(vectors), leading=1))
