"""COCO Camera Traps, the format of LILA's data sets, and plain COCO annotations of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wildpdiff.camera_traps.fields import (
    BLANK_NAMES,
    DETECTED,
    box_of,
    frame_of,
    is_video,
    labels_of,
    number_of,
    numbers_of,
    path_of,
    placed,
    share_of,
    text_of,
)
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.json_files import garbage_kept, json_keys, kind_of, read_json, records
from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable
from wildpdiff.errors import DataError
from wildpdiff.tasks.decoding import stated_size

FORMAT = "COCO Camera Traps"

RESERVED = "0"
"""The category of pictures without an animal, where it has that name too."""

DETECTOR_WORDS = {*DETECTED, "group"}
"""Categories of boxes without species; ``group`` is Snapshot Serengeti's."""

_TIMES = ("datetime", "date_captured")
_FIELDS = frozenset({"id", "file_name", "width", "height", "location", "seq_id", "frame_num", "corrupt", *_TIMES})
_BOOKKEEPING = frozenset({"seq_num_frames", "license", "rights_holder", "coco_url", "flickr_url"})
_TRUE = (True, 1, "true", "True", "1")


@dataclass(slots=True)
class _Image:
    record: dict[str, Any]
    line: int
    path: str
    labels: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    size: tuple[float, float] | None = None


class CocoReader:
    """Reader of COCO Camera Traps and plain COCO."""

    format = FORMAT

    def reads(self, path: Path) -> bool:
        """Whether a file has images with ``file_name``, or annotations of images."""
        keys = json_keys(path)
        images = keys.get("images", set())
        if {"image_id", "category_id"} <= keys.get("annotations", set()):  # which may fill the file's beginning
            return True
        if "detection_categories" in keys or {"file", "detections"} & images:
            return False
        return "file_name" in images or ("annotations" in keys and bool({"images", "categories"} & keys.keys()))

    @garbage_kept()
    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures of a file; records at fault are left out with a remark.

        Pictures without an annotation are unlabelled. Boxes in pixels need the picture's size, which is read from its
        file where the record has none. Where all categories are a detector's words, boxes have no species.

        Raises:
            DataError: no JSON object with images; identifiers that do not tell images or categories apart; annotations
                of another file's images.
        """
        document = read_json(path)
        if not isinstance(document.get("images"), list):
            raise DataError(f"{path} has no list 'images' but {kind_of(document.get('images'))}; a list is needed.")
        source = _Source(path, document)
        source.annotate(records(document, "annotations", path))
        return source.table()


class _Source:
    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path = path
        self.gathering = Gathering(path, FORMAT, path.parent)
        self.remarks = self.gathering.remarks
        self.left_out: set[str] = set()
        self.images = self._images(document["images"])
        self.by_id = self._by_id()
        self.categories = self._categories(records(document, "categories", path))
        names = {name.lower() for name in self.categories.values()} - {EMPTY}
        self.is_detector = bool(names) and names <= DETECTOR_WORDS
        self.drawn = False

    def _images(self, entries: list[Any]) -> list[_Image]:
        kept = []
        for line, record in enumerate(entries, 1):
            path = path_of(record.get("file_name")) if isinstance(record, dict) else ""
            if not path:
                self.remarks.add("Images without a usable 'file_name' are left out", f"image {line}")
            elif record.get("corrupt") in _TRUE:
                self.remarks.add("Images marked as corrupt are left out", repr(path))
            elif is_video(path):
                self.remarks.add("Videos are left out", repr(path))
            else:
                kept.append(_Image(record, line, path))
                continue
            if isinstance(record, dict):
                self.left_out.add(text_of(record.get("id")))
        self.gathering.root, paths = placed(self.path.parent, [image.path for image in kept], self.remarks)
        for image, path in zip(kept, paths, strict=True):
            image.path = path
        return kept

    def _by_id(self) -> dict[str, _Image]:
        by_id: dict[str, _Image] = {}
        for image in self.images:
            identifier = text_of(image.record.get("id"))
            first = by_id.setdefault(identifier, image)
            if identifier and first.path != image.path:
                raise DataError(
                    f"{self.path}: images {first.line} ({first.path!r}) and {image.line} ({image.path!r}) have the "
                    f"same id {image.record['id']!r}, so that annotations could be of either. Correct one."
                )
        by_id.pop("", None)
        return by_id

    def _categories(self, entries: list[Any]) -> dict[str, str]:
        names: dict[str, str] = {}
        for line, record in enumerate(entries, 1):
            identifier = text_of(record.get("id")) if isinstance(record, dict) else ""
            name = text_of(record.get("name")) if identifier else ""
            if not name:
                self.remarks.add("Categories without an 'id' or a 'name' are left out", f"category {line}")
                continue
            if name.lower() == EMPTY or (identifier == RESERVED and name.lower() in BLANK_NAMES):
                name = EMPTY
            if names.setdefault(identifier, name) != name:
                raise DataError(
                    f"{self.path}: the category {identifier} is both {names[identifier]!r} and {name!r}; correct one."
                )
        return names

    def annotate(self, annotations: list[Any]) -> None:
        """Give the images the labels and boxes of their annotations."""
        foreign = 0
        identifiers: set[str] = set()
        for line, record in enumerate(annotations, 1):
            where = f"annotation {line}"
            identifier = text_of(record.get("image_id")) if isinstance(record, dict) else ""
            image = self.by_id.get(identifier)
            if image is not None:
                self._annotate(image, record, where)
                if own := text_of(record.get("id")):
                    if own in identifiers:
                        self.remarks.add("Annotations that share their 'id' with another are kept", where)
                    identifiers.add(own)
            elif identifier not in self.left_out or not identifier:
                foreign += 1
                self.remarks.add("Annotations of no image of the file ('image_id') are left out", where)
        if foreign and foreign == len(annotations):
            raise DataError(
                f"{self.path}: none of its {foreign} annotations belongs to one of its {len(self.images)} images; "
                "their 'image_id' must be the 'id' of an image."
            )

    def _annotate(self, image: _Image, record: dict[str, Any], where: str) -> None:
        category = record.get("category_id")
        label = "" if category is None else self.categories.get(text_of(category))
        if label is None:
            self.remarks.add("Annotations of an unknown category ('category_id') are left out", where)
            return
        has_box = bool(record.get("bbox") or record.get("bbox_relative")) and label != EMPTY
        if (whole := record.get("sequence_level_annotation")) and whole in _TRUE:
            self.remarks.add("Labels are a whole sequence's; some of its pictures may be empty", where)
        if label and not (has_box and self.is_detector):
            image.labels.append(label)
        if has_box:
            self.drawn = True
            box = self._box(image, record, label, where)
            if box is not None and box not in image.boxes:
                image.boxes.append(box)

    def _box(self, image: _Image, record: dict[str, Any], label: str, where: str) -> Box | None:
        relative = bool(record.get("bbox_relative"))
        sides = numbers_of(record.get("bbox_relative" if relative else "bbox"), 4)
        if sides is None:
            self.remarks.add("Boxes that are not four numbers are left out", where)
            return None
        if not relative and max(map(abs, sides)) <= 1:
            self.remarks.add("Boxes within one pixel are taken for shares of the picture", where)
        elif not relative:
            width, height = image.size or self._size(image)
            if not width:
                self.remarks.add("Boxes in pixels of pictures without a size or a readable file are left out", where)
                return None
            sides = [sides[0] / width, sides[1] / height, sides[2] / width, sides[3] / height]
        return box_of(
            sides,
            self.remarks,
            where,
            category=DETECTED.get(label.lower(), "animal"),
            confidence=share_of(record.get("score")),
            label="" if self.is_detector else label,
        )

    def _size(self, image: _Image) -> tuple[float, float]:
        """Width and height in pixels; 0 where neither the record nor the file has them."""
        width, height = (number_of(image.record.get(key)) or 0.0 for key in ("width", "height"))
        if width <= 0 or height <= 0:
            try:
                width, height = map(float, stated_size(self.gathering.root / image.path))
            except DataError:
                width = height = 0.0
        image.size = (width, height)
        return image.size

    def table(self) -> PictureTable:
        """The table of the images as they have been annotated."""
        times = self.gathering.times([_time(image.record) for image in self.images])
        if self.is_detector and self.drawn:
            self.remarks.add("Categories are a detector's; boxes have no species", ", ".join(self.categories.values()))
        pictures = []
        for image, time in zip(self.images, times, strict=True):
            record = image.record
            labels = labels_of(image.labels, self.remarks, repr(image.path))
            seen = bool(image.boxes) or (self.drawn and labels == (EMPTY,))
            pictures.append(
                Picture(
                    path=image.path,
                    line=image.line,
                    camera=text_of(record.get("location")),
                    labels=labels,
                    time=time,
                    sequence=text_of(record.get("seq_id")),
                    frame=frame_of(record.get("frame_num")),
                    boxes=tuple(image.boxes) if seen else None,
                    identifier=text_of(record.get("id")),
                    values=_values(record),
                )
            )
        return self.gathering.table(pictures)


def _time(record: dict[str, Any]) -> str:
    return next((text for key in _TIMES if (text := text_of(record.get(key)))), "")


def _values(record: dict[str, Any]) -> dict[str, str]:
    others = record.keys() - _FIELDS - _BOOKKEEPING
    return {key: text for key in record if key in others and (text := text_of(record[key]))} if others else {}
