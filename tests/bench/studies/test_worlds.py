"""The study of unseen tasks on worlds of seconds: what is kept, what is made again, what trust adds."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wildbench.datasets.savanna.world import CLASSES
from wildbench.methods.few_labels import FewLabelsSource
from wildbench.studies import world_groups, world_page, worlds
from wildbench.studies.world_groups import GroupsStudy
from wildbench.studies.world_page import WorldsResult, run_worlds
from wildbench.studies.worlds import WorldsConfig
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.disk import write_file
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.evaluate.results import Results, read_results
from wildpdiff.fit import GeneratorConfig
from wildpdiff.pipeline import PipelineConfig, Prepared, prepare
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.report.html import ReportFiles
from wildpdiff.run_folder import RunFolder
from wildpdiff.tasks.description import Description, Images
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.report import TrustReport
from wildpdiff.zoo.steps import FinetuneConfig

SEEN, UNSEEN = 8, 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> WorldsConfig:
    folder = tmp_path_factory.mktemp("worlds") / "backbone"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SavannaCNN(len(CLASSES))
    save_backbone(Backbone.wrap(module, name="tiny", classes=CLASSES, image_size=24, lora=SAVANNA_LORA), folder)
    run = PipelineConfig(
        suite_options={"seen": SEEN, "unseen": UNSEEN, "train": 20, "validation": 5, "test": 10, "backgrounds": 2},
        backbone=str(folder),
        finetune=FinetuneConfig(steps=5, batch=10, checkpoints=2, interval=1, warmup=1),
        generator=GeneratorConfig(
            components=2,
            autoencoder_config=AutoencoderConfig(latent_size=4, steps=5),
            diffusion=DiffusionConfig(size="tiny", steps=5, batch=8),
            task_loss=TaskLossConfig(steps=0),
            sampling=Sampling(steps=3),
        ),
        generator_seeds=2,
        samples=1,
        seen_tasks=2,
    )
    groups = GroupsStudy(("camera_model",), most_tasks=2, generators=1, most_groups=1)
    return WorldsConfig(run=run, opponents=("nearest task",), labels=(1,), groups=groups)


def no_page(results: Results, folder: Path) -> ReportFiles:
    """Drawing takes longer than all else here, and has tests of its own."""
    write_file(folder / "report.html", str(results.suite.name).encode())
    return ReportFiles(folder / "report.html", ())


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "write_report", no_page)
        patch.setattr(world_page, "write_report", no_page)
        quick = FinetuneConfig(steps=2, batch=10, checkpoints=1, interval=1, warmup=1)
        patch.setattr(worlds, "FewLabelsSource", functools.partial(FewLabelsSource, config=quick))
        yield


@pytest.fixture(scope="module")
def study(config: WorldsConfig, tmp_path_factory: pytest.TempPathFactory) -> WorldsResult:
    out = tmp_path_factory.mktemp("study") / "run"
    return run_worlds(config, ("nothing told", "extrapolation"), out, command="a test")


def splits(results: Results) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for row in results.rows:
        found.setdefault((row.suite, row.split), set()).add(row.task)
    return found


def test_every_world_has_its_folder_and_all_stand_on_one_page(study: WorldsResult) -> None:
    found = {path.parent.name for path in study.folder.glob("*/results.json")}
    assert found == {"both", "nothing-told", "extrapolation"}  # extrapolation is out of both
    counted = {place: len(tasks) for place, tasks in splits(study.results).items()}
    assert counted.pop(("savanna, both", "held-out camera_model")) >= 2
    assert counted == {
        ("savanna, both", "seen"): 2,
        ("savanna, both", "unseen"): UNSEEN,
        ("savanna, nothing told", "seen"): 2,
        ("savanna, nothing told", "unseen"): UNSEEN,
    }
    assert {path.parent.name for path in study.folder.glob("*/report.html")} == found
    assert study.report == study.folder / "report.html"
    assert read_results(study.folder / "results.json") == study.results


def test_worlds_differ_in_their_suite_alone(study: WorldsResult) -> None:
    told = {name: json.loads((study.folder / name / "run.json").read_text()) for name in ("both", "nothing-told")}
    assert told["nothing-told"]["suite_options"].pop("told") == "foreign"
    assert told["both"] == told["nothing-told"]


def test_opponents_controls_and_labels_are_scored(study: WorldsResult) -> None:
    own = read_results(study.folder / "both" / "results.json")
    for split in ("seen", "unseen"):
        assert {(row.source, row.condition) for row in own.summary if row.split == split} == {
            ("pretrained", "none"),
            ("nearest task", "own"),
            ("generated", "own"),
            ("generated", "shuffled"),
            ("generated", "random"),
            ("fine-tuned", "own"),
            ("fine-tuned, 1 label a class", "own"),
        }
    assert len({row.generator_seed for row in own.rows if row.source == "generated"}) == 2


def test_without_a_model_of_trust_it_is_said(study: WorldsResult) -> None:
    assert study.results.trust is None
    for name in ("both", "nothing told", "extrapolation"):
        assert any(note.startswith(f"{name}: Trust was not assessed") for note in study.results.notes)
    assert {bar.verdict for bar in study.bars if bar.what.startswith(("trust:", "selective"))} == {"not measured"}


def test_the_table_tells_every_bar(study: WorldsResult) -> None:
    text = study.table.read_text()
    for bar in study.bars:
        assert f"| {bar.what} | {bar.asked or '–'} | {bar.measured} | {bar.verdict} |" in text
    assert "Made by `a test`; seed 0" in text


def test_the_time_of_every_stage_is_kept(study: WorldsResult) -> None:
    names = {stage.name for stage in study.results.stages}
    assert {"both: fine-tune seen tasks", "both: evaluate", "nothing told: fit generator 2 of 2"} <= names
    assert sum(name.startswith("extrapolation: hold out camera_model") for name in names) == len(group_files(study)) > 0


def group_files(study: WorldsResult) -> list[Path]:
    return sorted(study.folder.glob("extrapolation/groups/camera_model/*.json"))


def test_called_again_nothing_is_measured(
    study: WorldsResult, config: WorldsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **further: object) -> None:
        raise AssertionError("measured again")

    for name in ("prepare", "compare_sources"):
        monkeypatch.setattr(worlds, name, refuse)
    monkeypatch.setattr(world_groups, "hold_out_group", refuse)
    (study.folder / "extrapolation" / "results.json").unlink()
    again = run_worlds(config, ("both", "extrapolation"), study.folder, command="a test")
    assert again.results.rows == study.results.rows
    assert again.bars == study.bars


def test_what_is_not_there_is_refused(study: WorldsResult, config: WorldsConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no world 'flat'; there are both, metadata only"):
        run_worlds(config, ("both", "flat"), tmp_path / "new", command="a test")
    with pytest.raises(DataError, match="No world was asked for"):
        run_worlds(config, (), tmp_path / "new", command="a test")
    with pytest.raises(ArtifactError, match="another seen_tasks"):
        run_worlds(replace(config, run=replace(config.run, seen_tasks=3)), ("both",), study.folder, command="a test")
    with pytest.raises(DataError, match="most_tasks 0"):
        GroupsStudy(("region",), most_tasks=0)


def test_a_world_with_other_causes_has_a_backbone_of_its_own(
    config: WorldsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def stop(run: PipelineConfig, folder: RunFolder) -> Prepared:
        used.append(run.backbone)
        raise DataError("far enough")

    monkeypatch.setattr(worlds, "prepare", stop)
    options = {**config.run.suite_options, "pretraining": 60}
    config = replace(config, run=replace(config.run, suite_options=options), epochs=1)
    for world in ("both", "backgrounds only", "backgrounds only"):
        with pytest.raises(DataError, match="far enough"):
            worlds.measure_world(config, world, tmp_path, command="a test")
    given, own, again = (load_backbone(folder) for folder in used)
    assert used == [config.run.backbone, *[str(tmp_path / "backgrounds-only" / "backbone")] * 2]
    assert own.backbone_hash == again.backbone_hash != given.backbone_hash
    with pytest.raises(DataError, match="far enough"):
        worlds.measure_world(replace(config, epochs=None), "metadata only", tmp_path, command="a test")
    assert used[-1] == config.run.backbone, "without epochs the run's backbone is kept"


class Says(TrustModel):
    """Trusts one task and no other."""

    def __init__(self, task: str) -> None:
        object.__setattr__(self, "task", task)

    def assess(
        self,
        adapters: Adapter | Sequence[Adapter],
        description: Description,
        images: Images | None = None,
        min_trust: float | None = None,
    ) -> TrustReport:
        assert images is not None
        assert len(images) == 20  # the training images
        trust = 0.9 if description.task_id == self.__dict__["task"] else 0.1
        return TrustReport(trust, 1.0, -90.0, 90.0, 0.7, "examples", {}, (), "")


def test_trust_is_assessed_beside_the_measured_gain(
    study: WorldsResult, config: WorldsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(run: PipelineConfig, folder: RunFolder) -> Prepared:
        return replace(prepare(run, folder), trust=(Says("unseen-001"), Says("unseen-001")))

    monkeypatch.setattr(worlds, "prepare", prepared)
    monkeypatch.setattr(world_groups, "calibrate_generator", lambda *given, **further: Says("nobody"))
    monkeypatch.setattr(world_groups, "FEWEST_TASKS", 1)
    for name in ("both", "extrapolation"):
        (study.folder / name / "results.json").unlink()
    kept = group_files(study)[0]
    kept.unlink()
    found = run_worlds(config, ("both", "extrapolation"), study.folder, command="a test")
    assert found.results.rows == study.results.rows  # the group was held out again, the same
    assert found.results.trust is not None
    points = found.results.trust.points
    own = [point for point in points if point.world == "both"]
    assert {(point.task, point.generator) for point in own if point.used} == {("unseen-001", 0), ("unseen-001", 1000)}
    assert len(own) == 2 * UNSEEN
    rows = [row for row in found.results.rows if (row.suite, row.split) == ("savanna, both", "unseen")]
    for point in own:
        after = [row.accuracy for row in rows if (row.source, row.condition, row.task, row.generator_seed)
                 == ("generated", "own", point.task, point.generator)]  # fmt: skip
        (before,) = (row.accuracy for row in rows if (row.source, row.task) == ("pretrained", point.task))
        assert point.gain == pytest.approx(100 * (sum(after) / len(after) - before))
    others = [point for point in points if point.world == "extrapolation"]
    assert {point.split for point in others} == {"held-out camera_model"}
    assert not any(point.used for point in others)
    (bar,) = (bar for bar in found.bars if "inside the 90 % intervals" in bar.what)
    assert bar.measured.startswith("100")
    assert bar.verdict == "missed"
