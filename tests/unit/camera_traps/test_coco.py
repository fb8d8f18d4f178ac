"""COCO Camera Traps as LILA has it, in its old and new forms, and plain COCO."""

from __future__ import annotations

import csv
import json
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.coco import CocoReader
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable
from wildpdiff.errors import DataError

DATA = Path(__file__).parents[4] / "shared" / "data" / "fixtures"
needs_fixtures = pytest.mark.skipif(not DATA.is_dir(), reason="no copy of the fixtures next to the project")

CATEGORIES = [{"id": 0, "name": "empty"}, {"id": 1, "name": "red_fox"}, {"id": 2, "name": "wolf"}]


def image(number: int, **others: Any) -> dict[str, Any]:
    return {"id": f"i{number}", "file_name": f"a/{number}.jpg", "width": 200, "height": 100, **others}


def note(number: int, category: Any, **others: Any) -> dict[str, Any]:
    return {"id": f"n{number}-{category}", "image_id": f"i{number}", "category_id": category, **others}


def read(
    folder: Path, images: list[Any], annotations: list[Any] | None = None, categories: list[Any] | None = None
) -> PictureTable:
    path = folder / "labels.json"
    document = {"info": {"version": "1"}, "images": images, "annotations": annotations or []}
    path.write_text(json.dumps({**document, "categories": CATEGORIES if categories is None else categories}))
    assert isinstance(find_reader(path), CocoReader)
    return read_pictures(path)


@needs_fixtures
def test_twenty_one_photographs_are_those_of_the_csv() -> None:
    folder = DATA / "ena24_small"
    table = read_pictures(folder / "coco_annotations.json")
    with open(folder / "labels.csv", newline="") as stream:
        rows = [(row["filepath"], row["label"]) for row in csv.DictReader(stream)]
    assert [(picture.path, *picture.labels) for picture in table.pictures] == rows
    assert table.root == folder
    assert table.remarks == ()
    box = Box(100 / 1920, 100 / 1080, 440 / 1920, 280 / 1080, label="Virginia Opossum")
    assert table.pictures[1].boxes == (box,)


def test_every_field_of_the_specification_is_read(tmp_path: Path) -> None:
    fields = {"location": "Nord/3", "seq_id": "s1", "seq_num_frames": 3, "frame_num": 0, "rights_holder": "R"}
    table = read(
        tmp_path,
        [image(1, datetime="2022-12-31 09:52:50", temperature=-3.5, flash=True, **fields)],
        [note(1, 1, bbox=[20, 10, 100, 50]), note(1, 2, bbox_relative=[0.5, 0, 0.5, 1.0], count=2)],
    )
    (picture,) = table.pictures
    assert (picture.path, picture.camera, picture.sequence, picture.frame) == ("a/1.jpg", "Nord/3", "s1", 0)
    assert picture.time == datetime(2022, 12, 31, 9, 52, 50)
    assert picture.labels == ("red_fox", "wolf")
    assert picture.boxes == (Box(0.1, 0.1, 0.5, 0.5, label="red_fox"), Box(0.5, 0.0, 0.5, 1.0, label="wolf"))
    assert picture.identifier == "i1"
    assert picture.line == 1
    assert picture.values == {"temperature": "-3.5", "flash": "true"}
    assert table.columns == ("temperature", "flash")
    assert table.remarks == ()


def test_old_files_have_numbers_and_another_name_for_times(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "x.jpg", "location": 33, "date_captured": "2011-05-13 23:43:18", "frame_num": "1"}]
    (picture,) = read(tmp_path, images, [{"id": 1, "image_id": 7.0, "category_id": "1"}]).pictures
    assert (picture.camera, picture.frame, picture.labels) == ("33", 1, ("red_fox",))
    assert picture.time == datetime(2011, 5, 13, 23, 43, 18)
    assert picture.boxes is None


def test_pictures_without_an_annotation_are_unlabelled(tmp_path: Path) -> None:
    table = read(tmp_path, [image(1), image(2), image(3)], [note(1, 0), note(2, 1, bbox=[0, 0, 10, 10])])
    assert [picture.labels for picture in table.pictures] == [(EMPTY,), ("red_fox",), ()]
    boxes = [picture.boxes for picture in table.pictures]
    assert boxes[0] == ()
    assert boxes[1] is not None
    assert boxes[2] is None


def test_empty_by_its_reserved_number_needs_a_fitting_name(tmp_path: Path) -> None:
    for name, label in (("Blank", EMPTY), ("EMPTY", EMPTY), ("aardvark", "aardvark")):
        (picture,) = read(tmp_path, [image(1)], [note(1, 0)], [{"id": 0, "name": name}]).pictures
        assert picture.labels == (label,)


def test_empty_and_a_species_are_the_species(tmp_path: Path) -> None:
    table = read(tmp_path, [image(1), image(2)], [note(1, 0), note(1, 2), note(2, 2), note(2, 0)])
    assert [picture.labels for picture in table.pictures] == [("wolf",), ("wolf",)]
    remarked(table.remarks, 2, "a/1.jpg")


def test_what_cannot_be_used_is_left_out_with_one_remark_a_kind(tmp_path: Path) -> None:
    images = [image(1), image(2, corrupt=True), image(3, file_name="v.MP4"), image(4, file_name=None), "x", image(5)]
    images += [image(6, corrupt=True), image(7, file_name="a\0b.jpg"), image(8, file_name="\ud800.jpg")]
    notes = [note(1, 1), note(2, 1), note(3, 1), note(5, 99), note(77, 1), note(78, 1)]
    table = read(tmp_path, images, notes)
    assert [(picture.path, picture.labels) for picture in table.pictures] == [
        ("a/1.jpg", ("red_fox",)),
        ("a/5.jpg", ()),
    ]
    assert len(table.remarks) == 5
    remarked(table.remarks, 2, "a/2.jpg")
    remarked(table.remarks, "v.MP4")
    remarked(table.remarks, 4, "image 4")
    remarked(table.remarks, "annotation 4")
    remarked(table.remarks, 2, "annotation 5")


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 10], [0, 0, 10, -5], [300, 0, 10, 10], [math.nan, 0, 5, 5], [0, 0, math.inf, 5]]
)
def test_boxes_without_a_place_in_the_picture_are_left_out(tmp_path: Path, box: list[float]) -> None:
    table = read(tmp_path, [image(1)], [note(1, 1, bbox=box)])
    assert table.pictures[0].labels == ("red_fox",)
    assert table.pictures[0].boxes is None
    assert len(table.remarks) == 1


@pytest.mark.parametrize("box", [[1, 2, 3], "0 0 1 1", {"x": 1}, [1, 2, 3, None], [1, 2, 3, "4"], [1, 2, 3, 10**400]])
def test_boxes_of_another_form_are_left_out(tmp_path: Path, box: Any) -> None:
    table = read(tmp_path, [image(1)], [note(1, 1, bbox=box)])
    assert table.pictures[0].labels == ("red_fox",)
    assert table.pictures[0].boxes is None
    assert len(table.remarks) == 1


def test_boxes_are_cut_off_at_the_edge_of_the_picture(tmp_path: Path) -> None:
    table = read(tmp_path, [image(1)], [note(1, 1, bbox=[-20, 50, 120, 100])])
    assert table.pictures[0].boxes == (Box(0.0, 0.5, 0.5, 0.5, label="red_fox"),)
    remarked(table.remarks, "annotation 1")
    assert read(tmp_path, [image(1)], [note(1, 1, bbox=[0, 0, 201, 100])]).remarks == ()


def test_a_size_that_the_record_lacks_is_read_from_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "a" / "1.jpg")
    images = [image(number, width=None, height=0) for number in (1, 2)]
    table = read(tmp_path, images, [note(number, 1, bbox=[10, 10, 20, 10]) for number in (1, 2)])
    assert table.pictures[0].boxes == (Box(0.25, 0.5, 0.5, 0.5, label="red_fox"),)
    assert table.pictures[1].boxes is None
    remarked(table.remarks, "annotation 2")


def test_shares_in_the_place_of_pixels_are_understood(tmp_path: Path) -> None:
    table = read(tmp_path, [image(1)], [note(1, 1, bbox=[0.25, 0.5, 0.5, 0.25])])
    assert table.pictures[0].boxes == (Box(0.25, 0.5, 0.5, 0.25, label="red_fox"),)
    assert len(table.remarks) == 1


def test_separate_files_of_boxes_have_no_labels(tmp_path: Path) -> None:
    boxes = [{"id": 1, "image_id": "i1", "bbox": [0, 0, 20, 10], "score": 0.75}]
    (picture,) = read(tmp_path, [image(1)], boxes, []).pictures
    assert picture.labels == ()
    assert picture.boxes == (Box(0.0, 0.0, 0.1, 0.1, confidence=0.75),)


def test_a_detectors_categories_are_no_species(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "animal"}, {"id": 2, "name": "Human"}, {"id": 3, "name": "group"}]
    notes = [note(1, category, bbox=[0, 0, 20, category]) for category in (1, 2, 3)]
    table = read(tmp_path, [image(1)], notes, categories)
    assert table.pictures[0].labels == ()
    found = table.pictures[0].boxes
    assert found is not None
    assert [box.category for box in found] == ["animal", "person", "animal"]
    assert all(not box.label for box in found)
    assert len(table.remarks) == 1
    (picture,) = read(tmp_path, [image(1)], [note(1, 1)], categories).pictures
    assert picture.labels == ("animal",), "without boxes the categories are all there is"


def test_labels_of_whole_sequences_are_counted(tmp_path: Path) -> None:
    notes = [note(number, 1, sequence_level_annotation=number < 3) for number in (1, 2, 3)]
    table = read(tmp_path, [image(number) for number in (1, 2, 3)], notes)
    remarked(table.remarks, 2, "annotation 1")


def test_one_file_under_two_ids_is_one_picture(tmp_path: Path) -> None:
    images = [image(1), image(2, file_name="a\\1.jpg"), image(3, file_name="./a//1.jpg", location="x")]
    table = read(tmp_path, images, [note(1, 1), note(2, 2), note(3, 1)])
    (picture,) = table.pictures
    assert picture.labels == ("red_fox", "wolf")
    assert picture.camera == "x"
    assert picture.line == 1
    remarked(table.remarks, 2, "a/1.jpg")


def test_identical_annotations_are_one_and_shared_ids_are_named(tmp_path: Path) -> None:
    table = read(tmp_path, [image(1)], [note(1, 1, bbox=[0, 0, 20, 10])] * 3)
    assert table.pictures[0].labels == ("red_fox",)
    assert len(table.pictures[0].boxes or ()) == 1
    remarked(table.remarks, 2, "annotation 2")


def test_identifiers_that_tell_nothing_apart_are_refused(tmp_path: Path) -> None:
    with refused(DataError, "labels.json", "i1", "a/1.jpg", "b.jpg"):
        read(tmp_path, [image(1), image(1, file_name="b.jpg")])
    with refused(DataError, "category", "red_fox", "wolf"):
        read(tmp_path, [image(1)], [], [{"id": 1, "name": "red_fox"}, {"id": "1", "name": "wolf"}])


def test_images_without_identifiers_are_unlabelled(tmp_path: Path) -> None:
    table = read(tmp_path, [image(1, id=None), image(2, id=None), image(3)], [note(3, 1)])
    assert [picture.labels for picture in table.pictures] == [(), (), ("red_fox",)]


def test_annotations_may_fill_the_beginning_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sorted.json"
    annotations = [note(1, 1, count=number) for number in range(2000)]
    document = {"images": [image(1)], "categories": CATEGORIES, "annotations": annotations}
    path.write_text(json.dumps(document, sort_keys=True))
    assert read_pictures(path).pictures[0].labels == ("red_fox",)


def test_categories_without_a_name_are_left_out_with_their_annotations(tmp_path: Path) -> None:
    categories = [*CATEGORIES, {"id": 3}, {"id": True, "name": [1]}, {"name": "x"}, 7]
    table = read(tmp_path, [image(1)], [note(1, 1), note(1, 3)], categories)
    assert table.pictures[0].labels == ("red_fox",)
    remarked(table.remarks, 4, "category 4")
    remarked(table.remarks, "annotation 2")


def test_annotations_of_another_file_are_refused(tmp_path: Path) -> None:
    with refused(DataError, "labels.json", "image_id", 2):
        read(tmp_path, [image(1)], [note(8, 1), note(9, 1)])


@pytest.mark.parametrize(
    "document", [{"images": {}, "categories": [], "annotations": []}, {"annotations": [], "categories": []}]
)
def test_files_without_a_list_of_images_are_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(document))
    with refused(DataError, "labels.json", "images"):
        read_pictures(path)


def test_a_file_without_pictures_is_an_empty_table(tmp_path: Path) -> None:
    assert read(tmp_path, []).pictures == ()


def test_times_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    spellings = [
        "2022-12-31T09:52:50+02:00",
        "0000:00:00 00:00:00",
        "",
        None,
        "yesterday",
        "2013:05:01 10:00:00",
        1369047600,
    ]
    table = read(tmp_path, [image(number, datetime=text) for number, text in enumerate(spellings)])
    found = [picture.time for picture in table.pictures]
    assert found == [datetime(2022, 12, 31, 9, 52, 50), *[None] * 4, datetime(2013, 5, 1, 10), None]
    remarked(table.remarks, 3, "0000:00:00")
    assert len(table.remarks) == 2, "zones of some pictures alone are left out"
    (picture,) = read(tmp_path, [image(1, datetime=spellings[0])]).pictures
    assert picture.time == datetime(2022, 12, 31, 9, 52, 50, tzinfo=timezone(timedelta(hours=2)))


def test_the_order_of_day_and_month_is_the_files(tmp_path: Path) -> None:
    images = [image(1, datetime="4/5/2011 10:11"), image(2, datetime="4/20/2011 10:11")]
    assert read(tmp_path, images).pictures[0].time == datetime(2011, 4, 5, 10, 11)
    table = read(tmp_path, images[:1])
    assert table.pictures[0].time == datetime(2011, 5, 4, 10, 11)
    remarked(table.remarks, "4/5/2011")


def test_names_in_any_script_stay_as_they_are(tmp_path: Path) -> None:
    images = [image(1, file_name="Föhrenwald Süd/лиса 1.jpg", location="狐狸")]
    (picture,) = read(tmp_path, images, [note(1, 1)], [{"id": 1, "name": " Rotfuchs "}]).pictures
    assert (picture.path, picture.camera, picture.labels) == ("Föhrenwald Süd/лиса 1.jpg", "狐狸", ("Rotfuchs",))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "id",
    "file_name",
    "image_id",
    "category_id",
    "name",
    "bbox",
    "width",
    "height",
    "datetime",
    "location",
    "corrupt",
]
RECORD = (
    st.dictionaries(
        st.sampled_from(KEYS),
        JSON | st.sampled_from(["a.jpg", 1, "1", [0, 0, 1, 1]]),
    )
    | JSON
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(RECORD, max_size=3), st.lists(RECORD, max_size=3), st.lists(RECORD, max_size=2))
def test_whatever_the_records_hold_is_a_table_or_refused(
    tmp_path: Path, images: list[Any], annotations: list[Any], categories: list[Any]
) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    pictures: tuple[Picture, ...] = ()
    message = "labels.json"
    try:
        pictures = CocoReader().read(path, {}).pictures
    except DataError as error:
        message = str(error)
    assert "labels.json" in message
    for picture in pictures:
        assert picture.path
        assert "\0" not in picture.path
        for box in picture.boxes or ():
            assert 0 <= box.left < box.left + box.width <= 1 + 1e-9
            assert 0 <= box.top < box.top + box.height <= 1 + 1e-9
