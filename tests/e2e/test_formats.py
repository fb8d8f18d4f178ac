"""From a survey to predictions in the formats of other programs, and labelled pictures from one format to another."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_world import Run, World, refused_run

import camtrap_dp_rules
import megadetector_rules
from wildpdiff.camera_traps.joining import read_joined
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.records import EMPTY

SMALL = [
    word
    for pair in ("image_size=24", "unseen=2", "train=12", "validation=4", "test=4", "backgrounds=2")
    for word in ("-o", pair)
]
FIXTURES = Path(__file__).parents[2].parent / "shared" / "data" / "fixtures"


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated cameras as files, with observations in Camtrap DP and a batch file next to them."""
    from wildpdiff.cli.main import main

    out = tmp_path_factory.mktemp("survey") / "out"
    words = ["suite", "export", "savanna", *SMALL, "--group", "unseen", "--out", str(out), "--format", "camtrap-dp"]
    assert main(words) == 0
    return out


def record(*inputs: Path) -> dict[str, tuple[Any, ...]]:
    """Camera, label, time and sequence of every picture, as the readers give them."""
    table = read_joined(inputs)
    labels = joined_labels((label for picture in table.pictures for label in picture.labels), table.blanks)
    return {
        picture.path.removeprefix("./"): (
            picture.camera,
            labels.of(picture.labels),
            None if picture.time is None else picture.time.replace(tzinfo=None, microsecond=0),
            picture.sequence,
        )
        for picture in table.pictures
    }


def test_simulated_cameras_are_the_same_in_every_format(run: Run, survey: Path, tmp_path: Path) -> None:
    first = record(survey / "annotations.json")
    assert len(first) == 40
    assert {labels for _, labels, _, _ in first.values()} > {(EMPTY,)}
    assert camtrap_dp_rules.faults(survey) == []
    assert record(survey) == first
    inputs = [str(survey / "annotations.json"), str(survey / "images.csv")]
    for form, name in (("csv", "a.csv"), ("coco", "a.json")):
        outcome = run("suite", "export", *inputs, "--format", form, "--out", tmp_path / name)
        assert outcome.status == 0, outcome.err
        assert record(tmp_path / name) == first
    batch = tmp_path / "batch.json"
    assert run("suite", "export", *inputs, "--format", "megadetector", "--out", batch, "--json").json["pictures"] == 40
    content = json.loads(batch.read_bytes())
    assert megadetector_rules.faults(content) == []
    named = content["classification_categories"]
    found = {
        image["file"]: tuple(named[detection["classifications"][0][0]] for detection in image["detections"]) or (EMPTY,)
        for image in content["images"]
    }
    assert found == {path: labels for path, (_, labels, _, _) in first.items()}
    boxes = {picture.path: picture.boxes for picture in read_joined([batch]).pictures}
    assert {path: tuple(box.label for box in found or ()) or (EMPTY,) for path, found in boxes.items()} == found


def test_boxes_survive_every_format(run: Run, tmp_path: Path) -> None:
    source = FIXTURES / "ena24_small" / "coco_annotations.json"
    if not source.is_file():
        pytest.skip("no local copy of ENA24's photographs")
    for form in ("coco", "megadetector"):
        assert run("suite", "export", source, "--format", form, "--out", tmp_path / f"{form}.json").status == 0
    tables = [read_joined([path]) for path in (source, tmp_path / "coco.json", tmp_path / "megadetector.json")]
    for table in tables[1:]:
        for before, after in zip(tables[0].pictures, table.pictures, strict=True):
            assert before.path == after.path
            corners = [
                [(box.left, box.top, box.width, box.height, box.label) for box in picture.boxes or ()]
                for picture in (before, after)
            ]
            assert corners[0] == [pytest.approx(corner) for corner in corners[1]]


def test_exports_that_cannot_be(run: Run, survey: Path, tmp_path: Path) -> None:
    refused_run(run("suite", "export", survey / "images.csv", "--out", tmp_path / "x"), "--format", "savanna")
    words = ("suite", "export", survey / "images.csv", "--format")
    refused_run(run(*words, "camtrap-dp", "--out", tmp_path / "x"), "time")
    refused_run(run(*words, "camtrap-dp", "--out", survey), survey)
    refused_run(run(*words, "csv", "--out", survey / "images.csv"), "images.csv")
    refused_run(run("suite", "export", tmp_path / "none.csv", "--format", "csv", "--out", tmp_path / "x"), "none.csv")
    assert list(tmp_path.iterdir()) == []


def predictions(world: World, survey: Path, *further: str | Path) -> Sequence[str | Path]:
    inputs = ("--suite", survey / "annotations.json", "--suite", survey / "images.csv")
    return ("predict", world.generator, *inputs, "--backbone", world.backbone, *further)


def test_every_camera_of_a_table_is_classified_in_every_format(
    world: World, run: Run, survey: Path, tmp_path: Path
) -> None:
    found = run(*predictions(world, survey, "--json")).json
    assert [camera["camera"] for camera in found["cameras"]] == ["unseen-000", "unseen-001"]
    assert {camera["model"] for camera in found["cameras"]} == {"generated"}
    answers = {row["file"]: row["class"] for row in found["predictions"]}
    assert len(answers) == 40

    shown = run(*predictions(world, survey, "--out", tmp_path / "a.csv"))
    assert "unseen-001" in shown.out
    rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))
    assert {row["file"]: row["class"] for row in rows} == answers
    assert {row["camera"] for row in rows} == {"unseen-000", "unseen-001"}

    assert run(*predictions(world, survey, "--out", tmp_path / "a.json")).status == 0
    content = json.loads((tmp_path / "a.json").read_bytes())
    assert megadetector_rules.faults(content) == []
    named = content["classification_categories"]
    assert {
        image["file"]: named[image["detections"][0]["classifications"][0][0]] for image in content["images"]
    } == answers

    package = tmp_path / "package"
    assert run(*predictions(world, survey, "--format", "camtrap-dp", "--out", package)).status == 0
    assert camtrap_dp_rules.faults(package) == []
    media = {row["mediaID"]: row["filePath"] for row in camtrap_dp_rules.table(package / "media.csv")}
    observed = camtrap_dp_rules.table(package / "observations.csv")
    kinds = {media[row["mediaID"]]: row["observationType"] for row in observed}
    assert kinds == {path: "blank" if label == "blank" else "animal" for path, label in answers.items()}

    again = tmp_path / "again"
    words = ("predict", world.generator, "--suite", package, "-o", f"root={survey}", "--backbone", world.backbone)
    assert run(*words, "--format", "camtrap-dp", "--out", again).status == 0
    for name in ("deployments.csv", "media.csv"):
        assert (again / name).read_bytes() == (package / name).read_bytes()


def test_rules_between_the_model_and_its_answers(world: World, run: Run, survey: Path, tmp_path: Path) -> None:
    species = tmp_path / "species.csv"
    species.write_text("camera,species\nunseen-000,elephant\n", encoding="utf-8")
    rows = run(*predictions(world, survey, "--species", species, "--json")).json["predictions"]
    labels = {labels for camera, labels, *_ in record(survey / "annotations.json").values() if camera == "unseen-000"}
    known = {name for found in labels for name in found} | {"elephant", "blank"}
    assert {row["class"] for row in rows if row["camera"] == "unseen-000"} <= known
    # Savanna's frames are bursts of one picture each; those of one camera become one burst in a table that says so.
    table = tmp_path / "bursts.csv"
    lines = [
        "path,task,sequence",
        *(f"{path},{found[0]},one" for path, found in record(survey / "annotations.json").items()),
    ]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ("predict", world.generator, "--suite", table, "--suite", survey / "images.csv", "-o", f"root={survey}")
    smooth = run(*words, "--backbone", world.backbone, "--smooth", "--json").json["predictions"]
    for camera in ("unseen-000", "unseen-001"):
        assert len({(row["class"], row["probability"]) for row in smooth if row["camera"] == camera}) == 1
    low = run(*predictions(world, survey, "--threshold", "0.999", "--json")).json["predictions"]
    assert {row["class"] for row in low} <= {"animal", "unknown"}


def test_a_broken_picture_is_named_in_the_output(world: World, run: Run, survey: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(survey.glob("images/unseen-000/*.jpg"))[:3]):
        data = path.read_bytes()
        (tmp_path / f"{number}.jpg").write_bytes(data[: len(data) // 2] if number == 1 else data)
    words = ("predict", world.adapter, tmp_path, "--backbone", world.backbone, "--out", tmp_path / "a.json")
    refused_run(run(*words), "1.jpg")
    assert not (tmp_path / "a.json").exists()
    outcome = run(*words, "--skip-unreadable")
    assert "1.jpg" in outcome.err
    content = json.loads((tmp_path / "a.json").read_bytes())
    assert megadetector_rules.faults(content) == []
    assert [(image["file"], image["detections"] is None) for image in content["images"]] == [
        ("0.jpg", False), ("1.jpg", True), ("2.jpg", False),
    ]  # fmt: skip


def test_paths_lead_down_from_one_folder(
    world: World, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here/a.jpg", "there/b.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (30, 20), (90, 120, 60)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path / "here")
    assert (
        run("predict", world.adapter, "a.jpg", "../there", "--backbone", world.backbone, "--out", "a.json").status == 0
    )
    content = json.loads(Path("a.json").read_bytes())
    assert [image["file"] for image in content["images"]] == ["here/a.jpg", "there/b.jpg"]


def test_detections_of_plain_images_are_kept(world: World, run: Run, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (30, 20), (90, 120, 60)).save(tmp_path / name)
    boxes = tmp_path / "boxes.json"
    found = [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}]
    boxes.write_text(json.dumps({
        "info": {"format_version": "1.5"},
        "detection_categories": {"1": "animal"},
        "images": [{"file": "a.jpg", "detections": found}, {"file": "b.jpg", "detections": []}],
    }))  # fmt: skip
    words = ("predict", world.adapter, tmp_path, "--backbone", world.backbone, "--boxes", boxes)
    outcome = run(*words, "--out", tmp_path / "out.json")
    assert outcome.status == 0, outcome.err
    content = json.loads((tmp_path / "out.json").read_bytes())
    assert megadetector_rules.faults(content) == []
    first, second = content["images"]
    assert (first["detections"][0]["bbox"], first["detections"][0]["conf"]) == ([0.1, 0.2, 0.3, 0.4], 0.9)
    assert first["detections"][0]["classifications"]
    assert second["detections"] == []


@pytest.fixture
def detected(tmp_path: Path) -> Path:
    """A file of detections whose detector is sure from .95 on, next to its picture."""
    Image.new("RGB", (30, 20), (90, 120, 60)).save(tmp_path / "a.jpg")
    content = {
        "info": {"format_version": "1.5", "detector_metadata": {"typical_detection_threshold": 0.95}},
        "detection_categories": {"1": "animal"},
        "images": [{"file": "a.jpg", "detections": [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path / "boxes.json"


def test_a_detectors_own_threshold_counts(world: World, run: Run, detected: Path, monkeypatch: Any) -> None:
    sure: list[float | None] = []
    monkeypatch.setattr("wildpdiff.prediction.box_of", lambda picture, framing, threshold: sure.append(threshold))
    picture, out = detected.parent / "a.jpg", detected.parent / "out.json"
    words = ("predict", world.adapter, picture, "--backbone", world.backbone, "--boxes", detected, "--out", out)
    assert run(*words).status == 0
    words = ("predict", world.generator, "--suite", detected, "--backbone", world.backbone, "--out", out)
    assert run(*words).status == 0
    assert sure == [0.95, 0.95]
    content = json.loads(out.read_bytes())
    assert megadetector_rules.faults(content) == []
    assert content["info"]["detector_metadata"] == {"typical_detection_threshold": 0.95}


def test_predictions_that_cannot_be(world: World, run: Run, survey: Path, tmp_path: Path) -> None:
    refused_run(run("predict", world.generator, survey), world.generator, "--suite")
    refused_run(run("predict", world.adapter, "--suite", survey), "--suite")
    refused_run(run("predict", world.adapter), "images")
    refused_run(run(*predictions(world, survey, "--zone", "Mars/Base")), "Mars/Base")
    refused_run(run(*predictions(world, survey, "--species", "fauna")), "fauna")
    refused_run(run(*predictions(world, survey, "--task", "nobody")), "nobody")
    refused_run(run(*predictions(world, survey, "--out", survey / "images.csv")), "images.csv")
    refused_run(run(*predictions(world, survey, "--format", "camtrap-dp", "--out", survey)), survey)
    savanna = ("predict", world.generator, "--suite", "savanna", "--backbone", world.backbone)
    refused_run(run(*savanna), "savanna")


def test_an_adapter_is_checked_on_labelled_pictures(world: World, run: Run, survey: Path, tmp_path: Path) -> None:
    words = ("check", world.adapter, "--images", survey / "annotations.json", "--backbone", world.backbone)
    refused_run(run(*words), "unseen-001")
    found = run(*words, "--task", "unseen-000", "--json").json
    assert found["pictures"] == 20
    assert sum(row["pictures"] for row in found["classes"]) == 20
    low, high = found["accuracy_lead"]["low"], found["accuracy_lead"]["high"]
    assert low <= found["accuracy"][0] - found["accuracy"][1] <= high
    shown = run(*words, "--task", "unseen-000")
    assert found["verdict"] in shown.out
    assert "macro-F1" in shown.out


def test_paths_are_as_given_or_relative_to_the_folder(
    world: World, run: Run, survey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(survey)
    words = ("predict", world.adapter, "images/unseen-000", "--backbone", world.backbone)
    found = {row["file"] for row in run(*words, "--json").json}
    assert found == {str(path) for path in Path("images/unseen-000").iterdir()}
    rows = csv.DictReader(run(*words).out.splitlines())
    assert {row["file"] for row in rows} == found
    batch = json.loads(run(*words, "--format", "megadetector").out)
    assert {image["file"] for image in batch["images"]} == {Path(path).name for path in found}


def test_one_broken_picture_of_many_stops_no_verb(world: World, run: Run, tmp_path: Path) -> None:
    for number in range(60):
        place = tmp_path / "labelled" / ("impala", "blank")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (4 * number, 100, 50)).save(place)
    for number in range(12):
        (tmp_path / "few").mkdir(exist_ok=True)
        Image.new("RGB", (24, 24), (4 * number, 100, 50)).save(tmp_path / "few" / f"{number}.png")
    (tmp_path / "few" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run("predict", world.adapter, tmp_path / "few", "--backbone", world.backbone).status == 0
    broken = tmp_path / "labelled" / "blank" / "7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    labelled, out = tmp_path / "labelled", tmp_path / "out.csv"
    for words in (("predict", world.adapter, labelled, "--out", out), ("check", world.adapter, "--images", labelled)):
        outcome = run(*words, "--backbone", world.backbone)
        assert outcome.status == 0, outcome.err
        assert "7.png" in outcome.err
    assert len(out.read_text().splitlines()) == 60
    for number in (9, 11):
        (tmp_path / "labelled" / "blank" / f"{number}.png").write_bytes(broken.read_bytes())
    refused_run(run("check", world.adapter, "--images", labelled, "--backbone", world.backbone), ".png")
    assert (
        run("check", world.adapter, "--images", labelled, "--backbone", world.backbone, "--skip-unreadable").status == 0
    )


def test_a_zipped_package_becomes_a_folder(world: World, run: Run, survey: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "survey"), "zip", survey)
    words = ("predict", world.generator, "--suite", archive, "--backbone", world.backbone)
    outcome = run(*words, "--format", "camtrap-dp", "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "out" / "deployments.csv").read_bytes() == (survey / "deployments.csv").read_bytes()
    assert camtrap_dp_rules.faults(tmp_path / "out") == []
