"""Frames of the simulated network in the layout of WILDS iWildCam, for tests of its protocol without its pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from wildbench.datasets.savanna.suite import SavannaConfig, SavannaSuite, SavannaTask
from wildpdiff.disk import own_entries, write_folder
from wildpdiff.errors import DataError
from wildpdiff.rng import first_by_name, numpy_generator
from wildpdiff.tasks.description import Images

FIRST_DAY = datetime(2020, 3, 1)
DAYS = 180
SHARES = {"val": 0.1, "test": 0.3}
"""Of the cameras; the others are of ``train``, ``id_val`` and ``id_test``."""

ID_DAYS = {"id_val": 0.15, "id_test": 0.15}
"""Of a training camera's days."""

COLUMNS = (
    "", "split", "location_remapped", "location", "sequence_remapped", "seq_id", "y", "category_id", "datetime",
    "filename", "image_id",
)  # fmt: skip


@dataclass(frozen=True)
class WildsConfig:
    """Size of the simulated data set.

    Attributes:
        seed: of cameras, days, bursts and splits.
        cameras: number of them; a tenth become ``val``, three tenths ``test``.
        bursts: of each camera, of one to three frames.
        image_size: pixels a side.
    """

    seed: int = 0
    cameras: int = 30
    bursts: int = 150
    image_size: int = 40

    def __post_init__(self) -> None:
        if self.cameras < 10 or self.bursts < 1:
            raise DataError(
                f"There are {self.cameras} cameras of {self.bursts} bursts. Give at least 10 cameras and a burst each."
            )


@dataclass(frozen=True)
class _Frame:
    camera: str
    burst: int
    split: str
    label: int
    time: datetime
    image: Images


def write_wilds(folder: Path | str, config: WildsConfig = WildsConfig()) -> Path:
    """Write ``metadata.csv``, ``categories.csv`` and the JPEG images in ``train``; the folder appears complete.

    Frames of a burst are one picture, moved by up to two pixels and with noise of their own, seconds apart.

    Raises:
        DataError: the target is not an empty folder.
        ArtifactError: the disk does not take the files.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or own_entries(folder)):
        raise DataError(f"{folder} exists and is not an empty folder; give a new one, or empty it.")
    sizes = SavannaConfig(config.seed, config.cameras, 0, 0, config.bursts, 0, 0, image_size=config.image_size)
    suite = SavannaSuite(sizes)
    write_folder(folder, lambda partial: _write(partial, suite, config))
    return folder


def _write(folder: Path, suite: SavannaSuite, config: WildsConfig) -> None:
    tasks = suite.tasks("seen")
    names = [task.name for task in tasks]
    held_out: dict[str, str] = {}
    for split, share in SHARES.items():
        rest = [name for name in names if name not in held_out]
        chosen = first_by_name(rest, round(share * len(names)), config.seed, "cameras", split)
        held_out |= {rest[index]: split for index in chosen}
    categories = ["empty", *(name for name in suite.classes if name != "blank")]
    (folder / "train").mkdir(parents=True)
    rows: list[Sequence[object]] = []
    for number, task in enumerate(tasks):
        for frame in _frames(task, held_out.get(task.name), config):
            name = suite.classes[frame.label]
            y = 0 if name == "blank" else categories.index(name)
            image_id = f"{task.name}-{frame.burst:04d}-{frame.time:%H%M%S}"
            Image.fromarray(frame.image).save(folder / "train" / f"{image_id}.jpg", quality=95, subsampling=0)
            burst = number * config.bursts + frame.burst
            sequence = f"{task.name}-{frame.burst:04d}"
            when = f"{frame.time:%Y-%m-%d %H:%M:%S}.000"
            rows.append(
                (len(rows), frame.split, number, 100 + number, burst, sequence, y, 10 * y, when, f"{image_id}.jpg",
                 image_id)
            )  # fmt: skip
    _table(folder / "metadata.csv", COLUMNS, rows)
    classes = [(y, 10 * y, name) for y, name in enumerate(categories)]
    _table(folder / "categories.csv", ("y", "category_id", "name"), classes)


def _frames(task: SavannaTask, held_out: str | None, config: WildsConfig) -> Iterator[_Frame]:
    rng = numpy_generator(config.seed, "wilds", task.name)
    content, data = task.frames("train"), task.data("train")
    days = np.sort(rng.integers(DAYS, size=len(data)))
    different = rng.permutation(np.unique(days))
    splits: dict[int, str] = {}
    start = 0
    for name, share in ID_DAYS.items():
        end = start + max(1, round(share * len(different)))
        splits |= dict.fromkeys(different[start:end].tolist(), name)
        start = end
    for burst, day in enumerate(days.tolist()):
        first = FIRST_DAY + timedelta(days=day, hours=min(float(content.hour[burst]), 23.9))
        for number in range(int(rng.integers(1, 4))):
            image = _moved(data.images[burst], rng) if number else data.images[burst]
            time = (first + timedelta(seconds=2 * number)).replace(microsecond=0)
            split = held_out or splits.get(day, "train")
            yield _Frame(task.name, burst, split, int(data.labels[burst]), time, image)


def _moved(image: Images, rng: np.random.Generator) -> Images:
    """The next frame of a burst."""
    across, down = (int(shift) for shift in rng.integers(-2, 3, size=2))
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    size = len(image)
    moved = padded[2 + down : 2 + down + size, 2 + across : 2 + across + size]
    noise = rng.normal(0, 2, size=moved.shape)
    return np.clip(moved + noise, 0, 255).round().astype(np.uint8)


def _table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
