"""The simulated network as files: COCO Camera Traps, a CSV table, JPEG images and backgrounds."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image

from wildbench.datasets.savanna.suite import SavannaSuite, SavannaTask
from wildbench.datasets.savanna.world import WORLD_VERSION
from wildpdiff.disk import own_entries, write_folder
from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.task import SPLITS, SplitName

_YEAR = 2024
_DEPLOYMENT_DAYS = 40
_QUALITY = 95


def export_camera_traps(
    suite: SavannaSuite, tasks: Sequence[SavannaTask], folder: Path, splits: Sequence[SplitName] = SPLITS
) -> Path:
    """Write locations as an ordinary camera-trap data set and return its folder.

    The folder holds ``images/LOCATION/*.jpg``, ``backgrounds/LOCATION/*.jpg``, ``annotations.json`` in the COCO
    Camera Traps format, and ``images.csv`` with the columns path, label, task, split and one per metadata field.
    It appears complete or not at all: everything is written into a sibling that is renamed at the end.

    Args:
        suite: gives the classes, the metadata's fields and the fingerprint.
        tasks: the locations to write.
        folder: the target; missing or empty.
        splits: the splits to write.

    Raises:
        DataError: the target is not an empty folder, or there is no task or split to write.
        ArtifactError: the disk does not take the files.
    """
    folder = Path(folder)
    if not tasks or not splits:
        raise DataError("There is nothing to export; give at least one task and one split.")
    if folder.exists() and (not folder.is_dir() or own_entries(folder)):
        raise DataError(f"{folder} exists and is not an empty folder; give a new one, or empty it.")
    write_folder(folder, lambda partial: _write(suite, tasks, partial, splits))
    return folder


def _write(suite: SavannaSuite, tasks: Sequence[SavannaTask], folder: Path, splits: Sequence[SplitName]) -> None:
    rows: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for task in tasks:
        backgrounds = task.description.backgrounds
        if backgrounds is not None:
            _save(backgrounds, folder, [f"backgrounds/{task.name}/{i:02d}.jpg" for i in range(len(backgrounds))])
        for split in splits:
            data = task.data(split)
            paths = [f"images/{task.name}/{split}-{i:05d}.jpg" for i in range(len(data))]
            _save(data.images, folder, paths)
            for path, label, moment in zip(paths, data.labels, _moments(task, split), strict=True):
                name = suite.classes[label]
                rows.append({"path": path, "label": name, "task": task.name, "split": split, **task.location.metadata})
                images.append(_image(path, suite.image_size, task.name, moment))
    categories = {name: i for i, name in enumerate(suite.classes)}
    annotations = [
        {"id": f"annotation-{row['path']}", "image_id": row["path"], "category_id": categories[row["label"]]}
        for row in rows
    ]
    content = {
        "info": {
            "version": str(WORLD_VERSION),
            "description": "Simulated camera traps of the suite savanna",
            "contributor": "wildpdiff",
            "year": _YEAR,
            "fingerprint": suite.fingerprint,
        },
        "images": images,
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
        "annotations": annotations,
    }
    (folder / "annotations.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    columns = ["path", "label", "task", "split", *suite.metadata_schema.names]
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _image(path: str, size: int, location: str, moment: datetime) -> dict[str, Any]:
    return {
        "id": path,
        "file_name": path,
        "width": size,
        "height": size,
        "location": location,
        "datetime": moment.strftime("%Y-%m-%d %H:%M:%S"),
        "seq_id": path.removesuffix(".jpg"),
        "seq_num_frames": 1,
        "frame_num": 1,
    }


def _moments(task: SavannaTask, split: SplitName) -> list[datetime]:
    """When each picture was taken: the drawn hour, on days spread over the deployment around its season."""
    hours = task.frames(split).hour
    first = datetime(_YEAR, 1, 1) + timedelta(days=round(task.location.season) - _DEPLOYMENT_DAYS // 2)
    step = _DEPLOYMENT_DAYS / max(len(hours), 1)
    return [first + timedelta(days=int(i * step), seconds=int(3600 * float(hour))) for i, hour in enumerate(hours)]


def _save(images: Images, folder: Path, paths: Sequence[str]) -> None:
    for image, path in zip(images, paths, strict=True):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target, quality=_QUALITY, subsampling=0)
