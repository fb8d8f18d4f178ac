"""The framing of a backbone: part of its identity, kept with it, and honoured where pictures are read."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import Run, refused_run

import toys
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import MANIFEST, read_artifact, tensors_hash, write_artifact
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.backbones.savanna_cnn import SavannaCNN
from wildpdiff.camera_traps.records import Box, Picture
from wildpdiff.camera_traps.table_suite import TableSuite
from wildpdiff.errors import AdapterMismatchError, ArtifactError, TrainingError
from wildpdiff.prediction import predict
from wildpdiff.refine.labels import LabelledFiles, labelled_features
from wildpdiff.tasks.framing import FRAMINGS, Framing

CLASSES = ("fox", "hare")
RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 120, 0)


def backbone(framing: Framing = "square") -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SavannaCNN(2)
    lora = LoraSpec(2, 8.0, ("adapted.expand",), ("classifier",))
    return Backbone.wrap(module, name="mine", classes=CLASSES, image_size=24, lora=lora).with_framing(framing)


def picture_at_the_edge(path: Path, colour: tuple[int, int, int]) -> None:
    """A wide green frame with an animal of 40×40 pixels at its right edge."""
    pixels = np.zeros((90, 240, 3), dtype=np.uint8) + np.array(GREEN, dtype=np.uint8)
    pixels[30:70, 198:238] = colour
    pixels[0, 0] = list(hashlib.sha256(path.name.encode()).digest()[:3])  # files of the same bytes are one burst
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


BOX = [198 / 240, 30 / 90, 40 / 240, 40 / 90]


def test_every_framing_but_the_square_is_part_of_the_identity() -> None:
    hashes = {framing: backbone(framing).backbone_hash for framing in FRAMINGS}
    assert len(set(hashes.values())) == len(FRAMINGS)
    assert hashes["square"] == tensors_hash(dict(backbone().module.state_dict()))  # as it was before there were others
    again = backbone("box").with_framing("whole").with_framing("square")
    assert again.backbone_hash == hashes["square"]
    assert again.framing == "square"


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_framing_is_saved_with_the_backbone(tmp_path: Path, framing: Framing) -> None:
    saved = backbone(framing)
    save_backbone(saved, tmp_path / "b")
    loaded = load_backbone(tmp_path / "b")
    assert loaded.framing == framing
    assert loaded.backbone_hash == saved.backbone_hash
    assert loaded.collate == saved.collate
    config = json.loads((tmp_path / "b" / MANIFEST).read_bytes())["config"]
    assert config.get("framing") == (None if framing == "square" else framing)


def test_an_unknown_framing_on_disk_is_refused(tmp_path: Path) -> None:
    save_backbone(backbone("box"), tmp_path / "b")
    stored = read_artifact(tmp_path / "b", "backbone")
    for wrong in ("round", None, 3):
        write_artifact(tmp_path / "c", "backbone", {**stored.config, "framing": wrong}, stored.tensors)
        with refused(ArtifactError, "framing", "whole"):
            load_backbone(tmp_path / "c")


def test_adapters_of_another_framing_do_not_fit(tmp_path: Path) -> None:
    adapter = backbone("box").initial_adapter(0)
    picture_at_the_edge(tmp_path / "a.png", RED)
    for other in ("square", "whole", "boxes"):
        with refused(AdapterMismatchError, backbone("box").backbone_hash[:12]):
            predict(adapter, backbone(other), [tmp_path / "a.png"])  # type: ignore[arg-type]
    assert len(predict(adapter, backbone("box"), [tmp_path / "a.png"])) == 1


def test_only_images_have_a_framing() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    lora = LoraSpec(2, 2.0, ("0",))
    plain = Backbone.of(module, name="numbers", lora=lora, objective=toys.backbone().objective)
    assert plain.with_framing("square") is plain
    with refused(TrainingError, "numbers"):
        plain.with_framing("box")


def test_predictions_and_labels_see_the_framed_picture(tmp_path: Path) -> None:
    """What lies outside of the centred square decides nothing for it, and everything for the others."""
    files = [tmp_path / "red.png", tmp_path / "blue.png"]
    for file, colour in zip(files, (RED, BLUE), strict=True):
        picture_at_the_edge(file, colour)
    for framing in ("square", "whole", "box"):
        model = backbone(framing)  # type: ignore[arg-type]
        first, second = predict(model.initial_adapter(0), model, files)
        assert (first.probability == second.probability) == (framing == "square")
        pictures = tuple(Picture(file.name, 1, boxes=(Box(*BOX),)) for file in files)
        given = LabelledFiles("t", (files[0], files[0]), ("fox", "hare"), (), pictures)
        with_box = labelled_features(model, given).train
        without = labelled_features(model, LabelledFiles("t", given.files, given.labels, ())).train
        same = all(torch.equal(with_box[name], without[name]) for name in with_box)
        assert same == (framing != "box")


def table_of(folder: Path, boxes: bool) -> list[Path]:
    """Twenty pictures each of foxes and hares at two cameras, and a detector's file."""
    rows, images = [], []
    for number in range(80):
        label, name = CLASSES[number % 2], f"pictures/{number}.png"
        picture_at_the_edge(folder / name, (RED, BLUE)[number % 2])
        rows.append((name, label, f"camera {number % 4 // 2}"))
        images.append({"file": name, "detections": [{"category": "1", "conf": 0.9, "bbox": BOX}]})
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "task"), *rows])
    found = {"info": {"format_version": "1.4"}, "detection_categories": {"1": "animal"}, "images": images}
    (folder / "boxes.json").write_text(json.dumps(found))
    return [folder / "labels.csv", *([folder / "boxes.json"] if boxes else [])]


@pytest.mark.parametrize(
    ("boxes", "options", "framing"),
    [
        (True, (), "box"),
        (False, (), "whole"),
        (True, ("--framing", "whole"), "whole"),
        (True, ("--framing", "square"), "square"),
        (False, ("-o", "framing=square"), "square"),
        (True, ("--framing", "boxes"), "boxes"),
    ],
)
@pytest.mark.usefixtures("machine_settings")
def test_pretraining_chooses_the_framing_that_suits_a_table(
    tmp_path: Path, run: Run, boxes: bool, options: tuple[str, ...], framing: str
) -> None:
    suites = [word for entry in table_of(tmp_path, boxes) for word in ("--suite", str(entry))]
    words = ["--architecture", "savanna-cnn", "--epochs", "30", "-o", "image_size=24", "--threads", "1"]
    out = tmp_path / "backbone"
    values = run("backbone", "pretrain", *suites, *words, *options, "--out", out, "--json").json
    assert values["framing"] == framing
    model = load_backbone(out)
    assert (model.framing, model.backbone_hash) == (framing, values["hash"])
    # The centred square shows no animal at all.
    model.initial_adapter(0).save(tmp_path / "adapter")
    rows = run("predict", tmp_path / "adapter", tmp_path / "pictures", "--backbone", out, "--json").json
    right = np.mean([row["class"] == CLASSES[int(Path(row["file"]).stem) % 2] for row in rows])
    if framing in ("square", "whole"):  # predictions on files alone know no boxes
        assert right == {"square": 0.5, "whole": 1.0}[framing]


@pytest.mark.usefixtures("machine_settings")
def test_a_suite_is_read_with_the_framing_of_the_backbone(tmp_path: Path, run: Run) -> None:
    from wildpdiff.cli.options import open_suite

    suites = [str(entry) for entry in table_of(tmp_path, True)]
    seen = {}
    for framing in FRAMINGS:
        suite = open_suite(suites, ["unseen=0"], backbone(framing))
        assert isinstance(suite, TableSuite)
        assert suite.framing == framing
        seen[framing] = suite.tasks("seen")[0].data("train").images
    assert (seen["box"] == seen["boxes"]).all()
    share = {framing: (images.max(axis=3) > 150).mean() for framing, images in seen.items()}
    assert share["square"] == 0 < share["whole"] < 0.1 < 0.5 < share["box"]
    save_backbone(backbone("box"), tmp_path / "b")
    outcome = run(
        "zoo",
        "build",
        "--suite",
        *suites[:1],
        "-o",
        "framing=whole",
        "--backbone",
        tmp_path / "b",
        "--out",
        tmp_path / "z",
    )
    refused_run(outcome, "whole", "box")
    refused_run(run("suite", "show", *suites[:1], "-o", "framing=round"), "round", "whole")


def test_an_adapter_of_a_framed_backbone_is_read_back(tmp_path: Path) -> None:
    backbone("whole").initial_adapter(0).save(tmp_path / "a")
    backbone("whole").check(Adapter.load(tmp_path / "a"))
