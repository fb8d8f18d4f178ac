"""The codec: raw adapter vectors to normalised vectors and back, with the layout that gives the vectors meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.canonical import Gauge, canonical
from wildpdiff.adapters.layout import Layout
from wildpdiff.codec.normalize import NormalizationMode, Normalizer
from wildpdiff.errors import AdapterMismatchError, ArtifactError


@dataclass(frozen=True)
class Codec:
    """Layout and normalisation of one zoo's adapters. Encoding and decoding are differentiable.

    Attributes:
        layout: names and shapes behind the vectors.
        normalizer: mean and scale of every coordinate.
        gauge: ``canonical`` brings LoRA factors to their canonical form before they are normalised, so that vectors
            depend on the updates ``ΔW = B A`` alone; decoding then gives other factors of the same updates. Only for
            zoos that train A: where all adapters share A, it would make equal A factors unequal.
    """

    layout: Layout
    normalizer: Normalizer
    gauge: Gauge = "raw"

    def __post_init__(self) -> None:
        if self.layout.size != self.normalizer.mean.shape[0]:
            raise AdapterMismatchError(
                f"The layout has {self.layout.size} values, but the normalisation {self.normalizer.mean.shape[0]}; "
                "fit the normalisation on vectors of this layout."
            )

    @classmethod
    def fit(
        cls,
        layout: Layout,
        vectors: Float[Tensor, "n d"],
        mode: NormalizationMode = "coordinate",
        gauge: Gauge = "raw",
    ) -> Codec:
        """A codec normalised on these raw training vectors. Errors: those of ``Normalizer.fit``."""
        return cls(layout, Normalizer.fit(_in_gauge(layout, vectors, gauge), mode, layout), gauge)

    @property
    def size(self) -> int:
        """Length d of the vectors."""
        return self.layout.size

    def encode(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Raw adapter vectors, as ``Layout.flatten_many`` gives them, to normalised vectors."""
        self._check(vectors)
        return self.normalizer.normalize(_in_gauge(self.layout, vectors, self.gauge))

    def decode(self, normalized: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Normalised vectors to raw adapter vectors, for ``Layout.unflatten``."""
        self._check(normalized)
        return self.normalizer.denormalize(normalized)

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able part of what ``from_state`` needs."""
        # Left out where it is the default: generators of earlier versions have the same bytes, and stay readable.
        return {"layout": self.layout.to_json()} | ({} if self.gauge == "raw" else {"gauge": self.gauge})

    def state(self) -> dict[str, Tensor]:
        """Tensor part of what ``from_state`` needs."""
        return {"mean": self.normalizer.mean, "scale": self.normalizer.scale}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Codec:
        """The codec whose ``state()`` and ``config`` these are.

        Raises:
            ArtifactError: a part is missing, or the gauge is one that this version does not know.
        """
        gauge = config.get("gauge", "raw")
        if gauge not in get_args(Gauge):
            raise ArtifactError(f"The stored codec has the gauge {gauge!r}, which is not known. Update wildpdiff.")
        try:
            return cls(Layout.from_json(config["layout"]), Normalizer(tensors["mean"], tensors["scale"]), gauge)
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
