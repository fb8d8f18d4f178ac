"""Paths of one source matched to those of another, which may lie below other roots."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Matches:
    """Pairs of paths that mean the same picture.

    Attributes:
        pairs: the first source's path by the second's.
        ends: those pairs that agree in their ends only.
        cases: those that differ in case or in Unicode's form.
    """

    pairs: Mapping[str, str]
    ends: Mapping[str, str]
    cases: Mapping[str, str]


def match_paths(first: Iterable[str], second: Iterable[str]) -> Matches:
    """The paths of two sources that mean the same pictures.

    Equal paths match; then paths that differ in case or Unicode's form. Where fewer than half of a source's match so,
    their roots differ, and paths match by their longest common end of whole names: where one is all of the end, or
    where what is before it is the same in all paths of either source; and where no other path has that end as well.
    """
    firsts, seconds = dict.fromkeys(first), dict.fromkeys(second)
    pairs = {path: path for path in seconds if path in firsts}
    cases = _equal(_free(firsts, pairs.values()), _free(seconds, pairs), _folded)
    pairs |= cases
    ends: dict[str, str] = {}
    if 2 * len(pairs) < min(len(firsts), len(seconds)):
        for key in (str, _folded):
            found = _by_ends(
                (_free(firsts, pairs.values()), _common_folder(map(key, firsts))),
                (_free(seconds, pairs), _common_folder(map(key, seconds))),
                key,
            )
            pairs, ends = pairs | found, ends | found
            cases |= found if key is _folded else {}
    return Matches(pairs, ends, cases)


def _free(paths: Iterable[str], taken: Iterable[str]) -> list[str]:
    gone = set(taken)
    return [path for path in paths if path not in gone]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _equal(first: Sequence[str], second: Sequence[str], key: Callable[[str], str]) -> dict[str, str]:
    """Pairs of equal keys, each of one path of either source."""
    firsts, seconds = _unique(first, key), _unique(second, key)
    return {path: own for name, path in seconds.items() if path and (own := firsts.get(name))}


def _unique(paths: Sequence[str], key: Callable[[str], str]) -> dict[str, str]:
    """The path by its key; empty where several have it."""
    found: dict[str, str] = {}
    for path in paths:
        name = key(path)
        found[name] = "" if name in found else path
    return found


def _ends(path: str) -> list[str]:
    """The path's ends of whole names, the longest first."""
    parts = path.split("/")
    return ["/".join(parts[index:]) for index in range(len(parts))]


def _common_folder(paths: Iterable[str]) -> str:
    """The folder that all paths begin with, with its final ``/``; empty where there is none."""
    paths = list(paths)
    low, high = min(paths), max(paths)
    same = next(
        (index for index, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    return low[: low.rfind("/", 0, same) + 1]


def _by_ends(first: tuple[list[str], str], second: tuple[list[str], str], key: Callable[[str], str]) -> dict[str, str]:
    """Pairs by their longest common end; each source is its paths and the folder that all of them begin with."""
    owner: dict[str, str] = {}
    for path in first[0]:
        for end in _ends(key(path)):
            owner[end] = "" if end in owner else path
    claims: dict[str, list[str]] = {}
    for path in second[0]:
        name = key(path)
        end = next((end for end in _ends(name) if end in owner), "")
        if owner.get(end):
            before, own_before = name[: -len(end)], key(owner[end])[: -len(end)]
            if not before or not own_before or (second[1].startswith(before) and first[1].startswith(own_before)):
                claims.setdefault(owner[end], []).append(path)
    return {paths[0]: own for own, paths in claims.items() if len(paths) == 1}
