import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

import toys
from refusals import refused
from wildbench.datasets.savanna.world import CLASSES
from wildbench.sections import SCALING
from wildbench.studies import scaling as scaling_study
from wildbench.studies.grid import StudyInputs, TaskDraws, fit_sources
from wildbench.studies.scaling import ScalingConfig, ScalingResult, run_scaling
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import save_backbone
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.disk import write_file
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.evaluate.results import Results, read_results
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.report.page import ReportFiles
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

SUITE = {"seen": 9, "unseen": 2, "pretraining": 0, "train": 20, "validation": 5, "test": 8, "backgrounds": 3}
SOURCES = {"mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression", "generated"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ScalingConfig:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SavannaCNN(len(CLASSES))
    backbone = Backbone.wrap(module, name="tiny", classes=CLASSES, image_size=24, lora=SAVANNA_LORA)
    folder = tmp_path_factory.mktemp("scaling") / "backbone"
    save_backbone(backbone, folder)
    generator = GeneratorConfig(
        components=2,
        diffusion=DiffusionConfig(size="tiny", steps=10, batch=8),
        task_loss=TaskLossConfig(steps=2, tasks=2, images=4),
        sampling=Sampling(steps=3),
    )
    return ScalingConfig(
        suite_options=SUITE,
        backbone=str(folder),
        finetune=FinetuneConfig(steps=4, batch=8, warmup=1, checkpoints=2, interval=1),
        generator=generator,
        tasks=(3, 5),
        checkpoints=(1,),
        seeds=1,
        samples=2,
    )


@pytest.fixture(scope="module")
def finished(config: ScalingConfig, tmp_path_factory: pytest.TempPathFactory) -> ScalingResult:
    return run_scaling(config, tmp_path_factory.mktemp("scaling") / "run", command="a test")


@pytest.fixture
def copy(finished: ScalingResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without figures: drawing takes longer than all else here."""

    def write(results: Results, folder: Path) -> ReportFiles:
        write_file(folder / "report.html", str(results.suite.name).encode())
        return ReportFiles(folder / "report.html", ())

    monkeypatch.setattr(scaling_study, "write_report", write)


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# The whole run ----------------------------------------------------------------------------------------------------


def test_every_point_of_the_grid_has_every_source(finished: ScalingResult) -> None:
    scaling = SCALING.of(finished.results)
    assert scaling is not None
    assert scaling.unseen == ("unseen-000", "unseen-001")
    found = {(cell.tasks, cell.diversity, cell.checkpoints, cell.seed, cell.source) for cell in scaling.cells}
    assert found == set(product((3, 5), ("narrow", "wide"), (1,), (0,), SOURCES))
    assert len(found) == len(scaling.cells)
    for cell in scaling.cells:
        assert len(cell.accuracy) == 2
        assert all(0 <= value <= 1 for value in cell.accuracy)
    assert all(cell.seconds > 0 for cell in scaling.cells if cell.source == "generated")


def test_the_references_are_rows_and_columns_of_the_section(finished: ScalingResult) -> None:
    results = finished.results
    scaling = SCALING.of(results)
    assert scaling is not None
    columns = {"pretrained": scaling.pretrained, "fine-tuned": scaling.finetuned}
    for source, column in columns.items():
        assert list(column) == [row.accuracy for row in results.rows if row.source == source]
    assert {row.split for row in results.rows} == {"unseen"}
    assert (results.suite.seen, results.suite.unseen) == (9, 2)


def test_written_results_are_valid_and_the_page_is_there(finished: ScalingResult) -> None:
    assert read_results(finished.folder / "results.json") == finished.results
    assert finished.report.is_file()
    names = [stage.name for stage in finished.results.stages]
    assert names == ["fine-tune seen tasks", "fine-tune unseen tasks, for comparison only", "scaling grid"]


@pytest.mark.usefixtures("no_page")
def test_an_interrupted_grid_resumes_at_the_missing_point(copy: Path, config: ScalingConfig) -> None:
    before = times(copy)
    scaling = SCALING.of(read_results(copy / "results.json"))
    missing = "cells/tasks-005-wide-checkpoints-01-seed-0.json"
    (copy / missing).unlink()
    (copy / "results.json").unlink()
    again = SCALING.of(run_scaling(config, copy, command="a test").results)
    assert scaling is not None
    assert again is not None
    assert [replace(cell, seconds=0.0) for cell in again.cells] == [
        replace(cell, seconds=0.0) for cell in scaling.cells
    ]
    changed = {name for name, stamp in times(copy).items() if stamp != before.get(name)}
    assert {name for name in changed if name.startswith(("zoo", "reference", "cells"))} == {missing}


@pytest.mark.usefixtures("no_page")
def test_a_finished_run_does_nothing_again_but_the_page(copy: Path, config: ScalingConfig) -> None:
    before = times(copy)
    again = run_scaling(config, copy, command="another")
    changed = {name for name, stamp in times(copy).items() if stamp != before.get(name)}
    assert all(name.startswith(("report.html", "figures/", "stages.json")) for name in changed)
    assert again.results.provenance.command == "a test"


def test_another_grid_in_the_folder_is_refused(copy: Path, config: ScalingConfig) -> None:
    with refused(ArtifactError, copy, "tasks"):
        run_scaling(replace(config, tasks=(3,)), copy, command="a test")


def test_a_suite_too_small_for_the_grid_is_refused_before_anything_is_built(
    config: ScalingConfig, tmp_path: Path
) -> None:
    with refused(DataError, 6, 11, 9):
        run_scaling(replace(config, tasks=(3, 6)), tmp_path / "run", command="a test")
    alone = replace(config, suite_options={**SUITE, "unseen": 0})
    with refused(DataError):
        run_scaling(alone, tmp_path / "run", command="a test")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"tasks": (2, 5)}, (2, 3)),
        ({"tasks": (5, 5)}, (5,)),
        ({"diversities": ()}, ("diversities",)),
        ({"checkpoints": (14,)}, (1, 13)),
        ({"checkpoints": (0, 1)}, (1, 13)),
        ({"seeds": 0}, (0,)),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(changes: dict, values: tuple) -> None:
    with refused(DataError, *values):
        ScalingConfig(**changes)


def test_the_default_grid_has_whole_seeds_one_after_another() -> None:
    points = ScalingConfig().points
    assert len(points) == len(set(points)) == 6 * 2 * 2 * 3
    assert [point.seed for point in points] == sorted(point.seed for point in points)
    assert len({point.file_name for point in points}) == len(points)


# Draws ------------------------------------------------------------------------------------------------------------


def line(count: int) -> TaskDraws:
    """Tasks on a line."""
    positions = torch.arange(count).float()
    return TaskDraws(tuple(f"task-{i}" for i in range(count)), (positions[:, None] - positions[None]).square())


@pytest.mark.parametrize("diversity", ["narrow", "wide"])
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(diversity: str) -> None:
    draws = line(20)
    for seed in range(5):
        whole = draws.draw(10, diversity, seed)
        assert len(set(whole)) == 10
        assert all(draws.draw(count, diversity, seed) == whole[:count] for count in range(1, 10))
    assert draws.draw(10, diversity, 0) != draws.draw(10, diversity, 1)


def test_the_narrow_pool_is_the_half_around_one_task() -> None:
    draws = line(21)
    pools = [[int(name.split("-")[1]) for name in draws.pool("narrow", seed)] for seed in range(10)]
    for pool in pools:
        assert len(pool) == draws.narrow_size == 11
        assert pool == list(range(pool[0], pool[0] + 11))  # neighbours on the line
    assert len({pool[0] for pool in pools}) > 1
    assert draws.pool("wide", 0) == draws.names


def test_more_tasks_than_the_pool_has_are_refused() -> None:
    with refused(DataError, 11, "narrow", 10, 20):
        line(20).draw(11, "narrow", 0)


def test_distances_are_those_of_the_descriptions(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    draws = TaskDraws.of(toy_inputs(toy_zoo, toy_backbone))
    assert draws.names == toy_zoo.tasks
    # The toys' levels rise evenly, and their backgrounds with them.
    assert torch.equal(draws.distances[0], draws.distances[0].sort().values)
    assert torch.allclose(draws.distances, draws.distances.T)


# Fits -------------------------------------------------------------------------------------------------------------


def toy_inputs(zoo: Zoo, backbone: Backbone, allowed: tuple[str, ...] | None = None) -> StudyInputs:
    """The toys, with labelled images for the allowed tasks only."""
    suite = toys.ToySuite()
    cache = FeatureCache(backbone, suite.tasks("seen"), toys.FINETUNE.batch)

    def data(name: str) -> TaskFeatures:
        assert allowed is None or name in allowed
        return cache(name)

    generator = toys.generator_config()
    generator = replace(
        generator,
        diffusion=replace(generator.diffusion, steps=5),
        task_loss=TaskLossConfig(steps=2, images=4),
    )
    return StudyInputs(suite, backbone, zoo, data, generator)


@pytest.mark.parametrize("checkpoints", [1, 5])
def test_three_tasks_are_enough_to_fit_everything(toy_zoo: Zoo, toy_backbone: Backbone, checkpoints: int) -> None:
    tasks = ("seen-0", "seen-2", "seen-3")
    part = toy_zoo.only(tasks).last(checkpoints)
    fitted = fit_sources(toy_inputs(toy_zoo, toy_backbone, tasks), part, [4, 5])
    assert {method.source.name for method in fitted.methods} == SOURCES == set(fitted.seconds)
    assert [method.generator_seed for method in fitted.methods] == [None] * 4 + [4, 5]
    description = toys.ToySuite().tasks("unseen")[0].description
    for method in fitted.methods:
        (adapter,) = method.source.sample(description, 1, 0)
        toy_backbone.check(adapter)
        assert all(bool(value.isfinite().all()) for value in adapter.tensors.values())


def test_fits_without_seeds_or_to_too_few_tasks_are_refused(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    inputs = toy_inputs(toy_zoo, toy_backbone)
    with refused(DataError):
        fit_sources(inputs, toy_zoo, [])
    with refused(DataError, 2, 3):
        fit_sources(inputs, toy_zoo.only(["seen-0", "seen-1"]), [0])
