"""A folder as an ecologist has it: wide frames of several cameras, a detector's file, and tables with flaws."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

import wildpdiff
from wildpdiff.tasks.task import ImageTask

NAMES = (
    "Föhrenwald Nord/3",
    "Заповедник 4",
    "渓谷5",
    "Río Hondo",
    "North ridge",
    "Bach 2",
    "Süd 7",
    "Ost 8",
    "Grat 9",
    "Alm 10",
)
"""Cameras that can teach."""

FEW, ONE, NEW = "Neu 11", "Salzlecke 12", "Île déserte 13"
"""Cameras with few pictures, with one species, and without labels."""

FRAME = (72, 48)
"""Width and height of a frame in pixels."""

HEADER = ("", "RelativePath", "File", "Species", "Station", "DateTime", "Temperature")


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        camera: its name.
        folder: of the frame, below that of all pictures.
        name: of the file.
        label: the species.
        time: of exposure.
        box: left, top, width and height in fractions of the frame; empty where there is no animal.
    """

    camera: str
    folder: str
    name: str
    label: str
    time: datetime
    box: tuple[float, ...] = ()

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"


@dataclass
class Field:
    """The folder.

    Attributes:
        folder: with ``pictures``, ``labels.csv``, ``detections.json``, ``cameras.csv`` and ``images.csv``.
        frames: all of them.
    """

    folder: Path
    frames: list[Frame] = field(default_factory=list)

    def of(self, camera: str) -> list[Frame]:
        return [frame for frame in self.frames if frame.camera == camera]


def write(folder: Path, bursts: int = 14) -> Field:
    """Frames of savanna's sites, in bursts of two, and all files on them.

    One picture is cut short and one is missing; labels have variants; a camera has two bursts, one a single species,
    one no label. ``images.csv`` has the columns path, label and task alone, of the cameras that can teach.
    """
    names = (*NAMES, FEW, ONE, NEW)
    suite = wildpdiff.load_suite("savanna", seen=len(names), unseen=1, train=2 * bursts, validation=2, test=2)
    made = Field(folder)
    for number, (name, site) in enumerate(zip(names, suite.tasks("seen"), strict=True)):
        _camera(made, number, name, site, suite.classes, 2 if name == FEW else bursts)
    _spoil(made)
    _write_csv(folder / "labels.csv", HEADER, [_row(number, frame) for number, frame in enumerate(made.frames)])
    about = [_about(name, site) for name, site in zip(names, suite.tasks("seen"), strict=True)]
    _write_csv(folder / "cameras.csv", ("Station", "Latitude", "Longitude", "Elevation", "Habitat"), about)
    plain = [(f"pictures/{frame.path}", frame.label, frame.camera) for frame in made.frames if frame.camera in NAMES]
    _write_csv(folder / "images.csv", ("path", "label", "task"), plain, ",")
    _write_detections(folder / "detections.json", made.frames)
    return made


def _camera(made: Field, number: int, name: str, site: ImageTask, classes: Sequence[str], bursts: int) -> None:
    data, grounds = site.data("train"), site.description.backgrounds
    assert grounds is not None
    draw = np.random.default_rng(number)
    order = [index for index in range(len(data.images)) if classes[data.labels[index]] != "blank"]
    common = int(np.bincount(data.labels[order]).argmax())
    time = datetime(2024, 3, 1, 6) + timedelta(days=number)
    folder = f"{number + 1:02}/spring/DCIM/100RECNX"
    (made.folder / "pictures" / folder).mkdir(parents=True)
    for burst in range(bursts):
        index = order[burst % len(order)]
        label = classes[common if name == ONE else data.labels[index]]
        label = "blank" if burst % 4 == 3 and name != ONE else label
        time += timedelta(hours=5)
        for shot in range(2):
            ground = Image.fromarray(grounds[(burst + shot) % len(grounds)]).resize(FRAME)
            box: tuple[float, ...] = ()
            if label != "blank":
                animal = Image.fromarray(data.images[index])
                left, top = (int(draw.integers(0, side - cut)) for side, cut in zip(FRAME, animal.size, strict=True))
                ground.paste(animal, (left, top))
                sides = (left / FRAME[0], top / FRAME[1], animal.width / FRAME[0], animal.height / FRAME[1])
                box = tuple(round(side, 4) for side in sides)
            frame = Frame(
                name, folder, f"IMG_{2 * burst + shot + 1:04}.JPG", label, time + timedelta(seconds=shot), box
            )
            ground.save(made.folder / "pictures" / frame.path, quality=90)
            made.frames.append(frame)


def _spoil(made: Field) -> None:
    broken, gone = (made.folder / "pictures" / made.of(NAMES[number])[number].path for number in (2, 3))
    broken.write_bytes(broken.read_bytes()[:700])
    gone.unlink()


def _row(number: int, frame: Frame) -> tuple[str, ...]:
    spellings = (frame.label, frame.label.replace("_", " ").capitalize() + " ")
    label = "" if frame.camera == NEW else spellings[number % 5 == 0]
    folder = "\\".join(("pictures", *frame.folder.split("/")))
    time = f"{frame.time:%d.%m.%Y %H:%M:%S}"
    return (str(number + 1), folder, frame.name, label, frame.camera, time, f"{number % 30},5")


def _about(name: str, site: ImageTask) -> tuple[str, ...]:
    values = site.description.metadata
    assert values is not None
    height = f"{float(values['elevation']):.0f}"
    place = (f"{float(values[word]):.4f}".replace(".", ",") for word in ("latitude", "longitude"))
    return (name, *place, f"{height} m" if name == NAMES[1] else height, str(values["habitat"]))


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str = ";") -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header, *rows])


def _write_detections(path: Path, frames: Sequence[Frame]) -> None:
    images = [
        {
            "file": f"pictures/{frame.path}",
            "detections": [{"category": "1", "conf": 0.9, "bbox": list(frame.box)}] if frame.box else [],
        }
        for frame in frames
    ]
    info = {"format_version": "1.5", "detector": "md_v5a.0.0.pt"}
    kinds = {"1": "animal", "2": "person", "3": "vehicle"}
    path.write_text(json.dumps({"info": info, "detection_categories": kinds, "images": images}), encoding="utf-8")


def copy(made: Field, folder: Path) -> Field:
    """The same files in another folder."""
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return Field(folder, made.frames)
