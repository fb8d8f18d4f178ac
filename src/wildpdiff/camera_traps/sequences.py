"""Bursts: pictures of one camera that show one event, and are no evidence about each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from wildpdiff.camera_traps.records import Picture

BURST_SECONDS = 60.0
"""Pictures of a camera that are less than this apart are of one burst."""


@dataclass(frozen=True)
class Burst:
    """Pictures of one camera that belong together.

    Attributes:
        name: unique within the camera: of its sequence, else the minute of its first picture, else that picture's path.
        members: positions of its pictures among the camera's, by time.
        start: time of the first picture; None where not known.
    """

    name: str
    members: tuple[int, ...]
    start: datetime | None


class _Sets:
    """Disjoint sets of positions, which can only be joined."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, position: int) -> int:
        while self._parent[position] != position:
            self._parent[position] = position = self._parent[self._parent[position]]
        return position

    def join(self, one: int, other: int) -> None:
        self._parent[self.find(one)] = self.find(other)


def bursts(pictures: Sequence[Picture], alike: Sequence[Hashable | None] = ()) -> tuple[Burst, ...]:
    """The bursts of one camera's pictures.

    A burst has the pictures of one named sequence, and those that are less than :data:`BURST_SECONDS` from the next.
    A picture without a name and time is its own burst: consecutive numbers of files are no evidence.

    Args:
        pictures: of one camera.
        alike: one a picture; equal values but None belong together, for example hashes of identical files.
    """
    sets = _Sets(len(pictures))
    first: dict[Hashable, int] = {}
    for position, picture in enumerate(pictures):
        if picture.sequence:
            sets.join(position, first.setdefault(("sequence", picture.sequence), position))
        if alike and alike[position] is not None:
            sets.join(position, first.setdefault(("alike", alike[position]), position))
    seconds = _seconds(pictures)
    timed = sorted((value, position) for position, value in enumerate(seconds) if value is not None)
    for (earlier, one), (later, other) in pairwise(timed):
        if later - earlier < BURST_SECONDS:
            sets.join(one, other)
    members: dict[int, list[int]] = {}
    order = sorted(range(len(pictures)), key=lambda position: _order(pictures[position], seconds[position]))
    for position in order:
        members.setdefault(sets.find(position), []).append(position)
    return tuple(Burst(_name(pictures[found[0]]), tuple(found), pictures[found[0]].time) for found in members.values())


def _order(picture: Picture, seconds: float | None) -> tuple[bool, float, str]:
    return seconds is None, seconds or 0.0, picture.path


def _seconds(pictures: Sequence[Picture]) -> list[float | None]:
    """Times on one scale; zones count where all times have one."""
    zoned = all(picture.time is None or picture.time.tzinfo is not None for picture in pictures)
    origin = datetime(1970, 1, 1)
    return [
        None
        if picture.time is None
        else picture.time.timestamp()
        if zoned
        else (picture.time.replace(tzinfo=None) - origin).total_seconds()
        for picture in pictures
    ]


def _name(first: Picture) -> str:
    if first.sequence:
        return f"sequence {first.sequence}"
    # A minute, and no second: the burst keeps its name, nearly always, where its first frame is removed.
    return f"path {first.path}" if first.time is None else f"minute {first.time:%Y-%m-%d %H:%M%z}"
