"""Splits of a camera's pictures, by burst: each is placed by its own hash, so that no other can move it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from wildpdiff.camera_traps.sequences import Burst
from wildpdiff.tasks.task import SPLITS, SplitName

BOUNDS = (0.60, 0.75)
"""Where validation and test begin, as shares: 60 % train, 15 % validation, 25 % test."""


def share_of(*names: str) -> float:
    """A number of 0 to 1 by the names' hash: the same on every machine, whatever else there is."""
    digest = hashlib.sha256("\0".join(names).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hashed_splits(camera: str, bursts: Sequence[Burst]) -> dict[str, SplitName]:
    """The split of each burst by its name, from the hash of camera and burst alone.

    Where three bursts or more leave a split empty, the burst whose hash is nearest to it moves there.
    """
    shares = {burst.name: share_of(camera, burst.name) for burst in bursts}
    found = {name: SPLITS[sum(share >= bound for bound in BOUNDS)] for name, share in shares.items()}
    distances: Mapping[SplitName, Callable[[float], float]] = {
        "train": lambda share: share,
        "test": lambda share: -share,
        "validation": lambda share: abs(share - sum(BOUNDS) / 2),
    }
    for split, distance in distances.items() if len(bursts) >= len(SPLITS) else ():
        held = Counter(found.values())
        if not held[split]:
            movable = [name for name in found if held[found[name]] > 1]
            found[min(movable, key=lambda name: (distance(shares[name]), name))] = split
    return found


def splits_by_time(bursts: Sequence[Burst]) -> dict[str, SplitName]:
    """The split of each burst by its name: the earliest train, the last are for the test.

    Args:
        bursts: in order of time.
    """
    size = len(bursts)
    first = min(max(1, round(BOUNDS[0] * size)), max(1, size - 2))
    second = min(max(first + 1, round(BOUNDS[1] * size)), max(1, size - 1))
    return {burst.name: SPLITS[(number >= first) + (number >= second)] for number, burst in enumerate(bursts)}
