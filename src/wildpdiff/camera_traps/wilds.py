"""WILDS' iWildCam: ``metadata.csv`` with ``categories.csv`` next to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from wildpdiff.camera_traps.fields import frame_of, path_of, placed
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.json_files import garbage_kept
from wildpdiff.camera_traps.records import EMPTY, Picture, PictureTable
from wildpdiff.errors import DataError
from wildpdiff.tables.delimited import read_header

FORMAT = "WILDS metadata"
SPLIT = "wilds_split"
"""The column of a picture's values with WILDS' split: train, val, test, id_val or id_test."""

SPLITS = ("train", "val", "test", "id_val", "id_test")
PICTURES = "train"
"""The folder of all pictures, whatever their split."""

_NEEDED = {"split", "location_remapped", "y", "filename"}
_COLUMNS = {
    "path": "filename",
    "label": "y",
    "task": "location",
    "location": "location_remapped",
    "datetime": "datetime",
    "sequence": "seq_id",
    "split": "split",
    "image": "image_id",
}
_EMPTY_CLASS = "0"


class WildsReader:
    """Reader of WILDS' iWildCam metadata."""

    format = FORMAT

    def reads(self, path: Path) -> bool:
        """Whether a file, or ``metadata.csv`` of a folder, has WILDS' columns."""
        return set(read_header(_table(path))) >= _NEEDED

    @garbage_kept()
    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures; the split is a value, since WILDS' val and test are other cameras (:data:`SPLIT`).

        Labels are names of ``categories.csv``, or the class's number where there is none.

        Raises:
            DataError: the table is at fault, or has another split than WILDS'.
        """
        path = _table(path)
        gathering = Gathering(path, FORMAT, path.parent)
        rows = gathering.rows(path, _COLUMNS, columns)
        gathering.root, files = placed(path.parent, [path_of(row["path"]) for _, row in rows], gathering.remarks)
        if gathering.root == path.parent and (path.parent / PICTURES).is_dir():
            gathering.root = path.parent / PICTURES
        names = _class_names(path.parent / "categories.csv", gathering)
        times = gathering.times([row["datetime"] for _, row in rows])
        pictures = []
        for (line, row), file, time in zip(rows, files, times, strict=True):
            if row["split"] not in SPLITS:
                raise DataError(f"{path}, line {line}: the split is {row['split']!r}; WILDS has {', '.join(SPLITS)}.")
            if not file:
                gathering.remarks.add("Rows without a usable 'filename' are left out", f"line {line}")
                continue
            label = names.get(_number(row["label"]), "") if names else _number(row["label"])
            if not label:
                gathering.remarks.add("Classes without a name are no labels", f"{row['label']!r} on line {line}")
            elif label.lower() == EMPTY or (not names and label == _EMPTY_CLASS):
                label = EMPTY
            pictures.append(
                Picture(
                    path=file,
                    line=line,
                    camera=row["task"] or row["location"],
                    labels=(label,) if label else (),
                    time=time,
                    sequence=row["sequence"],
                    identifier=row["image"],
                    values={SPLIT: row["split"]},
                )
            )
        return gathering.table(pictures)


def _table(path: Path) -> Path:
    return path / "metadata.csv" if path.is_dir() else path


def _class_names(path: Path, gathering: Gathering) -> dict[str, str]:
    """Names of classes by number; a number of several categories (those that WILDS does not use) has none."""
    if not path.is_file():
        gathering.remarks.add("Labels are numbers, for want of categories.csv", f"in {path.parent}")
        return {}
    rows = [
        (_number(row["y"]), row["name"]) for _, row in gathering.rows(path, {"y": "y", "name": "name"}, {}) if row["y"]
    ]
    if not any(name for _, name in rows):
        raise DataError(f"{path} has no columns 'y' and 'name' of classes; give WILDS' own file, or none.")
    counts = Counter(number for number, _ in rows)
    return {number: name for number, name in rows if counts[number] == 1}


def _number(text: str) -> str:
    """A class's number as an integer, ``2.0`` as programs write it where some have none; another text as it is."""
    number = frame_of(text)
    return text if number is None else str(number)
