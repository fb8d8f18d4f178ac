"""Taxa above a model's classes: where no class is probable enough, the lowest taxon that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from wildpdiff.camera_traps.answers import ANIMAL, UNKNOWN, kind_of
from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.errors import DataError
from wildpdiff.tables.delimited import read_delimited

RANKS = ("species", "genus", "tribe", "subfamily", "family", "superfamily", "infraorder", "suborder", "order",
         "superorder", "infraclass", "subclass", "class", "superclass", "subphylum", "phylum", "kingdom")  # fmt: skip
"""Columns of published taxonomies, the lowest first."""

SCIENTIFIC = ("scientific name", "scientificname")

THRESHOLD = 0.65
"""Least probability of an answer where a taxonomy is given and no threshold."""


@dataclass(frozen=True)
class Taxonomy:
    """Taxa of classes.

    Attributes:
        ranks: for each rank, the lowest first, the taxon of every class; None where it has none.
        scientific: scientific names of classes and taxa, by label, where the file has them.
    """

    classes: tuple[str, ...]
    ranks: tuple[tuple[str | None, ...], ...] = ()
    scientific: Mapping[str, str] = field(default_factory=dict)

    def decide(self, probabilities: Float[np.ndarray, "n c"], threshold: float = 0.0) -> list[tuple[str, float]]:
        """The answer for each picture with its probability.

        It is the most probable class where that reaches the threshold; else the most probable taxon of the lowest
        rank on which one does; else :data:`ANIMAL`, as all animals together; else :data:`UNKNOWN`, with the
        probability of the most probable class.
        """
        animals = tuple(ANIMAL if kind_of(name) == "animal" else None for name in self.classes)
        levels = [_numbered(rank) for rank in (*self.ranks, animals)]
        return [self._of_one(row, levels, threshold) for row in probabilities]

    def _of_one(
        self, row: Float[np.ndarray, " c"], levels: Sequence[tuple[Sequence[str], Int[np.ndarray, " c"]]], least: float
    ) -> tuple[str, float]:
        best = int(row.argmax())
        if row[best] >= least:
            return self.classes[best], float(row[best])
        for names, numbers in levels:
            if names:
                sums = np.bincount(numbers, row, len(names) + 1)[: len(names)]
                likeliest = int(sums.argmax())
                if sums[likeliest] >= least:  # sums of float probabilities may pass 1 in the last digit
                    return names[likeliest], min(float(sums[likeliest]), 1.0)
        return UNKNOWN, float(row[best])


def _numbered(rank: Sequence[str | None]) -> tuple[list[str], Int[np.ndarray, " c"]]:
    """The taxa of a rank, and of each class the position of its taxon among them, the last plus one where it has none.

    So that one pass over the classes sums all taxa: models know thousands of both.
    """
    names = sorted(set(filter(None, rank)))
    position = {name: number for number, name in enumerate(names)}
    return names, np.array([position.get(name or "", len(names)) for name in rank], dtype=np.int64)


def read_taxonomy(path: Path, classes: Sequence[str]) -> Taxonomy:
    """The taxonomy in a CSV table with one row a class.

    The classes stand in the column that knows most of them. Ranks are the columns named so (:data:`RANKS`), or where
    there are none all others in the order of the header, the lowest first. A column ``scientific_name`` gives the names
    for Camtrap DP.

    Raises:
        DataError: the file cannot be read, has no rank, or knows none of the classes.
    """
    table = read_delimited(path)
    header, rows = table.header, [dict(zip(table.header, cells, strict=True)) for _, cells in table.rows]
    known = set(map(spelling_key, classes))
    hits = {name: len(known & set(map(spelling_key, table.column(name)))) for name in header}
    label = max(header, key=lambda name: hits[name])
    if not hits[label]:
        raise DataError(
            f"{path} knows none of the model's classes ({', '.join(classes[:3])}, …). Spell them as the model does."
        )
    others = [name for name in header if name != label and spelling_key(name) not in SCIENTIFIC]
    named = sorted(
        (name for name in others if spelling_key(name) in RANKS), key=lambda name: RANKS.index(spelling_key(name))
    )
    columns = named or others
    if not columns:
        raise DataError(f"{path} has no column of a rank besides {label!r}. Add some, for example genus and family.")
    found = {spelling_key(row[label]): row for row in rows if row[label]}
    of_class = [found.get(spelling_key(name)) for name in classes]
    ranks = tuple(tuple(_taxon(row, column) for row in of_class) for column in columns)
    names = [name for name in header if spelling_key(name) in SCIENTIFIC]
    pairs = zip(classes, of_class, strict=True)
    scientific = {label: row[names[0]] for label, row in pairs if names and row is not None and row[names[0]]}
    return Taxonomy(tuple(classes), ranks, scientific)


def _taxon(row: Mapping[str, str] | None, column: str) -> str | None:
    return (row or {}).get(column) or None


def unknown_names(names: Iterable[str], classes: Sequence[str]) -> list[str]:
    """Names that no class has, whatever their spelling."""
    known = set(map(spelling_key, classes))
    return sorted({name for name in names if spelling_key(name) not in known})
