"""Exports of Wildlife Insights: ``images*.csv``, with ``deployments.csv`` next to it where it was exported too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from wildpdiff.camera_traps.detections import name_of
from wildpdiff.camera_traps.fields import BLANK_NAMES, SAMPLE, path_of, placed
from wildpdiff.camera_traps.gathering import Gathering, Row
from wildpdiff.camera_traps.json_files import garbage_kept
from wildpdiff.camera_traps.records import EMPTY, Picture, PictureTable
from wildpdiff.camera_traps.speciesnet import NO_RESULT
from wildpdiff.tables.delimited import read_header
from wildpdiff.tables.remarks import Remarks

FORMAT = "Wildlife Insights"
METADATA = (
    "latitude", "longitude", "feature_type", "bait_type", "quiet_period", "sensor_height", "sensor_orientation",
    "detection_distance", "plot_treatment", "subproject_name",
)  # fmt: skip
"""Columns of deployments that describe a camera."""

BLANKS = BLANK_NAMES | {"misfire"}

_NEEDED = {"deployment_id", "image_id", "is_blank", "location"}
_TAXA = ("class", "order", "family", "genus", "species", "common_name")
_COLUMNS = {
    "path": "location",
    "file": "filename",
    "label": "",
    "task": "deployment_id",
    "deployment": "deployment_id",
    "datetime": "timestamp",
    "sequence": "sequence_id",
    "image": "image_id",
    "blank": "is_blank",
    "by": "identified_by",
    **{name: name for name in _TAXA},
}
_MACHINE = "computer vision"


class WildlifeInsightsReader:
    """Reader of one exported table of images, or of a folder of an export."""

    format = FORMAT

    def reads(self, path: Path) -> bool:
        """Whether a file, or one of a folder's files ``images*.csv``, has the export's columns."""
        return any(set(read_header(file)) >= _NEEDED for file in _files(path))

    @garbage_kept()
    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures, with metadata of their deployments; a camera is a place where deployments have one.

        Labels are common names, else the lowest taxon. Where people have labelled a picture, labels by computer vision
        do not count.

        Raises:
            DataError: a table is at fault.
        """
        folder = path if path.is_dir() else path.parent
        gathering = Gathering(path, FORMAT, folder, repeated="")
        rows = [(line, row) for file in _files(path) for line, row in gathering.rows(file, _COLUMNS, columns)]
        places, cameras = _deployments(folder, gathering)
        gathering.root, files = _paths(folder, [row for _, row in rows], gathering.remarks)
        times = gathering.times([row["datetime"] for _, row in rows])
        by_people = {file for file, (_, row) in zip(files, rows, strict=True) if not _by_machine(row)}
        pictures = []
        for (line, row), file, time in zip(rows, files, times, strict=True):
            if not file:
                gathering.remarks.add("Rows without a usable 'location' or 'filename' are left out", f"line {line}")
                continue
            label = "" if _by_machine(row) and file in by_people else _label(row, gathering.remarks, line)
            if label and _by_machine(row):
                gathering.remarks.add("Labels are computer vision's, where people gave none", f"line {line}")
            pictures.append(
                Picture(
                    path=file,
                    line=line,
                    camera=places.get(row["task"], row["task"]),
                    labels=(label,) if label else (),
                    time=time,
                    sequence=row["sequence"],
                    deployment=row["deployment"],
                    identifier=row["image"],
                )
            )
        return gathering.table(pictures, cameras=cameras)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("images*.csv")) if path.is_dir() else [path]


def _by_machine(row: Row) -> bool:
    return row["by"].lower() == _MACHINE


def _label(row: Row, remarks: Remarks, line: int) -> str:
    """A row's label; empty where it has none."""
    name = row["label"] or name_of(";".join(("", *(row[taxon] for taxon in _TAXA))))
    is_blank = row["blank"].lower() in ("1", "1.0", "true")
    if name.lower() in NO_RESULT and name.lower() not in BLANKS:
        name = ""
    if name and name.lower() not in BLANKS:
        if is_blank:
            remarks.add("Rows both blank and of a species count as of the species", f"{name!r} on line {line}")
        return name
    return EMPTY if is_blank or name else ""


def _paths(folder: Path, rows: Sequence[Row], remarks: Remarks) -> tuple[Path, list[str]]:
    """Folder and paths of the pictures: names in the export's store, or their names on the card, whichever exist."""
    stored = [path_of(row["path"]) or path_of(row["file"]) for row in rows]
    named = [path_of(row["file"]) for row in rows]
    sorted_by = [f"{row['deployment']}/{name}" if name else "" for row, name in zip(rows, named, strict=True)]
    unique = len(set(named)) == len(set(stored))
    for paths in (stored, sorted_by, *((named,) if unique else ())):
        tried = Remarks()
        root, files = placed(folder, paths, tried)
        if any(os.path.isfile(root / file) for file in files[:SAMPLE] if file):
            return placed(folder, paths, remarks)
    return placed(folder, stored, remarks)


def _deployments(folder: Path, gathering: Gathering) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Names of cameras by deployment, and their metadata; deployments at one place are one camera."""
    places: dict[str, str] = {}
    cameras: dict[str, dict[str, str]] = {}
    files = sorted(folder.glob("deployments*.csv"))
    wanted = {name: name for name in ("deployment_id", "placename", *METADATA)}
    for line, row in (entry for file in files for entry in gathering.rows(file, wanted, {})):
        deployment, place = row.pop("deployment_id"), row.pop("placename")
        if not deployment:
            gathering.remarks.add("Deployments without 'deployment_id' are left out", f"line {line}")
            continue
        places[deployment] = place or deployment
        known = cameras.setdefault(places[deployment], {})
        for name, value in row.items():
            if value and known.setdefault(name, value) != value:
                gathering.remarks.add(
                    "Deployments at one place that differ have the metadata of the first", f"{name!r} on line {line}"
                )
    if not files:
        gathering.remarks.add("Cameras are deployments without metadata, for want of deployments.csv", f"in {folder}")
    return places, cameras
