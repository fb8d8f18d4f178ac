"""Labelled pictures as COCO Camera Traps."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from wildpdiff.camera_traps.answers import kind_of
from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable


def coco_of(table: PictureTable, description: str, now: datetime) -> dict[str, Any]:
    """The content of the file: one annotation for each box with a label, and for each other label of a picture.

    A box without a label has that of its picture where there is one alone, else its detector's category. Boxes are
    fractions of the frame (``bbox_relative``). Category 0 is ``empty``, as the format reserves it.
    """
    names = sorted({name for picture in table.pictures for name, _ in _annotations(picture)} - {EMPTY})
    number = {EMPTY: 0, **{name: index for index, name in enumerate(names, 1)}}
    frames = Counter((picture.camera, picture.sequence) for picture in table.pictures)
    annotations = []
    for index, picture in enumerate(table.pictures):
        for count, (name, box) in enumerate(_annotations(picture)):
            entry: dict[str, Any] = {"id": f"{index}-{count}", "image_id": _id(picture), "category_id": number[name]}
            if box is not None:
                entry["bbox_relative"] = [box.left, box.top, box.width, box.height]
            annotations.append(entry)
    return {
        "info": {"version": "1.0", "description": description, "contributor": "wildpdiff", "year": now.year},
        "images": [_image(picture, frames[picture.camera, picture.sequence]) for picture in table.pictures],
        "categories": [{"id": index, "name": name} for name, index in number.items()],
        "annotations": annotations,
    }


def _id(picture: Picture) -> str:
    return picture.identifier or picture.path


def _image(picture: Picture, frames: int) -> dict[str, Any]:
    found: dict[str, Any] = {"id": _id(picture), "file_name": picture.path}
    if picture.camera:
        found["location"] = picture.camera
    if picture.time is not None:
        found["datetime"] = picture.time.isoformat(" ", "seconds")
    if picture.sequence:
        found |= {"seq_id": picture.sequence, "seq_num_frames": frames}
    if picture.frame is not None:
        found["frame_num"] = picture.frame
    return found


def _annotations(picture: Picture) -> list[tuple[str, Box | None]]:
    labels = [EMPTY if kind_of(label) == "blank" else label for label in picture.labels]
    alone = labels[0] if len(labels) == 1 and labels[0] != EMPTY else ""
    found: list[tuple[str, Box | None]] = [(box.label or alone or box.category, box) for box in picture.boxes or ()]
    named = {name for name, _ in found}
    return [*found, *((label, None) for label in labels if label not in named)]
