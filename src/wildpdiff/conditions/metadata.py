"""Named numbers and categories as a vector in which every field weighs about the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP, ConditionEmbedding, Featuriser
from wildpdiff.conditions.places import COLUMNS, SphereCoordinates
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema, MetadataValue

Numbers = npt.NDArray[np.float64]

FIRST, SECOND = "metadata", "metadata-2"
"""Kinds of state: with places on a plane and every listed category known; with places on the sphere."""


@dataclass(frozen=True)
class MetadataEncoder:
    """Metadata ``{name: value}`` to a vector: the columns of every field in the schema's order, then a flag per field.

    - number: ``(value - mean) / std`` over the seen tasks, clipped to ±4; one column.
    - cyclic: sine and cosine of the angle; two columns.
    - category: one-hot. Two different categories are √2 apart, as two independent standardised numbers are in the
      root mean square, so no factor is needed to make them comparable.
    - latitude and longitude: together a point on the sphere, three columns
      (:class:`~wildpdiff.conditions.places.SphereCoordinates`), of which the latitude's field has the first. One of
      them without the other in the schema is a number.

    A missing value has zeros in its columns and a flag of 0; a flag of 1 says that the value is known. A category
    that no seen task has is encoded as missing: it lies equally far from all that were seen, and :meth:`unknown`
    tells of it.

    Attributes:
        schema: the fields.
        mean: what is subtracted, one value a field, ``float64``; 0 for cyclic fields and categories.
        scale: what is divided by, one value a field, ``float64``.
        seen: the categories that seen tasks have, by field; for a field that is not there, all that the schema lists.
        place: of latitude and longitude; ``None`` where the schema does not have just one of each, and in encoders
            of earlier versions, whose ``mean`` and ``scale`` project the places on a plane.
    """

    schema: MetadataSchema
    mean: Float[Tensor, " fields"]
    scale: Float[Tensor, " fields"]
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    place: SphereCoordinates | None = None

    @classmethod
    def fit(cls, descriptions: Sequence[Description], schema: MetadataSchema) -> MetadataEncoder:
        """Take mean and spread of every number over the seen tasks, and remember their categories.

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
        seen = {
            entry.name: tuple(name for name in entry.categories if any(row.get(entry.name) == name for row in rows))
            for entry in schema.fields
            if entry.kind == "category"
        }
        return cls(schema, torch.from_numpy(mean), torch.from_numpy(scale), seen, _fit_place(schema, rows))

    @property
    def kind(self) -> str:
        """The registered name of the class: another one where an earlier version would misread the state."""
        return FIRST if self.place is None and not self.seen else SECOND

    @property
    def part(self) -> str:
        """The part of a description that it reads."""
        return "metadata"

    @property
    def size(self) -> int:
        """Number of columns and flags."""
        return sum(self._width(entry) for entry in self.schema.fields) + len(self.schema.fields)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The coordinates of the place together, and every field by itself; no flags."""
        place: list[int] = []
        others: list[tuple[int, ...]] = []
        start = 0
        for entry in self.schema.fields:
            columns = tuple(range(start, start + self._width(entry)))
            start += len(columns)
            # How far a place lies towards the seen mean is no direction on the ground: it belongs to the place alone.
            others.append(columns[:1] if self.place is not None and entry.geographic else columns)
            if entry.geographic:
                place += columns
        return ((tuple(place),) if len(place) > 1 else ()) + tuple(others)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values: the schema, and which categories were seen."""
        told: dict[str, Any] = {"schema": self.schema.to_json()}
        if self.kind == SECOND:
            told |= {"part": self.part, "seen": {name: list(values) for name, values in self.seen.items()}}
        return told

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Mean and scale of every field, and what places the coordinates on the sphere."""
        place = {} if self.place is None else {"place": self.place.tensor}
        return {"mean": self.mean, "scale": self.scale, **place}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> MetadataEncoder:
        """Restore from :attr:`config` and :attr:`tensors`; ``featurise`` is not used."""
        return cls(
            MetadataSchema.from_json(config["schema"]),
            tensors["mean"],
            tensors["scale"],
            {name: tuple(values) for name, values in config.get("seen", {}).items()},
            SphereCoordinates.from_tensor(tensors["place"]) if "place" in tensors else None,
        )

    def encode(self, description: Description) -> ConditionEmbedding:
        """The embedding ``[columns + fields]``; metadata without any value that a seen task had counts as missing.

        Raises:
            DescriptionError: an unknown key, or a value that is no finite number.
        """
        metadata = self.schema.check(description.metadata or {}, open_categories=True)
        known = {name: value for name, value in metadata.items() if not self._is_unknown(name, value)}
        place = self._encode_place(known)
        columns: list[float] = []
        for index, entry in enumerate(self.schema.fields):
            if self.place is not None and entry.geographic:
                columns += place[:1] if entry.geographic == "latitude" else place[1:]
            elif entry.name in known:
                columns += self._columns(index, known[entry.name])
            else:
                columns += [0.0] * self._width(entry)
        flags = [float(name in known) for name in self.schema.names]
        return ConditionEmbedding(torch.tensor(columns + flags), bool(known))

    def unknown(self, description: Description) -> tuple[str, ...]:
        """A sentence for every category of the description that no seen task has, with the likeliest slip of the pen.

        Raises:
            DescriptionError: an unknown key, or a value that is no finite number.
        """
        metadata = self.schema.check(description.metadata or {}, open_categories=True)
        return tuple(
            _unknown_sentence(entry, str(metadata[entry.name]), self._seen(entry))
            for entry in self.schema.fields
            if entry.name in metadata and self._is_unknown(entry.name, metadata[entry.name])
        )

    def _seen(self, entry: MetadataField) -> tuple[str, ...]:
        return self.seen.get(entry.name, entry.categories)

    def _is_unknown(self, name: str, value: MetadataValue) -> bool:
        entry = self.schema.fields[self.schema.names.index(name)]
        return entry.kind == "category" and value not in self._seen(entry)

    def _width(self, entry: MetadataField) -> int:
        if self.place is not None and entry.geographic:
            return 1 if entry.geographic == "latitude" else 2
        return {"number": 1, "cyclic": 2, "category": len(entry.categories)}[entry.kind]

    def _encode_place(self, metadata: Mapping[str, MetadataValue]) -> list[float]:
        """The columns of latitude and longitude; zeros where neither is known."""
        found = {entry.geographic: metadata.get(entry.name) for entry in self.schema.fields if entry.geographic}
        latitude, longitude = found.get("latitude"), found.get("longitude")
        if self.place is None or (latitude is None and longitude is None):
            return [0.0] * len(COLUMNS)
        return self.place.encode(
            None if latitude is None else float(latitude), None if longitude is None else float(longitude)
        )

    def _columns(self, index: int, value: MetadataValue) -> list[float]:
        entry = self.schema.fields[index]
        if entry.kind == "category":
            return [float(value == category) for category in entry.categories]
        number = float(value)
        if entry.kind == "cyclic":
            angle = 2 * math.pi * math.fmod(number, _period(entry)) / _period(entry)
            return [math.sin(angle), math.cos(angle)]
        difference = float(_differences(entry, np.array([number]), float(self.mean[index]))[0])
        return [min(max(difference / float(self.scale[index]), -CLIP), CLIP)]


def _unknown_sentence(entry: MetadataField, value: str, seen: Sequence[str]) -> str:
    close = get_close_matches(value.casefold(), [name.casefold() for name in seen], n=1)
    meant = [name for name in seen if close and name.casefold() == close[0]]
    hint = f"did you mean {meant[0]!r}?" if meant else f"seen are {', '.join(seen) or 'none'}."
    return f"{entry.name} {value!r} was in no seen task and is left out; {hint}"


def _fit_place(schema: MetadataSchema, rows: Sequence[Mapping[str, MetadataValue]]) -> SphereCoordinates | None:
    """The sphere's frame from the tasks that have both coordinates; ``None`` where it takes more or fewer fields."""
    fields = {entry.geographic: entry.name for entry in schema.fields if entry.geographic and entry.kind == "number"}
    if len(fields) != 2 or sum(entry.geographic is not None for entry in schema.fields) != 2:
        return None
    north, east = fields["latitude"], fields["longitude"]
    places = np.array([(float(row[north]), float(row[east])) for row in rows if north in row and east in row])
    return SphereCoordinates.fit(places[:, 0], places[:, 1]) if len(places) else None


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
