import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refusals import refused
from wildbench.datasets.savanna.world import CLASSES
from wildbench.pipeline import PipelineConfig, PipelineResult, run_pipeline
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import read_results
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.zoo.steps import FinetuneConfig

SUITE = {"seen": 4, "unseen": 2, "pretraining": 0, "train": 20, "validation": 5, "test": 8, "backgrounds": 3}
STAGES = [
    "fine-tune seen tasks",
    "fine-tune unseen tasks, for comparison only",
    "fit generator 1 of 1",
    "generate adapters",
    "evaluate",
    "report",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SavannaCNN(len(CLASSES))
    backbone = Backbone.wrap(module, name="tiny", classes=CLASSES, image_size=24, lora=SAVANNA_LORA)
    folder = tmp_path_factory.mktemp("pipeline") / "backbone"
    save_backbone(backbone, folder)
    generator = GeneratorConfig(
        components=2,
        diffusion=DiffusionConfig(size="tiny", steps=10, batch=8),
        task_loss=TaskLossConfig(steps=2, tasks=2, images=4),
        sampling=Sampling(steps=3),
    )
    finetune = FinetuneConfig(steps=4, batch=8, warmup=1, checkpoints=2, interval=1)
    return PipelineConfig(suite_options=SUITE, backbone=str(folder), finetune=finetune, generator=generator, samples=2)


@pytest.fixture(scope="module")
def finished(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> PipelineResult:
    return run_pipeline(config, tmp_path_factory.mktemp("pipeline") / "run", command="a test")


@pytest.fixture
def copy(finished: PipelineResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_every_stage(finished: PipelineResult, config: PipelineConfig) -> None:
    backbone = load_backbone(config.backbone)
    assert [path.name for path in finished.adapters] == ["unseen-000", "unseen-001"]
    for path in finished.adapters:
        adapter = Adapter.load(path)
        backbone.check(adapter)
        assert adapter.provenance["task"] == path.name
    assert finished.report.is_file()
    assert read_results(finished.folder / "results.json") == finished.results
    assert {row.source for row in finished.results.rows} >= {"pretrained", "generated", "fine-tuned"}
    assert [stage.name for stage in finished.results.stages] == sorted(STAGES[:4], key=STAGES.index)
    assert finished.results.provenance.command == "a test"


def test_only_what_is_missing_is_done_again_and_every_stage_is_reported(copy: Path, config: PipelineConfig) -> None:
    started: list[str] = []
    ends: dict[str, tuple[int, int]] = {}

    def reporter(stage: str):  # type: ignore[no-untyped-def]
        started.append(stage)
        return lambda done, total: ends.__setitem__(stage, (done, total))

    before = times(copy)
    rows = read_results(copy / "results.json").rows
    (copy / "results.json").unlink()
    report = {name for name in before if name.startswith(("report", "figures"))}
    assert report
    for name in report:
        (copy / name).unlink()
    again = run_pipeline(config, copy, command="again", reporter=reporter)
    after = times(copy)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"results.json", "stages.json"} | report
    assert again.results.rows == rows
    assert started == STAGES
    assert all(done == total for done, total in ends.values())
    assert "evaluate" in ends


def test_a_missing_generator_is_fitted_again_to_the_same_bytes(copy: Path, config: PipelineConfig) -> None:
    before = {path.name: path.read_bytes() for path in (copy / "generator-0").iterdir()}
    untouched = {name: stamp for name, stamp in times(copy).items() if name.startswith(("zoo", "reference"))}
    shutil.rmtree(copy / "generator-0")
    run_pipeline(config, copy, command="a test")
    assert {path.name: path.read_bytes() for path in (copy / "generator-0").iterdir()} == before
    assert {name: stamp for name, stamp in times(copy).items() if name.startswith(("zoo", "reference"))} == untouched


@pytest.mark.parametrize(
    ("changes", "key"), [({"seed": 1}, "seed"), ({"samples": 3}, "samples"), ({"suite_options": {}}, "suite_options")]
)
def test_another_configuration_in_the_folder_is_refused(
    copy: Path, config: PipelineConfig, changes: dict, key: str
) -> None:
    before = times(copy)
    with refused(ArtifactError, key, "--out"):
        run_pipeline(replace(config, **changes), copy, command="a test")
    assert times(copy) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path, config: PipelineConfig) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with refused(ArtifactError, tmp_path):
        run_pipeline(config, tmp_path, command="a test")
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_run_file_that_is_no_configuration_is_refused(tmp_path: Path, config: PipelineConfig) -> None:
    (tmp_path / "run.json").write_text("[]")
    with refused(ArtifactError, "suite"):
        run_pipeline(config, tmp_path, command="a test")
