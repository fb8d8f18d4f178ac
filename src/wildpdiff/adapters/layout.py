"""Order of an adapter's tensors in its flat vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.errors import AdapterMismatchError
from wildpdiff.records import decode, encode


@dataclass(frozen=True)
class Layout:
    """Names and shapes of an adapter's tensors, in the order of the flat vector.

    All adapters of one zoo share one layout; two adapters with different layouts have no common vector space.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout of these tensors, in the order of their sorted names.

        Sorting makes the order a function of the names alone: it does not depend on how the adapter was written.
        """
        return cls(tuple((name, tuple(tensors[name].shape)) for name in sorted(tensors)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in order."""
        return tuple(name for name, _ in self.entries)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each tensor, in order."""
        return tuple(math.prod(shape) for _, shape in self.entries)

    @property
    def size(self) -> int:
        """Length d of the flat vector."""
        return sum(self.sizes)

    def check(self, tensors: Mapping[str, Tensor], leading: int = 0) -> None:
        """Compare names and shapes with this layout, after ``leading`` stacked axes.

        Raises:
            AdapterMismatchError: a tensor is missing, unknown or of another shape; the message names it.
        """
        expected = dict(self.entries)
        found = {name: tuple(value.shape)[leading:] for name, value in tensors.items() if value.ndim >= leading}
        for name in (*expected, *tensors):
            if name not in found or found[name] != expected.get(name):
                shape, wanted = (shapes.get(name, "missing") for shapes in (found, expected))
                raise AdapterMismatchError(
                    f"Tensor {name!r} of the adapter has shape {shape}, and in the layout {wanted}. Use adapters of "
                    "one backbone, with one LoRA configuration and one list of classes."
                )

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " d"]:
        """One adapter as a float32 vector of length ``size``. Differentiable.

        Raises:
            AdapterMismatchError: the tensors do not have this layout.
        """
        self.check(tensors)
        return self._concatenate(tensors, ())

    def flatten_many(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
        """Adapters stacked on a leading axis of every tensor, as float32 vectors ``n d``. Differentiable.

        Raises:
            AdapterMismatchError: the tensors do not have this layout, or differ in their leading axis.
        """
        self.check(tensors, leading=1)
        counts = {tensor.shape[0] for tensor in tensors.values()}
        if len(counts) != 1:
            raise AdapterMismatchError(f"The stacked tensors hold {sorted(counts)} adapters. Stack the same in each.")
        return self._concatenate(tensors, (counts.pop(),))

    def unflatten(self, vector: Float[Tensor, "*batch d"]) -> dict[str, Tensor]:
        """Vectors ``... d`` as named tensors ``... *shape``: views where possible, differentiable.

        Raises:
            AdapterMismatchError: the vector's length is not ``size``.
        """
        if vector.shape[-1] != self.size:
            raise AdapterMismatchError(
                f"The vector has {vector.shape[-1]} values, but the layout has {self.size}; decode it with the codec "
                "that encoded it."
            )
        parts = torch.split(vector, list(self.sizes), dim=-1)
        leading = vector.shape[:-1]
        return {name: part.reshape(*leading, *shape) for (name, shape), part in zip(self.entries, parts, strict=True)}

    def to_json(self) -> list[list[Any]]:
        """Plain JSON values: a list of ``[name, [sizes of the axes]]``."""
        return list(encode(self.entries))

    @classmethod
    def from_json(cls, data: Any) -> Layout:
        """The inverse of ``to_json``.

        Raises:
            ArtifactError: the data is not a list of pairs of a name and a list of sizes.
        """
        return cls(decode(tuple[tuple[str, tuple[int, ...]], ...], data, "layout"))

    def _concatenate(self, tensors: Mapping[str, Tensor], leading: tuple[int, ...]) -> Tensor:
        parts = [tensors[name].to(torch.float32).reshape(*leading, -1) for name in self.names]
        return torch.cat(parts, dim=-1) if parts else torch.zeros(*leading, 0)
