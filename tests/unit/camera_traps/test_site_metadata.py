"""Metadata of cameras from their pictures' columns; faults of picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refusals import refused
from wildpdiff.camera_traps.cameras import pictures_by_camera
from wildpdiff.camera_traps.picture_files import Unreadable, identical, look_at_all, read_most
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.site_metadata import SiteMetadata, site_metadata
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import View


def of(
    cells: dict[str, list[str]],
    cameras: dict[str, dict[str, str]] | None = None,
    learned: tuple[str, ...] = (),
    name: str = "column",
) -> SiteMetadata:
    """Metadata of one column by the cells of each camera's pictures."""
    pictures = tuple(
        Picture(f"{camera}/{number}.jpg", number + 1, camera, values={name: cell} if cell else {})
        for camera, own in cells.items()
        for number, cell in enumerate(own)
    )
    table = PictureTable(Path("t.csv"), "table", Path(), pictures, cameras or {}, (name,))
    return site_metadata(table, pictures_by_camera(table), learned, ())


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ({"a": ["1", "1"], "b": ["2", ""]}, {"a": 1.0, "b": 2.0}),
        ({"a": ["wood"] * 3, "b": [""]}, {"a": "wood"}),
        ({"a": ["wood"] * 9 + ["Wood"], "b": ["bog"] * 10}, {"a": "wood", "b": "bog"}),
        ({"a": ["1480 m", ""], "b": ["1500"], "c": ["12", "12"]}, {"a": 1480.0, "b": 1500.0, "c": 12.0}),
    ],
)
def test_a_column_of_cameras_has_their_usual_value(cells: dict[str, list[str]], values: dict[str, object]) -> None:
    found = of(cells)
    assert {camera: own["column"] for camera, own in found.values.items() if own} == values
    assert found.columns == ()


@pytest.mark.parametrize(
    "cells",
    [
        {"a": ["red", "blue"]},
        {str(camera): ["1", "2", "1"] for camera in range(10)},
        {str(camera): ["1"] * 19 + ["2"] for camera in range(3)} | {"x": ["1"]},
    ],
)
def test_a_column_of_pictures_is_left_out_with_one_remark(cells: dict[str, list[str]]) -> None:
    found = of(cells)
    assert found.columns == ("column",)
    assert found.schema.names == ()
    assert len(found.remarks) == 1


def test_what_the_source_states_of_cameras_stands_before_their_pictures() -> None:
    found = of({"a": ["1", "2"], "b": ["3", "3"]}, {"a": {"column": "7"}, "c": {"column": "9"}})
    assert {camera: own.get("column") for camera, own in found.values.items()} == {"a": 7.0, "b": 3.0, "c": 9.0}


def test_fields_follow_from_the_cameras_that_are_learned_from() -> None:
    cells = {"a": ["1"], "b": ["2"], "c": ["high"], "d": ["3,5"]}
    found = of(cells, learned=("a", "b"))
    assert found.schema.fields[0].kind == "number"
    assert {camera: own.get("column") for camera, own in found.values.items()} == {"a": 1, "b": 2, "c": None, "d": 3.5}
    words = of({"a": ["wood"], "b": ["bog"]}, learned=("a",))
    assert words.schema.fields[0].categories == ("wood",)
    assert words.values["b"] == {"column": "bog"}
    nothing = of({"a": [""], "b": ["bog"]}, learned=("a",))
    assert nothing.schema.names == ()
    assert len(nothing.remarks) == 1


def test_a_cell_that_makes_numbers_names_is_told() -> None:
    found = of({"a": ["410"], "b": ["high"], "c": ["520"]})
    assert found.schema.fields[0].kind == "category"
    assert sum("'b' with 'high'" in remark for remark in found.remarks) == 1
    assert of({"a": ["wood"], "b": ["bog"]}).remarks == ()


def test_coordinates_are_checked() -> None:
    assert of({"a": ["47°06'N"], "b": ["46,5"]}, name="lat").values["a"]["lat"] == pytest.approx(47.1)
    with refused(DataError, "camera 'a'", "latitude"):
        of({"a": ["134"], "b": ["12"]}, name="lat")
    with refused(DataError, "'north'"):
        of({"a": ["north"]}, name="latitude")


def test_faults_of_files_are_told_apart(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "good.png").read_bytes())
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    names = ("good.png", "copy.png", "empty.jpg", "text.jpg", "folder.jpg", "absent.jpg", "nul\0.jpg")
    files = look_at_all(tmp_path, names)
    assert [files[name].fault for name in names[:4]] == ["", "", "empty", "no picture"]
    assert all(files[name].fault for name in names[2:])
    keys = identical(tmp_path, files)
    assert keys["good.png"] == keys["copy.png"]
    assert keys.keys() == {"good.png", "copy.png"}


@pytest.mark.parametrize(
    ("total", "share", "most"),
    [(1000, None, 20), (10, None, 1), (1, None, 0), (10, 0.0, 0), (10, 0.1, 1), (10, 0.19, 1), (10, 1.0, 10)],
)
def test_as_many_may_be_unreadable_as_the_share_says(
    total: int, share: float | None, most: int, tmp_path: Path
) -> None:
    unreadable = Unreadable(total, Path("t.csv"), share)
    assert unreadable.most == most
    unreadable.add({f"{number}.jpg": "missing" for number in range(most)}, tmp_path)
    with refused(DataError, f"{most + 1} of {total}", "last.jpg" if most < 3 else "missing", tmp_path):
        unreadable.add({"last.jpg": "missing"}, tmp_path)


def test_most_of_the_files_that_a_user_names_are_read(tmp_path: Path) -> None:
    views = [View(tmp_path / f"{number}.png") for number in range(4)]
    for number, view in enumerate(views):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(view.path)
    views[2].path.write_bytes(b"broken")
    told: list[str] = []
    images, kept = read_most(views, 2, "square", told.append)
    assert kept == [0, 1, 3]
    assert np.asarray(images)[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert len(told) == 1
    views[0].path.unlink()
    with refused(DataError, "2.png"):
        read_most(views, 2, "square", told.append)
    with refused(DataError, "no images"):
        read_most([], 2, "square", told.append)
