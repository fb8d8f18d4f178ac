"""Names of a table's columns, matched to what a picture has."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from wildpdiff.errors import DataError

_USUAL = """
path: path | filepath imagepath imgpath photopath fullpath relativefilepath | file filename image imagename imagefile
  imagefilename img photo picture photoname | imageurl photourl pictureurl
folder: folder relativepath directory dir subfolder foldername
label: label | labels species speciesname commonname scientificname class classname category taxon animal annotation
  truelabel groundtruth
task: task | camera cameraid cameraname cameratrap cam camid trap trapid station stationid stationname site siteid
  sitename location locationid locationname placename deployment deploymentid
datetime: datetime | datetimeoriginal timestamp dateandtime datecaptured capturetime captured takenat taken
date: date dateoriginal
time: time timeoriginal timeofday
sequence: sequence | sequenceid seqid seq event eventid burst burstid sequencename
frame: frame framenum framenumber
split: split
group: group
"""

SYNONYMS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    word: tuple(tuple(names.split()) for names in usual.split("|"))
    for word, usual in re.findall(r"^(\w+):((?:.|\n  )*)", _USUAL, re.MULTILINE)
}
"""Keys of usual names by word, in tuples; names of an earlier tuple stand where there are several."""

SPLIT_WORDS = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "testing": "test",
    "holdout": "test",
    "unlabeled": "unlabelled",
}
"""Usual words for splits by the project's own."""

NEEDED = ("path", "label", "task")
"""Words for which a choice among several columns is the user's."""

ALIASES = {"camera": "task", "labels": "label", "timestamp": "datetime", "file": "path"}
"""Further words for columns, in the mapping that a user gives."""


def name_key(name: str) -> str:
    """The same text for all spellings of a column's name that differ in case and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def matched_columns(
    header: Sequence[str], columns: Mapping[str, str], source: str, words: Sequence[str] = tuple(SYNONYMS)
) -> dict[str, str]:
    """Names of columns by word, for the words that the table has a column for.

    Args:
        header: names of the columns.
        columns: the user's choice, by word; it precedes all usual names.
        source: of the table, for messages.
        words: those to be matched, of :data:`SYNONYMS`.

    Raises:
        DataError: the user's choice names an unknown word or column, or several columns may be the path, the label or
            the task.
    """
    chosen = stated_columns(header, columns, source)
    free = [name for name in header if name not in chosen.values()]
    matched = {word: name for word, name in chosen.items() if word in words}
    for word in words:
        if word in chosen:
            continue
        candidates = _candidates(word, header if word == "folder" else free)  # a folder may name the camera as well
        if len(candidates) > 1 and word in NEEDED:
            names = " and ".join(map(repr, candidates))
            raise DataError(
                f"{source}: {names} may each be the column of the {word}. Choose one, for example with "
                f"--columns {word}={candidates[0]}."
            )
        if candidates:
            matched[word] = candidates[0]
    return matched


def stated_columns(header: Sequence[str], columns: Mapping[str, str], source: str) -> dict[str, str]:
    """The user's choice of columns by word, names as the header writes them; raises :class:`DataError`."""
    chosen = {}
    for given, name in columns.items():
        word = stated_word(given)
        same = [entry for entry in header if entry == name] or [e for e in header if name_key(e) == name_key(name)]
        if len(same) != 1:
            near = get_close_matches(name, header, 1)
            hint = f"; is {near[0]!r} meant?" if near else "."
            raise DataError(f"{source} has no column {name!r} for the {word}; it has {', '.join(header)}{hint}")
        chosen[word] = same[0]
    return chosen


def stated_word(given: str) -> str:
    """A word of :data:`SYNONYMS` from the one that a user gave; raises :class:`DataError` where there is none."""
    word = ALIASES.get(given.strip().lower(), given.strip().lower())
    if word not in SYNONYMS:
        raise DataError(f"A column was named for {given!r}; columns can be named for {', '.join(SYNONYMS)}.")
    return word


def _candidates(word: str, header: Sequence[str]) -> list[str]:
    """The columns that may be a word's: the one with its very name, or those of the first tuple of names found."""
    if word in header:
        return [word]
    for names in SYNONYMS[word]:
        found = [name for name in header if name_key(name) in names]
        if found:
            return sorted(found, key=lambda name: names.index(name_key(name)))
    return []
