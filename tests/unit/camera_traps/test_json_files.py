"""JSON files as they are found: encodings, damage, and telling formats by their beginning."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from refusals import refused
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.json_files import HEADS, json_keys, read_json
from wildpdiff.errors import DataError

DOCUMENT = {"images": [{"id": 1, "file_name": "é.jpg"}], "annotations": [], "categories": []}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_of_any_form(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps(DOCUMENT, ensure_ascii=False).encode(encoding))
    assert read_json(path) == DOCUMENT
    assert find_reader(path).format == "COCO Camera Traps"
    assert read_pictures(path).pictures[0].path == "é.jpg"


def test_compressed_files_are_read_as_they_are(tmp_path: Path) -> None:
    data = json.dumps(DOCUMENT).encode()
    packed = tmp_path / "labels.json.gz"
    packed.write_bytes(gzip.compress(data))
    with zipfile.ZipFile(tmp_path / "labels.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside/labels.json", data)
        archive.writestr("__MACOSX/labels.json", b"x")
    for path in (packed, tmp_path / "labels.json.zip"):
        table = read_pictures(path)
        assert table.format == "COCO Camera Traps"
        assert table.pictures[0].path == "é.jpg"
    packed.write_bytes(packed.read_bytes()[:-20])
    with refused(DataError, "labels.json.gz"):
        read_json(packed)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.json", data)
        archive.writestr("b.json", data)
    with refused(DataError, "two.zip", 2):
        read_json(tmp_path / "two.zip")


def test_other_encodings_are_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(json.dumps(DOCUMENT, ensure_ascii=False).encode("cp1252"))
    with refused(DataError, "x.json", "UTF-8", path.read_bytes().index(b"\xe9")):
        read_pictures(path)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_file_cut_short_is_refused_with_its_line(tmp_path: Path, kept: float) -> None:
    text = json.dumps({"images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(50)], "annotations": []}, indent=1)
    path = tmp_path / "x.json"
    path.write_text(text[: int(len(text) * kept)])
    line = text[: int(len(text) * kept)].count("\n") + 1
    with pytest.raises(DataError) as caught:
        read_pictures(path)
    assert "x.json" in str(caught.value)
    assert "complete" in str(caught.value)
    assert any(f"line {number}," in str(caught.value) for number in (line, line - 1))


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [,]}',
        '{"images": [], "annotations": [] } x',
        '{"images": [{"file_name": "a"}], "n": ' + "9" * 5000 + "}",
    ],
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with refused(DataError, "x.json"):
        read_json(path)


def test_nests_too_deep_for_reading_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with refused(DataError, "x.json"):
        read_json(path)


def test_a_list_at_the_top_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with refused(DataError, "x.json", "list"):
        read_json(path)
    with refused(DataError, "x.json", "list"):
        read_pictures(path)


def test_numbers_that_are_none_do_not_stop_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(
        '{"images": [{"id": NaN, "file_name": "a.jpg", "location": Infinity, "t": -1e999}], "annotations": []}'
    )
    (picture,) = read_pictures(path).pictures
    assert (picture.path, picture.camera, picture.values) == ("a.jpg", "", {})


def test_keys_of_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(r'{"in\"fo": {"a": {"b": 1}}, "images": [{"file": "}{\"x\": [", "k": [{"deep": 1}]}, {"z": 1')
    keys = json_keys(path)
    assert keys['in\\"fo'] == set()
    assert keys["images"] == {"file", "k", "z"}
    assert json_keys(tmp_path) == json_keys(tmp_path / "none.json") == {}


def test_a_long_head_does_not_hide_the_records(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    report = "<p>" * HEADS[0]
    path.write_text(json.dumps({"info": {"summary_report": report}, "images": [{"file": "a.jpg", "detections": []}]}))
    assert find_reader(path).format == "MegaDetector JSON"


def test_many_classes_before_the_images_do_not_hide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    info = {"detector_metadata": {"megadetector_version": "v5"}}
    classes = {str(number): "x" * 60 for number in range(HEADS[0] // 60)}
    for document in (
        {"info": info, "classification_categories": classes, "images": [{"file": "a.jpg", "detections": []}]},
        {"info": info, "classification_categories": classes, "detection_categories": {}, "images": []},
    ):
        path.write_text(json.dumps(document))
        assert find_reader(path).format == "MegaDetector JSON"


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"", "empty"), (b"PK\x03\x04....", "archive"), (b'{"rows": [{"a": 1}]}', "rows"), (b"hello", "hello")],
)
def test_unknown_formats_are_refused_by_what_they_are(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with refused(DataError, "thing", named, "MegaDetector"):
        find_reader(path)


def test_missing_files_and_impossible_names_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", Path("a\0b"), Path("x" * 5000)):
        with refused(DataError):
            read_pictures(path)
