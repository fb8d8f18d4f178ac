"""Timelapse's CSV: a row for each picture, in columns of its own and of the user's template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wildpdiff.camera_traps.csv_table import table_of
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.errors import DataError
from wildpdiff.tables.columns import matched_columns, name_key
from wildpdiff.tables.delimited import read_delimited, read_header
from wildpdiff.tables.remarks import Remarks

_FILE, _FOLDER, _DELETED = "file", "relativepath", "deleteflag"
_OWN = (_DELETED, "rootfolder")
"""Timelapse's columns that describe no picture."""


class TimelapseReader:
    """Reader of Timelapse's CSV."""

    format = "Timelapse CSV"

    def reads(self, path: Path) -> bool:
        """Whether a file is a table with Timelapse's columns ``File`` and ``RelativePath``, and a time or a flag."""
        keys = {name_key(name) for name in read_header(path)} if path.is_file() else set()
        return {_FILE, _FOLDER} <= keys and bool({"datetime", "date", _DELETED} & keys)

    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures that are not marked for deletion; the template's columns are their values.

        The template has its own names: the species is the column that ``columns`` names, or the only one with a usual
        name (Species, Label, …). So is the camera; where there is none, it is the first folder in which the pictures
        differ.

        Raises:
            DataError: the table is at fault, or several columns may be the species' or the camera's.
        """
        cells = read_delimited(path)
        remarks = Remarks()
        flags = [index for index, name in enumerate(cells.header) if name_key(name) == _DELETED]
        rows = []
        for line, row in cells.rows:
            if any(row[index].lower() in ("true", "1", "yes") for index in flags):
                remarks.add("Pictures that are marked for deletion are left out", f"line {line} of {path}")
            else:
                rows.append((line, row))
        if not rows:
            raise DataError(f"{path} has no rows of pictures that are not marked for deletion; add some.")
        cells = replace(cells, rows=tuple(rows)).without(tuple(n for n in cells.header if name_key(n) in _OWN))
        words = matched_columns(cells.header, columns, cells.source)
        table = table_of(cells, path, columns, self.format)
        if "task" not in words:
            table = replace(table, pictures=_by_folder(table.pictures))
            remarks.add("Cameras are the pictures' folders", repr(table.pictures[0].camera))
        return replace(table, remarks=(*table.remarks, *remarks.sentences()))


def _by_folder(pictures: tuple[Picture, ...]) -> tuple[Picture, ...]:
    """The pictures with the first folder in which they differ as their camera; all of one folder have its name."""
    folders = [picture.path.split("/")[:-1] for picture in pictures]
    shortest = min(map(len, folders))
    level = next((level for level in range(shortest) if len({folder[level] for folder in folders}) > 1), shortest)
    if all(len(folder) == level for folder in folders):
        level = max(0, level - 1)
    named = zip(pictures, folders, strict=True)
    return tuple(replace(picture, camera=folder[level] if len(folder) > level else "") for picture, folder in named)
