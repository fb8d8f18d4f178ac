"""Settings of a suite of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wildpdiff.camera_traps.camera_groups import Unseen
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import Framing


@dataclass(frozen=True)
class TableOptions:
    """Settings of a suite of pictures.

    Attributes:
        image_size: height and width of the images in pixels.
        root: the folder that the pictures' paths are relative to; the table's own by default.
        columns: names of a table's columns in the place of the usual ones, for example ``{"label": "Species"}``.
        classes: the class names in order; by default all labels, sorted.
        trained: leave out labels that no training picture of a seen or pretraining camera has, where no classes are
            given: a model cannot learn them.
        learning: whether models learn from the suite: training pictures of species that the given classes lack are then
            refused, and else only left out.
        unseen: which cameras are unseen where there is no column ``group``: a number or a fraction of those that can
            teach, drawn by ``seed``, or their names; by default about a fifth of ten cameras or more.
        seed: draws the unseen cameras.
        minimum: the fewest training pictures of a camera that can teach.
        ignore: columns that are no metadata.
        unreadable: the largest share of pictures that is left out because they are missing or damaged; by default 2 %,
            and one picture in any case.
        by_time: let a camera's earliest bursts train and its last ones be the test, where all its pictures have a time.
        keep: keep images in memory once read.
        framing: the part of a picture that is read (:data:`wildpdiff.tasks.framing.Framing`); None takes the one that
            suits the table.
    """

    image_size: int
    root: Path | str | None = None
    columns: Mapping[str, str] | None = None
    classes: Sequence[str] | None = None
    trained: bool = False
    learning: bool = True
    unseen: Unseen = None
    seed: int = 0
    minimum: int = 8
    ignore: Sequence[str] = ()
    unreadable: int | float | None = None
    by_time: bool = False
    keep: bool = True
    framing: Framing | None = "square"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise DataError(f"image_size is {self.image_size}; give 1 or more pixels.")
        if self.unreadable is not None and not 0 <= self.unreadable <= 1:
            raise DataError(f"unreadable is {self.unreadable}; give a share of the pictures from 0 to 1.")
