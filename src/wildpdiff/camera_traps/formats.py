"""The formats of camera-trap data that are read, told apart by content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wildpdiff.camera_traps.coco import CocoReader
from wildpdiff.camera_traps.megadetector import MegaDetectorReader
from wildpdiff.camera_traps.records import PictureTable, Reader
from wildpdiff.camera_traps.speciesnet import SpeciesNetReader
from wildpdiff.errors import DataError

READERS: tuple[Reader, ...] = (MegaDetectorReader(), SpeciesNetReader(), CocoReader())
"""In the order in which they are asked; the plainest tables come last."""


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
    raise DataError(f"{path} is of no known format. Known are {', '.join(reader.format for reader in READERS)}.")


def read_pictures(path: Path, columns: Mapping[str, str] | None = None) -> PictureTable:
    """The pictures of a file or folder of any known format.

    Args:
        path: of the file or folder.
        columns: names of a table's columns in the place of the usual ones, by :class:`Picture`'s word for them.

    Raises:
        DataError: there is no such file, it is of no known format, or at fault; the message names file and line.
    """
    return find_reader(path).read(path, columns or {})
