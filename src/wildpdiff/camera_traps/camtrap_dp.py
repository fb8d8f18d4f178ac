"""Camtrap DP 1.0: deployments, media and observations of a data package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from wildpdiff.camera_traps.data_package import DESCRIPTOR, DataPackage, open_package
from wildpdiff.camera_traps.fields import box_of, labels_of, number_of, share_of
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.matching import match_paths
from wildpdiff.camera_traps.paths import clean_path, is_absolute
from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable
from wildpdiff.errors import DataError
from wildpdiff.tables.delimited import Delimited
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES

TABLES: Mapping[str, tuple[str, ...]] = {
    "deployments": ("deploymentID",),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath"),
    "observations": ("deploymentID", "observationLevel", "observationType"),
}
"""The package's tables, with the columns that none can do without."""

METADATA = (
    *("latitude", "longitude", "cameraModel", "cameraHeight", "cameraDepth", "cameraTilt", "cameraHeading"),
    *("detectionDistance", "baitUse", "featureType", "habitat"),
)
"""Columns of deployments that describe a camera."""

_TAGS = ("deploymentTags", "deploymentGroups")
_NAMES = ("locationID", "locationName", "deploymentID")
"""Columns of deployments, the first of which that has a value names the camera."""

_MEDIA = ("mediaID", "deploymentID", "timestamp", "filePath", "fileName", "fileMediatype")
_BOX = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
_OBSERVATION = (
    *("mediaID", "deploymentID", "eventID", "eventStart", "eventEnd", "observationLevel", "observationType"),
    *("scientificName", "classificationMethod", "classificationProbability", *_BOX),
)
_CATEGORIES = {"animal": "animal", "human": "person", "vehicle": "vehicle"}
"""MegaDetector's words for the kinds of observations that have boxes."""

_UNLABELLED = ("unknown", "unclassified")
_VERSION = re.compile(r"camtrap-dp/v?(\d+\.\d+[^/]*)")


class CamtrapDPReader:
    """Reader of Camtrap DP packages, folders or zip files."""

    format = "Camtrap DP"

    def reads(self, path: Path) -> bool:
        """Whether a folder, its ``datapackage.json`` or a zip file is a package with Camtrap DP's tables or profile."""
        if not (path.is_dir() or path.name == DESCRIPTOR or path.suffix.lower() == ".zip"):
            return False
        try:
            descriptor = open_package(path).descriptor
        except DataError:
            return path.is_dir() and (path / DESCRIPTOR).is_file()  # read() has the reason
        names = {str(entry.get("name")) for entry in descriptor["resources"]}
        return names >= TABLES.keys() or "camtrap-dp" in str(descriptor.get("profile"))

    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures of a package; its deployments are the cameras' metadata.

        A camera is a location (its ID or name), or the deployment where none is stated. Observations of single
        media give labels and boxes: the species, :data:`EMPTY`, ``human`` or ``vehicle``. Pictures without one get the
        labels of the events in whose time they lie. Observations by machines are boxes' labels and never pictures'.
        Media with an address are looked for in the package by their file names. Pictures inside a zip file are unpacked
        next to it (:meth:`~wildpdiff.camera_traps.data_package.DataPackage.unpacked_pictures`); nothing else is.

        Raises:
            DataError: the package is at fault, of version 0.1, or its pictures cannot be unpacked.
        """
        package = open_package(path)
        version = _VERSION.search(str(package.descriptor.get("profile")))
        if version and version[1].startswith("0."):
            raise DataError(f"{package.path} is Camtrap DP {version[1]}; convert it to 1.0 (by R's camtrapdp).")
        gathering = Gathering(
            package.path, self.format, package.path, repeated="Media with the same file are one picture"
        )
        tables = {name: _table(package, name, gathering) for name in TABLES}
        deployments = _deployments(tables["deployments"])
        media = _media(package, tables["media"], gathering.remarks)
        observed = _Observations(tables["observations"], gathering.remarks)
        observed.add_media({row["mediaID"] for row in media}, set(tables["media"].column("mediaID")))
        if package.zipped:
            gathering.root = _unpacked(package, media, gathering.remarks)
        times = gathering.times([row["timestamp"] for row in media] + observed.event_times)
        observed.add_events(media, times)
        pictures = [
            _picture(row, time, observed, deployments, remarks=gathering.remarks)
            for row, time in zip(media, times, strict=False)
        ]
        cameras = _cameras(deployments, Counter(row["deploymentID"] for row in media), gathering.remarks)
        return gathering.table(pictures, cameras=cameras)


def _table(package: DataPackage, name: str, gathering: Gathering) -> Delimited:
    table = package.table(name)
    if table is None:
        raise DataError(f"{package.path} has no table {name!r}; a Camtrap DP package has {', '.join(TABLES)}.")
    missing = [column for column in TABLES[name] if column not in table.header]
    if missing:
        raise DataError(f"{table.source} has no column {missing[0]!r}, which Camtrap DP 1.0 needs; add it.")
    gathering.notes += table.remarks
    return table


@dataclass(frozen=True)
class _Deployment:
    camera: str
    values: Mapping[str, str]


def _deployments(table: Delimited) -> dict[str, _Deployment]:
    """Camera and metadata by the deployment's identifier, in the table's order."""
    deployments: dict[str, _Deployment] = {}
    for _, row in table.records((*_NAMES, *METADATA, *_TAGS)):
        values = {column: row[column] for column in METADATA if row[column]}
        for tag in (tag for column in _TAGS for tag in row[column].split("|") if tag.strip()):
            key, _, value = (part.strip() for part in tag.partition(":"))
            if key:
                values.setdefault(key, value or "true")
        camera = next((row[name] for name in _NAMES if row[name]), "")
        if camera:
            deployments.setdefault(row["deploymentID"], _Deployment(camera, values))
    return deployments


def _cameras(
    deployments: Mapping[str, _Deployment], counts: Mapping[str, int], remarks: Remarks
) -> dict[str, dict[str, str]]:
    """Metadata by camera; where its deployments differ, that of the one with the most media."""
    cameras: dict[str, dict[str, str]] = {entry.camera: {} for entry in deployments.values()}
    for _, entry in sorted(deployments.items(), key=lambda pair: -counts.get(pair[0], 0)):
        values = cameras[entry.camera]
        for column, value in entry.values.items():
            if values.setdefault(column, value) != value:
                kind = "Metadata that differ between deployments of a camera are those of the one with most media"
                remarks.add(kind, f"{column!r} of {entry.camera!r}")
    return cameras


def _media(package: DataPackage, table: Delimited, remarks: Remarks) -> list[dict[str, str]]:
    """The rows of pictures, with the path of the file as ``path`` and the line as ``line``."""
    rows, remote = [], []
    for line, row in table.records(_MEDIA):
        where = f"line {line} of {table.source}"
        path = clean_path(row["filePath"])
        kind = row["fileMediatype"].lower()
        if kind and not kind.startswith("image/"):
            remarks.add("Media that are no images are left out", where)
        elif not path or (".." in path.split("/") or is_absolute(path)):
            remarks.add("Media without a path inside the package are left out", where)
        else:
            row["line"], row["path"] = str(line), path
            if "://" in path:
                row["path"] = clean_path(row["fileName"]) or _name_in(path)
                remarks.add("Media with an address are looked for by their file name", f"{row['path']} ({where})")
                remote.append(row)
            rows.append(row)
    files = package.files() if remote or package.zipped else []
    inside = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES)]
    _place(rows if package.zipped else remote, inside)
    return rows


def _unpacked(package: DataPackage, media: Sequence[Mapping[str, str]], remarks: Remarks) -> Path:
    """The folder of a zip file's pictures: unpacked where it holds some, else the folder that it lies in."""
    inside = {row["path"] for row in media} & set(package.files())
    if not inside:
        return package.path.parent
    folder = package.unpacked_pictures(inside)
    remarks.add("Pictures of a zip file are unpacked next to it", str(folder))
    return folder


def _name_in(address: str) -> str:
    try:
        return PurePosixPath(unquote(urlsplit(address).path)).name
    except ValueError:
        return ""


def _place(rows: Sequence[dict[str, str]], files: Sequence[str]) -> None:
    """Give rows of media the path of their file in the package; rows with an address, one that no other row has."""
    counts = Counter(row["path"] for row in rows)
    for row in rows:
        if counts[row["path"]] > 1 and "://" in row["filePath"]:  # cameras number their files alike
            row["path"] = f"{row['deploymentID']}/{row['path']}"
    found = match_paths(files, {row["path"] for row in rows}.difference(files)).pairs if files else {}
    for row in rows:
        row["path"] = found.get(row["path"], row["path"])


@dataclass
class _Seen:
    """Observations of one picture."""

    labels: list[str] = field(default_factory=list)
    boxes: list[Box] | None = None
    event: str = ""
    human: bool = False
    """Whether a person has classified it."""


class _Observations:
    """Observations by the medium, and events by their deployment."""

    def __init__(self, table: Delimited, remarks: Remarks) -> None:
        self._remarks, self._source = remarks, table.source
        self._media: dict[str, _Seen] = {}
        self._pictures: dict[tuple[str, str], _Seen] = {}
        self._single: list[tuple[str, dict[str, str]]] = []
        self._events: list[dict[str, str]] = []
        self._event_labels: dict[int, str] = {}
        for line, row in table.records(_OBSERVATION):
            if row["observationLevel"].lower() == "event" or not row["mediaID"]:
                self._events.append(row)
            else:
                self._single.append((f"line {line} of {table.source}", row))

    @property
    def event_times(self) -> list[str]:
        """The starts of all events, then their ends; an event without one ends where it starts."""
        starts = [event["eventStart"] for event in self._events]
        return starts + [event["eventEnd"] or event["eventStart"] for event in self._events]

    def add_media(self, pictures: Collection[str], media: Collection[str]) -> None:
        """Add the observations of pictures; those of other media are none of this reader's."""
        for where, row in self._single:
            if row["mediaID"] in pictures:
                self._add(row, where)
            elif row["mediaID"] not in media:
                self._remarks.add("Observations of unknown media are left out", f"{row['mediaID']!r} on {where}")

    def _add(self, row: Mapping[str, str], where: str) -> None:
        """Add an observation of one picture."""
        seen = self._media.setdefault(row["mediaID"], _Seen())
        seen.event = seen.event or row["eventID"]
        kind, machine = row["observationType"].lower(), row["classificationMethod"].lower() == "machine"
        label = self._label(row, where)
        if machine:
            self._remarks.add("Observations by machines label boxes and no pictures", where)
        else:
            seen.human = seen.human or kind != "unclassified"
            seen.labels += [label] if label else []
        if any(row[side] for side in _BOX):
            box = self._box(row, label, machine, where)
            seen.boxes = [*(seen.boxes or ()), *([box] if box else [])]
        elif machine and kind == "blank":
            seen.boxes = seen.boxes or []

    def of(self, row: Mapping[str, str]) -> _Seen:
        """What is observed of one picture; pictures without an identifier, or with one of several, have their own."""
        shared = self._media.get(row["mediaID"], _Seen())
        return self._pictures.setdefault((row["mediaID"], row["path"]), replace(shared, labels=[*shared.labels]))

    def _label(self, row: Mapping[str, str], where: str) -> str:
        kind = row["observationType"].lower()
        if kind == "animal":
            if not row["scientificName"]:
                self._remarks.add("Animals without a scientific name are no labels", where)
            return row["scientificName"]
        if kind not in ("blank", *_CATEGORIES, *_UNLABELLED):
            self._remarks.add("Observations of no known type are no labels", f"{row['observationType']!r} on {where}")
        return EMPTY if kind == "blank" else kind if kind in _CATEGORIES else ""

    def _box(self, row: Mapping[str, str], label: str, machine: bool, where: str) -> Box | None:
        sides = [number_of(row[side]) for side in _BOX]
        others: dict[str, Any] = {"category": _CATEGORIES.get(row["observationType"].lower(), "animal")}
        if label and label != EMPTY:
            others["label"] = label
        if machine:
            others["confidence"] = share = share_of(row["classificationProbability"])
            others["label_confidence"] = share or 0.0  # None would be a label of people's
        return box_of([float("nan") if side is None else side for side in sides], self._remarks, where, **others)

    def add_events(self, media: Sequence[Mapping[str, str]], times: Sequence[datetime | None]) -> None:
        """Give pictures the event in whose time they lie, and its labels where nobody has classified them alone.

        Args:
            media: rows of the pictures.
            times: of these, followed by :attr:`event_times`.
        """
        started, pictured, ended = 0, 1, 2  # in the order in which they count at one moment
        starts = times[len(media) : len(media) + len(self._events)]
        marks: dict[str, list[tuple[float, int, int]]] = {}
        for index, (event, start, end) in enumerate(zip(self._events, starts, times[-len(starts) :], strict=False)):
            if start and end:
                own = marks.setdefault(event["deploymentID"], [])
                own += [(_seconds(start), started, index), (max(_seconds(start), _seconds(end)), ended, index)]
        for index, (row, time) in enumerate(zip(media, times, strict=False)):
            if time and row["deploymentID"] in marks:
                marks[row["deploymentID"]].append((_seconds(time), pictured, index))
        for own in marks.values():
            running: Counter[str] = Counter()  # their names and labels: there may be thousands of events at a time
            labels: Counter[str] = Counter()
            for _, kind, index in sorted(own):
                if kind == pictured:
                    self._label_by_event(media[index], next(iter(running), ""), tuple(labels))
                    continue
                event = self._events[index]
                if kind == started:
                    self._event_labels[index] = self._event_label(event)
                _count(running, event["eventID"], kind == started)
                _count(labels, self._event_labels[index], kind == started)

    def _event_label(self, event: Mapping[str, str]) -> str:
        """The label that people gave to an event."""
        machine = event["classificationMethod"].lower() == "machine"
        return "" if machine else self._label(event, f"event {event['eventID']!r} of {self._source}")

    def _label_by_event(self, row: Mapping[str, str], event: str, labels: Sequence[str]) -> None:
        seen = self.of(row)
        seen.event = seen.event or event
        for label in () if seen.human else labels:
            if label not in seen.labels:
                seen.labels.append(label)
                kind = "Pictures without an observation of their own have the labels of their event"
                self._remarks.add(kind, row["path"])


def _count(running: Counter[str], name: str, begins: bool) -> None:
    """Count a name in or out; names that nothing has any more are gone."""
    if name:
        running[name] += 1 if begins else -1
        if not running[name]:
            del running[name]


def _seconds(time: datetime) -> float:
    """A time as a number that orders it; a time without a zone as if it were UTC."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _picture(
    row: Mapping[str, str],
    time: datetime | None,
    found: _Observations,
    deployments: Mapping[str, _Deployment],
    *,
    remarks: Remarks,
) -> Picture:
    seen = found.of(row)
    deployment = deployments.get(row["deploymentID"])
    if deployment is None:
        remarks.add(
            "Media of unknown deployments have these as their camera", f"{row['deploymentID']!r} ({row['path']})"
        )
    return Picture(
        path=row["path"],
        line=int(row["line"]),
        camera=deployment.camera if deployment else row["deploymentID"],
        labels=labels_of(seen.labels, remarks, row["path"]),
        time=time,
        sequence=seen.event,
        boxes=None if seen.boxes is None else tuple(seen.boxes),
        deployment=row["deploymentID"],
        identifier=row["mediaID"],
    )
