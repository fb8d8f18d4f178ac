"""SpeciesNet's predictions and instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refusals import refused
from remarked import remarked
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.records import Box, PictureTable
from wildpdiff.camera_traps.speciesnet import SpeciesNetReader, name_of
from wildpdiff.errors import DataError

PUMA = "u-1;mammalia;carnivora;felidae;puma;concolor;puma"
BIRD = "u-2;aves;;;;;bird"
BLANK = "u-3;;;;;;blank"
HUMAN = "u-4;mammalia;primates;hominidae;homo;sapiens;human"


def detection(category: str, conf: float) -> dict[str, Any]:
    words = {"1": "animal", "2": "human", "3": "vehicle"}
    return {"category": category, "label": words[category], "conf": conf, "bbox": [0.0, 0.0, 0.5, 0.5 + conf / 10]}


def read(folder: Path, *records: Any, key: str = "predictions") -> PictureTable:
    path = folder / f"{key}.json"
    path.write_text(json.dumps({key: list(records)}))
    assert isinstance(find_reader(path), SpeciesNetReader)
    return read_pictures(path)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (PUMA, "puma"),
        (BIRD, "bird"),
        ("u;mammalia;carnivora;felidae;puma;concolor;", "puma concolor"),
        ("u;mammalia;carnivora;felidae;;;", "felidae"),
        ("u;;;;;;", ""),
        ("just a name", "just a name"),
    ],
)
def test_names_of_labels(label: str, name: str) -> None:
    assert name_of(label) == name


def test_the_prediction_is_the_label_of_the_surest_fitting_box(tmp_path: Path) -> None:
    record = {
        "filepath": "a/1.jpg",
        "country": "USA",
        "admin1_region": "CA",
        "latitude": 37.5,
        "longitude": -120,
        "detections": [detection("1", 0.4), detection("2", 0.95), detection("1", 0.8)],
        "classifications": {"classes": [BIRD, PUMA], "scores": [0.6, 0.4]},
        "prediction": PUMA,
        "prediction_score": 0.7,
        "prediction_source": "classifier",
        "model_version": "4.0.1a",
    }
    table = read(tmp_path, record, {**record, "filepath": "a/2.jpg", "prediction": HUMAN})
    first, second = table.pictures
    assert [(box.category, box.label, box.label_confidence) for box in first.boxes or ()] == [
        ("animal", "", None),
        ("person", "", None),
        ("animal", "puma", 0.7),
    ]
    assert [box.label for box in second.boxes or ()] == ["", "human", ""]
    assert first.labels == ()
    assert first.values == {
        "country": "USA",
        "admin1_region": "CA",
        "latitude": "37.5",
        "longitude": "-120",
    }
    assert table.columns == ("country", "admin1_region", "latitude", "longitude")
    assert table.remarks == ()


def test_a_prediction_without_a_score_is_no_label_of_people(tmp_path: Path) -> None:
    table = read(tmp_path, {"filepath": "1.jpg", "detections": [detection("1", 0.8)], "prediction": PUMA})
    assert [(box.label, box.label_confidence) for box in table.pictures[0].boxes or ()] == [("puma", 0.0)]


def test_blanks_have_no_label_and_keep_their_boxes(tmp_path: Path) -> None:
    blank = {"prediction": BLANK, "prediction_score": 0.9}
    table = read(
        tmp_path,
        {"filepath": "1.jpg", "detections": [detection("1", 0.1)], **blank},
        {"filepath": "2.jpg", "detections": [], **blank},
        {"filepath": "3.jpg", **blank},
    )
    labels = [None if p.boxes is None else [box.label for box in p.boxes] for p in table.pictures]
    assert labels == [[""], [], []]


def test_a_classifier_alone_is_a_box_of_the_whole_picture(tmp_path: Path) -> None:
    answers = {"classes": [BIRD, PUMA], "scores": [0.3, 0.6]}
    table = read(
        tmp_path,
        {"filepath": "1.jpg", "classifications": answers},
        {"filepath": "2.jpg", "classifications": {"classes": [BIRD], "scores": []}},
        {"filepath": "3.jpg", "classifications": {"classes": [None], "scores": ["x"]}},
    )
    assert table.pictures[0].boxes == (Box(0.0, 0.0, 1.0, 1.0, "animal", None, "puma", 0.6),)
    assert [picture.boxes for picture in table.pictures[1:]] == [None, None]


def test_failures_are_counted(tmp_path: Path) -> None:
    table = read(tmp_path, {"filepath": "1.jpg", "failures": ["DETECTOR"]}, {"filepath": "2.jpg", "failures": []}, {})
    assert [picture.boxes for picture in table.pictures] == [None, None]
    remarked(table.remarks, "1.jpg", "DETECTOR")
    remarked(table.remarks, "record 3")


def test_instances_have_places_and_no_boxes(tmp_path: Path) -> None:
    table = read(tmp_path, {"filepath": "1.jpg", "country": "KEN"}, {"filepath": "2.mp4"}, key="instances")
    (picture,) = table.pictures
    assert picture.boxes is None
    assert picture.values == {"country": "KEN"}
    remarked(table.remarks, "2.mp4")


def test_paths_are_those_below_the_file(tmp_path: Path) -> None:
    (tmp_path / "cam").mkdir()
    (tmp_path / "cam" / "1.jpg").touch()
    table = read(tmp_path, {"filepath": f"{tmp_path}/cam/1.jpg"}, {"filepath": f"{tmp_path}/cam/2.jpg"})
    assert [picture.path for picture in table.pictures] == ["cam/1.jpg", "cam/2.jpg"]
    assert table.root == tmp_path
    assert table.remarks == ()


def test_something_else_than_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text('{"predictions": {"filepath": "a.jpg"}}')
    with refused(DataError, "predictions.json", "predictions"):
        read_pictures(path)
