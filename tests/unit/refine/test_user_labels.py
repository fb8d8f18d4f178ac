"""A user's labels: a folder CLASS/IMAGE or a table, and what is wrong with them refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.refine.labels import labelled_features, labelled_files, unlabelled_features
from wildpdiff.tasks.batch import batch_size


def picture(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((9, 12, 3), grey, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dark/1.png", "dark/2.png", "bright/3.png", "_unlabelled/4.png", "_background/5.png"):
        picture(tmp_path / "ridge" / name)
    (tmp_path / "ridge" / "dark" / "notes.txt").write_text("no image")
    return tmp_path / "ridge"


def test_a_folder(folder: Path, toy_backbone: Backbone) -> None:
    found = labelled_files(folder, toys.CLASSES)
    assert (found.task, found.labels) == ("ridge", ("bright", "dark", "dark"))
    assert [file.name for file in found.files] == ["3.png", "1.png", "2.png"]
    assert [file.name for file in found.unlabelled] == ["4.png"]
    features = labelled_features(toy_backbone, found)
    assert features.train["targets"].tolist() == [1, 0, 0]
    assert features.train_size == 3
    more = unlabelled_features(toy_backbone, found)
    assert more is not None
    assert batch_size(more) == 1
    assert unlabelled_features(toy_backbone, replace(found, unlabelled=())) is None


def test_classes_in_any_spelling_and_depth(folder: Path) -> None:
    picture(folder / "Dark " / "2024" / "SD card" / "6.png")
    picture(folder / "2024" / "spring" / "bright" / "7.png")
    picture(folder / "loose.png")
    found = labelled_files(folder, toys.CLASSES)
    assert sorted(zip([file.name for file in found.files], found.labels, strict=True)) == [
        ("1.png", "dark"),
        ("2.png", "dark"),
        ("3.png", "bright"),
        ("6.png", "dark"),
        ("7.png", "bright"),
    ]
    for named in ("loose.png", "'Dark '"):
        assert sum(named in remark for remark in found.remarks) == 1, named


def table(folder: Path, header: str, *rows: str) -> Path:
    for row in rows:
        picture(folder / row.split(",")[0])
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_table_without_splits_is_read_whole(tmp_path: Path) -> None:
    rows = [f"{number}.png,{'dark' if number % 2 else 'bright'},ridge" for number in range(12)]
    found = labelled_files(table(tmp_path, "path,label,task", *rows), toys.CLASSES)
    assert len(found.files) == 12
    assert found.files[3] == tmp_path / "3.png"
    assert found.labels[:2] == ("bright", "dark")


def test_labels_whose_split_is_left_open_are_read_too(tmp_path: Path) -> None:
    rows = [f"{number}.png,{toys.CLASSES[number % 2]},a,{'train' if number < 2 else ''}" for number in range(20)]
    found = labelled_files(table(tmp_path, "path,label,task,split", *rows), toys.CLASSES, "a")
    assert len(found.files) == 20


def test_a_table_with_splits_keeps_its_test_images_back(tmp_path: Path) -> None:
    rows = ["1.png,dark,a,train", "2.png,dark,a,validation", "3.png,bright,a,test", "4.png,,a,unlabelled"]
    found = labelled_files(table(tmp_path, "path,label,task,split", *rows, "5.png,dark,b,train"), toys.CLASSES, "a")
    assert [file.name for file in found.files] == ["1.png", "2.png"]
    assert [file.name for file in found.unlabelled] == ["4.png"]


def test_which_task_of_a_table(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,task", "1.png,dark,a", "2.png,dark,b")
    assert labelled_files(path, toys.CLASSES, "b").files == (tmp_path / "2.png",)
    with refused(DataError, "2 tasks, a, b"):
        labelled_files(path, toys.CLASSES)
    with refused(DataError, "'c'", "a, b"):
        labelled_files(path, toys.CLASSES, "c")


def test_a_tasks_name_in_another_form_of_unicode(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,task", "1.png,dark,S\u00fcd", "2.png,dark,b")
    assert labelled_files(path, toys.CLASSES, "Su\u0308d").files == (tmp_path / "1.png",)


def test_an_unknown_class_is_named_with_the_nearest(folder: Path) -> None:
    picture(folder / "brigth" / "6.png")
    with refused(DataError, "6.png", "'brigth'", "dark, bright, striped", "'bright'"):
        labelled_files(folder, toys.CLASSES)


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    path = table(tmp_path, "Datei,Art,Standort", "1.png,dark,a")
    columns = {"path": "Datei", "label": "Art", "task": "Standort"}
    assert labelled_files(path, toys.CLASSES, columns=columns).labels == ("dark",)
    with refused(DataError, "--columns"):
        labelled_files(path, toys.CLASSES)


def test_other_species_of_a_table_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,task", "1.png,dark,a", "2.png,wolf,a", "3.png,lynx,b")
    found = labelled_files(path, toys.CLASSES, "a")
    assert [file.name for file in found.files] == ["1.png"]
    assert len(found.pictures) == 1
    (told,) = found.remarks
    assert "wolf 1" in told
    with refused(DataError, "3.png", "'lynx'"):
        labelled_files(path, toys.CLASSES, "b")


def test_boxes_come_from_a_detectors_file(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,task", "a/1.png,dark,a", "a/2.png,bright,a")
    found = {"category": "1", "conf": 0.9, "bbox": [0.25, 0.5, 0.5, 0.25]}
    images = [{"file": "a/1.png", "detections": [found]}, {"file": "a/2.png", "detections": []}]
    content = {"info": {"format_version": "1.5"}, "detection_categories": {"1": "animal"}, "images": images}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    labelled = labelled_files(path, toys.CLASSES, boxes=boxes)
    assert [view.box for view in labelled.views("box")] == [(0.25, 0.5, 0.5, 0.25), None]
    content["info"] = {"format_version": "1.5", "detector_metadata": {"typical_detection_threshold": 0.95}}
    boxes.write_text(json.dumps(content))
    assert [view.box for view in labelled_files(path, toys.CLASSES, boxes=boxes).views("box")] == [None, None]
    boxes.write_text(json.dumps({**content, "images": [{"file": "z/9.png", "detections": [found]}]}))
    with refused(DataError, boxes):
        labelled_files(path, toys.CLASSES, boxes=boxes)


def test_boxes_are_those_of_unlabelled_images_too(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label,task", "a/1.png,dark,a", "a/2.png,,a")
    more = [picture(tmp_path / "b" / "3.png")]
    sides = (0.25, 0.5, 0.5, 0.25)
    images = [
        {"file": file, "detections": [{"category": "1", "conf": 0.1, "bbox": sides}]}
        for file in ("a/1.png", "a/2.png", "b/3.png")
    ]
    info = {"format_version": "1.5", "detector_metadata": {"typical_detection_threshold": 0.05}}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"info": info, "detection_categories": {"1": "animal"}, "images": images}))
    found = labelled_files(path, toys.CLASSES, boxes=boxes, more=more)
    assert found.unlabelled == (tmp_path / "a" / "2.png", *more)
    assert [view.box for view in (*found.views("box"), *found.unlabelled_views("box"))] == [sides] * 3
    assert [view.box for view in found.unlabelled_views("square")] == [None, None]


def test_a_folder_with_a_known_file_names_it(tmp_path: Path) -> None:
    table(tmp_path, "path,label,task", "1.png,dark,a")
    with refused(DataError, tmp_path, "labels.csv"):
        labelled_files(tmp_path, toys.CLASSES)


def test_nothing_there(tmp_path: Path) -> None:
    with refused(DataError, tmp_path / "nowhere"):
        labelled_files(tmp_path / "nowhere", toys.CLASSES)
    with refused(DataError, tmp_path, ".png"):
        labelled_files(tmp_path, toys.CLASSES)
    picture(tmp_path / "loose.png")
    with refused(DataError, tmp_path, ".png"):
        labelled_files(tmp_path, toys.CLASSES)
