"""Predictions and labelled pictures as a MegaDetector batch file 1.6, which Timelapse and AddaxAI open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from wildpdiff.camera_traps.answers import Answer, Classifier, kind_of
from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable
from wildpdiff.camera_traps.writers.naming import CATEGORIES, CATEGORY, category_of, named_boxes

VERSION = "1.6"
MOST = 5
"""Names for a detection."""

FAILURE = "image access failure"
"""MegaDetector's own word for a file that cannot be opened."""

WHOLE = (0.0, 0.0, 1.0, 1.0)


def box_categories(pictures: Iterable[Picture]) -> tuple[str, ...]:
    """The categories of a batch file: :data:`CATEGORIES`, and the other words of the pictures' boxes."""
    found = {box.category for picture in pictures for box in picture.boxes or ()} - {""}
    return (*CATEGORIES, *sorted(found - set(CATEGORIES)))


def write_answers(
    write: Callable[[str], object],
    answers: Iterable[Answer],
    classifier: Classifier,
    categories: Sequence[str],
    *,
    threshold: float | None = None,
) -> None:
    """Predictions, most probable names first.

    A picture that no detector has seen has one detection, the whole frame with the probability that it is not blank.
    Otherwise its detections are as they were, with the names on those of animals.

    Args:
        categories: of the detections, of :func:`box_categories`.
        threshold: confidence below which a detection is usually none, where the detector's file states it.
    """
    names = list(dict.fromkeys((*classifier.classes, *classifier.taxa)))
    info = {
        "format_version": VERSION,
        "classifier": classifier.signature,
        "classification_completion_time": classifier.time.strftime("%Y-%m-%d %H:%M:%S"),
        "classifier_metadata": {"program": "wildpdiff", "version": classifier.version, "hash": classifier.hash},
        **_detector(threshold),
    }
    number = {name: str(index) for index, name in enumerate(names)}
    images = (_image(answer, classifier, number, categories) for answer in answers)
    _write_batch(write, info, (categories, names), images)


def write_pictures(write: Callable[[str], object], table: PictureTable, time: datetime) -> None:
    """Labelled pictures: labels as names of detections, blanks as pictures without one.

    A label that no box has is given to the whole frame (:func:`~wildpdiff.camera_traps.writers.naming.named_boxes`); a
    classifier's name of a box stays where people gave it none.
    Pictures of which nothing is known are left out: without a detection they would count as blank.
    """
    names = sorted({name for picture in table.pictures for name in _names(picture)})
    categories, number = box_categories(table.pictures), {name: str(index) for index, name in enumerate(names)}
    finished = time.strftime("%Y-%m-%d %H:%M:%S")
    info = {"format_version": VERSION, "detection_completion_time": finished, **_detector(table.threshold)}
    known = (picture for picture in table.pictures if picture.labels or picture.boxes is not None)
    images = (_labelled(picture, number, categories) for picture in known)
    _write_batch(write, info, (categories, names), images)


def _detector(threshold: float | None) -> dict[str, Any]:
    return {} if threshold is None else {"detector_metadata": {"typical_detection_threshold": threshold}}


def _write_batch(
    write: Callable[[str], object],
    info: Mapping[str, Any],
    words: tuple[Sequence[str], Sequence[str]],
    images: Iterable[Mapping[str, Any]],
) -> None:
    """The file, an image at a time: a list of all would take as much memory as there are pictures."""
    categories, names = words
    head = {
        "info": info,
        "detection_categories": {str(index): name for index, name in enumerate(categories, 1)},
        "classification_categories": {str(index): name for index, name in enumerate(names)},
    }
    write(_json(head, indent=1).removesuffix("\n}") + ',\n "images": [')
    for index, image in enumerate(images):
        write(("," if index else "") + "\n  " + _json(image))
    write("\n ]\n}\n")


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    # Bytes of a file name that are no text are escaped, and read as they were.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _of_picture(picture: Picture) -> dict[str, Any]:
    found: dict[str, Any] = {"file": picture.path}
    if picture.time is not None:
        found["datetime"] = picture.time.strftime("%Y-%m-%d %H:%M:%S")
    for key, value in (("location", picture.camera), ("seq_id", picture.sequence)):
        if value:
            found[key] = value
    return found


def _image(
    answer: Answer, classifier: Classifier, number: Mapping[str, str], categories: Sequence[str]
) -> dict[str, Any]:
    found = _of_picture(answer.picture)
    if answer.failure:
        return {**found, "failure": FAILURE, "detections": None}
    found |= {"model": answer.source, **({} if answer.trust is None else {"trust": round(answer.trust, 4)})}
    ranked = [[number[name], round(value, 4)] for name, value in answer.ranked(classifier, MOST)]
    boxes = answer.picture.boxes
    if boxes is None:
        shares = {kind: answer.of_kind(classifier, kind) for kind in CATEGORY}
        likeliest = max(shares, key=lambda kind: shares[kind])
        present = round(1.0 - answer.of_kind(classifier, "blank"), 4)
        boxes = (Box(*WHOLE, category=CATEGORY[likeliest], confidence=present),)
        return {**found, "detections": [{**_detection(boxes[0], categories), "classifications": ranked}]}
    detections = [
        {**_detection(box, categories), **({"classifications": ranked} if box.category == "animal" else {})}
        for box in boxes
    ]
    return {**found, "detections": detections}


def _detection(box: Box, categories: Sequence[str]) -> dict[str, Any]:
    category = box.category if box.category in categories else CATEGORIES[0]
    return {
        "category": str(categories.index(category) + 1),
        "conf": 1.0 if box.confidence is None else box.confidence,
        "bbox": [box.left, box.top, box.width, box.height],
    }


def _names(picture: Picture) -> tuple[str, ...]:
    own = tuple(box.label for box in picture.boxes or () if box.label)
    return tuple(label for label in (*own, *picture.labels) if kind_of(label) != "blank")


def _labelled(picture: Picture, number: Mapping[str, str], categories: Sequence[str]) -> dict[str, Any]:
    boxes, rest = named_boxes(picture)
    detections = []
    for label, box in boxes:
        name, sure = (label, 1.0) if label else (box.label, box.label_confidence)
        named = {"classifications": [[number[name], sure]]} if name in number else {}
        detections.append({**_detection(box, categories), **named})
    for label in rest:
        if label != EMPTY:
            box = Box(*WHOLE, category=category_of(label))
            detections.append({**_detection(box, categories), "classifications": [[number[label], 1.0]]})
    return {**_of_picture(picture), "detections": detections}
