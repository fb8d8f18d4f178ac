"""MegaDetector's batch output, versions 1.0 to 1.6, which AddaxAI, zamba and others write too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wildpdiff.camera_traps.detections import boxes_of, name_of
from wildpdiff.camera_traps.fields import is_picture, is_video, number_of, path_of, placed, share_of, text_of
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.json_files import garbage_kept, json_keys, kind_of, names, read_json
from wildpdiff.camera_traps.records import Box, Picture, PictureTable
from wildpdiff.errors import DataError

FORMAT = "MegaDetector JSON"
NEWEST = 1.6

USUAL_CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}

_VIDEO_FIELDS = ("frame_rate", "frames_processed")
_EXIF_TIMES = ("DateTimeOriginal", "DateTime", "DateTimeDigitized")


class MegaDetectorReader:
    """Reader of MegaDetector's batch output."""

    format = FORMAT

    def reads(self, path: Path) -> bool:
        """Whether a file has images with ``file`` or ``detections``, or categories of detections."""
        keys = json_keys(path)
        return "detection_categories" in keys or bool({"file", "detections"} & keys.get("images", set()))

    @garbage_kept()
    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures of a file with their boxes; species that a classifier gave are labels of boxes alone.

        Pictures that the detector could not read have no boxes (None) and a remark.

        Raises:
            DataError: no JSON object with a list of images, or categories that are no names.
        """
        document = read_json(path)
        entries = document.get("images")
        if not isinstance(entries, list):
            raise DataError(f"{path} has no list 'images' but {kind_of(entries)}; a list is needed.")
        gathering = Gathering(path, FORMAT, path.parent, repeated="Files that are listed more than once are joined")
        info = document["info"] if isinstance(document.get("info"), dict) else {}
        version = number_of(info.get("format_version"))
        if version is not None and version > NEWEST:
            gathering.remarks.add(f"The file's format is newer than {NEWEST}, and read as that", text_of(version))
        categories = names(document, "detection_categories", path) or USUAL_CATEGORIES
        classes = {key: name_of(name) for key, name in names(document, "classification_categories", path).items()}
        kept = _kept(entries, gathering)
        gathering.root, paths = placed(path.parent, [file for _, _, file in kept], gathering.remarks)
        times = gathering.times([_time(record) for _, record, _ in kept])
        pictures = []
        for (line, record, _), file, time in zip(kept, paths, times, strict=True):
            boxes = _boxes(record, categories, classes, gathering=gathering, file=file)
            camera, sequence = (text_of(record.get(key)) for key in ("location", "seq_id"))  # of COCO, in some files
            pictures.append(Picture(file, line, camera, time=time, sequence=sequence, boxes=boxes))
        return gathering.table(pictures, threshold=_threshold(info))


def _kept(entries: list[Any], gathering: Gathering) -> list[tuple[int, dict[str, Any], str]]:
    kept = []
    for line, record in enumerate(entries, 1):
        file = path_of(record.get("file")) if isinstance(record, dict) else ""
        if isinstance(record, dict) and "file" not in record and (own := text_of(record.get("id"))):
            file = path_of(own if is_picture(own) else f"{own}.jpg")
            gathering.remarks.add("Images without 'file' are named by their 'id'", f"{own!r} is read as {file!r}")
        if not file:
            gathering.remarks.add("Images without a usable 'file' are left out", f"image {line}")
        elif is_video(file) or any(record.get(key) is not None for key in _VIDEO_FIELDS):
            gathering.remarks.add("Videos are left out", repr(file))
        else:
            kept.append((line, record, file))
    return kept


def _boxes(
    record: dict[str, Any],
    categories: Mapping[str, str],
    classes: Mapping[str, str],
    *,
    gathering: Gathering,
    file: str,
) -> tuple[Box, ...] | None:
    detections = record.get("detections")
    if isinstance(detections, list):
        return boxes_of(detections, categories, classes, remarks=gathering.remarks, where=repr(file))
    failure = text_of(record.get("failure"))
    kind = (
        "The detector failed on pictures, which have no boxes"
        if failure
        else "Pictures without 'detections' have no boxes"
    )
    gathering.remarks.add(kind, f"{file!r} ({failure})" if failure else repr(file))
    return None


def _time(record: dict[str, Any]) -> str:
    """The text of a picture's time: its own field, or one of its Exif metadata, an object or a list of pairs."""
    if own := text_of(record.get("datetime")):
        return own
    exif = record.get("exif_metadata")
    if isinstance(exif, list):
        exif = {pair[0]: pair[1] for pair in exif if isinstance(pair, list) and len(pair) == 2 and _is_text(pair[0])}
    return next((text for key in _EXIF_TIMES if (text := text_of(exif.get(key)))), "") if isinstance(exif, dict) else ""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _threshold(info: dict[str, Any]) -> float | None:
    metadata = info.get("detector_metadata")
    return share_of(metadata.get("typical_detection_threshold")) if isinstance(metadata, dict) else None
