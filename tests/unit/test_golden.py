"""Files that earlier versions wrote are read, and say what they said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import toys
from wildpdiff.artifact import SCHEMA_VERSION as ARTIFACT_VERSION
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import WEIGHTS, load_backbone
from wildpdiff.evaluate.results import SCHEMA_VERSION, read_results
from wildpdiff.generator import Generator
from wildpdiff.trust.model import TrustModel
from wildpdiff.zoo.store import Zoo

GOLDEN = Path(__file__).parents[1] / "golden"
TOY = GOLDEN / f"toy-{ARTIFACT_VERSION}"


def test_every_schema_version_has_files() -> None:
    versions = range(1, SCHEMA_VERSION + 1)
    found = [json.loads((GOLDEN / f"results-{version}" / "results.json").read_bytes()) for version in versions]
    assert [document["schema_version"] for document in found] == list(versions)
    for kind in ("generator", "generator/trust"):
        assert json.loads((TOY / kind / "manifest.json").read_bytes())["schema_version"] == ARTIFACT_VERSION
    assert json.loads((TOY / "zoo" / "plan.json").read_bytes())["schema_version"] == ARTIFACT_VERSION


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_results_of_every_version_are_read(version: int) -> None:
    results = read_results(GOLDEN / f"results-{version}" / "results.json")
    rows = {(row.source, row.task, row.generator_seed, row.sample): row.accuracy for row in results.rows}
    assert rows["pretrained", "a", None, 0] == 0.6
    assert rows["generated", "a", 1, 0] == 0.9
    (generated,) = (line for line in results.summary if line.label == "generated")
    assert generated.recovered_gain == pytest.approx(0.5)


def test_the_zoo_is_read() -> None:
    zoo = Zoo.open(TOY / "zoo")
    assert (len(zoo.tasks), zoo.tasks[0], len(zoo)) == (30, "seen-0", 150)


@pytest.mark.parametrize("task", toys.ToySuite().tasks("unseen"), ids=lambda task: task.name)
def test_generator_and_trust_give_what_they_gave(task: toys.ToyTask, toy_backbone: Backbone) -> None:
    generator = Generator.from_pretrained(TOY / "generator", toy_backbone)
    (adapter,) = generator.sample(task.description, 1, seed=0)
    expected = load_file(TOY / "expected.safetensors")
    for name, value in adapter.tensors.items():
        assert value.numpy() == pytest.approx(expected[f"{task.name}/{name}"].numpy(), abs=1e-5)
    report = TrustModel.of_generator(TOY / "generator", toy_backbone).assess(adapter, task.description)
    wanted = json.loads((TOY / "expected.json").read_bytes())[task.name]
    found = {"trust": report.trust, "gain": report.gain, "low": report.low, "high": report.high}
    assert found == pytest.approx(wanted, abs=1e-3)


def test_the_bundled_backbone_has_files_of_the_present_version() -> None:
    assert json.loads((WEIGHTS / "savanna-cnn" / "manifest.json").read_bytes())["schema_version"] == ARTIFACT_VERSION
    assert load_backbone("savanna-cnn").name == "savanna-cnn"
