"""SpeciesNet's predictions and instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wildpdiff.camera_traps.detections import boxes_of, name_of
from wildpdiff.camera_traps.fields import BLANK_NAMES, DETECTED, is_video, path_of, placed, share_of, text_of
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.json_files import garbage_kept, json_keys, kind_of, read_json
from wildpdiff.camera_traps.megadetector import USUAL_CATEGORIES
from wildpdiff.camera_traps.records import Box, Picture, PictureTable
from wildpdiff.errors import DataError

FORMAT = "SpeciesNet JSON"
LISTS = ("predictions", "instances")
PLACE = ("country", "admin1_region", "latitude", "longitude")
"""Fields of a picture that are metadata of its camera."""

NO_RESULT = frozenset({*BLANK_NAMES, "no cv result", "unknown"})
"""Common names of predictions that name no animal."""


class SpeciesNetReader:
    """Reader of SpeciesNet's ``predictions.json``, and of the ``instances.json`` that it is given."""

    format = FORMAT

    def reads(self, path: Path) -> bool:
        """Whether a file has predictions or instances of files."""
        keys = json_keys(path)
        return any("filepath" in keys.get(key, ()) or set(keys) == {key} for key in LISTS)

    @garbage_kept()
    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures of a file with their boxes; the predicted species is the label of the surest fitting box.

        A prediction without detections is one box of the whole picture. Country, region and coordinates are values.

        Raises:
            DataError: no JSON object with a list of predictions or instances.
        """
        document = read_json(path)
        key = next((key for key in LISTS if key in document), LISTS[0])
        entries = document.get(key)
        if not isinstance(entries, list):
            raise DataError(f"{path} has no list {key!r} but {kind_of(entries)}; a list is needed.")
        gathering = Gathering(path, FORMAT, path.parent, repeated="Files that are listed more than once are joined")
        kept = []
        for line, record in enumerate(entries, 1):
            file = path_of(record.get("filepath")) if isinstance(record, dict) else ""
            if not file:
                gathering.remarks.add("Records without a usable 'filepath' are left out", f"record {line}")
            elif is_video(file):
                gathering.remarks.add("Videos are left out", repr(file))
            else:
                kept.append((line, record, file))
        gathering.root, paths = placed(path.parent, [file for _, _, file in kept], gathering.remarks)
        pictures = []
        for (line, record, _), file in zip(kept, paths, strict=True):
            boxes = _boxes(record, gathering, file) if key == LISTS[0] else None
            values = {name: text for name in PLACE if (text := text_of(record.get(name)))}
            pictures.append(Picture(path=file, line=line, boxes=boxes, values=values))
        return gathering.table(pictures, columns=PLACE)


def _boxes(record: dict[str, Any], gathering: Gathering, file: str) -> tuple[Box, ...] | None:
    failures = record.get("failures")
    if isinstance(failures, list) and failures:
        parts = ", ".join(filter(None, map(text_of, failures)))
        gathering.remarks.add("SpeciesNet failed on pictures, at least in part", f"{file!r} ({parts})")
    name, certainty = _prediction(record)
    category = DETECTED.get(name.lower(), "animal")
    detections = record.get("detections")
    if not isinstance(detections, list):
        if not name:
            return None
        if name.lower() in NO_RESULT:
            return () if name.lower() in BLANK_NAMES else None
        return (Box(0.0, 0.0, 1.0, 1.0, category, label=name, label_confidence=certainty),)
    boxes = list(boxes_of(detections, USUAL_CATEGORIES, {}, remarks=gathering.remarks, where=repr(file)))
    fitting = [number for number, box in enumerate(boxes) if box.category == category]
    if name and name.lower() not in NO_RESULT and fitting:
        surest = max(fitting, key=lambda number: boxes[number].confidence or 0.0)
        boxes[surest] = replace(boxes[surest], label=name, label_confidence=certainty)
    return tuple(boxes)


def _prediction(record: dict[str, Any]) -> tuple[str, float | None]:
    """The predicted name and its score: of the ensemble, or the classifier's first where there is none."""
    if label := text_of(record.get("prediction")):
        return name_of(label), share_of(record.get("prediction_score")) or 0.0
    answer = record.get("classifications")
    classes, scores = (answer.get("classes"), answer.get("scores")) if isinstance(answer, dict) else (None, None)
    if not isinstance(classes, list) or not isinstance(scores, list) or len(classes) != len(scores):
        return "", None
    shares = [share if (share := share_of(score)) is not None else -1.0 for score in scores]
    best = max(range(len(shares)), key=shares.__getitem__, default=-1)
    return (name_of(text_of(classes[best])), shares[best]) if best >= 0 and shares[best] >= 0 else ("", None)
