"""The export: a round trip through the files, and targets that are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refusals import refused
from wildbench.datasets.savanna import SavannaConfig, SavannaSuite, export_camera_traps
from wildpdiff.errors import ArtifactError, DataError

CONFIG = SavannaConfig(seen=2, unseen=0, pretraining=0, train=12, validation=4, test=6, backgrounds=4)


@pytest.fixture(scope="module")
def suite() -> SavannaSuite:
    return SavannaSuite(CONFIG)


@pytest.fixture(scope="module")
def folder(suite: SavannaSuite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_camera_traps(suite, suite.tasks("seen"), tmp_path_factory.mktemp("export") / "network")


def test_table_and_pixels_come_back(suite: SavannaSuite, folder: Path) -> None:
    rows = list(csv.DictReader((folder / "images.csv").open(encoding="utf-8")))
    assert list(rows[0]) == ["path", "label", "task", "split", *suite.metadata_schema.names]
    for task in suite.tasks("seen"):
        for split in ("train", "validation", "test"):
            data = task.data(split)
            own = [row for row in rows if (row["task"], row["split"]) == (task.name, split)]
            assert [row["label"] for row in own] == [suite.classes[label] for label in data.labels]
            read = np.stack([np.asarray(Image.open(folder / row["path"])) for row in own])
            assert read.shape == data.images.shape
            assert np.abs(read.astype(int) - data.images).mean() < 3
            metadata = suite.metadata_schema.check({name: own[0][name] for name in suite.metadata_schema.names})
            assert metadata == task.location.metadata


def test_annotations_are_coco_camera_traps(suite: SavannaSuite, folder: Path) -> None:
    content = json.loads((folder / "annotations.json").read_text())
    assert set(content) == {"info", "images", "categories", "annotations"}
    assert [entry["name"] for entry in content["categories"]] == list(suite.classes)
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    labels = {entry["image_id"]: names[entry["category_id"]] for entry in content["annotations"]}
    assert len({entry["id"] for entry in content["annotations"]}) == len(content["images"]) == 44
    table = {row["path"]: row["label"] for row in csv.DictReader((folder / "images.csv").open(encoding="utf-8"))}
    assert {entry["file_name"]: labels[entry["id"]] for entry in content["images"]} == table
    for entry in content["images"]:
        assert {"width", "height", "location", "datetime", "seq_id", "seq_num_frames", "frame_num"} <= set(entry)
        hour = int(entry["datetime"][11:13])
        gray = np.ptp(np.asarray(Image.open(folder / entry["file_name"])).astype(int), axis=-1).max() == 0
        assert gray == (hour >= 18 or hour < 6)


def test_backgrounds_are_there(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "backgrounds" / "seen-001").iterdir()) == [
        f"{i:02d}.jpg" for i in range(4)
    ]


def test_one_split_alone(suite: SavannaSuite, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    target = export_camera_traps(suite, suite.tasks("seen")[:1], tmp_path / "empty", ("test",))
    assert len(list((target / "images" / "seen-000").iterdir())) == 6


def test_a_target_with_files_is_refused_and_left_alone(suite: SavannaSuite, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with refused(DataError, target):
            export_camera_traps(suite, suite.tasks("seen"), target)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_to_export_is_refused(suite: SavannaSuite, tmp_path: Path) -> None:
    with refused(DataError):
        export_camera_traps(suite, [], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failing_disk_leaves_nothing_behind(
    suite: SavannaSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with refused(ArtifactError, "No space left"):
        export_camera_traps(suite, suite.tasks("seen"), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
