"""``wildpdiff trust`` and ``generate --min-trust`` on the tiny world, with trust calibrated on its seen tasks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_world import Run, World

from trust_calibration import calibrate
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.generator import Generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.trust.folds import Fold
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo

SIZES = {"seen": 12, "unseen": 3, "train": 40, "validation": 10, "test": 20, "backgrounds": 4}


@dataclass(frozen=True)
class Mean:
    """The mean adapter of the tasks that were kept."""

    adapter: Adapter
    name: str = "mean"
    stochastic: bool = False

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        return [self.adapter] * n


@pytest.fixture(scope="module")
def trusting(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the generator with a model of trust in it."""
    folder = tmp_path_factory.mktemp("trust") / "generator"
    shutil.copytree(world.generator, folder)
    beside = world.generator.with_name(f"{world.generator.name}-backbone")
    if beside.is_dir():
        shutil.copytree(beside, folder.with_name(beside.name))
    backbone = load_backbone(str(world.backbone))
    generator = Generator.from_pretrained(folder, backbone)
    suite = load_suite("savanna", seed=0, image_size=backbone.image_size, classes=backbone.classes, **SIZES)
    zoo = Zoo.open(world.zoo)
    adapters = zoo.task_adapters()

    def fit_without(fold: Fold) -> Source:
        kept = [adapter for name, adapter in adapters.items() if name not in set(fold.held_out)]
        tensors = {name: torch.stack([entry.tensors[name] for entry in kept]).mean(0) for name in kept[0].tensors}
        return Mean(Adapter(tensors, kept[0].config))

    descriptions = {task.name: task.description for task in suite.tasks("seen")}
    features = FeatureCache(backbone, suite.tasks("seen"), 8)
    model = calibrate(
        zoo, descriptions, suite.metadata_schema, backbone, features, fit_without, generator=generator.fingerprint
    )
    model.save(folder / "trust")
    return folder


TASK = ["--metadata", "latitude=-2.4", "--metadata", "habitat=woodland"]


def test_trust_in_words_and_as_json(trusting: Path, world: World, run: Run) -> None:
    shown = run("trust", trusting, *TASK, "--examples", world.images, "--backbone", world.backbone)
    assert shown.status == 0, shown.err
    assert "from the description and the examples" in shown.out
    assert "90 % interval" in shown.out
    values = run("trust", trusting, *TASK, "--backbone", world.backbone, "--min-trust", "0", "--json").json
    assert 0 <= values["trust"] <= 1
    assert values["low"] <= values["high"]
    assert (values["basis"], values["use"]) == ("description", "generated")
    assert any("the description lacks" in entry for entry in values["reasons"])


def test_below_the_threshold_the_pretrained_model_is_written_with_a_sentence(
    trusting: Path, world: World, run: Run, tmp_path: Path
) -> None:
    words = ["generate", trusting, *TASK, "--backbone", world.backbone]
    done = run(*words, "--out", tmp_path / "kept", "--min-trust", "1")
    assert done.status == 0, done.err
    assert "Therefore the pretrained model's adapter was written" in done.out
    assert "Keep the pretrained model" in done.out
    kept = Adapter.load(tmp_path / "kept")
    assert kept.provenance["source"] == "pretrained"
    backbone = load_backbone(str(world.backbone))
    batch = backbone.stem(load_images(backbone.image_size))
    assert torch.equal(backbone.predict(batch, kept.tensors), backbone.predict(batch))

    used = run(*words, "--out", tmp_path / "used", "--min-trust", "0", "--json").json
    assert used["trust"]["use"] == "generated"
    values = Adapter.load(tmp_path / "used").provenance
    assert (values["source"], values["trust"]["use"]) == ("generated", "generated")


def test_without_a_threshold_what_is_not_trusted_is_replaced_by_default(
    trusting: Path, world: World, run: Run, tmp_path: Path
) -> None:
    """The planted source ignores its description, so its trust is 0 whatever it gains."""
    words = ["generate", trusting, *TASK, "--backbone", world.backbone]
    values = run("trust", trusting, *TASK, "--backbone", world.backbone, "--json").json
    assert (values["trust"], values["use"]) == (0, "pretrained")
    for number, further in enumerate(([], ["-n", "2"], ["--sample"])):
        done = run(*words, *further, "--out", tmp_path / f"kept-{number}")
        assert done.status == 0, done.err
        assert "Therefore the pretrained model's adapter was written" in done.out
        used = run(*words, *further, "--min-trust", "0", "--out", tmp_path / f"used-{number}")
        assert used.status == 0, used.err
        assert "pretrained model's adapter" not in used.out
        written = {"kept": [], "used": []}  # type: dict[str, list[Adapter]]
        for kind, found in written.items():
            folder = tmp_path / f"{kind}-{number}"
            found += [Adapter.load(path) for path in (sorted(folder.iterdir()) if "-n" in further else [folder])]
            assert len(found) == (2 if "-n" in further else 1)
        source = "one sample" if further else "generated"
        assert {entry.provenance["source"] for entry in written["kept"]} == {"pretrained"}
        assert {entry.provenance["source"] for entry in written["used"]} == {source}
        for kind, use in (("kept", "pretrained"), ("used", "generated")):
            trust = [entry.provenance["trust"] for entry in written[kind]]
            assert {(entry["value"], entry["use"]) for entry in trust} == {(0, use)}


def test_estimates_are_given_by_default_and_samples_on_request(world: World, run: Run, tmp_path: Path) -> None:
    words = ["generate", world.generator, *TASK, "--backbone", world.backbone, "--json"]
    drawn, adapters = {}, {}
    for name, further in {"one": [], "same": ["-n", "2", "--estimate"], "many": ["-n", "2"], "s": ["--sample"]}.items():
        values = run(*words, *further, "--out", tmp_path / name).json
        drawn[name] = values["drawn"]
        adapters[name] = [Adapter.load(folder) for folder in values["adapters"]]
        assert values["made_of"]
    assert drawn == {"one": "estimate", "same": "estimate", "many": "samples", "s": "samples"}
    (estimate,) = adapters["one"]
    assert [estimate.distance(entry) for entry in adapters["same"]] == [0, 0]
    assert min(estimate.distance(entry) for entry in adapters["many"]) > 0
    assert adapters["s"][0].distance(adapters["many"][0]) < 1e-5


def test_a_threshold_of_zero_needs_no_trust(world: World, run: Run, tmp_path: Path) -> None:
    words = ["generate", world.generator, *TASK, "--backbone", world.backbone, "--json", "-n", "2"]
    values = run(*words, "--min-trust", "0", "--out", tmp_path / "given").json
    assert "trust" not in values
    assert {Adapter.load(folder).provenance["source"] for folder in values["adapters"]} == {"one sample"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--min-trust", "0.01"], "has no model of trust"),
        (["--min-trust", "auto"], "has no model of trust"),
        (["--min-trust", "often"], "--min-trust is 'often'; give a probability from 0 to 1, or auto"),
        (["--min-trust", "1.5"], "--min-trust is '1.5'"),
    ],
)
def test_what_cannot_be_done_is_refused(
    words: list[str], sentence: str, world: World, run: Run, tmp_path: Path
) -> None:
    done = run("generate", world.generator, *TASK, "--backbone", world.backbone, "--out", tmp_path / "a", *words)
    assert done.status == 2
    assert sentence in done.err
    assert not (tmp_path / "a").exists()


def load_images(size: int) -> object:
    import numpy as np

    return np.zeros((1, size, size, 3), dtype=np.uint8)


def test_inspect_looks_into_trust(world: World, run: Run, trusting: Path, tmp_path: Path) -> None:
    assert "trust" not in run("inspect", world.generator, "--json").json
    assert run("inspect", trusting, "--json").json["trust"]["fingerprint"]
    broken = tmp_path / "generator"
    shutil.copytree(trusting, broken)
    file = next((broken / "trust").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])
    outcome = run("inspect", broken)
    assert outcome.status == 2
    assert file.name in outcome.err
