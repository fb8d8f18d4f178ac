"""The panel measured: a benchmark at a time, each in a folder of its own with results.json and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wildbench.methods.classifier_alone import CLASSIFIER_ALONE, classifier_alone
from wildbench.pipeline import PipelineConfig, RunInputs, prepare
from wildbench.run_folder import Reporter, RunFolder, Tick, null_progress
from wildbench.studies.panel import BENCHMARKS, Benchmark, open_benchmark
from wildbench.studies.panel_page import METHODS, PanelPage, ShownMethod, write_page
from wildpdiff.evaluate.comparison import Comparison, compare_sources, scored_seen_tasks
from wildpdiff.evaluate.methods import baseline_names
from wildpdiff.evaluate.results import Results, SourceInfo, TrustSection, provenance, read_results, write_results
from wildpdiff.evaluate.run import Method
from wildpdiff.fit import GeneratorConfig
from wildpdiff.records import encode
from wildpdiff.report.page import write_report
from wildpdiff.zoo.build import recipe_of
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.recipe import ChosenRecipe

PER_SHARD = 10
"""Tasks fine-tuned in one pass."""


@dataclass(frozen=True)
class PanelConfig:
    """Settings that are the same in every benchmark.

    Attributes:
        seed: of suites, backbones, zoos and the first generator.
        generators: fitted in each benchmark, with different seeds.
        generator: settings of each.
        samples: adapters a task in the evaluation.
        seen_tasks: seen tasks that are scored.
        methods: that are evaluated, and the lines of every benchmark's table.
    """

    seed: int = 0
    generators: int = 3
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    samples: int = 4
    seen_tasks: int = 8
    methods: tuple[ShownMethod, ...] = METHODS

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {
            "seed": self.seed,
            "generators": self.generators,
            "generator": encode(self.generator),
            "samples": self.samples,
            "seen_tasks": self.seen_tasks,
            "methods": [method.label for method in self.methods],
        }


def run_panel(
    config: PanelConfig,
    benchmarks: Sequence[Benchmark],
    data: Path | None,
    out: Path,
    *,
    command: str,
    reporter: Reporter = null_progress,
) -> PanelPage:
    """Measure some benchmarks, then write the page of all in the folder. Interrupted and called again, it resumes.

    Args:
        config: the same in every call for one folder.
        benchmarks: measured in this order; a benchmark whose data are absent is skipped with a remark on the page.
        data: folder with the data sets.
        out: folder of the panel.
        command: as the user typed it, for the record.
        reporter: informed of every stage and its progress.

    Raises:
        ArtifactError: the folder holds a panel of other settings, or the disk is full.
        WildpdiffError: from any stage.
    """
    RunFolder(out).claim(config.to_json())
    remarks = []
    for benchmark in benchmarks:
        missing = benchmark.missing(data)
        if missing is not None and not (out / benchmark.name / "results.json").is_file():
            remarks.append(f"{benchmark.name}: skipped, because {_absent(data)} has no {missing}.")
            continue
        measure_benchmark(config, benchmark, data, out, command=command, reporter=reporter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    paths = {path.parent.name: path for path in sorted(out.glob("*/results.json"))}
    order = sorted(paths, key=lambda name: names.index(name) if name in names else len(names))
    return write_page(out, {name: read_results(paths[name]) for name in order}, remarks)


def _absent(data: Path | None) -> str:
    return "no --data was given, which" if data is None else f"the data folder {data.name}"


def measure_benchmark(
    config: PanelConfig,
    benchmark: Benchmark,
    data: Path | None,
    out: Path,
    *,
    command: str,
    reporter: Reporter = null_progress,
) -> Results:
    """One benchmark measured in a folder of its own below ``out``. Interrupted and called again, it resumes.

    Args:
        config: of the panel.
        benchmark: its data are there.
        data: folder with the data sets.
        out: folder of the panel.
        command: as the user typed it, for the record.
        reporter: informed of every stage and its progress.

    Raises:
        DataError: the data are not there or cannot be read.
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: from any stage.
    """
    path = out / benchmark.name / "results.json"
    if path.is_file():
        return read_results(path)
    folder = RunFolder(path.parent, lambda stage: reporter(f"{benchmark.name}: {stage}"))
    folder.claim(
        {
            "world": benchmark.name,
            "finetune": None if benchmark.finetune is None else benchmark.finetune.to_json(),
            **config.to_json(),
        }
    )
    suite, backbone, finetune = folder.timed(
        "open suite and backbone",
        lambda tick: open_benchmark(benchmark, data, folder.folder, config.seed, progress=tick),
    )
    run = PipelineConfig(
        suite=suite.name,
        backbone=backbone.name,
        seed=config.seed,
        finetune=finetune,
        per_shard=PER_SHARD,
        generator=config.generator,
        generator_seeds=config.generators,
        samples=config.samples,
        seen_tasks=config.seen_tasks,
    )
    made = prepare(run, folder, (suite, backbone))
    results = folder.timed("evaluate", lambda tick: _evaluated(config, run, made, folder, command=command, tick=tick))
    if results.trust is not None:
        points = tuple(replace(point, world=benchmark.name) for point in results.trust.points)
        results = replace(results, trust=TrustSection(points))
    results = replace(results, stages=folder.stages)
    write_report(results, path.parent)
    write_results(path, results)
    return results


def _evaluated(
    config: PanelConfig, run: PipelineConfig, made: RunInputs, folder: RunFolder, *, command: str, tick: Tick
) -> Results:
    unseen = FeatureCache(made.backbone, made.suite.tasks("unseen"))
    seen = scored_seen_tasks(made.zoo.tasks, run.seen_tasks, run.seed)
    tasks = [*(made.features(name) for name in seen), *(unseen(task.name) for task in made.suite.tasks("unseen"))]
    recipe = recipe_of(made.zoo.plan)
    recipe = recipe.config if isinstance(recipe, ChosenRecipe) else recipe
    alone = classifier_alone(made.backbone, tasks, made.zoo.initial, config=recipe, seed=run.seed)
    note = "the same recipe of fine-tuning without LoRA"
    comparison = Comparison(
        made.suite,
        made.backbone,
        made.zoo,
        made.reference,
        made.generators,
        {},
        made.features,
        baselines="all",
        without=[name for name in baseline_names() if name not in {method.source for method in config.methods}],
        seen_tasks=run.seen_tasks,
        further=[(Method(alone), SourceInfo(CLASSIFIER_ALONE, "labels", None, note))],
        trust=made.trust,
    )
    recorded = provenance(command, run.seed)
    return compare_sources(comparison, made=recorded, samples=run.samples, stages=folder.stages, progress=tick)
