"""MegaDetector's batch output, of every version and of other programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.megadetector import MegaDetectorReader
from wildpdiff.camera_traps.records import Box, Picture, PictureTable
from wildpdiff.errors import DataError

DATA = Path(__file__).parents[4] / "shared" / "data" / "fixtures"
needs_fixtures = pytest.mark.skipif(not DATA.is_dir(), reason="no copy of the fixtures next to the project")

CATEGORIES = {"1": "animal", "2": "person", "3": "vehicle"}


def detection(category: Any = "1", conf: Any = 0.5, bbox: Any = (0.1, 0.2, 0.3, 0.4), **others: Any) -> dict[str, Any]:
    return {"category": category, "conf": conf, "bbox": bbox, **others}


def entry(file: str, *detections: Any, **others: Any) -> dict[str, Any]:
    return {"file": file, "detections": list(detections), **others}


def read(folder: Path, *images: Any, version: Any = "1.6", **others: Any) -> PictureTable:
    path = folder / "detections.json"
    document = {"images": list(images), "detection_categories": CATEGORIES, "info": {"format_version": version}}
    path.write_text(json.dumps({**document, **others}))
    assert isinstance(find_reader(path), MegaDetectorReader)
    return read_pictures(path)


@needs_fixtures
def test_photographs_and_their_classes() -> None:
    table = read_pictures(DATA / "ena24_small" / "md_annotations.json")
    assert len(table.pictures) == 21
    assert table.remarks == ()
    assert table.root == DATA / "ena24_small"
    assert table.threshold == 0.8
    first = table.pictures[0]
    assert (first.path, first.labels) == ("2480.jpg", ())
    assert first.boxes == (Box(0.35, 0.35, 0.3, 0.3, "animal", 0.926, "virginia_opossum", 0.941),)


@needs_fixtures
def test_failures_and_empty_pictures_differ() -> None:
    table = read_pictures(DATA / "megadetector_output.json")
    assert [None if p.boxes is None else len(p.boxes) for p in table.pictures] == [2, 1, 0, None, None]
    boxes = table.pictures[0].boxes or ()
    assert [box.label for box in boxes] == ["bear", ""]
    assert boxes[1].label_confidence is None
    remarked(table.remarks, 2, "corrupted_image.jpg", "Failure image access")


@pytest.mark.parametrize("version", ["1.0", "1.6", 1.3, None])
def test_versions_as_texts_numbers_or_missing(tmp_path: Path, version: Any) -> None:
    table = read(tmp_path, entry("a.jpg", detection()), version=version)
    assert table.pictures[0].boxes == (Box(0.1, 0.2, 0.3, 0.4, "animal", 0.5),)
    assert table.remarks == ()


def test_a_newer_version_is_read_with_a_remark(tmp_path: Path) -> None:
    remarked(read(tmp_path, entry("a.jpg"), version="2.1").remarks, "2.1")


def test_windows_paths_and_categories_in_capitals(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        entry("Süd\\cam 1\\IMG.JPG", detection("2"), detection("3")),
        detection_categories={"1": "Animal", "2": "Human", "3": "VEHICLE"},
    )
    assert table.pictures[0].path == "Süd/cam 1/IMG.JPG"
    assert [box.category for box in table.pictures[0].boxes or ()] == ["person", "vehicle"]


def test_another_machines_folder_is_left_out_where_the_pictures_are_here(tmp_path: Path) -> None:
    images = [entry("C:\\data\\x\\cam1\\1.jpg"), entry("C:/data/x/cam2/1.jpg")]
    table = read(tmp_path, *images)
    assert [picture.path for picture in table.pictures] == ["C:/data/x/cam1/1.jpg", "C:/data/x/cam2/1.jpg"]
    (tmp_path / "cam2").mkdir()
    (tmp_path / "cam2" / "1.jpg").touch()
    table = read(tmp_path, *images)
    assert [picture.path for picture in table.pictures] == ["cam1/1.jpg", "cam2/1.jpg"]
    remarked(table.remarks, "C:/data/x/")


def test_missing_categories_are_the_usual_ones(tmp_path: Path) -> None:
    table = read(tmp_path, entry("a.jpg", detection("2"), detection("7"), detection("0")), detection_categories=None)
    assert [box.category for box in table.pictures[0].boxes or ()] == ["person", "7"]
    remarked(table.remarks, "7", "a.jpg")


def test_the_most_probable_class_is_the_label_of_the_box(tmp_path: Path) -> None:
    classes = {"0": "fox", "1": "elk", "2": "wolf"}
    found = read(
        tmp_path,
        entry("a.jpg", detection(classifications=[["0", 0.1], ["2", 0.7], ["1", 0.2]])),
        entry("b.jpg", detection(classifications=[])),
        entry("c.jpg", detection(classifications=[["9", 0.9], ["1", 0.2], ["0"], ["0", 2.0], "0"])),
        classification_categories=classes,
    )
    boxes = [box for picture in found.pictures for box in picture.boxes or ()]
    assert [(box.label, box.label_confidence) for box in boxes] == [("wolf", 0.7), ("", None), ("elk", 0.2)]
    assert all(picture.labels == () for picture in found.pictures)
    remarked(found.remarks, 4, "c.jpg")


def test_confidences_rounded_up_and_names_of_whole_taxa(tmp_path: Path) -> None:
    taxon = "4eb2;mammalia;carnivora;canidae;vulpes;vulpes;red fox"
    box = detection(conf=1.0000001192092896, classifications=[["7", 1.0000001192092896]])
    table = read(tmp_path, entry("a.jpg", box, detection(conf=1.2)), classification_categories={"7": taxon})
    (found,) = table.pictures[0].boxes or ()
    assert (found.confidence, found.label, found.label_confidence) == (1.0, "red fox", 1.0)
    remarked(table.remarks, "detection 2", "'a.jpg'")


def test_failures_are_pictures_without_boxes(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        {"file": "a.jpg", "failure": "Failure image access", "detections": None},
        {"file": "b.jpg", "failure": "Failure inference"},
        {"file": "c.jpg", "failure": None, "detections": []},
        {"file": "d.jpg"},
    )
    assert [picture.boxes for picture in table.pictures] == [None, None, (), None]
    remarked(table.remarks, 2, "a.jpg")
    remarked(table.remarks, "d.jpg")


def test_videos_are_left_out(tmp_path: Path) -> None:
    videos = [entry("a.AVI"), entry("b.jpg", frame_rate=30, frames_processed=[0, 30]), entry("c.mp4")]
    table = read(tmp_path, *videos, entry("d.jpg"))
    assert [picture.path for picture in table.pictures] == ["d.jpg"]
    remarked(table.remarks, 3, "a.AVI")


@pytest.mark.parametrize(
    "bad",
    [
        detection(conf=1.5),
        detection(conf=None),
        detection(conf=float("nan")),
        detection(bbox=[0, 0, 1]),
        detection(bbox=None),
        detection(bbox=[0, 0, float("nan"), 1]),
        detection(bbox=[0.5, 0.5, 0, 0.5]),
        detection(bbox=[1.5, 0.5, 0.2, 0.5]),
        "box",
    ],
)
def test_detections_at_fault_are_left_out(tmp_path: Path, bad: Any) -> None:
    table = read(tmp_path, entry("a.jpg", bad, detection()))
    assert table.pictures[0].boxes == (Box(0.1, 0.2, 0.3, 0.4, "animal", 0.5),)
    remarked(table.remarks, "detection 1", "a.jpg")


def test_times_of_the_record_or_of_its_exif_metadata(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        entry("a.jpg", datetime="2022-12-31 09:52:50"),
        entry("b.jpg", exif_metadata={"DateTimeOriginal": "2013:05:01 10:00:00"}),
        entry("c.jpg", exif_metadata=[["Make", "X"], ["DateTime", "2013:05:02 10:00:00"], [1], [["x"], 2]]),
        entry("d.jpg", exif_metadata="none"),
    )
    days = [picture.time and picture.time.date().isoformat() for picture in table.pictures]
    assert days == ["2022-12-31", "2013-05-01", "2013-05-02", None]
    assert table.pictures[0].time == datetime(2022, 12, 31, 9, 52, 50)


def test_cameras_and_bursts_of_files_that_state_them(tmp_path: Path) -> None:
    table = read(tmp_path, entry("a.jpg", location="Süd 1", seq_id=7), entry("b.jpg", location={"lat": 1}))
    assert [(picture.camera, picture.sequence) for picture in table.pictures] == [("Süd 1", "7"), ("", "")]


def test_files_without_a_name_and_files_listed_twice(tmp_path: Path) -> None:
    table = read(tmp_path, {"detections": []}, 5, entry("a.jpg", detection()), entry(".\\a.jpg", detection("2")))
    assert len(table.pictures) == 1
    assert len(table.pictures[0].boxes or ()) == 2
    remarked(table.remarks, 2, "image 1")
    remarked(table.remarks, "a.jpg")


def test_images_named_by_their_id(tmp_path: Path) -> None:
    named = [{"id": "90-a1", "detections": [detection()]}, {"id": "b.PNG", "detections": []}, {"file": None, "id": "c"}]
    table = read(tmp_path, *named)
    assert [picture.path for picture in table.pictures] == ["90-a1.jpg", "b.PNG"]
    remarked(table.remarks, 2, "90-a1.jpg")
    remarked(table.remarks, "image 3")


def test_a_run_without_pictures_is_an_empty_table(tmp_path: Path) -> None:
    assert read(tmp_path).pictures == ()


def test_categories_that_are_no_names_are_refused(tmp_path: Path) -> None:
    for categories in ([["1", "animal"]], {"1": 3}, {"1": " "}):
        with refused(DataError, "detections.json", "detection_categories"):
            read(tmp_path, entry("a.jpg"), detection_categories=categories)
    path = tmp_path / "detections.json"
    path.write_text('{"images": {"file": 1}, "detection_categories": {}}')
    with refused(DataError, "detections.json", "images"):
        read_pictures(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["file", "detections", "failure", "category", "conf", "bbox", "classifications", "datetime", "exif_metadata"]
DETECTION = st.dictionaries(st.sampled_from(KEYS), JSON | st.sampled_from(["1", 0.5, [0, 0, 1, 1]])) | JSON
RECORD = st.dictionaries(st.sampled_from(KEYS), JSON | st.lists(DETECTION, max_size=2) | st.just("a.jpg")) | JSON


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.lists(RECORD, max_size=3), JSON, JSON, JSON)
def test_whatever_the_records_hold_is_a_table_or_refused(
    tmp_path: Path, images: list[Any], categories: Any, classes: Any, info: Any
) -> None:
    path = tmp_path / "detections.json"
    names = {"detection_categories": categories, "classification_categories": classes, "info": info}
    path.write_text(json.dumps({"images": images, **names}))
    pictures: tuple[Picture, ...] = ()
    message = "detections.json"
    try:
        pictures = MegaDetectorReader().read(path, {}).pictures
    except DataError as error:
        message = str(error)
    assert "detections.json" in message
    for picture in pictures:
        for box in picture.boxes or ():
            assert 0 <= box.left < box.left + box.width <= 1 + 1e-9
            assert 0 <= (box.confidence or 0) <= 1
