"""Timelapse's CSV."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.records import EMPTY
from wildpdiff.camera_traps.timelapse import TimelapseReader
from wildpdiff.errors import DataError


def write(folder: Path, text: str) -> Path:
    (folder / "TimelapseData.csv").write_text(text, encoding="utf-8-sig")
    assert isinstance(find_reader(folder / "TimelapseData.csv"), TimelapseReader)
    return folder / "TimelapseData.csv"


def test_pictures_times_labels_and_values(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "RootFolder,File,RelativePath,DateTime,DeleteFlag,Species,Station,Flag0\n"
        "Photos,1.JPG,St 1\\Dep A,2020-05-01T10:00:00,false,fox,St 1,true\n"
        "Photos,2.JPG,St 1\\Dep A,2020-05-01 10:00:05,True,fox,St 1,false\n"
        "Photos,3.JPG,,2020-05-01 10:00:05,FALSE,,St 2,\n",
    )
    table = read_pictures(path)
    assert table.format == "Timelapse CSV"
    assert [(p.path, p.camera, p.labels) for p in table.pictures] == [
        ("St 1/Dep A/1.JPG", "St 1", ("fox",)),
        ("3.JPG", "St 2", ()),
    ]
    assert table.pictures[0].time == datetime(2020, 5, 1, 10)
    assert table.pictures[0].values == {"Flag0": "true"}
    assert table.columns == ("Flag0",)
    assert len(table.remarks) == 1
    assert "line 3" in table.remarks[0]


def test_two_columns_of_time_and_a_species_that_must_be_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "File,RelativePath,Date,Time,DeleteFlag,Choice0\n"
        "1.JPG,Photos\\A\\SD1, 01-May-2020,10:00:00,false,fox\n"
        "2.JPG,Photos\\B\\SD1, 01-May-2020,10:00:00,false,deer\n",
    )
    table = read_pictures(path)
    assert [(p.camera, p.labels, p.time) for p in table.pictures] == [
        ("A", (), datetime(2020, 5, 1, 10)),
        ("B", (), datetime(2020, 5, 1, 10)),
    ]
    assert any("Choice0" in remark and "--columns label=" in remark for remark in table.remarks)
    named = read_pictures(path, {"label": "Choice0", "task": "RelativePath"})
    assert [p.labels for p in named.pictures] == [("fox",), ("deer",)]
    assert [p.camera for p in named.pictures] == ["Photos/A/SD1", "Photos/B/SD1"]
    assert [p.path for p in named.pictures] == ["Photos/A/SD1/1.JPG", "Photos/B/SD1/2.JPG"]


@pytest.mark.parametrize(
    ("folders", "cameras"),
    [
        (["P\\A", "P\\A"], ["A", "A"]),
        (["P\\A\\1", "P\\A\\2"], ["1", "2"]),
        (["A\\1", "B"], ["A", "B"]),
        (["", ""], ["", ""]),
    ],
)
def test_without_a_column_of_cameras_folders_are_cameras(
    tmp_path: Path, folders: list[str], cameras: list[str]
) -> None:
    rows = "".join(f"{n}.jpg,{folder},2020-05-01 10:00:00,fox\n" for n, folder in enumerate(folders))
    table = read_pictures(write(tmp_path, f"File,RelativePath,DateTime,Species\n{rows}"))
    assert [p.camera for p in table.pictures] == cameras


def test_a_flag_of_empty_pictures_is_the_label_of_those_without_one(tmp_path: Path) -> None:
    rows = ("true,", "FALSE,", "true,fox", ",", "1,NA")
    lines = [f"{number}.JPG,A,2020-05-01 10:00:00,{row}" for number, row in enumerate(rows)]
    table = read_pictures(write(tmp_path, "\n".join(["File,RelativePath,DateTime,Empty,Species", *lines])))
    assert [picture.labels for picture in table.pictures] == [(EMPTY,), (), ("fox",), (), (EMPTY,)]
    remarked(table.remarks, 2, "'Empty'", "line 2")
    other = read_pictures(write(tmp_path, "\n".join(["File,RelativePath,DateTime,Empty,Species", "1.JPG,A,,beer,"])))
    assert other.pictures[0].labels == ()


def test_a_table_of_deleted_pictures_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "File,RelativePath,DateTime,DeleteFlag\n1.jpg,A,2020-05-01 10:00:00,true\n")
    with refused(DataError, path):
        read_pictures(path)
