"""Paths of one source matched to those of another, which may lie below other roots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.camera_traps.paths import folded

_MOST = 50
"""Paths that an ambiguous one is compared with."""


@dataclass(frozen=True)
class Matches:
    """Pairs of paths that mean the same picture.

    Attributes:
        pairs: the first source's path by the second's.
        ends: those pairs that agree in their ends only.
        cases: those that differ in case or in Unicode's form.
        ambiguous: paths of either source with those of the other that each may be; none of them is in a pair.
    """

    pairs: Mapping[str, str]
    ends: Mapping[str, str]
    cases: Mapping[str, str]
    ambiguous: Mapping[str, Sequence[str]] = field(default_factory=dict)


def match_paths(
    first: Iterable[str],
    second: Iterable[str],
    cameras: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
) -> Matches:
    """The paths of two sources that mean the same pictures.

    Equal paths match; then paths that differ in case or Unicode's form. Where fewer than half of a source's match so,
    their roots differ, and paths match by their longest common end of whole names: where one is all of the end, or
    where what is before it is the same in all paths of either source; and where no other path has that end as well.
    Where several have it, the camera of the one has to be the other's, or a folder of its path in any spelling.

    Args:
        first, second: the paths.
        cameras: of the paths of each source, as far as they are known.
    """
    firsts, seconds = dict.fromkeys(first), dict.fromkeys(second)
    pairs = {path: path for path in seconds if path in firsts}
    cases = _equal(_free(firsts, pairs.values()), _free(seconds, pairs), folded)
    pairs |= cases
    ends: dict[str, str] = {}
    ambiguous: Mapping[str, Sequence[str]] = {}
    if 2 * len(pairs) < min(len(firsts), len(seconds)):
        for key in (str, folded):
            own = _Side(_free(firsts, pairs.values()), cameras[0], common_folder(map(key, firsts)), key)
            search = _EndSearch(own, _Side(_free(seconds, pairs), cameras[1], common_folder(map(key, seconds)), key))
            found, ambiguous = search.pairs, search.ambiguous
            pairs, ends = pairs | found, ends | found
            cases |= found if key is folded else {}
    proven = {path for path, own in ends.items() if _same_camera(own, path, cameras)}
    if 2 * len(proven) > len(ends):  # folders are cameras, and a file's name alone is no evidence
        poor = {path for path, own in ends.items() if path not in proven and "/" not in own and "/" in path}
        pairs, ends = ({path: own for path, own in found.items() if path not in poor} for found in (pairs, ends))
    return Matches(pairs, ends, cases, ambiguous)


def _free(paths: Iterable[str], taken: Iterable[str]) -> list[str]:
    gone = set(taken)
    return [path for path in paths if path not in gone]


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


def common_folder(paths: Iterable[str]) -> str:
    """The folder that all paths begin with, with its final ``/``; empty where there is none."""
    paths = list(paths)
    low, high = min(paths), max(paths)
    same = next(
        (index for index, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )
    return low[: low.rfind("/", 0, same) + 1]


@dataclass(frozen=True)
class _Side:
    """Paths of one source that are not matched yet.

    Attributes:
        cameras: of the paths, as far as they are known.
        common: the folder that all of the source's paths begin with.
        key: of a path, equal for paths that are compared as one.
    """

    paths: list[str]
    cameras: Mapping[str, str]
    common: str
    key: Callable[[str], str]


def _names(path: str, cameras: Mapping[str, str]) -> tuple[bool, frozenset[str]]:
    """Whether the camera of a path is known, and its key; else those of the folders that may name it."""
    camera = cameras.get(path, "")
    return (True, frozenset({spelling_key(camera)})) if camera else (False, _folders(path.rpartition("/")[0]))


def _same_camera(own: str, path: str, cameras: tuple[Mapping[str, str], Mapping[str, str]]) -> bool:
    (known, names), (other, others) = _names(own, cameras[0]), _names(path, cameras[1])
    return (known or other) and not names.isdisjoint(others)


@lru_cache(4096)  # many pictures are in one folder
def _folders(folder: str) -> frozenset[str]:
    parts = [spelling_key(part) for part in folder.split("/") if part]
    return frozenset("/".join(parts[a:b]) for a in range(len(parts)) for b in range(a + 1, len(parts) + 1))


@dataclass(frozen=True)
class _EndSearch:
    """Pairs of two sources' paths by their longest common end."""

    first: _Side
    second: _Side

    @cached_property
    def _owners(self) -> dict[str, list[str]]:
        """The first source's paths by each of their ends."""
        owners: dict[str, list[str]] = {}
        for path in self.first.paths:
            for end in _ends(self.first.key(path)):
                owners.setdefault(end, []).append(path)
        return owners

    @cached_property
    def _claims(self) -> tuple[dict[str, list[str]], dict[str, Sequence[str]]]:
        """The second source's paths that may be each of the first's, and those that may be several of these."""
        claims: dict[str, list[str]] = {}
        ambiguous: dict[str, Sequence[str]] = {}
        by_name: dict[str, dict[tuple[bool, str], list[str]]] = {}
        for path in self.second.paths:
            end = next((end for end in _ends(self.second.key(path)) if end in self._owners), None)
            if end is None:
                continue
            owners = self._owners[end]
            if len(owners) > 1:
                of_camera = self._of_camera(path, by_name.setdefault(end, {}), owners)
                of_camera = [own for own in of_camera if not self._differ_below_camera(own, path, end)]
                if len(of_camera) != 1 and any(self._fits(own, path, end) for own in owners[:_MOST]):
                    ambiguous[path] = owners
                owners = of_camera if len(of_camera) == 1 else []
            elif not self._fits(owners[0], path, end):
                owners = []
            for own in owners:
                claims.setdefault(own, []).append(path)
        return claims, ambiguous

    def _fits(self, own: str, path: str, end: str) -> bool:
        before, own_before = self.second.key(path)[: -len(end)], self.first.key(own)[: -len(end)]
        fixed = self.second.common.startswith(before) and self.first.common.startswith(own_before)
        return not before or not own_before or fixed

    def _of_camera(self, path: str, index: dict[tuple[bool, str], list[str]], owners: Sequence[str]) -> list[str]:
        """Those of the owners of an end that a path shares the camera with; the index is filled when first used."""
        if not index:
            for own in owners:
                known, names = _names(own, self.first.cameras)
                for name in names:
                    index.setdefault((known, name), []).append(own)
        known, names = _names(path, self.second.cameras)
        keys = ((side, name) for name in names for side in ((True, False) if known else (True,)))
        return list(dict.fromkeys(own for key in keys for own in index.get(key, ())))

    def _differ_below_camera(self, own: str, path: str, end: str) -> bool:
        """Whether both paths have the folder of their camera, and other folders between that one and their end."""
        befores = [self.first.key(own)[: -len(end)].strip("/"), self.second.key(path)[: -len(end)].strip("/")]
        shared = frozenset.intersection(
            _names(own, self.first.cameras)[1], _names(path, self.second.cameras)[1], *map(_folders, befores)
        )
        return bool(shared) and all(shared.isdisjoint(map(spelling_key, _ends(before))) for before in befores)

    @cached_property
    def _resolved(self) -> tuple[dict[str, str], dict[str, Sequence[str]]]:
        claims, ambiguous = self._claims
        pairs: dict[str, str] = {}
        for own, paths in claims.items():
            cameras = (self.first.cameras, self.second.cameras)
            chosen = paths if len(paths) == 1 else [path for path in paths if _same_camera(own, path, cameras)]
            if len(chosen) == 1:
                pairs[chosen[0]] = own
            else:
                ambiguous = {**ambiguous, own: paths}
        taken = {*pairs, *pairs.values()}
        return pairs, {path: others for path, others in ambiguous.items() if not taken.issuperset(others)}

    @property
    def pairs(self) -> dict[str, str]:
        """The first source's path by the second's."""
        return self._resolved[0]

    @property
    def ambiguous(self) -> dict[str, Sequence[str]]:
        """As in :class:`Matches`."""
        return self._resolved[1]
