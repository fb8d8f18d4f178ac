"""Lists of the species that occur at a camera, and the mask that they put on a classifier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from wildpdiff.camera_traps.answers import kind_of
from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.camera_traps.taxonomy import unknown_names
from wildpdiff.errors import DataError
from wildpdiff.tables.delimited import read_delimited

SPECIES = ("species", "label", "class", "scientific name", "common name")
CAMERA = ("camera", "site", "location", "station", "deployment", "task")


@dataclass(frozen=True)
class SpeciesLists:
    """Species that occur, by camera.

    Attributes:
        cameras: the list of each camera that has one.
        everywhere: the list of all others; None where they have none.
    """

    cameras: Mapping[str, frozenset[str]]
    everywhere: frozenset[str] | None = None

    @classmethod
    def of_column(cls, column: str, cameras: Mapping[str, Mapping[str, object]]) -> SpeciesLists:
        """The lists in one value of the cameras' metadata, separated by ``|``, ``;`` or commas.

        Raises:
            DataError: no camera has such a value.
        """
        cells = {camera: str(values[column]) for camera, values in cameras.items() if values.get(column)}
        if not cells:
            raise DataError(f"There is no file {column!r}, and no camera has a value of that name. Give either.")
        return cls({camera: frozenset(_names(cell)) for camera, cell in cells.items()})

    def allowed(self, camera: str, classes: Sequence[str], shown: Iterable[str]) -> Bool[np.ndarray, " c"]:
        """The classes that may occur at a camera.

        Blanks, people and vehicles always may, and so may the species that labels of the camera show. A list that
        names no animal that the model knows excludes nothing: it is written in other words than the model's.
        """
        listed = self.cameras.get(camera, self.everywhere)
        names = set() if listed is None else set(map(spelling_key, listed))
        on_list = np.array([spelling_key(name) in names for name in classes], dtype=bool)
        if not on_list.any():
            return np.ones(len(classes), dtype=bool)
        labels = set(map(spelling_key, shown))
        always = [kind_of(name) != "animal" or spelling_key(name) in labels for name in classes]
        on_list |= np.array(always, dtype=bool)
        return on_list

    def without(self, cameras: Iterable[str]) -> list[str]:
        """The cameras that have no list, while others have."""
        return [name for name in cameras if name not in self.cameras] if self.everywhere is None else []

    def unknown(self, classes: Sequence[str]) -> list[str]:
        """Names on any list that the model does not know."""
        every = [*self.cameras.values(), *(() if self.everywhere is None else (self.everywhere,))]
        return unknown_names((name for names in every for name in names), classes)


def read_species_lists(path: Path, cameras: Iterable[str]) -> SpeciesLists:
    """Lists in a CSV table: a column ``species`` with one name (or several, separated by ``|`` or ``;``) a row.

    With a column ``camera`` a row is for that camera, in any spelling, or for all where it is empty; without one the
    list is for all.

    Raises:
        DataError: the file cannot be read, has no such column or no species, or names none of the cameras.
    """
    table = read_delimited(path)
    header = table.header
    species = next((name for name in header if spelling_key(name) in SPECIES), header[0] if len(header) == 1 else None)
    if species is None:
        raise DataError(f"{path} has no column 'species' (found: {', '.join(header)}). Name it so.")
    names = table.column(species)
    if len(header) == 1 and spelling_key(species) not in SPECIES:
        names.insert(0, species)  # a plain list without a header
    camera = next((name for name in header if spelling_key(name) in CAMERA), None)
    names_by_key: dict[str, list[str]] = {}
    for name in (known := dict.fromkeys(cameras)):
        names_by_key.setdefault(spelling_key(name), []).append(name)
    by_camera: dict[str, set[str]] = {}
    for row_camera, cell in zip(table.column(camera) if camera else [""] * len(names), names, strict=True):
        alike = [row_camera] if row_camera in known else names_by_key.get(spelling_key(row_camera), [row_camera])
        for name in alike if row_camera else [""]:
            by_camera.setdefault(name, set()).update(_names(cell, commas=False))
    lists = {name: frozenset(found) for name, found in by_camera.items() if found}
    everywhere = lists.pop("", None)
    if not lists and everywhere is None:
        raise DataError(f"{path} lists no species. Give one a row.")
    if lists and everywhere is None and not known.keys() & lists.keys():
        raise DataError(
            f"{path} has lists of {', '.join(sorted(lists)[:3])}, …, and the cameras are "
            f"{', '.join(sorted(known)[:3])}, …: none is among them. Name the cameras as the table does."
        )
    return SpeciesLists(lists, everywhere)


def masked(probabilities: Float[np.ndarray, "n c"], allowed: Bool[np.ndarray, " c"]) -> Float[np.ndarray, "n c"]:
    """Probabilities with the excluded classes at zero, normalised; a picture that would have none keeps its own."""
    kept = probabilities * allowed
    total = kept.sum(1, keepdims=True)
    return np.where(total > 0, kept / np.where(total > 0, total, 1.0), probabilities)


def _names(cell: str, commas: bool = True) -> list[str]:
    return [name.strip() for name in re.split("[|;,]" if commas else "[|;]", cell) if name.strip()]
