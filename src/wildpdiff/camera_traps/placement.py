"""Pictures of each camera with their classes and splits, and whether a camera can teach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from wildpdiff.camera_traps.crops import Cropping
from wildpdiff.camera_traps.records import Picture
from wildpdiff.camera_traps.sequences import bursts
from wildpdiff.camera_traps.splits import hashed_splits, splits_by_time
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import Fractions
from wildpdiff.tasks.task import SPLITS

PictureSplit = Literal["train", "validation", "test", "unlabelled", "background"]
NO_LABELS = "no labels"
PICTURE_SPLITS: tuple[PictureSplit, ...] = get_args(PictureSplit)


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture with its class and split.

    Attributes:
        picture: as read.
        label: the class, in its canonical spelling; empty where the picture is used without a label.
        split: which part of the camera's data it is in.
        drawn: whether the split was drawn, since the table left it open.
        box: the part of the picture that is meant; None for all of it.
    """

    picture: Picture
    label: str
    split: PictureSplit
    drawn: bool = False
    box: Fractions | None = None

    @property
    def path(self) -> str:
        """Of the file, relative to the suite's root."""
        return self.picture.path


@dataclass(frozen=True)
class Placement:
    """The pictures of one camera.

    Attributes:
        pictures: in the order of their paths; those that cannot be used are left out.
        bursts: how many there are.
        several: pictures of several species without boxes that tell them apart, which are left out.
        cut: bursts that the stated splits cut.
        undated: bursts without a time, for which splits by time were drawn by hash.
    """

    pictures: tuple[PlacedPicture, ...] = ()
    bursts: int = 0
    several: int = 0
    cut: int = 0
    undated: int = 0

    def of(self, split: PictureSplit) -> tuple[PlacedPicture, ...]:
        """The pictures of one split."""
        return tuple(placed for placed in self.pictures if placed.split == split)

    def labelled(self) -> tuple[PlacedPicture, ...]:
        """The pictures with a class."""
        return tuple(placed for placed in self.pictures if placed.label)


def place(
    camera: str,
    pictures: Sequence[Picture],
    cropping: Cropping,
    alike: Mapping[str, Hashable],
    *,
    by_time: bool = False,
) -> Placement:
    """Give each picture of a camera its class and split.

    Stated splits stand. A burst's other pictures follow it; the remaining bursts are drawn by their hash, or by time.

    Args:
        camera: its name.
        pictures: all of them, those that cannot be read included, so that none of these moves another.
        cropping: the examples in a picture.
        alike: keys of files by path; files of the same key are of the same burst.
        by_time: let the camera's earliest bursts train and its last ones be the test, where all of them have a time.

    Raises:
        DataError: a stated split is none.
    """
    ordered = sorted(pictures, key=lambda picture: (picture.path, picture.line))
    for picture in ordered:
        if picture.split and picture.split not in PICTURE_SPLITS:
            known = ", ".join(PICTURE_SPLITS)
            raise DataError(f"line {picture.line}: the split is {picture.split!r}; give one of {known}, or none.")
    found = bursts(ordered, [alike.get(picture.path) for picture in ordered])
    stated = [{ordered[member].split for member in burst.members} & set(SPLITS) for burst in found]
    open_ = [burst for burst, splits in zip(found, stated, strict=True) if not splits]
    undated = sum(burst.start is None for burst in open_) if by_time else 0
    drawn = splits_by_time(open_) if by_time and not undated else hashed_splits(camera, open_)
    split_of: dict[int, str] = {}
    for burst in found:
        own = [ordered[member].split for member in burst.members if ordered[member].split in SPLITS]
        follows = Counter(own).most_common(1)[0][0] if own else drawn[burst.name]
        split_of |= dict.fromkeys(burst.members, follows)
    placed: list[PlacedPicture] = []
    several = 0
    for number, picture in enumerate(ordered):
        given = picture.split or split_of[number]
        split: PictureSplit = next(name for name in PICTURE_SPLITS if name == given)
        if split == "background":
            placed.append(PlacedPicture(picture, "", split))
        elif split == "unlabelled" or not picture.labels:
            placed.append(PlacedPicture(picture, "", "unlabelled", box=cropping.unlabelled(picture).box))
        else:
            crops = cropping.crops(picture)
            several += not crops
            placed += [PlacedPicture(picture, label, split, not picture.split, box) for label, box in crops]
    return Placement(tuple(placed), len(found), several, sum(len(splits) > 1 for splits in stated), undated)


def teaching_fault(placement: Placement, minimum: int) -> str:
    """Why no adapter can be fine-tuned on a camera and tested, as the end of a sentence; empty where one can.

    Args:
        placement: of its pictures.
        minimum: the fewest training pictures.
    """
    known = placement.labelled()
    if not placement.pictures and placement.several:
        return "several species in its pictures"
    if not placement.pictures:
        return "no picture that can be read"
    if not known:
        return NO_LABELS
    counts = Counter(entry.split for entry in known)
    if counts["train"] < minimum:
        return f"under {minimum} to train"
    if len({entry.label for entry in known if entry.split == "train"}) < 2:
        return "one species only"
    missing = [split for split in ("validation", "test") if not counts[split]]
    return f"no {missing[0]} picture" if missing else ""
