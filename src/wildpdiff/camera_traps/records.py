"""Records of camera-trap pictures, whatever format they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

EMPTY = "empty"
"""The label of a picture without an animal (COCO Camera Traps' name of it)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A detection or an annotated animal, in fractions of the picture's width and height.

    Attributes:
        left, top, width, height: 0 to 1; the box lies within the picture.
        category: ``animal``, ``person`` or ``vehicle`` (MegaDetector's), or another detector's word.
        confidence: of the detector; None for a box drawn by hand.
        label: the species in the box, as written; empty where only the picture has a label, or none.
        label_confidence: of the classifier; None for a label given by people.
    """

    left: float
    top: float
    width: float
    height: float
    category: str = "animal"
    confidence: float | None = None
    label: str = ""
    label_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        path: of the file, relative to the table's root, with ``/`` between folders.
        line: of the file that it was read from: a line's number, or a record's, both from 1.
        camera: name of the camera, site or location, as written; empty where the source has none.
        labels: species, as written and each once; empty where the picture is unlabelled. :data:`EMPTY` alone: a blank.
        time: of the exposure; None where not known. Local time of the camera, without a zone, where none is given.
        sequence: name of the burst (sequence, event), unique within the camera; empty where not known.
        frame: number within the sequence.
        boxes: None where no detector has seen the picture; empty where one found nothing.
        split, group: as the table states them; empty where it does not.
        deployment: the source's identifier of the camera's deployment, if it has deployments.
        identifier: the source's identifier of the picture (``mediaID``, COCO's ``id``), if it has one.
        values: other columns of the picture that have a value, by column.
    """

    path: str
    line: int
    camera: str = ""
    labels: tuple[str, ...] = ()
    time: datetime | None = None
    sequence: str = ""
    frame: int | None = None
    boxes: tuple[Box, ...] | None = None
    split: str = ""
    group: str = ""
    deployment: str = ""
    identifier: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def completed(self, other: Picture) -> Picture:
        """This record with what it lacks from another record of the same picture."""
        return replace(
            self,
            camera=self.camera or other.camera,
            labels=self.labels or other.labels,
            time=self.time or other.time,
            sequence=self.sequence or other.sequence,
            frame=other.frame if self.frame is None else self.frame,
            boxes=other.boxes if self.boxes is None else self.boxes,
            split=self.split or other.split,
            group=self.group or other.group,
            deployment=self.deployment or other.deployment,
            identifier=self.identifier or other.identifier,
            values={**other.values, **self.values},
        )


@dataclass(frozen=True)
class PictureTable:
    """The pictures of one source.

    Attributes:
        source: the file or folder that was read.
        format: name of its format, for example ``COCO Camera Traps``.
        root: folder that the pictures' paths are relative to.
        pictures: in the source's order, each path once.
        cameras: metadata by camera and column, as written, where the source keeps them apart from pictures (Camtrap
            DP's deployments).
        columns: names of the pictures' further columns, in order.
        blanks: labels that say that a picture is empty, besides :data:`EMPTY`, where the format defines them.
        threshold: confidence below which the boxes' detector is usually wrong, where the file states it.
        remarks: one sentence each on what was left out or read in another way than written.
    """

    source: Path
    format: str
    root: Path
    pictures: tuple[Picture, ...]
    cameras: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    blanks: frozenset[str] = frozenset()
    threshold: float | None = None
    remarks: tuple[str, ...] = ()


@runtime_checkable
class Reader(Protocol):
    """A reader of one format."""

    @property
    def format(self) -> str:
        """The format's name, as people know it."""

    def reads(self, path: Path) -> bool:
        """Whether a file or folder is of this format, by its content; false where it cannot be read."""

    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures of a file or folder.

        Args:
            path: of the file or folder.
            columns: names of columns in the place of the format's own, by :class:`Picture`'s word for them, for
                example ``{"label": "Species"}``; of tables only.

        Raises:
            DataError: the file is at fault; the message names file and line.
        """
