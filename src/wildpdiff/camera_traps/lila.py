"""LILA's index of all its data sets: one row for each annotation of each picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wildpdiff.camera_traps.fields import BLANK_NAMES, frame_of, path_of, placed
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.json_files import garbage_kept
from wildpdiff.camera_traps.records import EMPTY, Picture, PictureTable
from wildpdiff.tables.delimited import read_header

FORMAT = "LILA index"
DATA_SET = "dataset_name"
"""The column of a picture's values with the data set that it is of."""

_NEEDED = {"dataset_name", "image_id", "location_id", "original_label"}
_ADDRESSES = ("url_gcp", "url_aws", "url_azure", "url")
_NAMES = ("common_name", "scientific_name", "original_label")
_COLUMNS = {
    "path": "",
    "label": "",
    "task": "location_id",
    "datetime": "datetime",
    "sequence": "sequence_id",
    "frame": "frame_num",
    "image": "image_id",
    "level": "annotation_level",
    "data set": DATA_SET,
}


class LilaReader:
    """Reader of LILA's index, or of rows of it."""

    format = FORMAT

    def reads(self, path: Path) -> bool:
        """Whether a file has the index's columns."""
        return set(read_header(path)) >= _NEEDED

    @garbage_kept()
    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures, with the part of their address after the host as path.

        Labels are LILA's common names, which all data sets share, else the scientific or the original name.

        Raises:
            DataError: the table is at fault.
        """
        gathering = Gathering(path, FORMAT, path.parent, repeated="")
        remarks = gathering.remarks
        rows = gathering.rows(path, {**_COLUMNS, **{name: name for name in (*_ADDRESSES, *_NAMES)}}, columns)
        addresses = [(row["path"], *(row[name] for name in _ADDRESSES)) for _, row in rows]
        files = [next((file for text in texts if (file := path_of(text))), "") for texts in addresses]
        gathering.root, files = placed(path.parent, files, remarks)
        times = gathering.times([row["datetime"] for _, row in rows], day_first=False)
        pictures = []
        for (line, row), file, time in zip(rows, files, times, strict=True):
            if not file:
                remarks.add("Rows without a usable address are left out", f"line {line}")
                continue
            label = row["label"] or next(filter(None, (row[name] for name in _NAMES)), "")
            if not row["label"] and row[_NAMES[-1]].lower() in BLANK_NAMES:
                label = EMPTY
            if row["level"] == "sequence":
                remarks.add("Labels are a whole sequence's; some of its pictures may be empty", f"line {line}")
            data_set = row["data set"]
            pictures.append(
                Picture(
                    path=file,
                    line=line,
                    camera=_known(row["task"], data_set),
                    labels=(label,) if label else (),
                    time=time,
                    sequence=_known(row["sequence"], data_set),
                    frame=frame_of(row["frame"]),
                    identifier=row["image"],
                    values={DATA_SET: data_set} if data_set else {},
                )
            )
        return gathering.table(pictures)


def _known(identifier: str, data_set: str) -> str:
    """An identifier; empty where LILA writes the data set alone, or ``unknown``, for want of one."""
    own = identifier.removeprefix(data_set).strip(" :").lower()
    return "" if own in ("", "unknown", "nan", "none") else identifier
