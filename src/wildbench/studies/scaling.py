"""Accuracy by number of seen tasks: one zoo, many parts of it, the same unseen tasks for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from wildbench.run_folder import Reporter, RunFolder, Tick, null_progress
from wildbench.sections import SCALING
from wildbench.studies.grid import FEWEST_TASKS, Diversity, StudyInputs, TaskDraws, fit_sources
from wildbench.study_sections import Scaling, ScalingCell
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.baselines.constant import FinetunedSource, PretrainedSource
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import DataError
from wildpdiff.evaluate.comparison import SEEN_STAGE
from wildpdiff.evaluate.results import (
    BackboneInfo,
    ResultRow,
    Results,
    Stage,
    SuiteInfo,
    provenance,
    read_results,
    write_results,
)
from wildpdiff.evaluate.run import Method, evaluate
from wildpdiff.evaluate.score import TestSet, test_set
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED, summarise
from wildpdiff.fit import GeneratorConfig
from wildpdiff.records import decode, encode
from wildpdiff.report.page import write_report
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.task import ImageSuite, content_hash, learned_fingerprint
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

GRID_STAGE = "scaling grid"


@dataclass(frozen=True)
class GridPoint:
    """One fit of the grid.

    Attributes:
        tasks: how many seen tasks.
        diversity: drawn from all of them, or from the half described most like one of them.
        checkpoints: the last of each task's run.
        seed: of the draw and of the fit.
    """

    tasks: int
    diversity: Diversity
    checkpoints: int
    seed: int

    @property
    def file_name(self) -> str:
        """File of its cells, for example ``tasks-040-wide-checkpoints-13-seed-0.json``."""
        return f"tasks-{self.tasks:03d}-{self.diversity}-checkpoints-{self.checkpoints:02d}-seed-{self.seed}.json"


@dataclass(frozen=True)
class ScalingConfig:
    """The grid, and what it is run on.

    Attributes:
        suite: name or path, as :func:`wildpdiff.camera_traps.registry.load_suite` takes it.
        suite_options: its options. The narrow half has to hold the largest number of tasks.
        backbone: a bundled name, or a folder.
        seed: decides everything random.
        finetune: the zoo's fine-tuning.
        per_shard: tasks fine-tuned in one pass.
        generator: what is fitted at every point of the grid.
        tasks: numbers of seen tasks.
        diversities: where they are drawn from.
        checkpoints: numbers of checkpoints of each task.
        seeds: how many draws, each with a fit of its own.
        samples: adapters a task and generator; all of them count.
    """

    suite: str = "savanna"
    suite_options: Mapping[str, Any] = field(default_factory=lambda: {"seen": 320})
    backbone: str = "savanna-cnn"
    seed: int = 0
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    per_shard: int = 20
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    tasks: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    diversities: tuple[Diversity, ...] = ("narrow", "wide")
    checkpoints: tuple[int, ...] = (1, 13)
    seeds: int = 3
    samples: int = 4

    def __post_init__(self) -> None:
        for name in ("tasks", "diversities", "checkpoints"):
            values: tuple[Any, ...] = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise DataError(f"The grid's {name} are {values}; give at least one, and none twice.")
        if min(self.tasks) < FEWEST_TASKS:
            raise DataError(f"The grid has a cell of {min(self.tasks)} tasks; give {FEWEST_TASKS} or more.")
        if not 1 <= min(self.checkpoints) <= max(self.checkpoints) <= self.finetune.checkpoints:
            raise DataError(
                f"The grid's checkpoints are {self.checkpoints}; fine-tuning keeps {self.finetune.checkpoints}, so "
                f"give 1 to {self.finetune.checkpoints}."
            )
        if self.seeds < 1 or self.samples < 1:
            raise DataError(f"The grid has {self.seeds} seeds and {self.samples} samples; give at least 1 of each.")

    @property
    def points(self) -> tuple[GridPoint, ...]:
        """Every fit; whole seeds one after another, so that a run stopped early has whole curves."""
        return tuple(
            GridPoint(tasks, diversity, checkpoints, seed)
            for seed in range(self.seeds)
            for checkpoints in sorted(self.checkpoints, reverse=True)
            for diversity in self.diversities
            for tasks in self.tasks
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        own = {name: encode(getattr(self, name)) for name in self.__dataclass_fields__}
        return {**own, "finetune": self.finetune.to_json(), "generator": encode(self.generator)}


@dataclass(frozen=True)
class ScalingResult:
    """Files of a run: its folder, the measured grid with the references, and the page."""

    folder: Path
    results: Results
    report: Path


def run_scaling(
    config: ScalingConfig, out: Path | str, *, command: str, reporter: Reporter = null_progress
) -> ScalingResult:
    """Build the zoo of all seen tasks once, then fit and score every point of the grid.

    Interrupted and called again, it resumes: the zoo shard by shard, the grid point by point.

    Args:
        config: of the grid.
        out: folder of the run; an unfinished run of the same configuration in it is finished.
        command: what the user typed, for the record.
        reporter: receives every stage and its progress.

    Raises:
        ArtifactError: the folder holds something else, or the disk is full.
        DataError: the suite has too few seen tasks for the grid, or no unseen ones.
        WildpdiffError: whatever a stage raises.
    """
    out = Path(out)
    study = _Study(config, out, load_backbone(config.backbone))
    study.check_size()
    folder = RunFolder(out, reporter)
    folder.claim({"study": "scaling", **config.to_json()})
    zoo = folder.timed(SEEN_STAGE, study.zoo)
    reference = folder.timed("fine-tune unseen tasks, for comparison only", study.reference)
    cells = folder.timed(GRID_STAGE, lambda tick: study.grid(zoo, tick))
    results = folder.timed(
        "evaluate", lambda tick: study.results(zoo, reference, cells, stages=folder.stages, command=command)
    )
    page = folder.timed("report", lambda tick: write_report(results, out).page)
    return ScalingResult(out, results, page)


@dataclass(frozen=True)
class _Study:
    """The stages of a run over one suite and backbone."""

    config: ScalingConfig
    out: Path
    backbone: Backbone

    @cached_property
    def suite(self) -> ImageSuite:
        known = {
            "seed": self.config.seed,
            "image_size": self.backbone.image_size,
            "classes": self.backbone.classes,
        }
        return load_suite(self.config.suite, **{**known, **self.config.suite_options})

    @cached_property
    def data(self) -> FeatureCache:
        return FeatureCache(self.backbone, self.suite.tasks("seen"))

    @cached_property
    def tests(self) -> list[TestSet]:
        return [test_set(self.backbone, task) for task in self.suite.tasks("unseen")]

    def check_size(self) -> None:
        """Refuse, before anything is built, a suite that cannot fill the grid."""
        config, seen = self.config, len(self.suite.tasks("seen"))
        largest = max(config.tasks)
        needed = 2 * largest - 1 if "narrow" in config.diversities else largest
        if seen < needed:
            raise DataError(
                f"The grid's largest cell has {largest} tasks and needs {needed} seen tasks to draw from; the suite "
                f"has {seen}. Give the suite more seen tasks, or request fewer."
            )
        if not self.suite.tasks("unseen"):
            raise DataError("The suite has no unseen tasks, on which the grid is scored. Give it some.")

    def zoo(self, tick: Tick) -> Zoo:
        """All seen tasks fine-tuned."""
        return self._build("zoo", "seen", self.config.finetune, tick)

    def reference(self, tick: Tick) -> Zoo:
        """The unseen tasks fine-tuned likewise."""
        return self._build("reference", "unseen", self.config.finetune, tick)

    def _build(self, folder: str, group: Literal["seen", "unseen"], finetune: FinetuneConfig, tick: Tick) -> Zoo:
        return build_zoo(
            self.out / folder,
            self.backbone,
            self.suite.tasks(group),
            learned_fingerprint(self.suite, group),
            config=finetune,
            seed=self.config.seed,
            per_shard=self.config.per_shard,
            features=self.data if group == "seen" else None,
            progress=tick,
        )

    def grid(self, zoo: Zoo, tick: Tick) -> tuple[ScalingCell, ...]:
        """Every point, read from its file or fitted, scored and written."""
        inputs = StudyInputs(self.suite, self.backbone, zoo, self.data, self.config.generator)
        draws: TaskDraws | None = None
        cells: list[ScalingCell] = []
        points = self.config.points
        for number, point in enumerate(points):
            path = self.out / "cells" / point.file_name
            if not path.is_file():
                draws = draws or TaskDraws.of(inputs)
                fitted = self._cells(inputs, draws, point)
                write_file(path, json_bytes({"kind": "scaling cells", "cells": encode(fitted)}))
            cells += decode(tuple[ScalingCell, ...], read_json(path)["cells"], str(path))
            tick(number + 1, len(points))
        return tuple(cells)

    def _cells(self, inputs: StudyInputs, draws: TaskDraws, point: GridPoint) -> tuple[ScalingCell, ...]:
        """Fit everything at one point and score it on the unseen tasks, one cell a source."""
        draw_seed = sub_seed(self.config.seed, "scaling", point.seed)
        tasks = draws.draw(point.tasks, point.diversity, draw_seed)
        part = inputs.zoo.only(tasks).last(point.checkpoints)
        fitted = fit_sources(inputs, part, [self.config.seed + 1000 * point.seed])
        found = evaluate(
            self.suite.name,
            {"unseen": self.tests},
            self.backbone,
            fitted.methods,
            samples=self.config.samples,
            seed=self.config.seed,
        )
        return tuple(
            ScalingCell(
                tasks=point.tasks,
                diversity=point.diversity,
                checkpoints=point.checkpoints,
                seed=point.seed,
                source=name,
                accuracy=_per_task(found.rows, name, [test.task for test in self.tests]),
                seconds=round(fitted.seconds[name], 3),
            )
            for name in fitted.seconds
        )

    def results(
        self, zoo: Zoo, reference: Zoo, cells: tuple[ScalingCell, ...], *, stages: Sequence[Stage], command: str
    ) -> Results:
        """The references on the unseen tasks next to the grid; read again where it was written before."""
        path = self.out / "results.json"
        if path.is_file():
            return read_results(path)
        suite, seed = self.suite, self.config.seed
        references = [
            Method(PretrainedSource(zoo.initial), "none"),
            Method(FinetunedSource(reference.task_adapters()), "own"),
        ]
        rows = evaluate(suite.name, {"unseen": self.tests}, self.backbone, references, samples=1, seed=seed).rows
        names = [test.task for test in self.tests]
        pretrained, finetuned = (_per_task(rows, name, names) for name in (PRETRAINED, FINETUNED))
        values = sum(value.numel() for value in self.backbone.module.parameters())
        results = Results(
            provenance=provenance(command, seed),
            suite=SuiteInfo(
                suite.name,
                len(suite.classes),
                content_hash(suite),
                len(zoo.tasks),
                len(names),
                dict(self.config.suite_options),
            ),
            backbone=BackboneInfo(self.backbone.name, self.backbone.backbone_hash, values, zoo.initial.size),
            generator=None,
            autoencoder=None,
            rows=rows,
            summary=tuple(summarise(rows, {}, seed=seed)),
            stages=tuple(stages),
        )
        results = SCALING.added_to(results, Scaling(tuple(names), pretrained, finetuned, cells))
        write_results(path, results)
        return results


def _per_task(rows: Sequence[ResultRow], source: str, names: Sequence[str]) -> tuple[float, ...]:
    """The mean accuracy of one source over its samples on each task."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for row in rows:
        if row.source == source:
            found[row.task].append(row.accuracy)
    return tuple(sum(values) / len(values) for values in found.values())
