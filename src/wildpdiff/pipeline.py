"""Every stage in order from one configuration, resumed at the first that is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wildpdiff.artifact import json_bytes, read_json, write_file
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.comparison import SEEN_STAGE, Comparison, compare_sources, provenance
from wildpdiff.evaluate.results import Results, Stage, read_results, write_results
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.report.html import write_report
from wildpdiff.tasks.registry import load_suite
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.finetune import FeatureCache, FinetuneConfig
from wildpdiff.zoo.store import Zoo

__all__ = ["PipelineConfig", "PipelineResult", "Reporter", "run_pipeline"]

Reporter = Callable[[str], Callable[[int, int], None]]
"""Called with the name of a stage as it starts; what it returns is called with (done, in all)."""


@dataclass(frozen=True)
class PipelineConfig:
    """One run from tasks to report.

    Attributes:
        suite: name or path, as :func:`wildpdiff.tasks.registry.load_suite` takes it.
        suite_options: its options.
        backbone: a bundled name, or a folder.
        seed: decides everything random.
        finetune: the zoo's fine-tuning.
        per_shard: tasks fine-tuned in one pass; their adapters are merged side by side, so large backbones take few.
        generator: what is fitted to the zoo.
        generator_seeds: how many generators are fitted, with different seeds; published numbers need three.
        samples: adapters a task in the evaluation; all of them count.
    """

    suite: str = "savanna"
    suite_options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "savanna-cnn"
    seed: int = 0
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    per_shard: int = 20
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    generator_seeds: int = 1
    samples: int = 4

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {
            "suite": self.suite,
            "suite_options": dict(self.suite_options),
            "backbone": self.backbone,
            "seed": self.seed,
            "finetune": self.finetune.to_json(),
            "per_shard": self.per_shard,
            "generator": self.generator.to_json(),
            "generator_seeds": self.generator_seeds,
            "samples": self.samples,
        }


@dataclass(frozen=True)
class PipelineResult:
    """What a run left on disk.

    Attributes:
        folder: of the run.
        adapters: one generated adapter for each unseen task, PEFT folders.
        results: the measured table.
        report: the page.
    """

    folder: Path
    adapters: tuple[Path, ...]
    results: Results
    report: Path


class _Clock:
    """Wall-clock seconds of the stages, kept on disk so that a resumed run still tells what each one cost."""

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self.path = path
        self.reporter = reporter
        self.seconds: dict[str, float] = read_json(path) if path.is_file() else {}

    def run(self, name: str, stage: Callable[[Callable[[int, int], None]], Any]) -> Any:
        """Run a stage and add its time."""
        started = time.perf_counter()
        result = stage(self.reporter(name))
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 3)
        write_file(self.path, json_bytes(self.seconds))
        return result

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages so far."""
        return tuple(Stage(name, seconds) for name, seconds in self.seconds.items())


def _silent(stage: str) -> Callable[[int, int], None]:
    return lambda done, total: None


def run_pipeline(
    config: PipelineConfig, out: Path | str, *, command: str, reporter: Reporter = _silent
) -> PipelineResult:
    """Zoo, reference, generators, adapters, table and page. Interrupted and called again, it goes on.

    Args:
        config: of the run.
        out: folder of the run; an unfinished run of the same configuration in it is finished.
        command: what the user typed, for the record.
        reporter: is told of every stage and its progress.

    Raises:
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: whatever a stage raises.
    """
    out = Path(out)
    _claim(out, config)
    backbone = load_backbone(config.backbone)
    known = {"seed": config.seed, "image_size": backbone.image_size, "classes": backbone.classes}
    suite = load_suite(config.suite, **{**known, **config.suite_options})
    clock = _Clock(out / "stages.json", reporter)
    features = FeatureCache(backbone, suite.tasks("seen"), config.finetune.batch)
    zoo = clock.run(SEEN_STAGE, lambda tick: _zoo(out / "zoo", config, suite, backbone, features, tick))
    reference = None
    if suite.tasks("unseen"):
        reference = clock.run(
            "fine-tune unseen tasks, for comparison only",
            lambda tick: _reference(out / "reference", config, suite, backbone, tick),
        )
    generators = []
    for number in range(config.generator_seeds):
        fit = partial(_generator, out, config, suite, backbone, zoo, features, number)
        generators.append(clock.run(f"fit generator {number + 1} of {config.generator_seeds}", fit))
    adapters = clock.run(
        "generate adapters", lambda tick: _adapters(out / "adapters", config, suite, generators[0], tick)
    )
    comparison = Comparison(suite, backbone, zoo, reference, generators, config.suite_options)
    results = clock.run("evaluate", lambda tick: _results(out, config, comparison, clock, command, tick))
    page = clock.run("report", lambda tick: write_report(results, out).page)
    return PipelineResult(out, adapters, results, page)


def _claim(out: Path, config: PipelineConfig) -> None:
    path = out / "run.json"
    wanted = config.to_json()
    if path.is_file():
        found = read_json(path)
        changed = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
        if changed:
            raise ArtifactError(
                f"{out} holds a run with another {changed[0]}. Choose another --out, or remove the folder."
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise ArtifactError(f"{out} is not empty and holds no run. Choose another --out, or empty it.")
    write_file(path, json_bytes(wanted))


def _zoo(
    folder: Path,
    config: PipelineConfig,
    suite: Suite,
    backbone: Backbone,
    features: FeatureCache,
    tick: Callable[[int, int], None],
) -> Zoo:
    tasks = suite.tasks("seen")
    return build_zoo(
        folder,
        backbone,
        tasks,
        suite.fingerprint,
        config.finetune,
        seed=config.seed,
        per_shard=config.per_shard,
        features=features,
        progress=tick,
    )


def _reference(
    folder: Path, config: PipelineConfig, suite: Suite, backbone: Backbone, tick: Callable[[int, int], None]
) -> Zoo:
    """The unseen tasks fine-tuned exactly as the seen ones, keeping only the end of each run."""
    finetune = replace(config.finetune, checkpoints=1)
    tasks = suite.tasks("unseen")
    return build_zoo(
        folder,
        backbone,
        tasks,
        suite.fingerprint,
        finetune,
        seed=config.seed,
        per_shard=config.per_shard,
        progress=tick,
    )


def _generator(
    out: Path,
    config: PipelineConfig,
    suite: Suite,
    backbone: Backbone,
    zoo: Zoo,
    features: FeatureCache,
    number: int,
    tick: Callable[[int, int], None],
) -> Generator:
    folder = out / f"generator-{number}"
    if not folder.is_dir():
        descriptions = {task.name: task.description for task in suite.tasks("seen")}
        seed = config.seed + 1000 * number
        fitted = fit_generator(
            zoo,
            descriptions,
            suite.metadata_schema,
            backbone,
            config.generator,
            features=features,
            seed=seed,
            progress=tick,
        )
        fitted.generator.save_pretrained(folder)
    return Generator.from_pretrained(folder, backbone)


def _adapters(
    folder: Path, config: PipelineConfig, suite: Suite, generator: Generator, tick: Callable[[int, int], None]
) -> tuple[Path, ...]:
    tasks = suite.tasks("unseen")
    paths = []
    for number, task in enumerate(tasks):
        path = folder / task.name
        if not (path / "provenance.json").is_file():
            told = (
                replace(task.description, task_id=task.name) if task.description.task_id is None else task.description
            )
            generator.sample(told, 1, config.seed)[0].save(path)
        paths.append(path)
        tick(number + 1, len(tasks))
    return tuple(paths)


def _results(
    out: Path,
    config: PipelineConfig,
    comparison: Comparison,
    clock: _Clock,
    command: str,
    tick: Callable[[int, int], None],
) -> Results:
    path = out / "results.json"
    if path.is_file():
        return read_results(path)
    made = provenance(command, config.seed)
    results = compare_sources(comparison, made=made, samples=config.samples, stages=clock.stages, progress=tick)
    write_results(path, results)
    return results
