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

from wildpdiff.camera_traps.paths import clean_path, is_absolute
from wildpdiff.camera_traps.records import EMPTY, Box
from wildpdiff.camera_traps.remarks import Remarks

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
    """A number from 0 to 1; None for anything else."""
    number = number_of(value)
    return number if number is not None and 0 <= number <= 1 else None


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


def box_of(sides: Sequence[float], remarks: Remarks, where: str, **others: Any) -> Box | None:
    """A box within the picture; None, with a remark, where it has no size or lies outside.

    Args:
        sides: left, top, width, height in fractions of the picture.
        remarks: for what is left out or cut off.
        where: the box, for remarks.
        **others: of :class:`Box`.
    """
    left, top, width, height = sides
    if not all(map(math.isfinite, sides)) or width <= 0 or height <= 0:
        remarks.add("Boxes without width or height are left out", where)
        return None
    right, bottom = left + width, top + height
    if min(left, top) < 0 or max(right, bottom) > 1:
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
    """A list of numbers, which need not be finite; None for anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    if any(isinstance(entry, bool) or not isinstance(entry, int | float) or abs(entry) > 1e300 for entry in value):
        return [math.nan] * count if all(isinstance(entry, int | float) for entry in value) else None
    return [float(entry) for entry in value]


def labels_of(names: Iterable[str], remarks: Remarks, where: str) -> tuple[str, ...]:
    """Each label once; :data:`EMPTY` only where there is no other, with a remark."""
    labels = tuple(dict.fromkeys(names))
    if len(labels) > 1 and EMPTY in labels:
        remarks.add("Pictures labelled both as empty and with a species keep the species", where)
        labels = tuple(label for label in labels if label != EMPTY)
    return labels


def placed(folder: Path, paths: Sequence[str], remarks: Remarks) -> tuple[Path, list[str]]:
    """Pictures' folder and their paths in it, by where the first of them are on this machine.

    The pictures may lie below the given folder, below one folder in it, or without leading folders that all paths
    share or that end with the given folder's name: two cameras may well have the same file names. Absolute paths of
    another machine lose the folder that they share. What is empty stays so.
    """
    sample = list(islice(filter(None, paths), SAMPLE))
    within = [_within(folder, path) for path in paths]
    if not sample or any(_exists(folder, path) for path in sample):
        return folder, within
    below = [entry for entry in _folders(folder) if any(_exists(entry, path) for path in sample)]
    if len(below) == 1:
        return below[0], within
    shared = _shared_folder([path for path in paths if path])
    for path in sample:
        parts = path.split("/")
        for dropped in range(1, len(parts)):
            prefix = "/".join((*parts[:dropped], ""))
            allowed = shared.startswith(prefix) or parts[dropped - 1] == folder.resolve().name
            if allowed and _exists(folder, path.removeprefix(prefix)):
                return folder, _without(prefix, paths, within, remarks)
    if all(is_absolute(path) for path in paths if path):
        return folder, _without(shared, paths, within, remarks)
    for path in filter(is_absolute, paths):
        remarks.add("Absolute paths stay as they are", repr(path))
    return folder, within


def _shared_folder(paths: Sequence[str]) -> str:
    try:
        shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # some are absolute
        return ""
    return f"{shared.rstrip('/')}/" if shared else ""


def _within(folder: Path, path: str) -> str:
    return os.path.relpath(path, folder) if path.startswith(f"{folder.as_posix()}/") else path


def _without(prefix: str, paths: Sequence[str], others: list[str], remarks: Remarks) -> list[str]:
    shorter = [path.removeprefix(prefix) for path in paths]
    if not prefix or len(set(shorter)) < len(set(paths)):
        return others
    remarks.add(f"Paths are read without their beginning {prefix!r}", repr(next(filter(None, paths))))
    return shorter


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return []


def _exists(folder: Path, path: str) -> bool:
    try:
        return (folder / path).is_file()
    except (OSError, ValueError):
        return False
