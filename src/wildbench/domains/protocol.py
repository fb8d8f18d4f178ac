"""The protocol of WILDS iWildCam (Koh et al. 2021): other cameras, and other dates of the same cameras.

Cameras of ``train`` are halved: one half pretrains the backbone, the other fine-tunes the zoo. A network that was
pretrained on a camera's pictures knows them, and its adapter would have little left to learn. Cameras of ``test`` are
the unseen tasks, those of ``val`` are not used: all choices are made on seen tasks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.sequences import Burst, bursts
from wildpdiff.camera_traps.splits import hashed_splits, share_of, splits_by_time
from wildpdiff.errors import DataError
from wildpdiff.rng import first_by_name
from wildpdiff.tasks.task import Group, SplitName

SPLIT = "wilds_split"
"""Column of a picture's split as the data set states it."""

CAMERAS = {"val": 0.10, "test": 0.15}
"""Shares of the cameras where the data set states no splits; those of iWildCam are 32 and 48 of 323."""

DATES = {"id_val": 0.06, "id_test": 0.06}
"""Shares of a training camera's dates, there."""

OF_SEEN: Mapping[str, SplitName] = {"train": "train", "id_val": "validation", "id_test": "test"}


@dataclass(frozen=True)
class ProtocolConfig:
    """Settings of the protocol.

    Attributes:
        seed: draws cameras and dates where the data set states no splits, and the pretraining cameras.
        by_time: whether every camera's earliest bursts train and its latest test, in place of the stated dates.
        pretraining: share of the training cameras that pretrain the backbone.
        most: pictures of a training camera in each split, drawn by their burst; None for all.
    """

    seed: int = 0
    by_time: bool = False
    pretraining: float = 0.5
    most: int | None = None


def with_splits(table: PictureTable, config: ProtocolConfig = ProtocolConfig()) -> PictureTable:
    """The table with group and split of every picture that the protocol uses; the others are left out.

    A burst that the data set's splits cut stays in the split of its first picture.

    Raises:
        DataError: a camera or picture of a split that the protocol does not know, or of two.
    """
    stated = _stated(table) or _drawn(table, config.seed)
    cameras = _cameras(table, stated)
    training = sorted(name for name, split in cameras.items() if split == "train")
    chosen = first_by_name(training, round(config.pretraining * len(training)), config.seed, "pretraining cameras")
    groups: dict[str, Group] = dict.fromkeys(training, "seen")
    groups |= {training[index]: "pretraining" for index in chosen}
    groups |= {name: "unseen" for name, split in cameras.items() if split == "test"}
    kept: dict[int, Picture] = {}
    for camera, numbers in _by_camera(table.pictures).items():
        if camera not in groups:
            continue
        own = [table.pictures[number] for number in numbers]
        found = bursts(own)
        if config.by_time:
            split_of = splits_by_time(_dated(found, own))
        elif groups[camera] == "unseen":
            split_of = hashed_splits(camera, found)
        else:
            split_of = {burst.name: OF_SEEN[stated[numbers[burst.members[0]]]] for burst in found}
        most = None if groups[camera] == "unseen" else config.most
        for burst in _kept(camera, found, split_of, replace(config, most=most)):
            for member in burst.members:
                kept[numbers[member]] = replace(own[member], split=split_of[burst.name], group=groups[camera])
    return replace(table, pictures=tuple(kept[number] for number in sorted(kept)))


def _stated(table: PictureTable) -> list[str] | None:
    splits = [picture.values.get(SPLIT, "") for picture in table.pictures]
    if not any(splits):
        return None
    known = {*OF_SEEN, *CAMERAS}
    strange = next((number for number, split in enumerate(splits) if split not in known), None)
    if strange is not None:
        raise DataError(
            f"{table.source}, line {table.pictures[strange].line}: the split is {splits[strange]!r}; the protocol "
            f"knows {', '.join(sorted(known))}."
        )
    return splits


def _drawn(table: PictureTable, seed: int) -> list[str]:
    """Splits as WILDS draws them: cameras at random, and whole dates of the training cameras."""
    names = sorted({picture.camera for picture in table.pictures})
    held_out: dict[str, str] = {}
    for split, share in CAMERAS.items():
        rest = [name for name in names if name not in held_out]
        count = max(1, round(share * len(names)))
        held_out |= {rest[index]: split for index in first_by_name(rest, count, seed, "cameras", split)}
    splits = []
    for picture in table.pictures:
        day = picture.time.date().isoformat() if picture.time is not None else picture.sequence or picture.path
        value = share_of("dates", str(seed), picture.camera, day)
        ends = {"id_val": DATES["id_val"], "id_test": sum(DATES.values())}
        own = next((split for split, end in ends.items() if value < end), "train")
        splits.append(held_out.get(picture.camera, own))
    return splits


def _by_camera(pictures: Sequence[Picture]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, picture in enumerate(pictures):
        numbers[picture.camera].append(number)
    return numbers


def _cameras(table: PictureTable, splits: Sequence[str]) -> dict[str, str]:
    """``train``, ``val`` or ``test`` by camera; a camera of two of these would leak, and is refused."""
    found: dict[str, set[str]] = defaultdict(set)
    for picture, split in zip(table.pictures, splits, strict=True):
        found[picture.camera].add("train" if split in OF_SEEN else split)
    mixed = next((camera for camera, kinds in found.items() if len(kinds) > 1), None)
    if mixed is not None:
        raise DataError(
            f"{table.source}: camera {mixed!r} is in {' and '.join(sorted(found[mixed]))}. Give each camera one."
        )
    return {camera: kinds.pop() for camera, kinds in found.items()}


def _dated(found: Sequence[Burst], pictures: Sequence[Picture]) -> Sequence[Burst]:
    undated = next((pictures[burst.members[0]] for burst in found if burst.start is None), None)
    if undated is not None:
        raise DataError(f"Picture {undated.path} has no time, which the protocol in the order of time needs.")
    return found


def _kept(
    camera: str, found: Sequence[Burst], split_of: Mapping[str, SplitName], config: ProtocolConfig
) -> Iterator[Burst]:
    """The bursts that are kept: of each split whole ones, in the order of their hash, up to the wanted number."""
    taken = Counter[str]()
    for burst in sorted(found, key=lambda burst: share_of("kept", str(config.seed), camera, burst.name)):
        split = split_of[burst.name]
        if config.most is None or taken[split] < config.most:
            taken[split] += len(burst.members)
            yield burst
