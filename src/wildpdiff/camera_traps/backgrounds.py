"""Backgrounds of a camera: pictures of its empty site, from which the camera is known without labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from wildpdiff.camera_traps.placement import PlacedPicture
from wildpdiff.camera_traps.records import Picture
from wildpdiff.camera_traps.sequences import bursts
from wildpdiff.camera_traps.splits import share_of

MOST = 24
"""Backgrounds of a camera by default."""

OPEN = ("train", "unlabelled")
"""Splits that a description may show."""

HOURS = 3
"""Width of a part of the day."""


def backgrounds_of(
    rows: Iterable[PlacedPicture], is_blank: Callable[[Picture], bool], most: int = MOST
) -> tuple[PlacedPicture, ...]:
    """The backgrounds of one camera, in the order of their paths.

    Where the source states backgrounds, they are taken. Else they are blanks among the training and unlabelled
    pictures. Parts of the day have the shares that they have of the blank bursts, so that night and day are mixed as
    they were taken. Every burst of a part gives one picture before any gives another; the rest is decided by hashes of
    paths. Another order of the pictures changes nothing, and one picture more or less changes few of the chosen.

    Args:
        rows: the camera's pictures, of any split.
        is_blank: whether people or a detector found nothing in a picture.
        most: number of backgrounds.
    """
    known = sorted(rows, key=lambda row: row.path)
    chosen = sorted((row for row in known if row.split == "background"), key=lambda row: share_of(row.path))[:most]
    if not chosen:
        chosen = _spread([row for row in known if row.split in OPEN and is_blank(row.picture)], most)
    return tuple(sorted(chosen, key=lambda row: row.path))


def _spread(rows: Sequence[PlacedPicture], most: int) -> list[PlacedPicture]:
    """Rows of all parts of the day and of many bursts."""
    parts: dict[int, list[tuple[int, float, PlacedPicture]]] = defaultdict(list)
    weights: dict[int, int] = defaultdict(int)
    for burst in bursts([row.picture for row in rows]):
        part = -1 if burst.start is None else burst.start.hour // HOURS
        weights[part] += 1
        members = sorted(burst.members, key=lambda member: share_of(rows[member].path))
        parts[part] += [(rank, share_of(rows[member].path), rows[member]) for rank, member in enumerate(members)]
    counts = _seats(weights, {part: len(entries) for part, entries in parts.items()}, most)
    return [row for part, entries in parts.items() for _, _, row in sorted(entries, key=_by_rank)[: counts[part]]]


def _by_rank(entry: tuple[int, float, PlacedPicture]) -> tuple[int, float, str]:
    return entry[0], entry[1], entry[2].path


def _seats(weights: Mapping[int, int], limits: Mapping[int, int], seats: int) -> dict[int, int]:
    """Seats in proportion to weights by the method of Sainte-Laguë, within a limit for each."""
    given = dict.fromkeys(weights, 0)
    for _ in range(min(seats, sum(limits.values()))):
        free = [part for part in sorted(given) if given[part] < limits[part]]
        given[max(free, key=lambda part: weights[part] / (2 * given[part] + 1))] += 1
    return given
