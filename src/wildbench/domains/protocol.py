"""The protocol of WILDS iWildCam (Koh et al. 2021): other cameras, and other dates of the same cameras.

Cameras of ``train`` are halved: one half pretrains the backbone, the other fine-tunes the zoo. A network that was
pretrained on a camera's pictures knows them, and its adapter would have little left to learn. Cameras of ``test`` are the
unseen tasks, those of ``val`` are not used: all choices are made on seen tasks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.sequences import bursts
from wildpdiff.errors import DataError
from wildpdiff.rng import first_by_name, sub_seed
from wildpdiff.tasks.task import SplitName

SPLIT = "wilds_split"
"""Column of a picture's split as the data set states it."""

CAMERAS = {"val": 0.10, "test": 0.15}
"""Shares of the cameras where the data set states no splits; those of iWildCam are 32 and 48 of 323."""

DATES = {"id_val": 0.06, "id_test": 0.06}
"""Shares of a training camera's dates, there."""

OF_SEEN: Mapping[str, SplitName] = {"train": "train", "id_val": "validation", "id_test": "test"}

PARTS: Mapping[SplitName, float] = {"train": 0.60, "validation": 0.15, "test": 0.25}
"""Of a camera's bursts, where its pictures have no splits of their own."""


@dataclass(frozen=True)
class ProtocolConfig:
    """Settings of the protocol.

    Attributes:
        seed: draws cameras and dates where the data set states no splits, and the pretraining cameras.
        by_time: whether every camera's earliest bursts train and its latest test, in place of the stated dates.
        pretraining: share of the training cameras that pretrain the backbone.
        most: pictures of a camera in each split, drawn by their burst; None for all.
    """

    seed: int = 0
    by_time: bool = False
    pretraining: float = 0.5
    most: int | None = None


def with_splits(table: PictureTable, config: ProtocolConfig = ProtocolConfig()) -> PictureTable:
    """The table with group and split of every picture that the protocol uses; the others are left out.

    A burst that the data set's splits cut stays in the first of them.

    Raises:
        DataError: no cameras, or a split that the protocol does not know.
    """
    stated = _stated(table) or _drawn(table, config.seed)
    cameras = _cameras(table, stated)
    training = sorted(name for name, split in cameras.items() if split in OF_SEEN)
    chosen = first_by_name(training, round(config.pretraining * len(training)), config.seed, "pretraining cameras")
    pretraining = {training[index] for index in chosen}
    kept: dict[int, Picture] = {}
    for camera, numbers in _by_camera(table.pictures).items():
        if cameras[camera] == "val":
            continue
        group = "unseen" if cameras[camera] == "test" else "pretraining" if camera in pretraining else "seen"
        own = [table.pictures[number] for number in numbers]
        names = bursts(own)
        first = {name: stated[number] for name, number in zip(reversed(names), reversed(numbers), strict=True)}
        if group == "unseen" or config.by_time:
            split_of = _parts(camera, own, names, config)
        else:
            split_of = {name: OF_SEEN[split] for name, split in first.items()}
        wanted = _fewest(camera, names, split_of, config)
        for number, picture, name in zip(numbers, own, names, strict=True):
            if name in wanted:
                kept[number] = replace(picture, split=split_of[name], group=group)
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
        value = sub_seed(seed, "dates", picture.camera, day) / 2**63
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
            f"{table.source}: camera {mixed!r} is in {' and '.join(sorted(found[mixed]))}. Give every camera one of them."
        )
    return {camera: kinds.pop() for camera, kinds in found.items()}


def _parts(
    camera: str, pictures: Sequence[Picture], names: Sequence[str], config: ProtocolConfig
) -> dict[str, SplitName]:
    """Parts of a camera's bursts: in the order of their time, or of the hash of their name."""
    if config.by_time:
        undated = next((picture for picture in pictures if picture.time is None), None)
        if undated is not None:
            raise DataError(f"Picture {undated.path} has no time, which the protocol in the order of time needs.")
        start = {name: picture.time for name, picture in zip(reversed(names), reversed(pictures), strict=True)}
        order = sorted(start, key=lambda name: (start[name], name))
    else:
        order = sorted(set(names), key=lambda name: sub_seed(config.seed, "parts", camera, name))
    return dict(zip(order, _lengths(len(order)), strict=True))


def _lengths(count: int) -> Iterator[SplitName]:
    train, validation = (round(PARTS[split] * count) for split in ("train", "validation"))
    yield from ["train"] * train  # type: ignore[misc]
    yield from ["validation"] * min(validation, count - train)  # type: ignore[misc]
    yield from ["test"] * max(0, count - train - validation)  # type: ignore[misc]


def _fewest(
    camera: str, names: Sequence[str], split_of: Mapping[str, SplitName], config: ProtocolConfig
) -> frozenset[str]:
    """The bursts that are kept: of each split whole ones, in the order of their hash, up to the wanted number."""
    if config.most is None:
        return frozenset(names)
    sizes, taken = Counter(names), Counter[str]()
    kept = set()
    for name in sorted(sizes, key=lambda name: sub_seed(config.seed, "kept", camera, name)):
        if taken[split_of[name]] < config.most:
            taken[split_of[name]] += sizes[name]
            kept.add(name)
    return frozenset(kept)
