"""Cameras and species among the levels of a folder tree, where years, seasons, cards or deployments lie between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wildpdiff.camera_traps.labels import spelling_key

Folders = tuple[str, ...]
"""Names of the folders of a picture, from the root of the tree to the picture."""

CARD = re.compile(r"dcim|\d{3}[a-z0-9_]{5}", re.IGNORECASE)
"""Folders that cameras make on a card: ``DCIM/100RECNX``. They hold all pictures, whatever is in these."""

_OCCASIONS = """
    spring summer autumn fall winter wet dry rainy monsoon season
    frühling frühjahr sommer herbst saison jahreszeit printemps été automne hiver
    primavera verano otoño invierno verão outono inverno estate autunno
    january february march april may june july august september october november december
    jan feb mar apr jun jul aug sep sept oct nov dec
    januar februar märz mai juni juli oktober dezember
    janvier février mars avril juin juillet août septembre octobre novembre décembre
    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    janeiro fevereiro março maio junho julho setembro outubro novembro dezembro
    year month week day night date quarter jahr monat woche tag nacht année mois semaine año mes semana
    deployment deployments deploy dep visit check period session survey round trip rotation replicate
    einsatz kontrolle durchgang card sd sdcard karte speicherkarte batch roll and to bis und
"""
OCCASIONS = frozenset(_OCCASIONS.split())
"""Words for a time, a deployment or a card, in lower case."""

_TOKENS = re.compile(r"[^\W\d_]+|\d+")
_YEAR = re.compile(r"(19|20)\d\d")
_MOST_DIGITS = 8
"""Of a date without separators, ``20240531``."""


@dataclass(frozen=True)
class Levels:
    """The camera and the species of the pictures in one folder.

    Attributes:
        camera: name of the camera's folder; empty for pictures above the cameras.
        species: name of the species' folder; empty where there is none.
        above: folders above the camera's.
        between: folders between that of the camera and that of the species, or of pictures without one.
        below: folders inside that of the species.
    """

    camera: str
    species: str = ""
    above: Folders = ()
    between: Folders = ()
    below: Folders = ()


def is_time(name: str) -> bool:
    """Whether a folder's name is a year, a date, a month, a season, or the name of a deployment or a card."""
    tokens = _TOKENS.findall(spelling_key(name))
    words = [token for token in tokens if not token.isdigit()]
    if words:
        return OCCASIONS.issuperset(words)
    numbers = [token for token in tokens if token.isdigit()]
    return len(numbers) > 1 or any(_YEAR.fullmatch(token) or len(token) in (6, _MOST_DIGITS) for token in numbers)


def levels_of(folders: Iterable[Folders]) -> dict[Folders, Levels]:
    """Camera and species of each folder of pictures in a tree.

    The camera is the first level; the second, where the whole first one is of times and two levels of other names
    follow. The species is the next level. Folders of a card, of times and deployments, numbers, and numbered folders
    like those with a species inside (``D1``) are none, except that numbers are where a tree has nothing else. Where two
    levels remain, the species is the one with more names that several cameras have, the upper one of equals.
    """
    own = {path: tuple(name for name in path if not CARD.fullmatch(name)) for path in dict.fromkeys(folders)}
    first = _first_level(list(own.values()))
    inner = {path: names[first + 1 :] for path, names in own.items()}
    plain = {path: _plain(names) for path, names in inner.items()}
    occasions = {
        _shape(name) for path, names in inner.items() if plain[path] for name in _before(names, plain[path][0])
    }
    known = any(plain.values())
    for path, names in inner.items():
        if not plain[path]:
            numbered = (name for name in names if not is_time(name) and _shape(name) not in occasions)
            plain[path] = [name for name in numbered if not (known and name.strip().isdigit())][:1]
    level, others = _species_level([(own[path][first : first + 1], names) for path, names in plain.items()])
    found = {}
    for path, names in own.items():
        few = len(plain[path]) < 2
        kept = [name for name in plain[path] if not (few and spelling_key(name) in others)]
        species = kept[min(level, len(kept) - 1)] if kept else ""
        at = inner[path].index(species) if species else len(inner[path])
        camera = names[first] if len(names) > first else ""
        found[path] = Levels(camera, species, names[:first], inner[path][:at], inner[path][at + 1 :])
    return found


def _first_level(paths: Sequence[Folders]) -> int:
    """The level of the cameras: 0, or 1 below a level of times."""
    deep = [path for path in paths if path]
    if not deep or not all(is_time(path[0]) for path in deep):
        return 0
    below = [sum(not is_time(name) for name in path[1:]) for path in deep]
    return int(2 * sum(count > 1 for count in below) > len(deep))


def _plain(names: Folders) -> list[str]:
    """Names without a digit that are no times."""
    return [name for name in names if not is_time(name) and not any(map(str.isdigit, name))]


def _before(names: Folders, name: str) -> Folders:
    return names[: names.index(name)]


def _shape(name: str) -> str:
    """The same for names that differ in their numbers, as those of deployments do; no text for a name without any."""
    shape = re.sub(r"\d+", "0", spelling_key(name))
    return shape if "0" in shape else ""


def _species_level(paths: Sequence[tuple[Folders, Sequence[str]]]) -> tuple[int, frozenset[str]]:
    """The level of the species among the plain ones, and keys of names that only levels above it have.

    Args:
        paths: the camera's name, or none, and the plain names below it, of each folder of pictures.
    """
    cameras: dict[tuple[int, str], set[Folders]] = {}
    for camera, names in paths:
        for level, name in enumerate(names if len(names) > 1 else ()):
            cameras.setdefault((level, spelling_key(name)), set()).add(camera)
    if not cameras:
        return 0, frozenset()
    counts = [0] * (1 + max(level for level, _ in cameras))
    for (level, _), seen in cameras.items():
        counts[level] += len(seen) > 1
    best = counts.index(max(counts))
    own = {key for level, key in cameras if level == best}
    return best, frozenset(key for level, key in cameras if level < best and key not in own)
