"""The study of unseen tasks on variants of seconds: what is kept, what is made again, what trust adds."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from refusals import refused
from wildbench.datasets.savanna.world import CLASSES
from wildbench.methods.few_labels import FewLabelsSource
from wildbench.pipeline import PipelineConfig, RunInputs, prepare
from wildbench.run_folder import RunFolder
from wildbench.studies import variant_groups, variant_page, variants
from wildbench.studies.variant_groups import GroupsStudy
from wildbench.studies.variant_page import VariantsResult, run_variants
from wildbench.studies.variants import VariantsConfig
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
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.report.page import ReportFiles
from wildpdiff.tasks.description import Description, Images
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.report import TrustReport
from wildpdiff.zoo.steps import FinetuneConfig

SEEN, UNSEEN = 8, 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> VariantsConfig:
    folder = tmp_path_factory.mktemp("variants") / "backbone"
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
    return VariantsConfig(run=run, opponents=("nearest task",), labels=(1,), groups=groups)


def no_page(results: Results, folder: Path) -> ReportFiles:
    """Drawing takes longer than all else here, and has tests of its own."""
    write_file(folder / "report.html", str(results.suite.name).encode())
    return ReportFiles(folder / "report.html", ())


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "write_report", no_page)
        patch.setattr(variant_page, "write_report", no_page)
        quick = FinetuneConfig(steps=2, batch=10, checkpoints=1, interval=1, warmup=1)
        patch.setattr(variants, "FewLabelsSource", functools.partial(FewLabelsSource, config=quick))
        yield


@pytest.fixture(scope="module")
def study(config: VariantsConfig, tmp_path_factory: pytest.TempPathFactory) -> VariantsResult:
    out = tmp_path_factory.mktemp("study") / "run"
    return run_variants(config, ("no information", "extrapolation"), out, command="a test")


def splits(results: Results) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for row in results.rows:
        found.setdefault((row.suite, row.split), set()).add(row.task)
    return found


def test_every_variant_has_its_folder_and_all_are_on_one_page(study: VariantsResult) -> None:
    found = {path.parent.name for path in study.folder.glob("*/results.json")}
    assert found == {"both", "no-information", "extrapolation"}  # extrapolation is out of both
    counted = {split: len(tasks) for split, tasks in splits(study.results).items()}
    assert counted.pop(("savanna, both", "held-out camera_model")) >= 2
    assert counted == {
        ("savanna, both", "seen"): 2,
        ("savanna, both", "unseen"): UNSEEN,
        ("savanna, no information", "seen"): 2,
        ("savanna, no information", "unseen"): UNSEEN,
    }
    assert {path.parent.name for path in study.folder.glob("*/report.html")} == found
    assert study.report == study.folder / "report.html"
    assert read_results(study.folder / "results.json") == study.results


def test_variants_differ_in_their_suite_alone(study: VariantsResult) -> None:
    settings = {name: json.loads((study.folder / name / "run.json").read_text()) for name in ("both", "no-information")}
    assert settings["no-information"]["suite_options"].pop("description") == "foreign"
    assert settings["both"] == settings["no-information"]


def test_opponents_controls_and_labels_are_scored(study: VariantsResult) -> None:
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


def test_without_a_model_of_trust_it_is_noted(study: VariantsResult) -> None:
    assert study.results.trust is None
    for name in ("both", "no information", "extrapolation"):
        assert any(note.startswith(f"{name}: Trust was not assessed") for note in study.results.notes)
    assert {target.verdict for target in study.targets if target.what.startswith(("trust:", "selective"))} == {
        "not measured"
    }


def test_the_table_has_every_target(study: VariantsResult) -> None:
    text = study.table.read_text()
    for target in study.targets:
        assert f"| {target.what} | {target.required or '–'} | {target.measured} | {target.verdict} |" in text
    assert "Made by `a test`; seed 0" in text


def test_the_time_of_every_stage_is_kept(study: VariantsResult) -> None:
    names = {stage.name for stage in study.results.stages}
    assert {"both: fine-tune seen tasks", "both: evaluate", "no information: fit generator 2 of 2"} <= names
    assert sum(name.startswith("extrapolation: hold out camera_model") for name in names) == len(group_files(study)) > 0


def group_files(study: VariantsResult) -> list[Path]:
    return sorted(study.folder.glob("extrapolation/groups/camera_model/*.json"))


def test_called_again_nothing_is_measured(
    study: VariantsResult, config: VariantsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **further: object) -> None:
        raise AssertionError("measured again")

    for name in ("prepare", "compare_sources"):
        monkeypatch.setattr(variants, name, refuse)
    monkeypatch.setattr(variant_groups, "hold_out_group", refuse)
    (study.folder / "extrapolation" / "results.json").unlink()
    again = run_variants(config, ("both", "extrapolation"), study.folder, command="a test")
    assert again.results.rows == study.results.rows
    assert again.targets == study.targets


def test_what_is_not_there_is_refused(study: VariantsResult, config: VariantsConfig, tmp_path: Path) -> None:
    with refused(DataError, "flat", "both", "metadata only"):
        run_variants(config, ("both", "flat"), tmp_path / "new", command="a test")
    with refused(DataError, "both"):
        run_variants(config, (), tmp_path / "new", command="a test")
    with refused(ArtifactError, "seen_tasks"):
        run_variants(replace(config, run=replace(config.run, seen_tasks=3)), ("both",), study.folder, command="a test")
    with refused(DataError, "most_tasks", 0):
        GroupsStudy(("region",), most_tasks=0)


def test_a_variant_with_other_causes_has_a_backbone_of_its_own(
    config: VariantsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def stop(run: PipelineConfig, folder: RunFolder) -> RunInputs:
        used.append(run.backbone)
        raise DataError("far enough")

    monkeypatch.setattr(variants, "prepare", stop)
    options = {**config.run.suite_options, "pretraining": 30, "pretraining_images": 40}
    config = replace(config, run=replace(config.run, suite_options=options), epochs=1)
    for variant in ("both", "backgrounds only", "backgrounds only"):
        with refused(DataError):
            variants.measure_variant(config, variant, tmp_path, command="a test")
    given, own, again = (load_backbone(folder) for folder in used)
    assert used == [config.run.backbone, *[str(tmp_path / "backgrounds-only" / "backbone")] * 2]
    assert own.backbone_hash == again.backbone_hash != given.backbone_hash
    with refused(DataError):
        variants.measure_variant(replace(config, epochs=None), "metadata only", tmp_path, command="a test")
    assert used[-1] == config.run.backbone, "without epochs the run's backbone is kept"


class FixedTrust(TrustModel):
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


def test_trust_is_assessed_next_to_the_measured_gain(
    study: VariantsResult, config: VariantsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(run: PipelineConfig, folder: RunFolder) -> RunInputs:
        return replace(prepare(run, folder), trust=(FixedTrust("unseen-001"), FixedTrust("unseen-001")))

    monkeypatch.setattr(variants, "prepare", prepared)
    monkeypatch.setattr(variant_groups, "calibrate_generator", lambda *given, **further: FixedTrust("nobody"))
    monkeypatch.setattr(variant_groups, "FEWEST_TASKS", 1)
    for name in ("both", "extrapolation"):
        (study.folder / name / "results.json").unlink()
    kept = group_files(study)[0]
    kept.unlink()
    found = run_variants(config, ("both", "extrapolation"), study.folder, command="a test")
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
    (target,) = (target for target in found.targets if "inside the 90 % intervals" in target.what)
    assert target.measured.startswith("100")
    assert target.verdict == "missed"
