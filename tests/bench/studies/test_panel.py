"""The panel on benchmarks of seconds: what is kept, what is skipped, what is on the page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from refusals import refused
from wildbench import pipeline
from wildbench.datasets.panel.rotated_digits import RotatedDigitsConfig, rotated_digits
from wildbench.methods.classifier_alone import CLASSIFIER_ALONE
from wildbench.studies import measuring, panel
from wildbench.studies.measuring import StudyConfig
from wildbench.studies.panel import BENCHMARKS, Benchmark, _small_cnn, find_benchmark, open_benchmark
from wildbench.studies.panel_page import METHODS, PanelPage, panel_row, write_page
from wildbench.studies.panel_run import run_panel
from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.cli.main import app
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.evaluate.methods import baseline_names
from wildpdiff.evaluate.results import ResultRow, Results, TrustPoint, TrustSection, read_results
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.fit import GeneratorConfig
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.steps import FinetuneConfig

TRAINED = (
    "multi-task adapter",
    "multi-task adapter with description",
    "hypernetwork, task loss",
    "column-wise merge",
    "feature prompt",
)
"""Left out: each is a training of half a minute."""

SIZES = RotatedDigitsConfig(
    seen=7, unseen=3, pretraining=2, train=24, validation=8, test=20, pretraining_images=120, examples=4
)
CONFIG = StudyConfig(
    generators=1,
    generator=GeneratorConfig(
        components=2,
        autoencoder_config=AutoencoderConfig(latent_size=4, steps=10),
        diffusion=DiffusionConfig(size="tiny", steps=10, batch=16),
        task_loss=TaskLossConfig(steps=4, tasks=3, images=8),
    ),
    samples=2,
    seen_tasks=2,
    methods=tuple(method for method in METHODS if method.source not in TRAINED),
)
FINETUNE = FinetuneConfig(steps=8, batch=8, learning_rate=0.05, warmup=2, checkpoints=3, interval=2)


def tiny_suite(data: Path, folder: Path, seed: int) -> Suite:
    return rotated_digits(replace(SIZES, seed=seed))


TINY = Benchmark("tiny", tiny_suite, FINETUNE, _small_cnn(1, 4))
ABSENT = Benchmark("absent", tiny_suite, FINETUNE, _small_cnn(1, 4), ("cifar10_subset.npz",))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("panel") / "out"


@pytest.fixture(scope="module")
def page(out: Path, tmp_path_factory: pytest.TempPathFactory) -> PanelPage:
    return run_panel(CONFIG, [TINY, ABSENT], tmp_path_factory.mktemp("data"), out, command="panel")


def test_a_benchmark_has_every_method_and_the_classifier_alone(page: PanelPage, out: Path) -> None:
    (row,) = page.rows
    assert row.benchmark == "tiny"
    assert row.tasks == 3
    always = [method.label for method in CONFIG.methods if not method.label.startswith(("one sample", "best of"))]
    assert [label for label in row.accuracy if label in always] == always
    results = read_results(out / "tiny" / "results.json")
    assert {info.name: info.family for info in results.sources}[CLASSIFIER_ALONE] == "labels"
    assert (out / "tiny" / "report.html").is_file()


def test_a_benchmark_without_its_data_is_skipped_with_a_remark(page: PanelPage, out: Path) -> None:
    (remark,) = page.remarks
    assert "absent" in remark
    assert "cifar10_subset.npz" in remark
    assert remark in page.markdown.read_text()
    assert not (out / "absent").exists()


def test_called_again_nothing_is_measured_anew(page: PanelPage, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page.markdown.read_text()
    monkeypatch.setattr(measuring, "prepare", lambda *_: pytest.fail("measured again"))
    again = run_panel(CONFIG, [TINY], None, out, command="another command")
    assert (
        again.markdown.read_text().replace(page.remarks[0], "").split() == before.replace(page.remarks[0], "").split()
    )
    with refused(ArtifactError, "seed"):
        run_panel(replace(CONFIG, seed=5), [TINY], None, out, command="panel")


def test_a_benchmark_interrupted_in_its_evaluation_ends_with_the_same_numbers(
    page: PanelPage, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "tiny" / "results.json").unlink()
    monkeypatch.setattr(measuring, "write_report", lambda *_: None)  # drawing has tests of its own
    monkeypatch.setattr(pipeline, "fit_generator", lambda *_, **__: pytest.fail("fitted again"))
    monkeypatch.setattr(panel, "pretrain_small_cnn", lambda *_, **__: pytest.fail("pretrained again"))
    resumed = run_panel(CONFIG, [TINY], None, tmp_path / "out", command="panel")
    assert resumed.rows[0].accuracy == page.rows[0].accuracy
    assert resumed.rows[0].lead == page.rows[0].lead


def made_results(base: Results) -> Results:
    """Two unseen tasks with accuracies that are easily followed by hand."""
    accuracies = {
        ("pretrained", "none"): (0.5, 0.5),
        ("mean adapter", "none"): (0.6, 0.4),
        ("nearest task", "own"): (0.7, 0.5),
        ("generated", "own"): (0.9, 0.3),
        ("generated", "shuffled"): (0.2, 0.2),
        ("one sample", "own"): (0.8, 0.2),
        ("fine-tuned", "own"): (0.9, 0.8),
        (CLASSIFIER_ALONE, "own"): (0.8, 0.8),
    }
    rows = [
        ResultRow("made", "unseen", source, condition, None, 0, f"task-{number}", value, 10)  # type: ignore[arg-type]
        for (source, condition), values in accuracies.items()
        for number, value in enumerate(values)
    ]
    trust = [
        TrustPoint("made", "unseen", "task-0", "description", 0.9, 30.0, 20.0, 50.0, 40.0, 0.5, True, 0),
        TrustPoint("made", "unseen", "task-1", "description", 0.1, 5.0, 0.0, 10.0, -20.0, 0.5, False, 0),
    ]
    return replace(base, rows=tuple(rows), trust=TrustSection(tuple(trust)))


def test_a_row_agrees_with_its_results(page: PanelPage, out: Path, tmp_path: Path) -> None:
    base = read_results(out / "tiny" / "results.json")
    results = made_results(base)
    row = panel_row("made", results)
    assert row.simple == "nearest task"
    assert row.lead.value == pytest.approx(0.0)
    assert row.lora.value == pytest.approx(0.05)
    assert row.lora_matters
    assert row.with_trust == pytest.approx((0.9 + 0.5) / 2)
    assert row.trust is not None
    assert (row.trust.harmed_without.value, row.trust.harmed_with.value) == (0.5, 0.0)
    assert (row.trust.coverage.value, row.trust.used_share.value) == (0.5, 0.5)
    text = write_page(tmp_path, {"made": results}, ["left: skipped."]).markdown.read_text()
    line = next(line for line in text.splitlines() if line.startswith("| made |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "2"
    assert base.generator is not None
    assert base.generator.cross_validation is not None
    foretold = f"{base.generator.cross_validation.delivered.accuracy:.1f}"
    assert cells[3:10] == ["50.0", "60.0 (nearest task)", "60.0", foretold, "70.0", "50.0", "85.0"]
    assert cells[11:15] == ["50", "0", "50", "50"]
    assert "LoRA adds 3 points or more to the classifier alone in 1 of 1 benchmarks: made." in text
    assert "left: skipped." in text
    without = panel_row("made", replace(results, trust=None))
    assert without.with_trust is None
    assert without.trust is None


def test_every_trained_method_that_the_table_names_can_be_evaluated() -> None:
    known = {*baseline_names(), PRETRAINED, GENERATED, FINETUNED, CLASSIFIER_ALONE}
    later = {"one sample", "best of 8 by unlabelled images", "best of 8 by 5 labels"}
    assert {method.source for method in METHODS} - later <= known


def test_every_benchmark_has_a_name_of_its_own_and_is_found_by_it() -> None:
    names = [benchmark.name for benchmark in BENCHMARKS]
    assert len(set(names)) == len(names)
    assert find_benchmark("scanners").files == ("pneumoniamnist.npz",)
    with refused(DataError, "mars"):
        find_benchmark("mars")
    with refused(DataError, "scanners", "pneumoniamnist.npz"):
        open_benchmark("scanners", None, "nowhere")


def test_a_benchmarks_backbone_is_kept_and_read_again(tmp_path: Path) -> None:
    first = open_benchmark(TINY, None, tmp_path)
    second = open_benchmark(TINY, None, tmp_path)
    assert first.backbone.backbone_hash == second.backbone.backbone_hash
    images = first.suite.tasks("unseen")[0].data("test").images
    np.testing.assert_array_equal(
        first.backbone.predict(first.backbone.stem(images)).numpy(),
        second.backbone.predict(load_backbone(tmp_path / "backbone").stem(images)).numpy(),
    )


def test_the_command_skips_benchmarks_without_data_and_refuses_unknown_ones(tmp_path: Path) -> None:
    arguments = ["reproduce", "panel", "--out", str(tmp_path / "out"), "--benchmarks", "scanners,handwriting", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["rows"] == []
    assert [remark.split(":")[0] for remark in printed["remarks"]] == ["scanners", "handwriting"]
    assert "pneumoniamnist.npz" in (tmp_path / "out" / "panel.html").read_text()
    refused = CliRunner().invoke(app, ["reproduce", "panel", "--benchmarks", "mars", "--out", str(tmp_path / "mars")])
    assert isinstance(refused.exception, DataError)


@pytest.mark.parametrize("name", ["rotated-digits", "savanna"])
def test_two_benchmarks_come_with_ten_irrelevant_columns_and_the_same_backbone(name: str, tmp_path: Path) -> None:
    control = find_benchmark(f"{name}-distractors")
    plain = find_benchmark("savanna-both" if name == "savanna" else name)
    assert control.finetune == plain.finetune
    with_columns, without = control.suite(tmp_path, tmp_path, 0), plain.suite(tmp_path, tmp_path, 0)
    added = set(with_columns.metadata_schema.names) - set(without.metadata_schema.names)
    assert added == {f"distractor-{number}" for number in range(10)}
    for group in ("seen", "unseen"):
        one, two = with_columns.tasks(group)[0], without.tasks(group)[0]  # type: ignore[arg-type]
        assert set(one.description.metadata or {}) - set(two.description.metadata or {}) == added
        np.testing.assert_array_equal(one.data("test").images, two.data("test").images)
