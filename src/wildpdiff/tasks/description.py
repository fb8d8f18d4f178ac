"""Descriptions of tasks without labels, and the schema of their metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wildpdiff.errors import DescriptionError
from wildpdiff.records import decode, encode
from wildpdiff.tasks.batch import count, examples_hash

Images = npt.NDArray[np.uint8]
"""Images as ``uint8`` of shape ``[n, height, width, 3]``, RGB."""

Inputs = Any
"""Examples without targets as the backbone takes them: images, texts, arrays, or named arrays."""

MetadataValue = float | int | str

PARTS = ("metadata", "backgrounds", "examples", "text", "task_id")
"""The names of a description's parts, in the order in which they are always listed."""


@dataclass(frozen=True)
class Description:
    """A task without labels. Any part may be ``None`` (not known).

    Attributes:
        metadata: named numbers and categories, for example ``{"latitude": -2.3, "habitat": "woodland"}``.
        backgrounds: unlabelled images of the empty site, ``uint8 [k, h, w, 3]``.
        examples: unlabelled inputs of the task, of any kind that the backbone takes.
        text: a sentence or two in words.
        task_id: the name of a seen task, for generators conditioned on the identity (the paper's RQ1).
    """

    metadata: Mapping[str, MetadataValue] | None = None
    backgrounds: Images | None = None
    examples: Inputs | None = None
    text: str | None = None
    task_id: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are present, in the order of :data:`PARTS`."""
        return tuple(name for name in PARTS if getattr(self, name) is not None)

    def require_any(self, usable: Iterable[str]) -> None:
        """Raise :class:`DescriptionError` unless at least one of the ``usable`` parts is present."""
        usable = tuple(usable)
        if not set(usable) & set(self.parts):
            found = ", ".join(self.parts) or "nothing"
            raise DescriptionError(f"The description has {found}; give one of {', '.join(usable)}, which are read.")


GEOGRAPHIC: dict[str, Literal["latitude", "longitude"]] = {
    **dict.fromkeys(("latitude", "lat"), "latitude"),
    **dict.fromkeys(("longitude", "lon", "lng", "long"), "longitude"),
}
"""Names of metadata that are coordinates in degrees, in small letters."""

LIMITS: dict[str, float] = {"latitude": 90.0, "longitude": 180.0}
"""Largest size of a coordinate."""


@dataclass(frozen=True)
class MetadataField:
    """One named value of the metadata.

    Attributes:
        name: the key in the metadata.
        kind: ``number``, ``cyclic`` (with ``period``) or ``category`` (with ``categories``).
        unit: for display, for example ``m`` or ``degrees``.
        period: the length of one cycle, for ``cyclic`` only.
        categories: the known values, for ``category`` only.
        geographic: ``latitude`` or ``longitude`` where the number is a coordinate in degrees, else ``None``.
    """

    name: str
    kind: Literal["number", "cyclic", "category"]
    unit: str = ""
    period: float | None = None
    categories: tuple[str, ...] = ()
    geographic: Literal["latitude", "longitude"] | None = None

    @classmethod
    def of_values(cls, name: str, values: Iterable[object]) -> MetadataField:
        """The field that has these values: a number where all of them are numbers, else a category.

        Raises:
            DescriptionError: a number is not finite.
        """
        found = sorted({str(value) for value in values})
        try:
            endless = [value for value in found if not math.isfinite(float(value))]
        except ValueError:
            return cls(name, "category", categories=tuple(found))
        if endless:
            raise DescriptionError(f"Column {name!r} has the value {endless[0]!r}. Give a number, or none.")
        geographic = GEOGRAPHIC.get(name.lower())
        return cls(name, "number", "degrees" if geographic else "", geographic=geographic)

    def check(self, value: MetadataValue, *, open_categories: bool = False) -> MetadataValue:
        """The value as ``float`` or ``str``; raises :class:`DescriptionError` where it is of another kind.

        Args:
            value: as given.
            open_categories: take a category that is not listed as it is; new sites bring new categories.
        """
        if self.kind == "category":
            if value not in self.categories and not open_categories:
                raise DescriptionError(f"Metadata {self.name!r} is {value!r}; known: {', '.join(self.categories)}.")
            return str(value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise DescriptionError(f"Metadata {self.name!r} is {value!r}; a number is needed.") from None
        if not math.isfinite(number):
            raise DescriptionError(f"Metadata {self.name!r} is {value!r}; a finite number is needed.")
        limit = LIMITS.get(self.geographic or "")
        if limit is not None and abs(number) > limit:
            raise DescriptionError(f"Metadata {self.name!r} is {number:g}; a {self.geographic} lies within ±{limit:g}.")
        return number


@dataclass(frozen=True)
class MetadataSchema:
    """The named values that a suite may have as metadata. Keys may be missing, never unknown.

    An unknown key is a slip of the pen and refused, as is a number that is none. A category that is not listed may
    well be true of a new task, and passes with ``open_categories``.
    """

    fields: tuple[MetadataField, ...] = field(default_factory=tuple)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(entry.name for entry in self.fields)

    def check(
        self, metadata: Mapping[str, MetadataValue], *, open_categories: bool = False
    ) -> dict[str, MetadataValue]:
        """The checked metadata; raises :class:`DescriptionError` on an unknown key or a bad value."""
        by_name = {entry.name: entry for entry in self.fields}
        unknown = sorted(set(metadata) - set(by_name))
        if unknown:
            raise DescriptionError(
                f"Unknown metadata key {', '.join(map(repr, unknown))}; known keys are "
                f"{', '.join(self.names) or '(none: this suite has no metadata)'}."
            )
        return {
            name: by_name[name].check(metadata[name], open_categories=open_categories)
            for name in self.names
            if name in metadata
        }

    def to_json(self) -> list[dict[str, Any]]:
        """The fields as plain JSON values."""
        fields: list[dict[str, Any]] = encode(self.fields)
        return fields

    @classmethod
    def from_json(cls, data: Any) -> MetadataSchema:
        """The inverse of :meth:`to_json`; raises :class:`ArtifactError` where it is none."""
        return cls(decode(tuple[MetadataField, ...], data, "metadata schema"))


def description_provenance(description: Description) -> dict[str, Any]:
    """A description as JSON values for provenance: images and other inputs by number and hash."""
    values: dict[str, Any] = {}
    for part in description.parts:
        value = getattr(description, part)
        if part in ("backgrounds", "examples"):
            value = {"images": count(value), "sha256": examples_hash(value)}
        values[part] = dict(value) if part == "metadata" else value
    return values
