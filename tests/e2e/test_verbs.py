"""Every verb once, in the order in which a user meets them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_world import SUITE, Run, World, quick_settings, refused_run

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.registry import BUNDLED, load_backbone


def test_suite_is_listed_and_shown(run: Run, tmp_path: Path) -> None:
    assert run("suite", "ls", "--json").json[0]["suite"] == "savanna"
    values = run("suite", "show", "savanna", *SUITE, "--json").json
    assert values["tasks"] == {"pretraining": 240, "seen": 12, "unseen": 3}
    sheet = tmp_path / "sheet.png"
    task = run("suite", "show", "savanna", *SUITE, "--task", "unseen-001", "--image", sheet, "--json").json
    assert task["images"] == {"train": 40, "validation": 10, "test": 20}
    assert sum(task["labels"].values()) == 70
    assert task["backgrounds"] == 4
    assert Image.open(sheet).height == 40
    assert run("suite", "show", "savanna", "--seed", "1", "--json").json["fingerprint"] != values["fingerprint"]


def test_exported_suite_is_a_suite_again(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "export"
    small = ["-o", "train=12", "-o", "validation=4", "-o", "test=4", "-o", "backgrounds=2"]
    done = run("suite", "export", "savanna", *small, "--group", "unseen", "--limit", "2", "--out", out, "--json")
    assert done.json["tasks"] == ["unseen-000", "unseen-001"]
    assert json.loads((out / "annotations.json").read_bytes())["categories"]
    values = run("suite", "show", out / "images.csv", "-o", "unseen=1", "--json").json
    assert values["tasks"] == {"pretraining": 0, "seen": 1, "unseen": 1}
    refused = run("suite", "export", out / "images.csv", "--out", tmp_path / "again")
    assert refused.status == 2
    assert "savanna" in refused.err


def test_backbone_is_pretrained(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "backbone"
    options = ["-o", "image_size=24", "-o", "pretraining=30", "-o", "train=40"]
    done = run("backbone", "pretrain", *options, "--epochs", "1", "--out", out, "--json")
    values = done.json
    assert "group pretraining" not in " ".join(done.err.split())
    assert load_backbone(out).backbone_hash == values["hash"]
    assert len(values["losses"]) == 1


def test_zoo_fit_evaluate_report(world: World, run: Run, tmp_path: Path) -> None:
    common = [*SUITE, "--backbone", world.backbone]
    steps = ["--steps", "12", "--checkpoints", "4", "--batch", "16", "--seed", "0"]
    zoo = tmp_path / "zoo"
    built = run("zoo", "build", *common, *steps, "--out", zoo, "--json")
    assert built.json["checkpoints"] == 48
    again = run("zoo", "build", *common, *steps, "--out", zoo, "--json")
    assert "resuming" in again.err
    assert again.json["resumed_shards"] == 1
    small: dict[str, Any] = {"components": 3, "diffusion": {"batch": 32}, "autoencoder_config": {"latent_size": 6}}
    settings = quick_settings(tmp_path / "config.json", **small)
    generator = tmp_path / "generator"
    fit = [
        "--parts",
        "metadata,backgrounds",
        "--steps",
        "30",
        "--task-steps",
        "4",
        "--config",
        settings,
        "--seed",
        "1",
    ]
    fitted = run("fit", "--zoo", zoo, *common, *fit, "--out", generator, "--json").json
    assert fitted["parts"] == ["metadata", "backgrounds"]
    assert fitted["latent_size"] == 6
    assert fitted["loss"] is None  # a diffusion over latents is trained without a conditional mean alone
    assert fitted["posterior"]["chosen"]["one_sample"] > 0
    assert len(run("inspect", generator, "--json").json["config"]["conditions"]["encoders"]) == 2

    evaluate = ["--zoo", zoo, "--reference", world.run / "reference", "--generator", generator, "--samples", "2"]
    out = tmp_path / "evaluation"
    table = run("evaluate", *evaluate, *common, "--out", out)
    assert "unseen tasks" in table.out
    assert "--seen-tasks" in table.err.splitlines()[0]  # all are scored, and fewer can be
    page = (out / "report.html").read_bytes()
    redrawn = run("report", out / "results.json", "--out", tmp_path / "page", "--json").json
    assert Path(redrawn["report"]).read_bytes() == page

    swapped = run("evaluate", "--zoo", world.run / "reference", "--generator", generator, *common, "--out", out)
    assert swapped.status == 2
    assert "seen tasks" in swapped.err


def test_a_backbone_that_is_not_named_is_asked_for(world: World, run: Run, tmp_path: Path) -> None:
    zoo, out = ("--zoo", world.zoo), ("--out", tmp_path / "a")
    refused_run(run("fit", *zoo, *out), "--backbone")
    refused_run(run("evaluate", *zoo, "--generator", world.generator, *out), "--backbone")
    refused_run(run("predict", world.adapter, world.images), "--backbone")


def test_a_run_is_evaluated_again_on_fewer_seen_tasks(world: World, run: Run, tmp_path: Path) -> None:
    options = ["--run", world.run, "--seen-tasks", "2", "--samples", "1", "--without", "nearest task"]
    outcome = run("evaluate", *options, "--out", tmp_path / "few", "--json")
    assert outcome.status == 0, outcome.err
    found = outcome.json
    assert {row["split"] for row in found["rows"]} == {"seen", "unseen"}
    assert len({row["task"] for row in found["rows"] if row["split"] == "seen"}) == 2
    assert "nearest task" not in {row["source"] for row in found["rows"] if row["split"] == "seen"}
    assert found["provenance"]["seed"] == 0
    compared = run("compare", tmp_path / "few" / "results.json", "generated", "mean", "--json").json
    assert compared["tasks"] == 3
    refused = run("reproduce", "groups", "colour", "--run", world.run, "--out", tmp_path / "few")
    assert refused.status == 2
    assert "cannot be grouped by 'colour'" in refused.err
    # What was measured before is kept.
    assert len(json.loads((tmp_path / "few" / "results.json").read_text())["rows"]) == len(found["rows"])


def test_an_evaluation_needs_something_to_evaluate(run: Run, tmp_path: Path) -> None:
    nothing = run("evaluate", "--out", tmp_path / "a")
    assert nothing.status == 2
    assert "Give --run, or --zoo and at least one --generator" in nothing.err
    empty = run("evaluate", "--run", tmp_path, "--out", tmp_path / "a")
    assert empty.status == 2
    assert "run.json is missing" in empty.err
    unknown = run("evaluate", "--run", tmp_path, "--baselines", "most", "--out", tmp_path / "a")
    assert unknown.status == 2


def test_generate_from_a_file_from_flags_and_from_a_task(world: World, run: Run, tmp_path: Path) -> None:
    site_folder = tmp_path / "site"
    site_folder.mkdir()
    for number, path in enumerate(sorted(world.images.iterdir())[:2]):
        (site_folder / f"{number}.jpg").write_bytes(path.read_bytes())
    site = {"metadata": {"elevation": 1500, "habitat": "woodland"}, "backgrounds": ["0.jpg", "1.jpg"]}
    (site_folder / "site.json").write_text(json.dumps(site))
    generate = ("generate", world.generator)
    values = run(*generate, "--description", site_folder / "site.json", "--out", tmp_path / "file", "--json").json
    assert values["parts"] == ["metadata", "backgrounds"]
    assert set(values["seconds"]) == {"load", "condition", "sample_and_decode", "write"}
    flags = ["--metadata", "elevation=1500", "--metadata", "habitat=woodland"]
    flags += ["--backgrounds", site_folder / "0.jpg", "--backgrounds", site_folder / "1.jpg"]
    assert run(*generate, *flags, "--out", tmp_path / "flags").status == 0
    for name in ("adapter_model.safetensors", "provenance.json"):
        assert (tmp_path / "flags" / name).read_bytes() == (tmp_path / "file" / name).read_bytes()

    task = ["--suite", "savanna", *SUITE, "--task", "unseen-000", "-n", "3"]
    many = run(*generate, *task, "--out", tmp_path / "many", "--json").json
    assert [Path(folder).name for folder in many["adapters"]] == ["000", "001", "002"]
    first, second = (Adapter.load(tmp_path / "many" / name) for name in ("000", "001"))
    assert first.distance(second) > 0
    assert first.provenance["task"] == "unseen-000"


def test_predict_writes_a_table(world: World, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "predictions.csv"
    predict = ["predict", world.adapter, world.images, "--backbone", world.backbone]
    values = run(*predict, "--top", "3", "--out", out, "--json").json
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == len(values) == 18
    assert [row["class"] for row in rows] == [entry["class"] for entry in values]
    shares = [entry["probability"] for entry in values[:3]]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("name", ["adapters/unseen-000", "generator-0", "generator-0-backbone", "zoo", "results.json"])
def test_inspect_knows_every_kind(world: World, run: Run, name: str) -> None:
    kind = {"adapters": "adapter", "results.json": "results", "generator-0-backbone": "backbone"}
    values = run("inspect", world.run / name, "--json").json
    assert values["kind"] == kind.get(name.split("/")[0], name.split("-")[0])
    plain = run("inspect", world.run / name)
    assert plain.status == 0
    assert values["kind"] in plain.out


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_backbone_loads(name: str, run: Run) -> None:
    backbone = load_backbone(name)
    assert backbone.name == name
    assert len(backbone.classes) == 17


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "wildpdiff", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version("wildpdiff")
