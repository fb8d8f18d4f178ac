"""``wildpdiff inspect`` on one screen: the verdict first, everything with --all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import toys
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import read_artifact, write_artifact
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.cli.inspect_screen import show_screen
from wildpdiff.cli.main import app

GOLDEN = Path(__file__).parents[2] / "golden"
LINES, COLUMNS = 40, 80


def shown(*words: object) -> str:
    done = CliRunner().invoke(app, ["inspect", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


def on_one_screen(text: str) -> list[str]:
    lines = text.splitlines()
    assert sum(max(1, -(-len(line) // COLUMNS)) for line in lines) <= LINES
    return lines


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "toy-1" / "generator", tmp_path / "generator"))


def test_a_generator_shows_its_verdict_before_its_facts(generator: Path) -> None:
    values = json.loads(shown(generator, "--json"))
    rows = {row["method"]: row["accuracy"] for row in values["config"]["cross_validation"]["rows"]}
    lines = on_one_screen(shown(generator))
    assert f"{rows['generated']:.1f} %" in lines[0]
    held_out = values["trust"]["config"]["held_out"]
    assert any(f"{own['random_gain']:+.1f} points" in lines[1] for own in held_out.values())
    thresholds = [value for own in values["trust"]["config"]["min_trust"].values() for value in own.values()]
    assert f"{min(thresholds):.2f} to {max(thresholds):.2f}" in lines[1]
    encoders = values["config"]["conditions"]["encoders"]
    parts = [entry["config"].get("part", entry["kind"]) for entry in encoders]
    assert f"reads: {', '.join(parts)}" in lines
    assert values["fingerprint"] in "".join(lines[2:8])
    assert not any(name in "".join(lines) for name in values["tensors"])
    whole = shown(generator, "--all").splitlines()
    assert whole[:2] == lines[:2]
    assert len(whole) > 3 * len(lines)
    assert all(any(name in line for line in whole) for name in values["tensors"])
    assert sum(line.startswith("Pretrained") for line in whole) == 1


def test_what_was_not_measured_is_named(generator: Path) -> None:
    shutil.rmtree(generator / "trust")
    stored = read_artifact(generator, "generator")
    config = {key: value for key, value in stored.config.items() if key != "cross_validation"}
    errors = {"generated": 0.25, "mean_adapter": 0.5, "nearest": 1.5, "tasks": 30, "note": ""}
    config["training"] = {**config["training"], "leave_one_out": errors}
    shutil.rmtree(generator)
    write_artifact(generator, "generator", config, stored.tensors)
    lines = on_one_screen(shown(generator))
    assert any(line.split() == ["mean", "adapter", "0.5"] for line in lines)
    assert "cross-validation" in lines[0]
    assert "trust" in lines[1]


def test_adapters_show_their_recommendation_first(toy_backbone: Backbone, tmp_path: Path) -> None:
    drawn = toys.random_adapter(toy_backbone, 0)
    scores = {"generated": 81.25, "pretrained": 62.5, "mean adapter": 70.0}
    provenance = {
        "task": "ridge",
        "trust": {"recommendation": "Keep the pretrained model: RIDGE."},
        "cross_validation": {"accuracy": scores, "tasks": 31},
        "description": {"metadata": {f"field {number}": number for number in range(90)}},
    }
    Adapter(drawn.tensors, drawn.config, provenance).save(tmp_path / "adapter")
    lines = on_one_screen(shown(tmp_path / "adapter"))
    assert lines[0] == "Keep the pretrained model: RIDGE."
    assert all(value in lines[1] for value in ("31", "81.2 %", "62.5 %"))
    assert any(line.startswith("description: metadata (field 0 0, ") for line in lines)
    assert "task: ridge" in lines
    assert "field 89: 89" in shown(tmp_path / "adapter", "--all")


def test_a_zoo_with_a_recipe_shows_fine_tuning_next_to_the_pretrained_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(GOLDEN / "toy-1" / "zoo", tmp_path / "zoo"))
    mean = json.loads(shown(folder, "--json"))["validation_accuracy"]
    first, *others = on_one_screen(shown(folder))
    assert (first, f"validation accuracy: {100 * mean:.1f}\xa0%" in others) == ("kind: zoo", True)
    remarks = ["The pretrained model is RIDGE."]
    recipe = {"tasks": ["a", "b"], "accuracy": 0.75, "pretrained": 0.5, "remarks": remarks}
    show_screen({"kind": "zoo", "tensors": {}, "recipe": recipe}, folder)
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert all(value in first for value in ("2 seen tasks", "75.0\xa0%", "50.0\xa0%"))
    assert second == "The pretrained model is RIDGE."


@pytest.mark.parametrize("name", ["results-5", "results-6"])
def test_results_show_the_headline_and_every_method(name: str) -> None:
    values = json.loads(shown(GOLDEN / name, "--json"))
    lines = on_one_screen(shown(GOLDEN / name))
    assert "kind: results" in lines[1:4]
    for key, score in values["accuracy"].items():
        assert any(line.startswith(key.partition(", ")[2]) and f"{100 * score:.1f}" in line for line in lines), key


def test_a_backbone_of_many_classes_and_tensors_fits(tmp_path: Path) -> None:
    save_backbone(load_backbone("savanna-cnn"), tmp_path / "backbone")
    assert "kind: backbone" in on_one_screen(shown(tmp_path / "backbone"))
