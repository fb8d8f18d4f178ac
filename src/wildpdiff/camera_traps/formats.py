"""The formats of camera-trap data that are read, recognised by content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wildpdiff.camera_traps.camtrap_dp import CamtrapDPReader
from wildpdiff.camera_traps.coco import CocoReader
from wildpdiff.camera_traps.csv_table import CsvTableReader
from wildpdiff.camera_traps.folders import FolderReader
from wildpdiff.camera_traps.json_files import json_keys
from wildpdiff.camera_traps.lila import LilaReader
from wildpdiff.camera_traps.megadetector import MegaDetectorReader
from wildpdiff.camera_traps.records import PictureTable, Reader
from wildpdiff.camera_traps.speciesnet import SpeciesNetReader
from wildpdiff.camera_traps.timelapse import TimelapseReader
from wildpdiff.camera_traps.wildlife_insights import WildlifeInsightsReader
from wildpdiff.camera_traps.wilds import WildsReader
from wildpdiff.errors import DataError

_OF_FILES: tuple[Reader, ...] = (
    CamtrapDPReader(),
    MegaDetectorReader(),
    SpeciesNetReader(),
    CocoReader(),
    WildsReader(),
    LilaReader(),
    WildlifeInsightsReader(),
    TimelapseReader(),
    CsvTableReader(),
)

READERS: tuple[Reader, ...] = (*_OF_FILES, FolderReader(_OF_FILES))
"""In the order in which they are tried; the plainest tables come last."""


def find_reader(path: Path) -> Reader:
    """The reader of a file or folder, by its content; no more than its beginning is read.

    Raises:
        DataError: there is no such file, or it is of no known format.
    """
    try:
        known = path.is_file() or path.is_dir()
    except (OSError, ValueError):  # a name that no file system takes
        known = False
    if not known:
        raise DataError(f"There is no file or folder {str(path)!r}. Check the path.")
    for reader in READERS:
        if reader.reads(path):
            return reader
    raise DataError(
        f"{path} is of no known format ({_beginning(path)}). Known are "
        f"{', '.join(reader.format for reader in READERS)}."
    )


def read_pictures(path: Path, columns: Mapping[str, str] | None = None) -> PictureTable:
    """The pictures of a file or folder of any known format.

    Args:
        path: of the file or folder.
        columns: names of a table's columns in the place of the usual ones, by :class:`Picture`'s word for them.

    Raises:
        DataError: there is no such file, it is of no known format, or at fault; the message names file and line.
    """
    return find_reader(path).read(path, columns or {})


def _beginning(path: Path) -> str:
    """The kind of a file or folder of no known format, as far as its beginning shows."""
    if path.is_dir():
        return "a folder"
    if keys := json_keys(path):
        return f"JSON with the keys {', '.join(map(repr, list(keys)[:8]))}"
    try:
        with open(path, "rb") as stream:
            head = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if head.startswith(b"PK"):
        return "an archive; unpack it"
    if head.startswith(b"["):
        return "JSON that is a list and no object"
    return "an empty file" if not head else f"it begins with {head[:16]!r}"
