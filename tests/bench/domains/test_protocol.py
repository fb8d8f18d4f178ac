"""The protocol of iWildCam on frames in WILDS' layout, against a slow twin that reads the table row by row."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from refusals import refused
from wildbench.datasets.savanna.wilds import WildsConfig, write_wilds
from wildbench.domains.protocol import SPLIT, ProtocolConfig, with_splits
from wildbench.studies.pooled_scores import macro_f1, pooled_accuracy
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.errors import DataError

CONFIG = WildsConfig(seed=3, cameras=12, bursts=24, image_size=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wilds(tmp_path_factory.mktemp("wilds") / "frames", CONFIG)


@pytest.fixture(scope="module")
def table(folder: Path) -> PictureTable:
    return read_pictures(folder)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_layout_has_every_split_and_months(folder: Path) -> None:
    rows = rows_of(folder)
    assert {row["split"] for row in rows} == {"train", "val", "test", "id_val", "id_test"}
    assert len({row["location"] for row in rows}) == CONFIG.cameras
    assert len({row["datetime"][:7] for row in rows}) >= 5
    assert max(sum(row["seq_id"] == name for row in rows) for name in {row["seq_id"] for row in rows}) == 3
    assert all((folder / "train" / row["filename"]).is_file() for row in rows)


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = write_wilds(tmp_path / "again", CONFIG)
    for path in folder.rglob("*.*"):
        assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()


def test_a_folder_with_files_is_not_overwritten(folder: Path) -> None:
    with refused(DataError, str(folder)):
        write_wilds(folder, CONFIG)


def test_stated_splits_equal_a_slow_twin(folder: Path, table: PictureTable) -> None:
    found = {picture.path: picture for picture in with_splits(table, ProtocolConfig(seed=1)).pictures}
    twin = {"train": "train", "id_val": "validation", "id_test": "test"}
    training = {row["location"] for row in rows_of(folder) if row["split"] in twin}
    by_group = defaultdict(set)
    for row in rows_of(folder):
        picture = next((entry for path, entry in found.items() if path.endswith(row["filename"])), None)
        if row["split"] == "val":
            assert picture is None
            continue
        assert picture is not None
        by_group[picture.group].add(row["location"])
        if row["split"] == "test":
            assert picture.group == "unseen"
        else:
            assert picture.group in ("seen", "pretraining")
            assert picture.split == twin[row["split"]]
    assert by_group["seen"] | by_group["pretraining"] == training
    assert not by_group["seen"] & by_group["pretraining"]
    assert abs(len(by_group["seen"]) - len(by_group["pretraining"])) <= 1


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("stated", [True, False])
def test_no_camera_and_no_burst_is_in_two_parts(table: PictureTable, by_time: bool, stated: bool) -> None:
    if not stated:
        table = replace(table, pictures=tuple(replace(picture, values={}) for picture in table.pictures))
    made = with_splits(table, ProtocolConfig(seed=5, by_time=by_time))
    assert {picture.group for picture in made.pictures} == {"pretraining", "seen", "unseen"}
    groups, splits = defaultdict(set), defaultdict(set)
    for picture in made.pictures:
        groups[picture.camera].add(picture.group)
        splits[picture.camera, picture.sequence].add(picture.split)
    assert all(len(found) == 1 for found in (*groups.values(), *splits.values()))
    assert {picture.split for picture in made.pictures} == {"train", "validation", "test"}


def test_in_the_order_of_time_no_test_picture_is_older_than_a_training_picture(table: PictureTable) -> None:
    made = with_splits(table, ProtocolConfig(by_time=True))
    times: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for picture in made.pictures:
        assert picture.time is not None
        times[picture.camera, picture.split].append(picture.time)
    for camera in {camera for camera, _ in times}:
        assert max(times[camera, "train"]) < min(times[camera, "validation"])
        assert max(times[camera, "validation"]) < min(times[camera, "test"])


def test_most_keeps_whole_bursts_of_training_cameras(table: PictureTable) -> None:
    every, few = with_splits(table), with_splits(table, ProtocolConfig(most=10))
    size = defaultdict(int)
    for picture in every.pictures:
        size[picture.camera, picture.sequence] += 1
    kept = defaultdict(int)
    for picture in few.pictures:
        kept[picture.camera, picture.sequence] += 1
    assert all(size[burst] == count for burst, count in kept.items())
    unseen = [picture for picture in every.pictures if picture.group == "unseen"]
    assert unseen == [picture for picture in few.pictures if picture.group == "unseen"]
    assert len(few.pictures) < len(every.pictures)


def test_a_further_camera_moves_no_burst_of_the_others(table: PictureTable) -> None:
    camera = next(picture.camera for picture in table.pictures if picture.values[SPLIT] == "test")
    fewer = replace(table, pictures=tuple(picture for picture in table.pictures if picture.camera != camera))
    before = {picture.path: picture for picture in with_splits(table).pictures if picture.camera != camera}
    assert before == {picture.path: picture for picture in with_splits(fewer).pictures}


def picture(number: int, split: str, camera: str = "a") -> Picture:
    return Picture(f"{camera}{number}.jpg", number, camera, ("deer",), values={SPLIT: split})


@pytest.mark.parametrize(
    ("splits", "named"),
    [(("train", "test"), "'a'"), (("train", "elsewhere"), "'elsewhere'"), (("train", ""), "''")],
)
def test_cameras_of_two_parts_and_unknown_splits_are_refused(splits: tuple[str, str], named: str) -> None:
    pictures = tuple(picture(number, split) for number, split in enumerate(splits))
    with refused(DataError, named):
        with_splits(PictureTable(Path("t.csv"), "test", Path("."), pictures))


def test_pictures_without_times_have_no_order() -> None:
    table = PictureTable(Path("t.csv"), "test", Path("."), (picture(0, "train"), picture(1, "test", "b")))
    with refused(DataError, "time"):
        with_splits(table, ProtocolConfig(by_time=True))


def test_macro_f1_and_accuracy_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 5, 182):
        targets = rng.integers(0, max(2, classes // 2), size=300)
        outputs = torch.from_numpy(rng.normal(size=(300, classes))).float()
        outputs[torch.arange(300), torch.from_numpy(targets)] += 2.0
        halves = [slice(0, 100), slice(100, 300)]
        batches = [(outputs[half], {"targets": torch.from_numpy(targets[half])}) for half in halves]
        predicted = outputs.argmax(1).numpy()
        score = macro_f1()
        counts = sum(score.counts(*batch) for batch in batches)
        expected = f1_score(targets, predicted, labels=np.unique(targets), average="macro", zero_division=0)
        assert float(score.value(counts)) == pytest.approx(expected, abs=1e-6)
        counts = sum(pooled_accuracy().counts(*batch) for batch in batches)
        assert float(pooled_accuracy().value(counts)) == pytest.approx(np.mean(predicted == targets))
