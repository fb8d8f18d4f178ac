"""The runner of the job on real images: its settings are buildable, its steps are made once, jobs are not mixed."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from refusals import refused
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.errors import ArtifactError
from wildpdiff.records import encode
from wildpdiff.zoo.steps import FinetuneConfig

FOLDER = Path(__file__).parents[2] / "benchmarks" / "experiments" / "pacs_sites"
SETTINGS = json.loads((FOLDER / "experiment.json").read_text())
SIZES = {"sites": 5, "unseen": 1, "train": 10, "validation": 4, "test": 6, "unlabelled": 3}


@pytest.fixture(scope="module")
def runner() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("pacs_sites_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def places(runner: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name folders of coloured images and a table of 12 places with 7 labels."""
    folder = tmp_path_factory.mktemp("pacs")
    for number, domain in enumerate(runner.make_sites.DOMAINS):
        for place, label in enumerate(runner.make_sites.CLASSES):
            (folder / domain / label).mkdir(parents=True)
            image = Image.fromarray(np.full((8, 8, 3), (60 * number, 30 * place, 100), dtype=np.uint8))
            for index in range(40):
                image.save(folder / domain / label / f"{index}.jpg")
    rows = [f"place-{site},label-{(site + row * row) % 7}" for site in range(12) for row in range(35)]
    (folder / "table.csv").write_text("\n".join(["site,label", *rows]) + "\n")
    return ["--pacs", str(folder), "--table", str(folder / "table.csv")]


@pytest.mark.parametrize("size", ["full", "smoke"])
def test_the_settings_of_the_experiment_can_be_built(runner: ModuleType, size: str) -> None:
    settings = SETTINGS[size]
    generator = runner.generator_config(settings["generator"])
    assert generator.parts == ("examples",)
    assert encode(generator)["task_loss"].items() >= settings["generator"]["task_loss"].items()
    finetune = FinetuneConfig(**settings["finetune"])
    assert finetune.batch <= settings["sites"]["train"]


def test_sites_are_made_once_with_the_backbones_classes(runner: ModuleType, places: list[str], tmp_path: Path) -> None:
    options = runner.parse_arguments([*places, "--out", str(tmp_path)])
    table = runner.make_table(options, SIZES)
    written = table.read_bytes()
    table.write_bytes(written + b"\n")
    assert runner.make_table(options, SIZES).read_bytes() == written + b"\n"

    suite = load_suite(
        table, image_size=8, classes=runner.make_sites.CLASSES, root=options.pacs, ignore=runner.NOT_METADATA
    )
    assert suite.classes == runner.make_sites.CLASSES
    assert [len(suite.tasks(group)) for group in ("pretraining", "seen", "unseen")] == [4, 4, 1]
    description = suite.tasks("unseen")[0].description
    assert description.parts == ("examples",)  # neither the style by name nor the task's identity is told
    assert len(description.examples) == 3


def test_another_job_in_the_same_folder_is_refused(runner: ModuleType, places: list[str], tmp_path: Path) -> None:
    first = runner.parse_arguments([*places, "--out", str(tmp_path)])
    runner.claim(first, SETTINGS["smoke"])
    runner.claim(first, SETTINGS["smoke"])
    with refused(ArtifactError, "another backbone"):
        runner.claim(first, SETTINGS["full"])
    with refused(ArtifactError, "other sites"):
        runner.claim(runner.parse_arguments([*places, "--out", str(tmp_path), "--seed", "1"]), SETTINGS["smoke"])
