"""Fifteen cameras of real frames, in tables with the flaws that tables have.

Made from a local copy of the frames of Missouri Camera Traps: ``images/``, and ``index.csv`` with ``file``,
``sequence``, ``species`` and one box. Frames without a box count as blank.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

BOX = "yolo_box_cx_cy_w_h"
DRIVE = "D:\\Kamerafallen\\2023\\"
"""Of the paths in the table, as the machine that wrote it had them."""
HEADER = ("", "Datei", "Art", "Standort", "Aufnahmezeit", "Temperatur")
ABOUT = ("Standort", "Breite", "Länge", "Höhe", "Lebensraum", "Kameramodell")


@dataclass(frozen=True)
class Frame:
    """A frame of the original, and where it comes to lie."""

    source: str
    species: str
    box: str
    camera: str
    time: datetime
    path: str


def sequences(index: Path) -> list[list[dict[str, str]]]:
    """The rows of each sequence, sequences by name."""
    found: dict[str, list[dict[str, str]]] = {}
    with index.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["sequence"], []).append(row)
    return [sorted(found[name], key=lambda row: row["file"]) for name in sorted(found)]


def placed(index: Path, settings: dict[str, Any]) -> Iterator[Frame]:
    """All frames, each with its camera, time and path."""
    rest = sequences(index)
    random.Random(settings["seed"]).shuffle(rest)
    common = next(rows for rows in rest if len(rows) >= 20)
    rest.remove(common)
    cameras = {settings["one_species"]: [common], settings["few"]: [rest.pop()[:6]]}
    for camera in (*settings["cameras"], settings["unlabelled"]):
        cameras[camera] = [rest.pop() for _ in range(settings["sequences"])]
    for number, (camera, found) in enumerate(cameras.items()):
        time = datetime(2023, 4, 1 + number, 5, 30)
        for place, row in enumerate(row for rows in found for row in rows):
            time += timedelta(seconds=2) if place % settings["burst"] else timedelta(hours=7, minutes=11)
            path = f"Kamera {number + 1:02}/Frühling/DCIM/{100 + place // 50}RECNX/IMG_{place + 1:04}.JPG"
            yield Frame(row["file"], row["species"], row[BOX], camera, time, path)


def make(data: Path, out: Path, settings: dict[str, Any]) -> None:
    """Write ``out/bilder`` with the pictures, and ``bilder.csv``, ``kameras.csv`` and ``detektor.json`` next to it."""
    frames = list(placed(data / "index.csv", settings))
    for frame in frames:
        file = out / "bilder" / frame.path
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "images" / frame.source, file)
    damaged = out / "bilder" / frames[200].path
    damaged.write_bytes(damaged.read_bytes()[:2000])
    (out / "bilder" / frames[400].path).unlink()
    write_table(out / "bilder.csv", HEADER, [table_row(number, frame, settings) for number, frame in enumerate(frames)])
    names = list(dict.fromkeys(frame.camera for frame in frames))
    write_table(out / "kameras.csv", ABOUT, [camera_row(number, name) for number, name in enumerate(names)])
    write_detections(out / "detektor.json", frames)


def table_row(number: int, frame: Frame, settings: dict[str, Any]) -> tuple[str, ...]:
    """R's row number, an absolute path of Windows, a label in one of several spellings, a time and a temperature."""
    label = frame.species if frame.box or frame.camera == settings["one_species"] else "blank"
    spellings = (label, label, label.lower(), label.replace("_", " ") + " ")
    written = "" if frame.camera == settings["unlabelled"] else spellings[number % 4]
    file = DRIVE + frame.path.replace("/", "\\")
    degrees = f"{number % 170 / 10:.1f}".replace(".", ",")
    return (str(number + 1), file, written, frame.camera, f"{frame.time:%d.%m.%Y %H:%M:%S}", degrees)


def camera_row(number: int, name: str) -> tuple[str, ...]:
    """Coordinates with decimal commas, a height of which one has a separator and one a unit, categories."""
    height = {3: "1,480", 5: "620 m"}.get(number, str(400 + 35 * number))
    place = (f"46,{9000 + 37 * number}", f"7,{4100 + 53 * number}")
    return (name, *place, height, ("Wald", "Wiese", "Bach")[number % 3], ("Reconyx", "Bushnell")[number % 2])


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """As a spreadsheet of a country with decimal commas saves it."""
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=";").writerows([header, *rows])


def write_detections(path: Path, frames: list[Frame]) -> None:
    """A detector's output on the folder of pictures."""
    images = []
    for frame in frames:
        detections = []
        if frame.box:
            x, y, width, height = map(float, frame.box.split("|")[0].split())
            box = [round(max(0.0, corner), 4) for corner in (x - width / 2, y - height / 2)]
            sides = [round(min(side, 1 - corner), 4) for side, corner in zip((width, height), box, strict=True)]
            detections.append({"category": "1", "conf": 0.9, "bbox": [*box, *sides]})
        images.append({"file": frame.path, "detections": detections})
    kinds = {"1": "animal", "2": "person", "3": "vehicle"}
    document = {
        "info": {"format_version": "1.4", "detector": "md_v5a.0.0"},
        "detection_categories": kinds,
        "images": images,
    }
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
