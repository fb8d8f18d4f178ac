"""Spellings of labels: variants of one name joined, blanks under one word."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wildpdiff.camera_traps.records import EMPTY
from wildpdiff.tables.delimited import MISSING

BLANKS = frozenset(
    {"empty", "blank", "nothing", "nothing here", "nothinghere", "no animal", "no animals", "false trigger", "misfire"}
)
"""Keys of labels that say in English that a picture is empty, whatever the format."""

MOST_SHOWN = 3
"""Names with several spellings in one remark."""

TAXON_SEPARATORS = 6
"""Semicolons in a taxon of SpeciesNet."""

_SURE, _MAYBE = re.compile(r"[|;\n\r]"), re.compile(r"[,/+&]")
_SEPARATORS = re.compile(r"(?!^-\d)[\s_\-‐‑‒–—]+")
_QUOTES = str.maketrans("’‘ʼ´`", "'''''")


def spelling_key(text: str) -> str:
    """The same text for all spellings of a name that differ in case, spaces, underscores, hyphens or Unicode's form.

    The minus of a number stays.
    """
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii():
        text = "".join(letter for letter in text.translate(_QUOTES) if unicodedata.category(letter) != "Cf")
    plain = unicodedata.normalize("NFKC", text.casefold())
    return _SEPARATORS.sub(" ", plain).strip() or text


class CellLabels:
    """The labels in the cells of one column.

    A cell holds several where ``|``, ``;`` or a line's end separates them; a comma, ``/``, ``+`` or ``&`` only where
    each part is a label of its own in another cell, since names may hold these. SpeciesNet's seven ranks are one.

    Args:
        cells: all of the column.
    """

    def __init__(self, cells: Iterable[str]) -> None:
        self._known = frozenset(map(spelling_key, set(cells)))

    def of(self, cell: str) -> tuple[str, ...]:
        """The labels in a cell, each once; a sign such as ``?`` or ``-`` alone is none."""
        if cell.count(";") == TAXON_SEPARATORS:
            return (cell,)
        parts = _parts(_SURE, cell)
        if len(parts) == 1:
            others = _parts(_MAYBE, cell)
            parts = others if len(others) > 1 and all(spelling_key(part) in self._known for part in others) else parts
        return tuple({spelling_key(part): part for part in reversed(parts)}.values())[::-1]


def _parts(separators: re.Pattern[str], cell: str) -> list[str]:
    parts = (part.strip() for part in separators.split(cell))
    return [part for part in parts if part.lower() not in MISSING and any(map(str.isalnum, part))]


@dataclass(frozen=True)
class JoinedLabels:
    """One spelling for each name.

    Attributes:
        canonical: the spelling chosen for each label as written.
        remarks: one sentence each on the names that were joined, and on blanks.
        blank: the name of blanks.
    """

    canonical: Mapping[str, str]
    remarks: tuple[str, ...]
    blank: str = EMPTY

    def of(self, labels: Iterable[str]) -> tuple[str, ...]:
        """A picture's labels in their canonical spelling, each once; a blank only where it is alone."""
        found = dict.fromkeys(self.canonical[label] for label in labels)
        return tuple(label for label in found if label != self.blank or len(found) == 1)


def joined_labels(labels: Iterable[str], blanks: Iterable[str] | None = (), known: Iterable[str] = ()) -> JoinedLabels:
    """One spelling for all variants of each label: the most frequent, or the known one.

    Among equally frequent spellings, the first in the order of their characters is chosen.

    Args:
        labels: as written, once for each picture that has them.
        blanks: labels that say that a picture is empty, besides :data:`BLANKS`; they become the known word of blanks,
            or :data:`EMPTY`. None: none is one, not of :data:`BLANKS` either.
        known: spellings that stand whatever their frequency, for example a model's classes.
    """
    empty = frozenset() if blanks is None else BLANKS | {spelling_key(label) for label in blanks}
    fixed = {spelling_key(label): label for label in known}
    nothing = next((label for key, label in fixed.items() if key in empty), EMPTY)
    variants: dict[str, list[tuple[int, str]]] = {}
    for label, count in Counter(labels).items():
        variants.setdefault(spelling_key(label), []).append((-count, label))
    canonical: dict[str, str] = {}
    joined: list[str] = []
    blank: list[str] = []
    for key, found in variants.items():
        spellings = [label for _, label in sorted(found)]
        if key in empty:
            name = fixed.get(key, nothing)
            blank += [label for label in spellings if label != name]
        else:
            name = fixed.get(key, unicodedata.normalize("NFC", spellings[0].strip()))
            others = [label for label in spellings if label != name]
            if others:
                joined.append(f"{name!r} replaces {_listed(others)}")
        canonical.update(dict.fromkeys(spellings, name))
    remarks = [f"The label {joined[0]}."] if len(joined) == 1 else []
    if len(joined) > 1:
        some = "; ".join([*joined[:MOST_SHOWN], *(["…"] if len(joined) > MOST_SHOWN else [])])
        remarks = [f"{len(joined)} labels have several spellings each: {some}."]
    if blank:
        remarks.append(f"Pictures labelled {_listed(sorted(blank))} are blanks: {nothing!r}.")
    return JoinedLabels(canonical, tuple(remarks), nothing)


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - 5} more spellings" if len(labels) > 5 else ""
    return ", ".join(map(repr, labels[:5])) + more
