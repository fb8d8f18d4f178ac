"""Spellings of labels: variants of one name joined, blanks under one word."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wildpdiff.camera_traps.records import EMPTY

BLANKS = frozenset({"empty", "blank", "nothing", "no animal"})
"""Keys of labels that say in English that a picture is empty, whatever the format."""

_SEPARATORS = re.compile(r"[\s_\-‐‑‒–—]+")
_QUOTES = str.maketrans("’‘ʼ´`", "'''''")


def spelling_key(text: str) -> str:
    """The same text for all spellings of a name that differ in case, spaces, underscores, hyphens or Unicode's form."""
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii():
        text = "".join(letter for letter in text.translate(_QUOTES) if unicodedata.category(letter) != "Cf")
    plain = unicodedata.normalize("NFKC", text.casefold())
    return _SEPARATORS.sub(" ", plain).strip() or text


@dataclass(frozen=True)
class JoinedLabels:
    """One spelling for each name.

    Attributes:
        canonical: the spelling that stands for each label as written.
        remarks: one sentence each on the names that were joined, and on blanks.
    """

    canonical: Mapping[str, str]
    remarks: tuple[str, ...]

    def of(self, labels: Iterable[str]) -> tuple[str, ...]:
        """A picture's labels in their canonical spelling, each once; a blank only where it is alone."""
        found = dict.fromkeys(self.canonical[label] for label in labels)
        return tuple(label for label in found if label != EMPTY or len(found) == 1)


def joined_labels(labels: Iterable[str], blanks: Iterable[str] = (), known: Iterable[str] = ()) -> JoinedLabels:
    """One spelling for all variants of each label: the most frequent, or the known one.

    Among equally frequent spellings, the first in the order of their characters stands.

    Args:
        labels: as written, once for each picture that has them.
        blanks: labels that say that a picture is empty, besides :data:`BLANKS`; they become :data:`EMPTY`.
        known: spellings that stand whatever their frequency, for example a model's classes.
    """
    empty = BLANKS | {spelling_key(label) for label in blanks}
    fixed = {spelling_key(label): label for label in known}
    variants: dict[str, list[tuple[int, str]]] = {}
    for label, count in Counter(labels).items():
        variants.setdefault(spelling_key(label), []).append((-count, label))
    canonical: dict[str, str] = {}
    remarks: list[str] = []
    blank: list[str] = []
    for key, found in variants.items():
        spellings = [label for _, label in sorted(found)]
        if key in empty:
            name = fixed.get(key, EMPTY)
            blank += [label for label in spellings if label != name]
        else:
            name = fixed.get(key, unicodedata.normalize("NFC", spellings[0].strip()))
            others = [label for label in spellings if label != name]
            if others:
                remarks.append(f"The label {name!r} stands for {_listed(others)} as well.")
        canonical.update(dict.fromkeys(spellings, name))
    if blank:
        remarks.append(f"Pictures labelled {_listed(sorted(blank))} are blanks: {EMPTY!r}.")
    return JoinedLabels(canonical, tuple(remarks))


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - 5} more spellings" if len(labels) > 5 else ""
    return ", ".join(map(repr, labels[:5])) + more
