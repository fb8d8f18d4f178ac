"""Checked fields: texts, numbers, boxes, and where pictures are on this machine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from remarked import remarked
from wildpdiff.camera_traps.fields import box_of, frame_of, number_of, numbers_of, path_of, placed, share_of, text_of
from wildpdiff.camera_traps.records import Box
from wildpdiff.tables.remarks import Remarks


@pytest.mark.parametrize(
    ("value", "text"),
    [(" a ", "a"), (3, "3"), (3.0, "3"), (2.5, "2.5"), (True, "true"), (None, ""), ([1], ""), ({}, ""),
     (math.nan, ""), (math.inf, ""), ("a\0", "a\0"), ("ä\0", ""), ("\ud800", ""), ("лиса", "лиса")],
)  # fmt: skip
def test_texts(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_numbers() -> None:
    assert [number_of(value) for value in (1, "2.5", 10**400, "x", True, None, math.nan)] == [1, 2.5, *[None] * 5]
    assert [frame_of(value) for value in (0, "3", 2.0, -1, 2.5, None, "1e300")] == [0, 3, 2, None, None, None, None]
    assert [share_of(value) for value in (0, 1, "0.5", 1.1, -0.1)] == [0, 1, 0.5, None, None]
    assert numbers_of([1, 2.5], 2) == [1.0, 2.5]
    assert numbers_of([1], 2) is numbers_of("ab", 2) is numbers_of([1, "2"], 2) is numbers_of([1, True], 2) is None


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a\\b\\c.jpg", "a/b/c.jpg"),
        ("./a//b.jpg ", "a/b.jpg"),
        ("C:\\x\\b.jpg", "C:/x/b.jpg"),
        ("https://h.org/bucket/a%20b/%C3%A9.jpg?sig=1", "bucket/a b/é.jpg"),
        ("gs://bucket/deployment/1/x.JPG", "deployment/1/x.JPG"),
        ("a b/é.jpg", "a b/é.jpg"),
        ("", ""),
        ("..", ""),
        ("/", ""),
        ("a\0.jpg", ""),
        ("https://h.org/a%00.jpg", ""),
        ("http://[", ""),
        (7, ""),
    ],
)
def test_paths(written: Any, path: str) -> None:
    assert path_of(written) == path


def test_boxes_lie_within_the_picture() -> None:
    remarks = Remarks()
    assert box_of([0.5, 0.5, 0.5005, 0.25], remarks, "x", label="fox") == Box(0.5, 0.5, 0.5, 0.25, label="fox")
    assert remarks.sentences() == (), "rounding is no fault"
    assert box_of([-0.5, 0.0, 1.0, 2.0], remarks, "first") == Box(0.0, 0.0, 0.5, 1.0)
    assert box_of([-0.5, 0.0, 1.0, 2.0], remarks, "second") == Box(0.0, 0.0, 0.5, 1.0)
    remarked(remarks.sentences(), 2, "first")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_pictures_below_the_folder_or_below_one_in_it(tmp_path: Path) -> None:
    paths = ["c1/1.jpg", "c2/1.jpg"]
    assert placed(tmp_path, paths, Remarks()) == (tmp_path, paths), "nothing is on this machine"
    touch(tmp_path, "images/c2/1.jpg", "other/x.jpg")
    assert placed(tmp_path, paths, Remarks()) == (tmp_path / "images", paths)
    touch(tmp_path, "c1/1.jpg")
    assert placed(tmp_path, paths, Remarks()) == (tmp_path, paths)


def test_leading_folders_that_all_share_are_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "c1/1.jpg")
    remarks = Remarks()
    paths = ["bucket/set/c1/1.jpg", "bucket/set/c2/1.jpg"]
    assert placed(tmp_path, paths, remarks) == (tmp_path, ["c1/1.jpg", "c2/1.jpg"])
    remarked(remarks.sentences(), "bucket/set/")


def test_a_file_in_a_cameras_folder_may_count_from_above(tmp_path: Path) -> None:
    touch(tmp_path, "c1/IMG_1.JPG", "c2/IMG_1.JPG", "elsewhere/x/y/IMG_1.JPG")
    paths = ["c1/IMG_1.JPG", "c2/IMG_1.JPG"]
    assert placed(tmp_path / "c2", paths, Remarks()) == (tmp_path, paths)
    deep = tmp_path / "elsewhere" / "x" / "y"
    assert placed(deep, paths, Remarks()) == (deep, paths), "another camera's file of that name is no picture of theirs"


def test_absolute_paths(tmp_path: Path) -> None:
    touch(tmp_path, "c1/1.jpg")
    own = [f"{tmp_path}/c1/1.jpg", f"{tmp_path}/c2/1.jpg", ""]
    assert placed(tmp_path, own, Remarks()) == (tmp_path, ["c1/1.jpg", "c2/1.jpg", ""])
    remarks = Remarks()
    assert placed(tmp_path, ["D:/x/c1/1.jpg", "D:/x/c3/1.jpg"], remarks) == (tmp_path, ["c1/1.jpg", "c3/1.jpg"])
    remarked(remarks.sentences(), "D:/x/")
    for foreign in (["D:/x/c1/7.jpg", "D:/x/c1/8.jpg"], ["/else/7.jpg", "c9/1.jpg"]):
        remarks = Remarks()
        assert placed(tmp_path, foreign, remarks) == (tmp_path, foreign)
        remarked(remarks.sentences(), foreign[0])


def test_a_servers_folders_lie_in_a_folder_of_another_name(tmp_path: Path) -> None:
    touch(tmp_path, "cards/c1/1.jpg", "other/c7/1.jpg")
    found = placed(tmp_path, ["//NAS/cams/c1/1.jpg", "//NAS/cams/c2/1.jpg"], Remarks())
    assert found == (tmp_path / "cards", ["c1/1.jpg", "c2/1.jpg"])


def test_a_folder_relative_to_the_working_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "data/c1/1.jpg", "data/data/c2/1.jpg")
    folder = Path("data")
    assert placed(folder, [f"{tmp_path}/data/c1/1.jpg"], Remarks()) == (folder, ["c1/1.jpg"])
    assert placed(folder, ["data/c2/1.jpg"], Remarks()) == (folder, ["data/c2/1.jpg"])
