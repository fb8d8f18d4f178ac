"""The rules of Camtrap DP 1.0.2, as far as its published schemas state them, as an independent reader checks them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

MISSING = {"", "NA", "NaN", "nan"}

COLUMNS = {
    "deployments": "deploymentID locationID locationName latitude longitude coordinateUncertainty deploymentStart "
    "deploymentEnd setupBy cameraID cameraModel cameraDelay cameraHeight cameraDepth cameraTilt cameraHeading "
    "detectionDistance timestampIssues baitUse featureType habitat deploymentGroups deploymentTags "
    "deploymentComments",
    "media": "mediaID deploymentID captureMethod timestamp filePath filePublic fileName fileMediatype exifData "
    "favorite mediaComments",
    "observations": "observationID deploymentID mediaID eventID eventStart eventEnd observationLevel observationType "
    "cameraSetupType scientificName count lifeStage sex behavior individualID individualPositionRadius "
    "individualPositionAngle individualSpeed bboxX bboxY bboxWidth bboxHeight classificationMethod classifiedBy "
    "classificationTimestamp classificationProbability observationTags observationComments",
}
REQUIRED = {
    "deployments": "deploymentID latitude longitude deploymentStart deploymentEnd",
    "media": "mediaID deploymentID timestamp filePath filePublic fileMediatype",
    "observations": "observationID deploymentID eventStart eventEnd observationLevel observationType",
}
ENUMS = {
    "observationLevel": "media event",
    "observationType": "animal human vehicle blank unknown unclassified",
    "classificationMethod": "human machine",
    "captureMethod": "activityDetection timeLapse",
    "filePublic": "true false",
    "baitUse": "true false",
    "featureType": "roadPaved roadDirt trailHiking trailGame roadUnderpass roadOverpass roadBridge culvert burrow "
    "nestSite carcass waterSource fruitingTree",
}
RANGES = {
    "latitude": (-90.0, 90.0),
    "longitude": (-180.0, 180.0),
    "cameraHeading": (0.0, 360.0),
    "cameraTilt": (-90.0, 90.0),
    "bboxX": (0.0, 1.0),
    "bboxY": (0.0, 1.0),
    "bboxWidth": (0.0, 1.0),
    "bboxHeight": (0.0, 1.0),
    "classificationProbability": (0.0, 1.0),
}
TIMES = ("deploymentStart", "deploymentEnd", "timestamp", "eventStart", "eventEnd", "classificationTimestamp")
DESCRIPTION = "resources profile created contributors project spatial temporal taxonomic"
PROJECT = "title samplingDesign captureMethod individualAnimals observationLevel"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def faults(folder: Path) -> list[str]:
    """Every rule that a package in a folder breaks, one text each; empty for a legal one."""
    return [*_of_description(json.loads((folder / "datapackage.json").read_bytes()), folder), *_of_tables(folder)]


def _of_description(content: dict[str, object], folder: Path) -> Iterator[str]:
    yield from (f"no {key}" for key in DESCRIPTION.split() if not content.get(key))
    project = content.get("project", {})
    assert isinstance(project, dict)
    yield from (f"no project.{key}" for key in PROJECT.split() if key not in project)
    resources = content["resources"]
    assert isinstance(resources, list)
    named = {entry["name"]: entry for entry in resources}
    for name in COLUMNS:
        entry = named.get(name, {})
        keys = ("path", "profile", "format", "mediatype", "encoding", "schema")
        yield from (f"{name}: no {key}" for key in keys if key not in entry)
        if not (folder / str(entry.get("path"))).is_file():
            yield f"{name}: there is no file {entry.get('path')}"


def _of_tables(folder: Path) -> Iterator[str]:
    tables = {name: table(folder / f"{name}.csv") for name in COLUMNS}
    for name, rows in tables.items():
        yield from (f"{name}: {fault}" for fault in table_faults(name, rows))
    deployments = {row["deploymentID"] for row in tables["deployments"]}
    media = {row["mediaID"] for row in tables["media"]}
    for name in ("media", "observations"):
        yield from (f"{name}: deployment {row['deploymentID']!r} is unknown" for row in tables[name]
                    if row["deploymentID"] not in deployments)  # fmt: skip
    for row in tables["observations"]:
        if row["observationLevel"] == "media" and row["mediaID"] not in media:
            yield f"observations: media {row['mediaID']!r} is unknown"


def table_faults(name: str, rows: list[dict[str, str]]) -> Iterator[str]:
    """Faults of one table: columns, keys, required values, enumerations, ranges, times."""
    columns = COLUMNS[name].split()
    key = columns[0]
    keys = [row[key] for row in rows]
    if len(set(keys)) < len(keys):
        yield f"{key} is not unique"
    for row in rows:
        # A package of before 1.0.1 has no cameraDelay.
        if [column for column in columns if column != "cameraDelay" or column in row] != list(row):
            yield f"columns {list(row)}"
        for column, value in row.items():
            missing = value in MISSING
            if missing:
                if column in REQUIRED[name].split():
                    yield f"{column} of {row[key]!r} is missing"
                continue
            if column in ENUMS and value not in ENUMS[column].split():
                yield f"{column} {value!r}"
            if column in TIMES and not _time(value):
                yield f"{column} {value!r} has no time with a zone"
            if column in RANGES and not RANGES[column][0] <= float(value) <= RANGES[column][1]:
                yield f"{column} {value!r}"
        if row.get("observationType") in ("blank", "vehicle", "unknown") and row["scientificName"]:
            yield f"{row[key]!r} is {row['observationType']} and has a scientificName"
        if ".." in row.get("filePath", "").split("/"):
            yield f"filePath {row['filePath']!r}"


def _time(text: str) -> bool:
    zoned = re.search(r"T\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)$", text) is not None
    return zoned and datetime.fromisoformat(text).tzinfo is not None
