"""The labels of people on the boxes of a picture."""

from __future__ import annotations

from collections.abc import Mapping

from wildpdiff.camera_traps.answers import Kind, kind_of
from wildpdiff.camera_traps.records import EMPTY, Box, Picture

CATEGORIES = ("animal", "person", "vehicle")
"""MegaDetector's, numbered from 1; words of other detectors follow."""

CATEGORY: Mapping[Kind, str] = {"animal": "animal", "human": "person", "vehicle": "vehicle"}


def category_of(label: str) -> str:
    """MegaDetector's word for what a label names."""
    return CATEGORY.get(kind_of(label), CATEGORIES[0])


def named_boxes(picture: Picture) -> tuple[list[tuple[str, Box]], list[str]]:
    """The boxes with the label that people gave to each, empty where they gave none, and the labels of no box.

    A picture's only label is given to its boxes of that kind. A blank has no boxes, whatever a detector found.
    """
    labels = [EMPTY if kind_of(label) == "blank" else label for label in picture.labels]
    if labels == [EMPTY]:
        return [], labels
    alone = labels[0] if len(labels) == 1 else ""
    found = [(people_label(box) or (alone if _shows(box, alone) else ""), box) for box in picture.boxes or ()]
    named = {name for name, _ in found}
    return found, [label for label in labels if label not in named]


def people_label(box: Box) -> str:
    """The label that people gave to a box; a classifier's is none, nor is a blank."""
    return "" if box.label_confidence is not None or kind_of(box.label) == "blank" else box.label


def _shows(box: Box, label: str) -> bool:
    return box.category == category_of(label) or box.category not in CATEGORIES
