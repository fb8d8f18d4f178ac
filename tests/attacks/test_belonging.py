"""Parts of several runs are refused by every verb that takes several; a resumed run makes again what is broken."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tiny_world import SUITE, Run, World, refused_run, tiny_backbone

from refusals import refused
from wildbench.run_folder import kept
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.errors import SchemaVersionError
from wildpdiff.evaluate.results import read_results
from wildpdiff.generator import Generator
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

Copy = Callable[[Path], Path]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


@pytest.fixture
def demo(world: World, copy: Copy) -> Path:
    """A finished run that may be altered."""
    return copy(world.run)


@pytest.fixture
def other_generator(world: World, tmp_path: Path) -> Path:
    """The world's generator as if it were fitted to another zoo."""
    found = Generator.from_pretrained(world.generator)
    changed = dataclasses.replace(found, training={**found.training, "zoo": "0" * 64})
    return changed.save_pretrained(tmp_path / "other" / "generator-0")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"suite_options": {"seen": 12, "unseen": 3, "train": 41, "validation": 10, "test": 20, "backgrounds": 4}},
        {"generator_seeds": 2},
        {"backbone": "savanna-cnn"},
        {"seed": "0"},
        {"suite_options": []},
    ],
)
def test_an_altered_run_is_not_evaluated(run: Run, demo: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    edit(demo / "run.json", **changes)
    refused_run(run("evaluate", "--run", demo, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{}", "[]", "3", "{"])
def test_a_run_file_that_is_none_is_refused(run: Run, demo: Path, tmp_path: Path, content: str) -> None:
    (demo / "run.json").write_text(content)
    refused_run(run("evaluate", "--run", demo, "--out", tmp_path / "out"), "run.json")


@pytest.mark.parametrize("content", ["[[]]", "3", '[["a", "b"]]', '[["a", -1]]', '[["a", 1e300]]'])
def test_stages_that_are_none_are_refused(run: Run, demo: Path, tmp_path: Path, content: str) -> None:
    (demo / "stages.json").write_text(content)
    refused_run(run("evaluate", "--run", demo, "--out", tmp_path / "out"), "stages.json")


def test_a_generator_of_another_zoo_is_refused(
    world: World, run: Run, demo: Path, other_generator: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"]
    common = [*SUITE, "--backbone", world.backbone, *out]
    refused_run(run("evaluate", "--zoo", world.zoo, "--generator", other_generator, *common), "belong together")
    shutil.rmtree(demo / "generator-0")
    shutil.copytree(other_generator, demo / "generator-0")
    refused_run(run("evaluate", "--run", demo, *out), "belong together")
    pictures = tmp_path / "labels" / "impala"
    shutil.copytree(world.images, pictures)
    words = ["refine", world.adapter, "--images", pictures.parent, "--backbone", world.backbone, *out]
    refused_run(run(*words, "--generator", other_generator), "made by generator")
    assert not (tmp_path / "out").exists()


def test_zoos_of_other_groups_backbones_and_suites_are_refused(world: World, run: Run, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    own = ["--backbone", world.backbone]
    zoos = ["--zoo", world.zoo, "--generator", world.generator]
    refused_run(run("evaluate", *zoos, "--reference", world.zoo, *SUITE, *own, *out), "belong together")
    reference = world.run / "reference"
    exchanged = ["--zoo", reference, "--reference", world.zoo, "--generator", world.generator]
    refused_run(run("evaluate", *exchanged, *SUITE, *own, *out), "belong together")
    refused_run(run("evaluate", *zoos, *SUITE, "-o", "train=41", *own, *out), "belong together")
    refused_run(run("fit", "--zoo", reference, *SUITE, *own, *out))
    other = tiny_backbone(tmp_path / "backbone", seed=1)
    refused_run(run("fit", "--zoo", world.zoo, *SUITE, "--backbone", other, *out), "backbone")
    refused_run(run("evaluate", *zoos, *SUITE, "--backbone", other, *out))
    assert not (tmp_path / "out").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damaged_adapter(demo: Path) -> Path:
    cut(demo / "adapters" / "unseen-000" / "adapter_model.safetensors")
    return demo / "adapters" / "unseen-000"


def exchanged_adapter(demo: Path) -> Path:
    shutil.rmtree(demo / "adapters" / "unseen-001")
    (demo / "adapters" / "unseen-001").mkdir()
    return demo / "adapters" / "unseen-001"


def damaged_generator(demo: Path) -> Path:
    cut(demo / "generator-0" / "posterior.safetensors")
    return demo / "generator-0"


def damaged_results(demo: Path) -> Path:
    path = demo / "results.json"
    data = json.loads(path.read_bytes())
    data["summary"][0]["accuracy"] = 0.999
    path.write_text(json.dumps(data))
    return path


def results_of_another_run(demo: Path) -> Path:
    path = demo / "results.json"
    data = json.loads(path.read_bytes())
    data["suite"]["fingerprint"] = "0" * 64
    path.write_text(json.dumps(data))
    return path


def damaged_picture(demo: Path) -> Path:
    path = sorted((demo / "images" / "unseen-000").iterdir())[0]
    path.write_bytes(path.read_bytes()[:200])
    return path


def missing_picture(demo: Path) -> Path:
    path = sorted((demo / "images" / "unseen-000").iterdir())[-1]
    path.unlink()
    return path


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    return {entry.name: entry.read_bytes() for entry in files}


def accuracies(path: Path) -> list[Any]:
    return [row["accuracy"] for row in json.loads(path.read_bytes())["summary"]]


def suite_of(demo: Path) -> Any:
    return json.loads((demo / "results.json").read_bytes())["suite"]


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_demo_makes_again_what_is_broken(world: World, run: Run, demo: Path) -> None:
    attacks = (damaged_adapter, exchanged_adapter, damaged_generator, damaged_picture, missing_picture)
    parts = [attack(demo) for attack in attacks]
    results_of_another_run(demo)
    words = ["demo", "--size", "tiny", "--backbone", world.backbone, "--out", demo, "--threads", "1", "--json"]
    outcome = run(*words)
    assert outcome.status == 0, outcome.err
    for part in parts:
        assert content(part) == content(world.run / part.relative_to(demo)), part
    assert accuracies(demo / "results.json") == accuracies(world.run / "results.json")
    assert suite_of(demo) == suite_of(world.run)
    Adapter.load(outcome.json["adapters"][0])


def test_damaged_results_count_as_missing(demo: Path) -> None:
    path = demo / "results.json"
    assert kept(lambda: read_results(path), lambda results: True) is not None
    damaged_results(demo)
    assert kept(lambda: read_results(path), lambda results: True) is None
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "schema_version": 99}))
    with pytest.raises(SchemaVersionError):  # of a newer version, and not to be replaced
        kept(lambda: read_results(path), lambda results: True)


def test_trust_of_another_generator_is_refused(world: World) -> None:
    """The tiny world has too few tasks for a model of trust, so that the check itself is called."""
    from wildbench.datasets.savanna import SavannaConfig, SavannaSuite
    from wildpdiff.errors import ArtifactError
    from wildpdiff.evaluate.comparison import Comparison

    generator = Generator.from_pretrained(world.generator)
    options = json.loads((world.run / "run.json").read_bytes())["suite_options"]
    suite = SavannaSuite(SavannaConfig(seed=0, image_size=24, **options))
    zoo, reference = Zoo.open(world.zoo), Zoo.open(world.run / "reference")

    class Calibrated:
        def __init__(self, fingerprint: str) -> None:
            self.generator = fingerprint

    comparison = Comparison(suite, generator.backbone, zoo, reference, [generator], {})
    for fingerprint in (generator.fingerprint, "0" * 64):
        object.__setattr__(comparison, "trust", [Calibrated(fingerprint)])
        with nullcontext() if fingerprint == generator.fingerprint else refused(ArtifactError, "belong together"):
            comparison.check()


def test_a_zoo_of_another_recipe_under_the_same_generator_is_refused(world: World, run: Run, tmp_path: Path) -> None:
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.camera_traps.registry import load_suite

    backbone = load_backbone(world.backbone)
    options = json.loads((world.run / "run.json").read_bytes())["suite_options"]
    suite = load_suite("savanna", seed=0, image_size=24, classes=backbone.classes, **options)
    config = FinetuneConfig(steps=6, batch=16, checkpoints=2, interval=2, warmup=2)
    build_zoo(tmp_path / "zoo", backbone, suite.tasks("seen"), suite.fingerprint, config=config)
    words = ["--zoo", tmp_path / "zoo", "--generator", world.generator, *SUITE, "--backbone", world.backbone]
    refused_run(run("evaluate", *words, "--out", tmp_path / "out"), "fitted to zoo", "belong together")


def test_inspect_refuses_trust_of_another_generator(world: World, run: Run, copy: Copy) -> None:
    from wildpdiff.artifact import read_artifact, write_artifact
    from wildpdiff.generator import stored_fingerprint

    folder = copy(world.generator)
    own = Generator.from_pretrained(world.generator).fingerprint
    assert stored_fingerprint(read_artifact(folder, "generator")) == own
    for fingerprint, status in ((own, 0), ("0" * 64, 2)):
        write_artifact(folder / "trust", "trust", {"generator": fingerprint}, {})
        assert run("inspect", folder).status == status


def test_a_description_of_half_letters_is_refused(world: World, run: Run, tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text('{"metadata": {"elevation": 1}, "task_id": "\\ud800"}')
    words = ["--description", tmp_path / "site.json", "--backbone", world.backbone, "--out", tmp_path / "out"]
    refused_run(run("generate", world.generator, *words), "site.json")
