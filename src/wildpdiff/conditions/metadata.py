"""Encoder of metadata: named numbers and categories as a vector in which every field weighs about the same.

Sites on Earth are points of the unit sphere, for a network of any extent: a valley or all continents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP, ConditionEmbedding, Featuriser
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema, MetadataValue

Numbers = npt.NDArray[np.float64]

FIRST, SECOND = "metadata", "metadata-2"
"""Kinds of state: with sites on a plane and every listed category known; with sites on the sphere."""

COLUMNS = ("north", "east", "toward")
"""Meaning of the columns near the equator; everywhere they are a rotated and shifted Cartesian frame."""

SMALLEST = 1e-9
"""Six millimetres on the ground, in radians: nearer sites are one."""


@dataclass(frozen=True)
class SphereCoordinates:
    """Latitude and longitude as a unit vector, centred at the seen mean and divided by one common scale.

    Distances of vectors are chords: in a small region the embedding is the region's tangent plane, where they are
    proportional to great-circle distances; over the whole Earth nothing breaks at the date line or at a pole. The
    vector is turned about the Earth's axis so that the seen mean lies on the prime meridian, which leaves distances
    as they are: the column ``north`` is then a function of latitude alone, and ``east`` is what longitude changes.

    Attributes:
        meridian: longitude of the seen mean, in radians.
        center: mean of the turned unit vectors; inside the sphere.
        scale: root mean square distance of the seen sites from ``center``, divided by √2 because the ground has two
            dimensions: a site then weighs as much as two standardised numbers.
    """

    meridian: float
    center: tuple[float, float, float]
    scale: float

    @classmethod
    def fit(cls, latitudes: Numbers, longitudes: Numbers) -> SphereCoordinates:
        """Frame of the seen sites, one or more, in degrees."""
        mean = unit_vectors(latitudes, longitudes, 0.0).mean(0)
        # Rounding alone would decide the direction of a mean that lies on the axis.
        on_axis = math.hypot(mean[1], mean[2]) < SMALLEST
        meridian = 0.0 if on_axis else math.atan2(mean[1], mean[2])
        vectors = unit_vectors(latitudes, longitudes, meridian)
        center = vectors.mean(0)
        scale = math.sqrt(float(((vectors - center) ** 2).sum(1).mean()) / 2)
        north, east, toward = center.tolist()
        return cls(meridian, (north, east, toward), scale if scale > SMALLEST else 1.0)

    @classmethod
    def from_tensor(cls, values: Tensor) -> SphereCoordinates:
        """Inverse of :attr:`tensor`."""
        meridian, north, east, toward, scale = values.tolist()
        return cls(meridian, (north, east, toward), scale)

    @property
    def tensor(self) -> Float[Tensor, " values"]:
        """Meridian, center and scale: five values, ``float64``."""
        return torch.tensor([self.meridian, *self.center, self.scale], dtype=torch.float64)

    def encode(self, latitude: float | None, longitude: float | None) -> list[float]:
        """Columns of a site in degrees, in the order of :data:`COLUMNS`; the vector is at most ``CLIP`` long.

        Where only one coordinate is known the other is that of the seen mean.
        """
        north, _, toward = self.center
        if latitude is None:
            latitude = math.degrees(math.atan2(north, math.hypot(toward, self.center[1])))
        if longitude is None:
            longitude = math.degrees(self.meridian)
        vector = unit_vectors(np.array([latitude]), np.array([longitude]), self.meridian)[0]
        found = (vector - np.array(self.center)) / self.scale
        length = float(np.sqrt((found**2).sum()))
        # The length and not every column: a site far away keeps its direction.
        return [float(value) for value in found * min(1.0, CLIP / max(length, CLIP))]


def unit_vectors(latitudes: Numbers, longitudes: Numbers, meridian: float) -> Numbers:
    """Unit vectors ``float64 [n, 3]``, turned about the axis so that ``meridian`` (radians) is the prime one."""
    polar, around = np.deg2rad(latitudes), np.deg2rad(longitudes) - meridian
    return np.stack([np.sin(polar), np.cos(polar) * np.sin(around), np.cos(polar) * np.cos(around)], axis=1)


@dataclass(frozen=True)
class MetadataEncoder:
    """Metadata ``{name: value}`` as a vector: the columns of every field in the schema's order, then a flag per field.

    - number: ``(value - mean) / std`` over the seen tasks, clipped to ±4; one column.
    - cyclic: sine and cosine of the angle; two columns.
    - category: one-hot. Two different categories are √2 apart, as two independent standardised numbers are in the
      root mean square, so no factor is needed to make them comparable.
    - latitude and longitude: together a point on the sphere, three columns
      (:class:`SphereCoordinates`), of which the latitude's field has the first. One of
      them without the other in the schema is a number.

    A missing value has zeros in its columns and a flag of 0. A category that no seen task has is encoded as missing:
    it lies equally far from all that were seen; :meth:`unknown` reports it.

    Attributes:
        mean: one value a field, ``float64``; 0 for cyclic fields and categories.
        scale: standard deviation of each field, ``float64``.
        seen: categories of the seen tasks by field; for a field that is not there, all that the schema lists.
        site: frame of latitude and longitude; ``None`` where the schema does not have just one of each, and in
            encoders of earlier versions, whose ``mean`` and ``scale`` project the sites on a plane.
    """

    schema: MetadataSchema
    mean: Float[Tensor, " fields"]
    scale: Float[Tensor, " fields"]
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    site: SphereCoordinates | None = None
    part: ClassVar[str] = "metadata"

    @classmethod
    def fit(cls, descriptions: Sequence[Description], schema: MetadataSchema) -> MetadataEncoder:
        """Mean and spread of every number, and the categories, of the seen tasks.

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
        return cls(schema, torch.from_numpy(mean), torch.from_numpy(scale), seen, _fit_site(schema, rows))

    @property
    def kind(self) -> str:
        """Registered name of the state: another one where an earlier version would misread it."""
        return FIRST if self.site is None and not self.seen else SECOND

    @property
    def size(self) -> int:
        """Number of columns and flags."""
        return sum(self._width(entry) for entry in self.schema.fields) + len(self.schema.fields)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The coordinates of the site together, and every field alone; no flags."""
        site: list[int] = []
        others: list[tuple[int, ...]] = []
        start = 0
        for entry in self.schema.fields:
            columns = tuple(range(start, start + self._width(entry)))
            start += len(columns)
            # How far a site lies towards the seen mean is no direction on the ground: it belongs to the site alone.
            others.append(columns[:1] if self.site is not None and entry.geographic else columns)
            if entry.geographic:
                site += columns
        return ((tuple(site),) if len(site) > 1 else ()) + tuple(others)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        config: dict[str, Any] = {"schema": self.schema.to_json()}
        if self.kind == SECOND:
            config |= {"part": self.part, "seen": {name: list(values) for name, values in self.seen.items()}}
        return config

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state."""
        site = {} if self.site is None else {"place": self.site.tensor}
        return {"mean": self.mean, "scale": self.scale, **site}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], featurise: Featuriser | None = None
    ) -> MetadataEncoder:
        """Inverse of :attr:`config` and :attr:`tensors`."""
        return cls(
            MetadataSchema.from_json(config["schema"]),
            tensors["mean"],
            tensors["scale"],
            {name: tuple(values) for name, values in config.get("seen", {}).items()},
            SphereCoordinates.from_tensor(tensors["place"]) if "place" in tensors else None,
        )

    def encode(self, description: Description) -> ConditionEmbedding:
        """Embedding ``[columns + fields]``; metadata without any value that a seen task had counts as missing.

        Raises:
            DescriptionError: an unknown key, or a value that is no finite number.
        """
        metadata = self.schema.check(description.metadata or {}, open_categories=True)
        known = {name: value for name, value in metadata.items() if not self._is_unknown(name, value)}
        site = self._encode_site(known)
        columns: list[float] = []
        for index, entry in enumerate(self.schema.fields):
            if self.site is not None and entry.geographic:
                columns += site[:1] if entry.geographic == "latitude" else site[1:]
            elif entry.name in known:
                columns += self._columns(index, known[entry.name])
            else:
                columns += [0.0] * self._width(entry)
        flags = [float(name in known) for name in self.schema.names]
        return ConditionEmbedding(torch.tensor(columns + flags), bool(known))

    def unknown(self, description: Description) -> tuple[str, ...]:
        """A sentence for every category of the description that no seen task has, with the nearest spelling.

        Raises:
            DescriptionError: an unknown key, or a value that is no finite number.
        """
        metadata = self.schema.check(description.metadata or {}, open_categories=True)
        found = []
        for entry in self.schema.fields:
            if entry.name in metadata and self._is_unknown(entry.name, metadata[entry.name]):
                value, seen = str(metadata[entry.name]), self.seen.get(entry.name, entry.categories)
                close = get_close_matches(value.casefold(), [name.casefold() for name in seen], n=1)
                meant = [name for name in seen if close and name.casefold() == close[0]]
                hint = f"did you mean {meant[0]!r}?" if meant else f"seen are {', '.join(seen) or 'none'}."
                found.append(f"{entry.name} {value!r} was in no seen task and is left out; {hint}")
        return tuple(found)

    def _is_unknown(self, name: str, value: MetadataValue) -> bool:
        entry = self.schema.fields[self.schema.names.index(name)]
        return entry.kind == "category" and value not in self.seen.get(name, entry.categories)

    def _width(self, entry: MetadataField) -> int:
        if self.site is not None and entry.geographic:
            return 1 if entry.geographic == "latitude" else 2
        return {"number": 1, "cyclic": 2, "category": len(entry.categories)}[entry.kind]

    def _encode_site(self, metadata: Mapping[str, MetadataValue]) -> list[float]:
        """Columns of latitude and longitude; zeros where neither is known."""
        names = {entry.geographic: entry.name for entry in self.schema.fields if entry.geographic}
        values = [metadata.get(names.get(key, "")) for key in ("latitude", "longitude")]
        if self.site is None or values == [None, None]:
            return [0.0] * len(COLUMNS)
        return self.site.encode(*(None if value is None else float(value) for value in values))

    def _columns(self, index: int, value: MetadataValue) -> list[float]:
        entry = self.schema.fields[index]
        if entry.kind == "category":
            return [float(value == category) for category in entry.categories]
        if entry.kind == "cyclic":
            if not entry.period:
                raise DescriptionError(f"The cyclic metadata field {entry.name!r} has no period. Give it one.")
            return angle_columns(float(value), entry.period)
        difference = float(_differences(entry, np.array([float(value)]), float(self.mean[index]))[0])
        return [min(max(difference / float(self.scale[index]), -CLIP), CLIP)]


def angle_columns(value: float, period: float) -> list[float]:
    """Sine and cosine of a cyclic value."""
    angle = 2 * math.pi * math.fmod(value, period) / period
    return [math.sin(angle), math.cos(angle)]


def _fit_site(schema: MetadataSchema, rows: Sequence[Mapping[str, MetadataValue]]) -> SphereCoordinates | None:
    """Frame of the tasks that have both coordinates; ``None`` where the schema has more or fewer such fields."""
    fields = {entry.geographic: entry.name for entry in schema.fields if entry.geographic and entry.kind == "number"}
    if len(fields) != 2 or sum(entry.geographic is not None for entry in schema.fields) != 2:
        return None
    north, east = fields["latitude"], fields["longitude"]
    sites = np.array([(float(row[north]), float(row[east])) for row in rows if north in row and east in row])
    return SphereCoordinates.fit(sites[:, 0], sites[:, 1]) if len(sites) else None


def _circular_mean(degrees: Numbers) -> float:
    """Mean of longitudes that may lie on both sides of the date line."""
    angles = np.deg2rad(degrees)
    return float(np.rad2deg(np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())))


def _differences(entry: MetadataField, values: Numbers, mean: float) -> Numbers:
    """``values - mean``; for a longitude the shorter way round, in degrees within ±180."""
    if entry.geographic == "longitude":
        return np.asarray((values - mean + 180.0) % 360.0 - 180.0)
    return np.asarray(values - mean)
