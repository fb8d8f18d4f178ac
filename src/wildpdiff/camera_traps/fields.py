"""Fields of a record, checked once: texts, numbers, paths and boxes."""

from __future__ import annotations

import math
import os.path
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from wildpdiff.camera_traps.matching import common_folder
from wildpdiff.camera_traps.paths import clean_path, is_absolute
from wildpdiff.camera_traps.records import EMPTY, Box
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES

BLANK_NAMES = frozenset({"blank", "empty", "none", "nothing"})
"""Names of the class without an animal, in a place of a format that is reserved for it."""

VIDEO_SUFFIXES = (
    ".3gp",
    ".asf",
    ".avi",
    ".flv",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".webm",
    ".wmv",
)

DETECTED = {"animal": "animal", "human": "person", "person": "person", "vehicle": "vehicle"}
"""A detector's words, and MegaDetector's for them."""

OUTSIDE = 0.01
"""Share of a picture by which a box may reach beyond it without a remark: detectors round."""

SAMPLE = 50
"""Pictures that are looked for on disk to find the folder of all."""

ABOVE = 2
"""Folders above a file that its paths may be relative to."""

_LARGEST = 1e300
_ROUNDING = 1e-6
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def text_of(value: Any) -> str:
    """A text or number as text, without blanks at its ends; empty for null, lists, objects and what is no Unicode."""
    if isinstance(value, str):
        return "" if not value.isascii() and _UNUSABLE.search(value) else value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value) if math.isfinite(value) else ""
    return str(value) if isinstance(value, int) and abs(value) < 10**100 else ""


def number_of(value: Any) -> float | None:
    """A finite number, or a text of one; None for anything else."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def frame_of(value: Any) -> int | None:
    """A number within a sequence, 0 or more; None for anything else."""
    number = number_of(value)
    return int(number) if number is not None and 0 <= number < 2**53 and number.is_integer() else None


def share_of(value: Any) -> float | None:
    """A number from 0 to 1, where single precision may have rounded it up; None for anything else."""
    number = number_of(value)
    return min(number, 1.0) if number is not None and 0 <= number <= 1 + _ROUNDING else None


def path_of(value: Any) -> str:
    """A picture's path with ``/`` between folders; the part after the host of an address; empty where unusable."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or _UNUSABLE.search(text):
        return ""
    if "://" in text and _SCHEME.match(text):
        try:
            text = unquote(urlsplit(text).path).lstrip("/")
        except ValueError:
            return ""
    path = clean_path(text)
    return "" if path in (".", "..", "/", "//") or _UNUSABLE.search(path) else path


def is_video(path: str) -> bool:
    """Whether a path is a video's, by its suffix."""
    return path.lower().endswith(VIDEO_SUFFIXES)


def is_picture(path: str) -> bool:
    """Whether a path is a picture's, by its suffix."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def box_of(sides: Sequence[float], remarks: Remarks, where: str, **others: Any) -> Box | None:
    """A box within the picture; None, with a remark, where it has no size or lies outside.

    Args:
        sides: left, top, width, height in fractions of the picture.
        remarks: for what is left out or cut off.
        where: the box, for remarks.
        **others: of :class:`Box`.
    """
    left, top, width, height = sides
    if not (math.isfinite(left + top + width + height) and width > 0 and height > 0):
        remarks.add("Boxes without width or height are left out", where)
        return None
    right, bottom = left + width, top + height
    if left < 0 or top < 0 or right > 1 or bottom > 1:
        far = min(left, top) < -OUTSIDE or max(right, bottom) > 1 + OUTSIDE
        left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in (left, top, right, bottom))
        width, height = right - left, bottom - top
        if width <= 0 or height <= 0:
            remarks.add("Boxes outside of the picture are left out", where)
            return None
        if far:
            remarks.add("Boxes that reach beyond the picture are cut off at its edge", where)
    return Box(left, top, width, height, **others)


def numbers_of(value: Any, count: int) -> list[float] | None:
    """A list of that many numbers, which need not be finite; None for anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    for entry in value:
        if type(entry) is not float and type(entry) is not int:
            return None
    return [float(entry) if abs(entry) < _LARGEST else math.nan for entry in value]


def labels_of(names: Iterable[str], remarks: Remarks, where: str) -> tuple[str, ...]:
    """Each label once; :data:`EMPTY` only where there is no other, with a remark."""
    labels = tuple(dict.fromkeys(names))
    if len(labels) > 1 and EMPTY in labels:
        remarks.add("Pictures labelled both as empty and with a species keep the species", where)
        labels = tuple(label for label in labels if label != EMPTY)
    return labels


def placed(folder: Path, paths: Sequence[str], remarks: Remarks) -> tuple[Path, list[str]]:
    """Pictures' folder and their paths in it, by where the first of them are on this machine.

    The pictures may lie below the given folder, below one folder in it, below one of the folders above, or without
    leading folders that all paths share. Other paths stay as they are: two cameras may well have the same file names.
    """
    sample = list(islice(filter(None, paths), SAMPLE))
    own = tuple(f"{entry.as_posix().rstrip('/')}/" for entry in (folder.absolute(), folder.resolve()))
    within = [path.removeprefix(own[0]).removeprefix(own[1]) if path.startswith(own) else path for path in paths]
    if not sample or any(os.path.isfile(folder / path) for path in sample):
        return folder, within
    below = [entry for entry in _folders(folder) if any(os.path.isfile(entry / path) for path in sample)]
    above = [
        entry for entry in folder.resolve().parents[:ABOVE] if any(os.path.isfile(entry / path) for path in sample)
    ]
    if len(below) == 1 or above:
        return (below if len(below) == 1 else above)[0], within
    parts = common_folder(filter(None, paths)).split("/")
    inside = (folder, *_folders(folder))
    for dropped in range(1, len(parts)):
        prefix = "/".join((*parts[:dropped], ""))
        shorter = [path.removeprefix(prefix) for path in paths]
        holding = [entry for entry in inside if any(os.path.isfile(entry / path) for path in shorter[:SAMPLE] if path)]
        if folder in holding or len(holding) == 1:
            remarks.add(f"Paths are read without their beginning {prefix!r}", repr(sample[0]))
            return folder if folder in holding else holding[0], shorter
    for path in filter(is_absolute, paths):
        remarks.add("Absolute paths stay as they are", repr(path))
    return folder, within


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return []
