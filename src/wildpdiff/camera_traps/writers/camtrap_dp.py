"""Predictions and labelled pictures as Camtrap DP 1.0.2: observations alone, or a whole package."""

from __future__ import annotations

import json
import mimetypes
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import Path as ZipPath

from wildpdiff.camera_traps.answers import ANIMAL, Answer, Classifier, kind_of
from wildpdiff.camera_traps.cameras import camera_values
from wildpdiff.camera_traps.crops import CONFIDENCE, animals_of
from wildpdiff.camera_traps.data_package import DESCRIPTOR, open_package
from wildpdiff.camera_traps.labels import spelling_key
from wildpdiff.camera_traps.paths import clean_path, is_absolute
from wildpdiff.camera_traps.records import Box, Picture, PictureTable
from wildpdiff.camera_traps.writers.csv_files import line, plain_path
from wildpdiff.camera_traps.writers.csv_files import value as cell
from wildpdiff.camera_traps.writers.naming import people_label
from wildpdiff.errors import DataError
from wildpdiff.tables.numbers import number_column, parse_number
from wildpdiff.tasks.description import LIMITS

VERSION = "1.0.2"
SCHEMAS = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"

OBSERVATIONS = (
    "observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel",
    "observationType", "cameraSetupType", "scientificName", "count", "lifeStage", "sex", "behavior", "individualID",
    "individualPositionRadius", "individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth",
    "bboxHeight", "classificationMethod", "classifiedBy", "classificationTimestamp", "classificationProbability",
    "observationTags", "observationComments",
)  # fmt: skip
MEDIA = (
    "mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype",
    "exifData", "favorite", "mediaComments",
)  # fmt: skip
DEPLOYMENTS = (
    "deploymentID", "locationID", "locationName", "latitude", "longitude", "coordinateUncertainty", "deploymentStart",
    "deploymentEnd", "setupBy", "cameraID", "cameraModel", "cameraDelay", "cameraHeight", "cameraDepth", "cameraTilt",
    "cameraHeading", "detectionDistance", "timestampIssues", "baitUse", "featureType", "habitat", "deploymentGroups",
    "deploymentTags", "deploymentComments",
)  # fmt: skip
"""The standard's columns in its order; validators want all of them."""

COORDINATES = {"lat": "latitude", "lon": "longitude", "lng": "longitude", "long": "longitude"}
"""Short names of columns of the deployments."""

Write = Callable[[str], object]


KEYS = ("deploymentID", "mediaID", "eventID", "observationID", "locationID")
"""Columns that name rows of other tables: those of a source's own tables stay as they are, whatever they begin with."""


def _row(columns: Sequence[str], values: Mapping[str, str], *, own: bool = True) -> str:
    """A line of a table.

    Args:
        own: whether the identifiers are made here, and not the source's.
    """
    cells = ((column, values.get(column, "")) for column in columns)
    return line(*(cell(text) if own or column not in KEYS else text for column, text in cells))


@dataclass(frozen=True)
class Clock:
    """Times with a zone, as the standard wants them.

    Attributes:
        zone: of times that have none.
    """

    zone: tzinfo

    def stamp(self, time: datetime) -> str:
        """ISO 8601 with its zone."""
        aware = time if time.tzinfo is not None else time.replace(tzinfo=self.zone)
        return aware.isoformat(timespec="seconds")


def check_times(pictures: Sequence[Picture]) -> None:
    """Refuse pictures without a time, which every observation needs; raises :class:`DataError`."""
    without = [picture.path for picture in pictures if picture.time is None]
    if without:
        raise DataError(
            f"{len(without)} of {len(pictures)} pictures have no time, and Camtrap DP needs one of each (the first is "
            f"{without[0]}). Name the column of times (--columns time=NAME), or choose another format."
        )


def media_id(picture: Picture) -> str:
    """The source's identifier of a picture, or one made of its camera and path."""
    name = f"{picture.camera}\0{picture.path}"  # a file may be listed at two cameras
    return picture.identifier or str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def write_answers(
    write: Write, answers: Iterable[Answer], classifier: Classifier, clock: Clock, *, threshold: float = CONFIDENCE
) -> None:
    """One observation for each picture that could be read; the box is that of its largest animal.

    Args:
        threshold: confidence below which a detector's box counts as none.
    """
    write(line(*OBSERVATIONS))
    for answer in answers:
        if not answer.failure:
            sure = animals_of(answer.picture, threshold)
            found = _predicted(answer, classifier, clock) | _box_of_answer(answer, sure)
            write(_row(OBSERVATIONS, found, own=not answer.picture.deployment))


def _box_of_answer(answer: Answer, sure: Sequence[Box]) -> dict[str, str]:
    return _of_box(sure[0]) if sure and kind_of(answer.label) == "animal" else {}


def _predicted(answer: Answer, classifier: Classifier, clock: Clock) -> dict[str, str]:
    picture = answer.picture
    found = _of_picture(picture, clock) | _of_label(classifier.scientific.get(answer.label, answer.label), answer.label)
    trust = {} if answer.trust is None else {"trust": f"{answer.trust:.4f}"}
    tags = {"model": answer.source, **trust}
    return {
        **found,
        "observationID": f"{media_id(picture)}-{classifier.hash[:8] or 'wildpdiff'}",
        "classificationMethod": "machine",
        "classifiedBy": classifier.signature,
        "classificationTimestamp": clock.stamp(classifier.time),
        "classificationProbability": f"{answer.probability:.6f}",
        "observationTags": _tags(tags),
    }


def _of_picture(picture: Picture, clock: Clock) -> dict[str, str]:
    time = "" if picture.time is None else clock.stamp(picture.time)
    return {
        "deploymentID": picture.deployment or picture.camera,
        "mediaID": media_id(picture),
        "eventID": picture.sequence,
        "eventStart": time,
        "eventEnd": time,
        "observationLevel": "media",
    }


def _of_label(scientific: str, label: str) -> dict[str, str]:
    """Type and name of an observation; blanks, vehicles and what is unknown have no scientific name."""
    kind = kind_of(label)
    name = {"animal": "" if spelling_key(label) == ANIMAL else scientific, "human": "Homo sapiens"}.get(kind, "")
    return {"observationType": kind, "scientificName": name}


def _of_box(box: Box) -> dict[str, str]:
    return {
        "bboxX": repr(box.left),
        "bboxY": repr(box.top),
        "bboxWidth": repr(box.width),
        "bboxHeight": repr(box.height),
    }


def _tags(values: Mapping[str, str]) -> str:
    return " | ".join(f"{key}:{value.replace('|', '/')}" for key, value in values.items())


def write_observations(write: Write, table: PictureTable, clock: Clock) -> None:
    """The labels of a table: an observation for each box with a label of people's, and for each other label."""
    write(line(*OBSERVATIONS))
    for picture in table.pictures:
        boxed = [(people_label(box), _of_box(box)) for box in picture.boxes or () if people_label(box)]
        named = {label for label, _ in boxed}
        rest = [(label, dict[str, str]()) for label in picture.labels if label not in named]
        for index, (label, box) in enumerate([*boxed, *rest]):
            about = {"observationID": f"{media_id(picture)}-{index}", "classificationMethod": "human"}
            values = {**_of_picture(picture, clock), **_of_label(label, label), **box, **about}
            write(_row(OBSERVATIONS, values, own=not picture.deployment))


# Packages ------------------------------------------------------------------------------------------------------------

Content = bytes | Callable[[Write], None]
"""A file's content, or a function that writes its text in parts."""


def package(
    table: PictureTable, observations: Callable[[Write], None], species: Iterable[str], *, clock: Clock, now: datetime
) -> dict[str, Content]:
    """The files of a package around observations of a table's pictures, by name.

    Where the table is a package itself, its other files are copied byte by byte, and the description states that all
    observations are of media. Else deployments and media are made of the cameras' metadata and the pictures.

    Args:
        species: scientific names of the description.

    Raises:
        DataError: there are no pictures, one has no time or lies elsewhere, or a camera has no coordinates.
    """
    check_times(table.pictures)
    if table.format.startswith("Camtrap DP"):
        return {**_copied(table.source, now), "observations.csv": observations}
    _check_paths(table)
    table = replace(table, cameras=camera_values(table))
    by_deployment: dict[str, list[Picture]] = {}
    for picture in table.pictures:
        by_deployment.setdefault(picture.deployment or picture.camera, []).append(picture)
    made = {picture.camera for picture in table.pictures if not picture.deployment}
    deployments = [_deployment(name, found, table, clock) for name, found in by_deployment.items()]
    content = _description(table, deployments, species, now)
    return {
        DESCRIPTOR: _json(content),
        "deployments.csv": "".join(
            [line(*DEPLOYMENTS), *(_row(DEPLOYMENTS, row, own=row["deploymentID"] in made) for row in deployments)]
        ).encode(),
        "media.csv": lambda write: _write_media(write, table.pictures, clock),
        "observations.csv": observations,
    }


def _check_paths(table: PictureTable) -> None:
    paths = [picture.path for picture in table.pictures]
    outside = [path for path in paths if is_absolute(path) or ".." in path.split("/")]
    if not paths:
        raise DataError(f"{table.source} has no pictures to make a package of.")
    if outside:
        raise DataError(
            f"{len(outside)} of {len(paths)} pictures are not below {table.root} (the first is {outside[0]}), as a "
            "Camtrap DP package needs. Name a folder above all of them: -o root=FOLDER."
        )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _copied(source: Path, now: datetime) -> dict[str, Content]:
    """The files of a package but for its observations, and its description with what is new."""
    found = open_package(source)
    root: Any = ZipPath(found.path, found.inner) if found.zipped else found.path
    content = dict(found.descriptor)
    content["created"] = now.isoformat(timespec="seconds")
    content.pop("id", None)  # of the source package
    content["project"] = {**content.get("project", {}), "observationLevel": ["media"]}
    files: dict[str, Content] = {}
    for resource in content["resources"]:
        if resource.get("name") == "observations":
            for key in ("data", "dialect", "hash", "bytes", "compression"):  # of the source's own observations
                resource.pop(key, None)
            resource |= {"path": "observations.csv", "format": "csv", "mediatype": "text/csv", "encoding": "utf-8"}
            continue
        paths = resource.get("path", ())
        for path in [paths] if isinstance(paths, str) else paths:
            clean = clean_path(path)
            if "://" not in clean and ".." not in PurePosixPath(clean).parts:
                files[clean] = (root / clean).read_bytes()
    return {**files, DESCRIPTOR: _json(content)}


def _deployment(name: str, pictures: Sequence[Picture], table: PictureTable, clock: Clock) -> dict[str, str]:
    """A row of the deployments; metadata that the standard has no column for become tags."""
    camera = pictures[0].camera
    columns = {spelling_key(column).replace(" ", ""): column for column in DEPLOYMENTS}
    columns |= COORDINATES
    given: dict[str, str] = {}
    others: dict[str, str] = {}
    for key, value in table.cameras.get(camera, {}).items():
        column = columns.get(spelling_key(key).replace(" ", ""))
        (others if column is None else given)[column or key] = value
    lacking = [column for column in LIMITS if not given.get(column)]
    if lacking:
        raise DataError(
            f"Camera {camera!r} has no {lacking[0]}, which a Camtrap DP package needs of every camera. Add it to the "
            "cameras' metadata, or name an --out that ends in .csv: then observations alone are written."
        )
    given |= {column: _degrees(given[column], column, camera) for column in LIMITS}
    times = [picture.time for picture in pictures if picture.time is not None]
    stamps = sorted(clock.stamp(time) for time in (min(times), max(times)))
    tags = " | ".join(filter(None, (given.get("deploymentTags"), _tags(others))))
    spans = {"deploymentStart": stamps[0], "deploymentEnd": stamps[-1]}
    names = {"deploymentID": name, "locationID": camera, "locationName": camera}
    return {**spans, **names, **given, "deploymentID": name, "deploymentTags": tags}


def _degrees(text: str, column: str, camera: str) -> str:
    """A coordinate in decimal degrees; raises :class:`DataError` where it is none."""
    numbers = number_column([text], LIMITS[column])
    value = None if numbers is None else numbers.values.get(text)
    if value is None or abs(value) > LIMITS[column]:
        raise DataError(f"Camera {camera!r} has the {column} {text!r}; give it in decimal degrees.")
    return text if not parse_number(text).oddity else f"{value:.12g}"


def _write_media(write: Write, pictures: Iterable[Picture], clock: Clock) -> None:
    write(line(*MEDIA))
    for picture in pictures:
        path = PurePosixPath(picture.path)
        row = {
            "mediaID": media_id(picture),
            "deploymentID": picture.deployment or picture.camera,
            "timestamp": "" if picture.time is None else clock.stamp(picture.time),
            "filePath": plain_path(picture.path),
            "filePublic": "false",
            "fileName": path.name,
            "fileMediatype": mimetypes.guess_type(path.name)[0] or "image/jpeg",
        }
        write(_row(MEDIA, row, own=not picture.deployment))


def _description(
    table: PictureTable, deployments: Sequence[Mapping[str, str]], species: Iterable[str], now: datetime
) -> dict[str, Any]:
    tables = ("deployments", "media", "observations")
    common = {"profile": "tabular-data-resource", "format": "csv", "mediatype": "text/csv", "encoding": "utf-8"}
    resources = [
        {"name": name, "path": f"{name}.csv", **common, "schema": f"{SCHEMAS}/{name}-table-schema.json"}
        for name in tables
    ]
    points = [[float(row["longitude"]), float(row["latitude"])] for row in deployments]
    days = sorted(day[:10] for row in deployments for day in (row["deploymentStart"], row["deploymentEnd"]))
    return {
        "resources": resources,
        "profile": f"{SCHEMAS}/camtrap-dp-profile.json",
        "name": "wildpdiff",
        "created": now.isoformat(timespec="seconds"),
        "contributors": [{"title": "wildpdiff", "role": "contributor"}],
        "project": {
            "title": table.source.stem,
            "samplingDesign": "opportunistic",
            "captureMethod": ["activityDetection"],
            "individualAnimals": False,
            "observationLevel": ["media"],
        },
        "spatial": {"type": "MultiPoint", "coordinates": points},
        "temporal": {"start": days[0], "end": days[-1]},
        "taxonomic": [{"scientificName": name} for name in sorted(set(species))],
    }
