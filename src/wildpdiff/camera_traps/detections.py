"""A detector's answer to one picture, as MegaDetector and SpeciesNet write it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wildpdiff.camera_traps.fields import DETECTED, box_of, numbers_of, share_of, text_of
from wildpdiff.camera_traps.records import EMPTY, Box
from wildpdiff.tables.remarks import Remarks

NOTHING = "0"
"""MegaDetector's informal category of an empty picture; never a box."""

_TOKENS = 7
"""Of SpeciesNet's labels: an identifier, class, order, family, genus, species, common name."""


def name_of(label: str) -> str:
    """The common name of a SpeciesNet label, else its lowest taxon; a text of another form as it is."""
    tokens = [token.strip() for token in label.split(";")]
    if len(tokens) != _TOKENS:
        return label.strip()
    *taxa, genus, species, common = tokens[1:]
    return common or (f"{genus} {species}" if species else next(filter(None, (genus, *reversed(taxa))), ""))


def boxes_of(
    detections: Iterable[Any],
    categories: Mapping[str, str],
    classes: Mapping[str, str],
    *,
    remarks: Remarks,
    where: str,
) -> tuple[Box, ...]:
    """The boxes of a picture's detections, each with its most probable class as label.

    Args:
        detections: records with ``category``, ``conf``, ``bbox`` in shares of the picture, and perhaps
            ``classifications`` (pairs of class and confidence).
        categories: names by category.
        classes: names by class.
        remarks: for what is left out.
        where: the picture, for remarks.
    """
    boxes: dict[Box, None] = {}
    for number, detection in enumerate(detections, 1):
        place = f"detection {number} of {where}"
        record = detection if isinstance(detection, dict) else {}
        sides, confidence = numbers_of(record.get("bbox"), 4), share_of(record.get("conf"))
        category = text_of(record.get("category"))
        name = categories.get(category, "").lower()
        if category == NOTHING and name in ("", EMPTY, "blank"):
            continue
        if sides is None or confidence is None:
            remarks.add("Detections without four numbers 'bbox' or a 'conf' from 0 to 1 are left out", place)
            continue
        if not name:
            remarks.add("Detections of a category without a name are boxes of that category", f"{category!r}, {place}")
        label, certainty = _best(record.get("classifications"), classes, remarks, place)
        box = box_of(
            sides,
            remarks,
            place,
            category=DETECTED.get(name, name or category),
            confidence=confidence,
            label=label,
            label_confidence=certainty,
        )
        if box is not None:
            boxes[box] = None
    return tuple(boxes)


def _best(pairs: Any, classes: Mapping[str, str], remarks: Remarks, where: str) -> tuple[str, float | None]:
    """The most probable class and its confidence, in whatever order they are listed."""
    best, certainty = "", None
    for pair in pairs if isinstance(pairs, list) else []:
        known = isinstance(pair, list) and len(pair) == 2
        name, share = (classes.get(text_of(pair[0]), ""), share_of(pair[1])) if known else ("", None)
        if not name or share is None:
            remarks.add("Classifications of an unknown class, or without a confidence from 0 to 1, are left out", where)
        elif certainty is None or share > certainty:
            best, certainty = name, share
    return best, certainty
