"""A suite on a backbone measured from fine-tuning to results.json and report: benchmarks and domains alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from wildbench.methods.classifier_alone import CLASSIFIER_ALONE, classifier_alone
from wildbench.pipeline import PipelineConfig, RunInputs, prepare
from wildbench.run_folder import RunFolder, Tick
from wildbench.sections import POOLED
from wildbench.studies.panel_page import METHODS, ShownMethod
from wildbench.studies.pooled_scores import PooledObserver, PooledScore, pooled_counts
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.comparison import Comparison, compare_sources, scored_seen_tasks
from wildpdiff.evaluate.methods import baseline_names
from wildpdiff.evaluate.results import (
    Condition,
    ResultRow,
    Results,
    SourceInfo,
    TrustSection,
    provenance,
    read_results,
    write_results,
)
from wildpdiff.evaluate.run import Method, Scorer, SectionObserver
from wildpdiff.evaluate.summary import summarise
from wildpdiff.fit import GeneratorConfig
from wildpdiff.records import encode
from wildpdiff.report.page import write_report
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.tasks.task import Suite, Task, titles_of
from wildpdiff.threads import one_thread
from wildpdiff.zoo.build import recipe_of
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.recipe import ChosenRecipe
from wildpdiff.zoo.steps import FinetuneConfig

PER_SHARD = 10
"""Tasks fine-tuned in one pass."""

Further = Sequence[tuple[Method, SourceInfo]]


@dataclass(frozen=True)
class StudyConfig:
    """Settings that are the same in every benchmark of a study.

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


@runtime_checkable
class Predictor(Protocol):
    """An opponent that is no adapter: outputs for the test examples of a task."""

    @property
    def info(self) -> SourceInfo:
        """Its name, and the information about the task that it uses."""

    def outputs(self, task: Task) -> Float[Tensor, "n ..."]:
        """Outputs of the task's test examples, as of the backbone; of a benchmark with a scorer, scores of episodes."""


@dataclass(frozen=True)
class OpenBenchmark:
    """A benchmark ready to run.

    Attributes:
        backbone: frozen.
        finetune: recipe of fine-tuning; None where it is to be chosen on seen tasks.
        knobs: settings of the suite as plain JSON values, for the record.
        further: methods of its own, from the inputs of the evaluation.
        predictors: opponents that are no adapters, from the same.
        pooled: scores of all examples together.
        observer: in the place of the observer of ``pooled``, from the inputs of the evaluation.
        scorer: of adapters, where scores do not follow from outputs on test examples.
    """

    suite: Suite
    backbone: Backbone
    finetune: FinetuneConfig | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    further: Callable[[RunInputs], Further] = lambda made: ()
    predictors: Callable[[RunInputs], Sequence[Predictor]] = lambda made: ()
    pooled: tuple[PooledScore, ...] = ()
    observer: Callable[[RunInputs], SectionObserver] | None = None
    scorer: Scorer | None = None


@dataclass(frozen=True)
class Measurement:
    """One benchmark to be measured in a folder of its own.

    Attributes:
        name: of the benchmark.
        claim: everything that decides its results besides ``config``, as plain JSON values.
        command: as the user typed it, for the record.
    """

    name: str
    config: StudyConfig
    claim: Mapping[str, Any]
    command: str

    def run(self, folder: RunFolder, opened: Callable[[Tick], OpenBenchmark]) -> Results:
        """The results, and files ``results.json`` and ``report.html``. Interrupted and called again, it resumes.

        Args:
            folder: of the benchmark.
            opened: opens it; called once, with a report of progress.

        Raises:
            ArtifactError: the folder holds something else, or the disk is full.
            WildpdiffError: from any stage.
        """
        path, config = folder.folder / "results.json", self.config
        folder.claim({"world": self.name, **self.claim, **config.to_json()})
        if path.is_file():
            return read_results(path)
        with one_thread():  # a backbone that is made anew at every call has to be the same with any number of threads
            benchmark = folder.timed("open suite and backbone", opened)
        run = PipelineConfig(
            suite=benchmark.suite.name,
            backbone=benchmark.backbone.name,
            seed=config.seed,
            finetune=benchmark.finetune,
            per_shard=PER_SHARD,
            generator=config.generator,
            generator_seeds=config.generators,
            samples=config.samples,
            seen_tasks=config.seen_tasks,
        )
        made = prepare(run, folder, (benchmark.suite, benchmark.backbone))
        results = folder.timed("evaluate", lambda tick: self._evaluated(benchmark, made, folder, tick))
        if results.trust is not None:
            points = tuple(replace(point, world=self.name) for point in results.trust.points)
            results = replace(results, trust=TrustSection(points))
        results = replace(results, stages=folder.stages).with_titles(titles_of(benchmark.suite))
        write_report(results, path.parent)
        write_results(path, results)
        return results

    def _evaluated(self, benchmark: OpenBenchmark, made: RunInputs, folder: RunFolder, tick: Tick) -> Results:
        config, shown = self.config, {method.source for method in self.config.methods}
        comparison = Comparison(
            made.suite,
            made.backbone,
            made.zoo,
            made.reference,
            made.generators,
            benchmark.knobs,
            made.features,
            baselines="all",
            without=[name for name in baseline_names() if name not in shown],
            seen_tasks=config.seen_tasks,
            further=[*self._classifier_alone(made), *benchmark.further(made)],
            trust=made.trust,
            scorer=benchmark.scorer,
            best_of=any(name.startswith("best of") for name in shown),
        )
        results = compare_sources(
            comparison,
            made=provenance(self.command, config.seed),
            samples=config.samples,
            stages=folder.stages,
            observers=self._observers(benchmark, made),
            progress=tick,
        )
        for predictor in benchmark.predictors(made):
            results = with_predictor(results, benchmark, predictor)
        return results

    def _observers(self, benchmark: OpenBenchmark, made: RunInputs) -> list[SectionObserver]:
        if benchmark.observer is not None:
            return [benchmark.observer(made)]
        return [PooledObserver(benchmark.pooled)] if benchmark.pooled else []

    def _classifier_alone(self, made: RunInputs) -> Further:
        """The fine-tuned classifier alone, where adapters have one besides LoRA's factors."""
        if not made.backbone.lora.modules_to_save:
            return ()
        unseen = FeatureCache(made.backbone, made.suite.tasks("unseen"))
        seen = scored_seen_tasks(made.zoo.tasks, self.config.seen_tasks, self.config.seed)
        tasks = [*(made.features(name) for name in seen), *(unseen(task.name) for task in made.suite.tasks("unseen"))]
        recipe = recipe_of(made.zoo.plan)
        recipe = recipe.config if isinstance(recipe, ChosenRecipe) else recipe
        alone = classifier_alone(made.backbone, tasks, made.zoo.initial, config=recipe, seed=self.config.seed)
        info = SourceInfo(CLASSIFIER_ALONE, "labels", None, "the same recipe of fine-tuning without LoRA")
        return [(Method(alone), info)]


def with_predictor(results: Results, benchmark: OpenBenchmark, predictor: Predictor) -> Results:
    """The results with an opponent's rows, on all scored tasks."""
    splits = {row.task: row.split for row in results.rows}
    tasks = [task for group in ("seen", "unseen") for task in benchmark.suite.tasks(group) if task.name in splits]
    objective, info = benchmark.backbone.objective, predictor.info
    condition: Condition = "none" if info.family == "no description" else "own"
    rows, counts = [], list(POOLED.of(results) or ())
    for task in tasks:
        outputs, data = predictor.outputs(task), task.data("test")
        scores = outputs
        if benchmark.scorer is None:
            batch = {TARGETS: objective.targets(data.targets)}
            scores = objective.score(outputs, batch)
            key = (splits[task.name], task.name, info.name, condition, None)
            counts += pooled_counts(benchmark.pooled, key, outputs[None], batch)
        value = float(scores.double().mean())
        rows.append(ResultRow(results.suite.name, splits[task.name], info.name, condition, None, 0, task.name, value,
                              len(scores)))  # fmt: skip
    training = {} if info.training_seconds is None else {info.name: info.training_seconds}
    every = (*results.rows, *rows)
    summary = summarise(every, {}, training, seed=results.provenance.seed, metric=results.metric)
    added = tuple(row for row in summary if row.source == info.name)
    results = replace(results, rows=every, summary=(*results.summary, *added), sources=(*results.sources, info))
    return POOLED.added_to(results, tuple(counts))
