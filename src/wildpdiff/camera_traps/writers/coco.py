"""Labelled pictures as COCO Camera Traps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable
from wildpdiff.camera_traps.writers.naming import named_boxes


def coco_of(table: PictureTable, description: str, now: datetime) -> dict[str, Any]:
    """The content of the file: one annotation for each box with a label, and for each other label of a picture.

    Boxes with a label of people's have that (:func:`~wildpdiff.camera_traps.writers.naming.named_boxes`). Others have
    their detector's category where no picture has a species; else they are left out, for it would be read as one.
    Boxes are fractions of the frame (``bbox_relative``). Category 0 is ``empty``, as the format reserves it.
    """
    found = [named_boxes(picture) for picture in table.pictures]
    species = any(name for boxes, _ in found for name, _ in boxes) or any(set(rest) - {EMPTY} for _, rest in found)
    lists = [_annotations(boxes, rest, species) for boxes, rest in found]
    names = sorted({name for own in lists for name, _ in own} - {EMPTY})
    number = {EMPTY: 0, **{name: index for index, name in enumerate(names, 1)}}
    frames = Counter((picture.camera, picture.sequence) for picture in table.pictures)
    annotations = []
    for index, (picture, own) in enumerate(zip(table.pictures, lists, strict=True)):
        for count, (name, box) in enumerate(own):
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


def _annotations(boxes: Sequence[tuple[str, Box]], rest: Sequence[str], species: bool) -> list[tuple[str, Box | None]]:
    named = [(name or box.category, box) for name, box in boxes if name or not species]
    return [*named, *((label, None) for label in rest)]
