"""Named numbers and categories as a vector in which every field weighs about the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP, ConditionEmbedding, Featuriser
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema, MetadataValue

__all__ = ["MetadataEncoder"]

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MetadataEncoder:
    """Metadata ``{name: value}`` to a vector: the columns of every field in the schema's order, then a flag per field.

    - number: ``(value - mean) / std`` over the seen tasks, clipped to ±4; one column.
    - cyclic: sine and cosine of the angle; two columns.
    - category: one-hot. Two different categories are √2 apart, as two independent standardised numbers are in the
      root mean square, so no factor is needed to make them comparable.
    - latitude and longitude: metres east and north of the seen tasks' centroid up to one common factor (the equal
      rectangle projection), so that distances on the ground keep their proportions. A point on the unit sphere
      would make the neighbours of a small region indistinguishable: 10 km are .0016 there.

    A missing value has zeros in its columns and a flag of 0; a flag of 1 says that the value is known.

    Attributes:
        schema: the fields.
        mean: what is subtracted, one value a field, ``float64``; 0 for cyclic fields and categories.
        scale: what is divided by, one value a field, ``float64``; for a longitude it includes 1 / cos(latitude).
    """

    schema: MetadataSchema
    mean: Float[Tensor, " fields"]
    scale: Float[Tensor, " fields"]

    @classmethod
    def fit(cls, descriptions: Sequence[Description], schema: MetadataSchema) -> MetadataEncoder:
        """Take mean and spread of every number over the seen tasks.

        Raises:
            DescriptionError: an unknown key or bad value, or no description has metadata.
        """
        rows = [schema.check(entry.metadata) for entry in descriptions if entry.metadata]
        if not rows:
            raise DescriptionError("None of the descriptions has metadata. Leave this part out of the condition.")
        mean, scale = np.zeros(len(schema.fields)), np.ones(len(schema.fields))
        for index, entry in enumerate(schema.fields):
            values = np.array([float(row[entry.name]) for row in rows if entry.name in row and entry.kind == "number"])
            if len(values):
                mean[index] = _circular_mean(values) if entry.geographic == "longitude" else values.mean()
                spread = _differences(entry, values, mean[index]).std()
                scale[index] = spread if spread > 1e-9 * max(1.0, abs(mean[index])) else 1.0
        _share_geographic_scale(schema, rows, mean, scale)
        return cls(schema, torch.from_numpy(mean), torch.from_numpy(scale))

    @property
    def kind(self) -> str:
        """The registered name of the class."""
        return "metadata"

    @property
    def part(self) -> str:
        """The part of a description that it reads."""
        return "metadata"

    @property
    def size(self) -> int:
        """Number of columns and flags."""
        return sum(_width(entry) for entry in self.schema.fields) + len(self.schema.fields)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The coordinates of the place together, and every field by itself; no flags."""
        place: list[int] = []
        others: list[tuple[int, ...]] = []
        start = 0
        for entry in self.schema.fields:
            columns = tuple(range(start, start + _width(entry)))
            start += len(columns)
            others.append(columns)
            if entry.geographic:
                place += columns
        return ((tuple(place),) if len(place) > 1 else ()) + tuple(others)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values: the schema."""
        return {"schema": self.schema.to_json()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Mean and scale of every field."""
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> MetadataEncoder:
        """Restore from :attr:`config` and :attr:`tensors`; ``featurise`` is not used."""
        return cls(MetadataSchema.from_json(config["schema"]), tensors["mean"], tensors["scale"])

    def encode(self, description: Description) -> ConditionEmbedding:
        """The embedding ``[columns + fields]``; metadata without any value counts as missing.

        Raises:
            DescriptionError: an unknown key or category, or a value that is no finite number.
        """
        metadata = self.schema.check(description.metadata or {})
        columns: list[float] = []
        flags: list[float] = []
        for index, entry in enumerate(self.schema.fields):
            known = entry.name in metadata
            flags.append(float(known))
            columns += self._columns(index, metadata[entry.name]) if known else [0.0] * _width(entry)
        return ConditionEmbedding(torch.tensor(columns + flags), bool(metadata))

    def _columns(self, index: int, value: MetadataValue) -> list[float]:
        entry = self.schema.fields[index]
        if entry.kind == "category":
            return [float(value == category) for category in entry.categories]
        number = float(value)
        if entry.kind == "cyclic":
            angle = 2 * math.pi * number / _period(entry)
            return [math.sin(angle), math.cos(angle)]
        difference = float(_differences(entry, np.array([number]), float(self.mean[index]))[0])
        return [min(max(difference / float(self.scale[index]), -CLIP), CLIP)]


def _width(entry: MetadataField) -> int:
    return {"number": 1, "cyclic": 2, "category": len(entry.categories)}[entry.kind]


def _period(entry: MetadataField) -> float:
    if not entry.period:
        raise DescriptionError(f"Metadata field {entry.name!r} is cyclic and has no period. Give it one in the schema.")
    return entry.period


def _circular_mean(degrees: Numbers) -> float:
    """Mean of longitudes that may lie on both sides of the date line."""
    angles = np.deg2rad(degrees)
    return float(np.rad2deg(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())))


def _differences(entry: MetadataField, values: Numbers, mean: float) -> Numbers:
    """``values - mean``; for a longitude the shorter way round, in degrees within ±180."""
    if entry.geographic == "longitude":
        return np.asarray((values - mean + 180.0) % 360.0 - 180.0)
    return np.asarray(values - mean)


def _share_geographic_scale(
    schema: MetadataSchema,
    rows: Sequence[Mapping[str, MetadataValue]],
    mean: Numbers,
    scale: Numbers,
) -> None:
    """Give latitude and longitude one scale on the ground, in place: a longitude degree shortens by cos(latitude)."""
    places = [
        (index, entry) for index, entry in enumerate(schema.fields) if entry.geographic and entry.kind == "number"
    ]
    latitudes = [mean[index] for index, entry in places if entry.geographic == "latitude"]
    # At a pole a longitude means nothing; the floor keeps the division finite.
    shortening = max(math.cos(math.radians(latitudes[0])), 1e-3) if latitudes else 1.0
    squares: list[float] = []
    for index, entry in places:
        values = np.array([float(row[entry.name]) for row in rows if entry.name in row])
        if len(values):
            factor = shortening if entry.geographic == "longitude" else 1.0
            squares.append(float((_differences(entry, values, mean[index]) * factor).var()))
    shared = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
    for index, entry in places:
        if shared > 1e-9:
            scale[index] = shared / (shortening if entry.geographic == "longitude" else 1.0)
