"""Predictions and labelled pictures in every format that is written."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camtrap_dp_rules
import megadetector_rules
from refusals import refused
from wildpdiff.camera_traps.answers import UNKNOWN, Answer, Classifier
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.records import EMPTY, Box, Picture, PictureTable
from wildpdiff.camera_traps.writers import camtrap_dp, coco, csv_files, megadetector
from wildpdiff.errors import DataError

CLASSES = ("genet", "leopard", "human", EMPTY)
NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
MACHINE = Classifier(CLASSES, "0.1.0", "ab" * 32, NOW, ("Felidae", "animal"), {"genet": "Genetta genetta"})
CLOCK = camtrap_dp.Clock(timezone(timedelta(hours=2)))
FIXTURES = Path(__file__).parents[3].parent / "shared" / "data" / "fixtures"


def written(write: Callable[[csv_files.Write], None]) -> str:
    stream = io.StringIO()
    write(stream.write)
    return stream.getvalue()


def answer(path: str, probabilities: list[float], label: str = "", **further: Any) -> Answer:
    picture = {"camera": "Föhrenwald/3", "time": datetime(2025, 1, 2, 3, 4, 5), "line": 1}
    own = {key: further.pop(key) for key in tuple(further) if key in Picture.__dataclass_fields__}
    best = int(np.argmax(probabilities)) if probabilities else 0
    probability = further.pop("probability", probabilities[best] if probabilities else 0.0)
    return Answer(
        Picture(path, **{**picture, **own}),
        np.array(probabilities, dtype=np.float64),
        label or (CLASSES[best] if probabilities else ""),
        probability,
        further.pop("source", "generated"),
        **further,
    )


ANSWERS = (
    answer("a/1.jpg", [0.7, 0.2, 0.0, 0.1], trust=0.81234567),
    answer("a/2.jpg", [0.05, 0.05, 0.0, 0.9], source="pretrained", trust=0.1),
    answer("a/3.jpg", [0.0, 0.1, 0.9, 0.0]),
    answer("a/4.jpg", [], failure="truncated"),
    answer("a/5.jpg", [0.4, 0.5, 0.0, 0.1], label="Felidae", probability=0.9),
    answer("a/6.jpg", [0.3, 0.3, 0.1, 0.3], label=UNKNOWN),
    answer("a/7.jpg", [0.6, 0.4, 0.0, 0.0], boxes=()),
    answer("a/8.jpg", [0.1, 0.9, 0.0, 0.0],
           boxes=(Box(0.1, 0.2, 0.3, 0.4, "animal", 0.875), Box(0.5, 0.5, 0.5, 0.5, "person", 0.5))),
)  # fmt: skip


def batch() -> Any:
    categories = megadetector.box_categories(entry.picture for entry in ANSWERS)
    content = json.loads(written(lambda write: megadetector.write_answers(write, ANSWERS, MACHINE, categories)))
    assert megadetector_rules.faults(content) == []
    return content


def test_a_batch_file_has_the_frame_with_the_probability_of_no_blank() -> None:
    content = batch()
    named = content["classification_categories"]
    by_file = {image["file"]: image for image in content["images"]}
    assert list(by_file) == [entry.picture.path for entry in ANSWERS]
    (frame,) = by_file["a/1.jpg"]["detections"]
    assert (frame["category"], frame["conf"], frame["bbox"]) == ("1", 0.9, [0.0, 0.0, 1.0, 1.0])
    assert [(named[number], value) for number, value in frame["classifications"]][:2] == [
        ("genet", 0.7),
        ("leopard", 0.2),
    ]
    assert by_file["a/2.jpg"]["detections"][0]["conf"] == 0.1
    assert by_file["a/2.jpg"]["model"] == "pretrained"
    assert by_file["a/3.jpg"]["detections"][0]["category"] == "2"
    (taxon, share), *_ = by_file["a/5.jpg"]["detections"][0]["classifications"]
    assert (named[taxon], share) == ("Felidae", 0.9)
    assert {image["location"] for image in content["images"]} == {"Föhrenwald/3"}
    assert by_file["a/1.jpg"]["datetime"] == "2025-01-02 03:04:05"
    assert by_file["a/1.jpg"]["trust"] == 0.8123
    assert content["info"]["classifier"] == f"wildpdiff 0.1.0 {'ab' * 6}"


def test_a_batch_file_keeps_detections_and_names_failures() -> None:
    by_file = {image["file"]: image for image in batch()["images"]}
    assert by_file["a/4.jpg"]["detections"] is None
    assert by_file["a/4.jpg"]["failure"]
    assert by_file["a/7.jpg"]["detections"] == []
    animal, person = by_file["a/8.jpg"]["detections"]
    assert animal["bbox"] == [0.1, 0.2, 0.3, 0.4]
    assert animal["conf"] == 0.875
    assert "classifications" in animal
    assert person["category"] == "2"
    assert "classifications" not in person


def test_names_of_files_that_are_no_text_are_escaped() -> None:
    text = written(
        lambda write: megadetector.write_answers(write, [answer("caf\udce9.jpg", [1.0, 0, 0, 0])], MACHINE, ("animal",))
    )
    assert json.loads(text.encode())["images"][0]["file"] == "caf\udce9.jpg"


def test_an_empty_batch_file_is_legal() -> None:
    content = json.loads(written(lambda write: megadetector.write_answers(write, [], MACHINE, ("animal",))))
    assert megadetector_rules.faults(content) == []


def observations() -> dict[str, dict[str, str]]:
    text = written(lambda write: camtrap_dp.write_answers(write, ANSWERS, MACHINE, CLOCK))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(camtrap_dp_rules.table_faults("observations", rows)) == []
    by_media = {camtrap_dp.media_id(entry.picture): entry.picture.path for entry in ANSWERS}
    return {by_media[row["mediaID"]]: row for row in rows}


def test_observations_say_type_name_machine_and_trust() -> None:
    found = observations()
    assert {path: (row["observationType"], row["scientificName"]) for path, row in found.items()} == {
        "a/1.jpg": ("animal", "Genetta genetta"),
        "a/2.jpg": ("blank", ""),
        "a/3.jpg": ("human", "Homo sapiens"),
        "a/5.jpg": ("animal", "Felidae"),
        "a/6.jpg": ("unknown", ""),
        "a/7.jpg": ("animal", "Genetta genetta"),
        "a/8.jpg": ("animal", "leopard"),
    }
    first = found["a/1.jpg"]
    assert (first["observationLevel"], first["classificationMethod"]) == ("media", "machine")
    assert first["classifiedBy"] == MACHINE.signature
    assert first["classificationTimestamp"] == "2026-05-04T12:30:00+00:00"
    assert first["eventStart"] == "2025-01-02T03:04:05+02:00"
    assert first["deploymentID"] == "Föhrenwald/3"
    assert first["observationTags"] == "model:generated | trust:0.8123"
    assert (found["a/8.jpg"]["bboxX"], found["a/8.jpg"]["bboxHeight"]) == ("0.1", "0.4")
    assert found["a/1.jpg"]["bboxX"] == ""


def test_a_box_below_the_detectors_threshold_is_none() -> None:
    text = written(lambda write: camtrap_dp.write_answers(write, ANSWERS, MACHINE, CLOCK, threshold=0.9))
    assert {row["bboxX"] for row in csv.DictReader(io.StringIO(text))} == {""}


def test_a_table_of_predictions_has_all_in_every_row() -> None:
    rows = list(csv.DictReader(io.StringIO(written(lambda write: csv_files.write_answers(write, ANSWERS, MACHINE)))))
    assert [row["file"] for row in rows] == [entry.picture.path for entry in ANSWERS if not entry.failure]
    assert rows[0] == {
        "file": "a/1.jpg", "class": "genet", "probability": "0.700000", "camera": "Föhrenwald/3",
        "time": "2025-01-02 03:04:05", "sequence": "", "model": "generated", "trust": "0.8123",
        "classified_by": MACHINE.signature, "classified_at": "2026-05-04T12:30:00+00:00",
    }  # fmt: skip
    several = written(lambda write: csv_files.write_answers(write, ANSWERS[:1], MACHINE, top=2))
    assert [row["class"] for row in csv.DictReader(io.StringIO(several))] == ["genet", "leopard"]


def test_no_spreadsheet_runs_a_cell() -> None:
    hostile = answer("=cmd|calc.jpg", [1.0, 0, 0, 0], label="@SUM(1)", camera="+1+2", sequence="-x")
    (row,) = csv.DictReader(io.StringIO(written(lambda write: csv_files.write_answers(write, [hostile], MACHINE))))
    assert (row["file"], row["class"], row["camera"], row["sequence"]) == (
        "./=cmd|calc.jpg",
        "'@SUM(1)",
        "'+1+2",
        "'-x",
    )
    assert csv_files.value("-2.5") == "-2.5"


def labelled(format: str = "CSV", source: Path = Path("survey.csv")) -> PictureTable:
    moment = datetime(2025, 6, 1, 8, 0)
    pictures = (
        Picture("a/1.jpg", 2, "A", ("genet",), moment, "s1", 0),
        Picture("a/2.jpg", 3, "A", (EMPTY,), moment + timedelta(seconds=5), "s1", 1),
        Picture("b/1.jpg", 4, "B", ("genet", "leopard"), moment, boxes=(Box(0.1, 0.1, 0.2, 0.25, label="leopard"),)),
        Picture("b/2.jpg", 5, "B", (), moment),
    )
    cameras = {
        "A": {"latitude": "1.5", "lon": "2", "camera_height": "0.5", "elevation": "900"},
        "B": {"latitude": "-1", "lon": "3"},
    }
    return PictureTable(source, format, Path(), pictures, cameras)


def test_labelled_pictures_as_a_package(tmp_path: Path) -> None:
    table = labelled()
    files = camtrap_dp.package(
        table,
        lambda write: camtrap_dp.write_observations(write, table, CLOCK),
        ["genet", "leopard"],
        clock=CLOCK,
        now=NOW,
    )
    for name, content in files.items():
        (tmp_path / name).write_bytes(written(content).encode() if callable(content) else content)
    assert camtrap_dp_rules.faults(tmp_path) == []
    first, second = camtrap_dp_rules.table(tmp_path / "deployments.csv")
    assert (first["latitude"], first["longitude"], first["cameraHeight"]) == ("1.5", "2", "0.5")
    assert first["deploymentTags"] == "elevation:900"
    assert (first["deploymentStart"], first["deploymentEnd"]) == (
        "2025-06-01T08:00:00+02:00",
        "2025-06-01T08:00:05+02:00",
    )
    assert second["latitude"] == "-1"
    rows = camtrap_dp_rules.table(tmp_path / "observations.csv")
    assert [(row["observationType"], row["scientificName"], row["bboxX"]) for row in rows] == [
        ("animal", "genet", ""), ("blank", "", ""), ("animal", "leopard", "0.1"), ("animal", "genet", ""),
    ]  # fmt: skip
    assert {row["classificationMethod"] for row in rows} == {"human"}


@pytest.mark.parametrize("name", ["camtrap_dp_example", "camtrap_dp_small"])
def test_a_package_that_was_read_keeps_its_deployments_and_media(name: str) -> None:
    source = FIXTURES / name
    if not source.is_dir():
        pytest.skip("no local copy of the Camtrap DP packages")
    media = camtrap_dp_rules.table(source / "media.csv")
    pictures = tuple(
        Picture(row["filePath"], 1, row["deploymentID"], time=datetime.fromisoformat(row["timestamp"]),
                deployment=row["deploymentID"], identifier=row["mediaID"])
        for row in media
    )  # fmt: skip
    table = PictureTable(source, "Camtrap DP", source, pictures)
    answers = [Answer(picture, np.array([0.7, 0.2, 0.0, 0.1]), "genet", 0.7, "generated") for picture in pictures]
    files = camtrap_dp.package(
        table, lambda write: camtrap_dp.write_answers(write, answers, MACHINE, CLOCK), ["genet"], clock=CLOCK, now=NOW
    )
    for kept in ("deployments.csv", "media.csv"):
        assert files[kept] == (source / kept).read_bytes()
    description = json.loads(files["datapackage.json"])  # type: ignore[arg-type]
    assert description["project"]["observationLevel"] == ["media"]
    assert "id" not in description
    assert len(description["resources"]) == len(json.loads((source / "datapackage.json").read_bytes())["resources"])
    observed = files["observations.csv"]
    assert callable(observed)
    rows = list(csv.DictReader(io.StringIO(written(observed))))
    assert [row["mediaID"] for row in rows] == [row["mediaID"] for row in media]
    assert list(camtrap_dp_rules.table_faults("observations", rows)) == []


@pytest.mark.parametrize("zipped", [False, True])
def test_a_package_written_anew_states_how_its_own_observations_are_written(tmp_path: Path, zipped: bool) -> None:
    tables = {"deployments": "deploymentID\nd\n", "media": "mediaID\nm\n", "observations": "observationID;x\n"}
    resources: list[dict[str, object]] = [{"name": name, "path": f"./{name}.csv"} for name in tables]
    resources[2] |= {"dialect": {"delimiter": ";"}, "encoding": "utf-16", "hash": "0", "bytes": 1}
    resources[0] = {"name": "deployments", "data": [["deploymentID"], ["d"]]}
    files = {f"{name}.csv": text for name, text in tables.items()}
    files["datapackage.json"] = json.dumps({"resources": resources})
    source = tmp_path / "p.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
            (tmp_path / name).write_text(text)
    picture = Picture("1.jpg", 1, "d", time=NOW, deployment="d", identifier="m")
    table = PictureTable(source if zipped else tmp_path, "Camtrap DP", tmp_path, (picture,))
    found = camtrap_dp.package(table, lambda write: None, [], clock=CLOCK, now=NOW)
    assert found.keys() == {"media.csv", "observations.csv", "datapackage.json"}
    _, _, observations = json.loads(found["datapackage.json"])["resources"]  # type: ignore[arg-type]
    assert observations == {
        "name": "observations", "path": "observations.csv", "format": "csv", "mediatype": "text/csv",
        "encoding": "utf-8",
    }  # fmt: skip


def test_a_package_needs_times_and_coordinates() -> None:
    table = labelled()
    without = PictureTable(Path("x.csv"), "CSV", Path(), (Picture("q.jpg", 1, "A"),))
    for pictures, named in ((without, "q.jpg"), (PictureTable(Path("x"), "CSV", Path(), table.pictures), "latitude")):
        with refused(DataError, named):
            camtrap_dp.package(pictures, lambda write: None, [], clock=CLOCK, now=NOW)


def test_labelled_pictures_as_coco() -> None:
    content = coco.coco_of(labelled(), "survey", NOW)
    named = {entry["id"]: entry["name"] for entry in content["categories"]}
    assert named[0] == "empty"
    found = [
        (entry["image_id"], named[entry["category_id"]], "bbox_relative" in entry) for entry in content["annotations"]
    ]
    assert found == [
        ("a/1.jpg", "genet", False),
        ("a/2.jpg", "empty", False),
        ("b/1.jpg", "leopard", True),
        ("b/1.jpg", "genet", False),
    ]
    first = content["images"][0]
    assert (first["location"], first["seq_id"], first["seq_num_frames"], first["frame_num"]) == ("A", "s1", 2, 0)
    assert first["datetime"] == "2025-06-01 08:00:00"
    assert len({entry["id"] for entry in content["annotations"]}) == 4


def test_labelled_pictures_as_a_batch_file() -> None:
    content = json.loads(written(lambda write: megadetector.write_pictures(write, labelled(), NOW)))
    assert megadetector_rules.faults(content) == []
    named = content["classification_categories"]
    by_file = {
        image["file"]: [
            (found["bbox"], [named[number] for number, _ in found.get("classifications", [])])
            for found in image["detections"]
        ]
        for image in content["images"]
    }
    assert by_file == {
        "a/1.jpg": [([0, 0, 1, 1], ["genet"])],
        "a/2.jpg": [],
        "b/1.jpg": [([0.1, 0.1, 0.2, 0.25], ["leopard"]), ([0, 0, 1, 1], ["genet"])],
    }


def test_labelled_pictures_as_a_table() -> None:
    rows = list(csv.DictReader(io.StringIO(written(lambda write: csv_files.write_pictures(write, labelled())))))
    assert [(row["path"], row["label"], row["task"]) for row in rows] == [
        ("a/1.jpg", "genet", "A"), ("a/2.jpg", EMPTY, "A"), ("b/1.jpg", "genet", "B"), ("b/1.jpg", "leopard", "B"),
        ("b/2.jpg", "", "B"),
    ]  # fmt: skip
    assert (rows[2]["latitude"], rows[0]["sequence"], rows[1]["frame"]) == ("-1", "s1", "1")


FOUND = Box(0.1, 0.1, 0.2, 0.25, confidence=0.9)
CONTRADICTORY = {
    "nothing found": Picture("1.jpg", 1, "A", ("genet",), boxes=()),
    "two species": Picture("2.jpg", 2, "A", ("genet", "leopard"), boxes=(FOUND,)),
    "blank with a box": Picture("3.jpg", 3, "A", (EMPTY,), boxes=(FOUND,)),
    "no label": Picture("4.jpg", 4, "A", (), boxes=(FOUND,)),
    "a person found": Picture("5.jpg", 5, "A", ("genet",), boxes=(replace(FOUND, category="person"),)),
    "another name by a machine": Picture(
        "6.jpg", 6, "A", ("genet",), boxes=(replace(FOUND, label="leopard", label_confidence=0.6),)
    ),
}
"""Pictures whose detector and whose people do not agree."""


def read_back(tmp_path: Path, name: str, content: str) -> dict[str, Picture]:
    (tmp_path / name).write_text(content)
    return {picture.path: picture for picture in read_pictures(tmp_path / name).pictures}


def test_labels_of_people_survive_a_detector(tmp_path: Path) -> None:
    table = PictureTable(Path("x.csv"), "CSV", tmp_path, tuple(CONTRADICTORY.values()))
    found = read_back(tmp_path, "coco.json", json.dumps(coco.coco_of(table, "survey", NOW)))
    for picture in table.pictures:
        assert found[picture.path].labels == picture.labels
    assert found["3.jpg"].boxes == ()
    batch = written(lambda write: megadetector.write_pictures(write, table, NOW))
    assert megadetector_rules.faults(json.loads(batch)) == []
    boxes = {path: picture.boxes or () for path, picture in read_back(tmp_path, "batch.json", batch).items()}
    for picture in table.pictures:
        named = {box.label for box in boxes[picture.path] if box.label}
        assert named == set(picture.labels) - {EMPTY}
    assert boxes["3.jpg"] == ()
    assert [box.category for box in boxes["5.jpg"] if box.label] == ["animal"]


def test_names_by_a_machine_are_no_observations_of_people() -> None:
    picture = replace(CONTRADICTORY["another name by a machine"], time=datetime(2025, 6, 1), labels=())
    table = PictureTable(Path("x.csv"), "CSV", Path(), (picture,))
    assert written(lambda write: camtrap_dp.write_observations(write, table, CLOCK)).count("\n") == 1
