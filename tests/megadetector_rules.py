"""The published rules of MegaDetector's batch files, format 1.6, as an independent reader checks them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

NUMBER = re.compile(r"\d+")


def faults(content: Any) -> list[str]:
    """Every rule that a parsed file breaks, one text each; empty for a legal file."""
    return list(_faults(content))


def _faults(content: Any) -> Iterator[str]:
    for key in ("info", "detection_categories", "images"):
        if key not in content:
            yield f"no {key}"
            return
    version = content["info"].get("format_version")
    if not isinstance(version, str) or not 1.0 <= float(version) < 2.0:
        yield f"format_version {version!r} is no text of a number"
    for key in ("detection_categories", "classification_categories"):
        for number, name in content.get(key, {}).items():
            if not NUMBER.fullmatch(number):
                yield f"{key}: {number!r} is no whole number"
            if not isinstance(name, str) or not name.strip():
                yield f"{key}: {number} has no name"
    described = content.get("classification_category_descriptions")
    if described is not None and described.keys() != content["classification_categories"].keys():
        yield "descriptions of other categories than there are"
    files = [image["file"] for image in content["images"]]
    if len(set(files)) < len(files):
        yield "a file stands twice"
    for image in content["images"]:
        yield from (f"{image['file']}: {fault}" for fault in _of_image(image, content))


def _of_image(image: dict[str, Any], content: dict[str, Any]) -> Iterator[str]:
    file, failure, detections = image["file"], image.get("failure"), image.get("detections")
    if not isinstance(file, str) or not file or "\\" in file or file.startswith("/"):
        yield "the path is not relative with /"
    if failure is not None and not (isinstance(failure, str) and failure):
        yield f"failure {failure!r} is no reason"
    if detections is None:
        if not failure:
            yield "no detections, and no failure"
        return
    if failure:
        yield "detections of a file that failed"
    for detection in detections:
        yield from _of_detection(detection, content)


def _of_detection(detection: dict[str, Any], content: dict[str, Any]) -> Iterator[str]:
    if detection["category"] not in content["detection_categories"]:
        yield f"detection category {detection['category']!r} is not defined"
    if not _share(detection["conf"]):
        yield f"confidence {detection['conf']!r}"
    box = detection["bbox"]
    if len(box) != 4 or not all(map(_share, box)) or box[0] + box[2] > 1.0001 or box[1] + box[3] > 1.0001:
        yield f"box {box}"
    pairs = detection.get("classifications", [])
    for number, confidence in pairs:
        if number not in content["classification_categories"]:
            yield f"classification category {number!r} is not defined"
        if not _share(confidence):
            yield f"classification's confidence {confidence!r}"
    values = [confidence for _, confidence in pairs]
    if values != sorted(values, reverse=True):
        yield f"classifications not descending: {values}"


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
