"""Groups of cameras: which pretrain, which the generator learns from, and which are unseen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from wildpdiff.camera_traps.records import Picture
from wildpdiff.camera_traps.splits import share_of
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import GROUPS, Group

Unseen = int | float | Sequence[str] | None
"""The unseen cameras where a table has no column ``group``: a number, a fraction, names, or None."""

UNSEEN_SHARE = 0.2
"""The share of cameras that are unseen where neither table nor options name any."""

ENOUGH = 10
"""Cameras that can teach, from which on some are kept unseen where neither table nor options name any."""


def stated_groups(by_camera: Mapping[str, Sequence[Picture]]) -> dict[str, Group]:
    """The groups that the table states, by camera; pictures without one follow the camera's others.

    Raises:
        DataError: a group is none, or a camera has two.
    """
    groups: dict[str, Group] = {}
    for camera, pictures in by_camera.items():
        for picture in pictures:
            if not picture.group:
                continue
            group = next((known for known in GROUPS if known == picture.group), None)
            if group is None:
                raise DataError(f"line {picture.line}: the group is {picture.group!r}, none of {', '.join(GROUPS)}.")
            if groups.setdefault(camera, group) != group:
                raise DataError(
                    f"line {picture.line}: camera {camera!r} is in group {groups[camera]!r} above and {group!r} here; "
                    "give one group."
                )
    return groups


def drawn_groups(cameras: Collection[str], teaching: Collection[str], unseen: Unseen, seed: int) -> dict[str, Group]:
    """Seen and unseen cameras, where the table states no group.

    Cameras are drawn by the hash of seed and name. Where no number is given, a further camera moves no other.

    Args:
        cameras: all of them, for names.
        teaching: those that can teach, of which the unseen ones are drawn.
        unseen: a number, a fraction or names; None for about a fifth of :data:`ENOUGH` cameras or more.
        seed: of the draw.

    Raises:
        DataError: as many unseen cameras as there are, or a name that no camera has.
    """
    shares = {camera: share_of(str(seed), "unseen", camera) for camera in teaching}
    order = sorted(shares, key=lambda camera: (shares[camera], camera))
    if unseen is None:
        below = [camera for camera in order if shares[camera] < UNSEEN_SHARE]
        chosen = set(below or order[:1]) if len(order) >= ENOUGH else set()
    elif isinstance(unseen, int | float):
        share = unseen if isinstance(unseen, float) else unseen / max(len(order), 1)
        count = round(share * len(order)) if 0 <= share < 1 else len(order)
        if count == len(order) and unseen:
            raise DataError(f"unseen is {unseen} of {len(order)} cameras that can teach; give fewer, or a fraction.")
        chosen = set(order[:count])
    else:
        chosen = set(unseen)
        unknown = sorted(chosen - set(cameras))
        if unknown:
            known = sorted(cameras)
            raise DataError(f"There is no camera {unknown[0]!r} to be unseen; the cameras are {', '.join(known[:10])}.")
    return {camera: "unseen" if camera in chosen else "seen" for camera in cameras}
