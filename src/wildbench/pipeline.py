"""Every stage in order from one configuration, resumed at the first that is missing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wildbench.run_folder import Reporter, RunFolder, Tick, kept, null_progress
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.registry import load_backbone, save_backbone, stored_kind
from wildpdiff.camera_traps.registry import load_suite, suite_providers
from wildpdiff.disk import remove_leftovers
from wildpdiff.evaluate.comparison import FIT_STAGE, SEEN_STAGE, Comparison, compare_sources
from wildpdiff.evaluate.results import Results, provenance, read_results, write_results
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import BACKBONE_FOLDER, Generator
from wildpdiff.records import encode
from wildpdiff.report.page import write_report
from wildpdiff.tasks.task import Group, Suite, content_hash, learned_fingerprint
from wildpdiff.trust.generated import calibrate_generator, can_calibrate
from wildpdiff.trust.model import FOLDER, TrustModel
from wildpdiff.zoo.build import build_zoo, recipe_of
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.recipe import ChosenRecipe
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

SEED_STEP = 1000
"""Between the seeds of a run's generators, of which the first has the run's own."""


@dataclass(frozen=True)
class PipelineConfig:
    """One run from tasks to report.

    Attributes:
        suite: name or path, as :func:`wildpdiff.camera_traps.registry.load_suite` takes it.
        suite_options: its options.
        backbone: a bundled name, or a folder.
        seed: decides everything random.
        finetune: the zoo's fine-tuning; None is the default where the suite has a bundled backbone, and elsewhere one
            that is chosen on some seen tasks (:mod:`wildpdiff.zoo.recipe`).
        per_shard: tasks fine-tuned in one pass; their adapters are merged side by side, so large backbones take few.
        generator: what is fitted to the zoo.
        generator_seeds: how many generators are fitted, with different seeds; published numbers need three.
        samples: adapters a task in the evaluation; all of them count.
        seen_tasks: how many seen tasks are scored, drawn by the seed; None scores all of them.
        trust: whether each generator's trust is calibrated on its seen tasks, where there are enough of them.
    """

    suite: str = "savanna"
    suite_options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "savanna-cnn"
    seed: int = 0
    finetune: FinetuneConfig | None = None
    per_shard: int = 20
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    generator_seeds: int = 1
    samples: int = 4
    seen_tasks: int | None = None
    trust: bool = True

    @property
    def recipe(self) -> FinetuneConfig | None:
        """The fine-tuning; None where it is to be chosen."""
        provider = suite_providers().get(self.suite)
        bundled = provider is not None and provider.backbone is not None
        return FinetuneConfig() if self.finetune is None and bundled else self.finetune

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        values: dict[str, Any] = encode(replace(self, finetune=self.recipe))
        return values


@dataclass(frozen=True)
class PipelineResult:
    """The outputs of a run.

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


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run's evaluation.

    Attributes:
        backbone, suite: of the configuration.
        features: labelled images of the seen tasks behind the stem.
        zoo: of the seen tasks.
        reference: of the unseen tasks, for comparison only; None where there are none.
        generators: one a training seed.
        trust: a model of trust for each of them; none where it was not calibrated.
    """

    backbone: Backbone
    suite: Suite
    features: FeatureCache
    zoo: Zoo
    reference: Zoo | None
    generators: tuple[Generator, ...]
    trust: tuple[TrustModel, ...] = ()


def prepare(config: PipelineConfig, folder: RunFolder, problem: tuple[Suite, Backbone] | None = None) -> RunInputs:
    """Zoo, reference and generators of a run, each made where it is missing from the run's folder.

    Args:
        config: of the run; :meth:`RunFolder.claim` is the caller's.
        folder: of the run.
        problem: suite and backbone, where they are no names that the configuration could hold; else they are loaded
            by its names.

    Raises:
        WildpdiffError: whatever a stage raises.
    """
    out = folder.folder
    suite, backbone = problem or _load(config)
    features = FeatureCache(backbone, suite.tasks("seen"))

    def build(name: str, group: Group, recipe: FinetuneConfig | ChosenRecipe | None, tick: Tick) -> Zoo:
        return build_zoo(
            out / name,
            backbone,
            suite.tasks(group),
            learned_fingerprint(suite, group),
            config=recipe,
            seed=config.seed,
            per_shard=config.per_shard,
            features=features if group == "seen" else None,
            progress=tick,
        )

    zoo = folder.timed(SEEN_STAGE, partial(build, "zoo", "seen", config.recipe))
    reference = None
    if suite.tasks("unseen"):
        reference = folder.timed(
            "fine-tune unseen tasks, for comparison only",  # exactly as the seen ones
            partial(build, "reference", "unseen", recipe_of(zoo.plan)),
        )
    training_set = TrainingSet.of(suite, backbone, zoo, features)
    generators: list[Generator] = []
    trust: list[TrustModel] = []
    for number in range(config.generator_seeds):
        fit = partial(_generator, out, config, training_set, number=number)
        generators.append(folder.timed(f"{FIT_STAGE} {number + 1} of {config.generator_seeds}", fit))
        if config.trust and can_calibrate(generators[-1], zoo):
            learn = partial(_trust, out, config, training_set, number=number, generator=generators[-1])
            trust.append(folder.timed(f"calibrate trust {number + 1} of {config.generator_seeds}", learn))
    return RunInputs(backbone, suite, features, zoo, reference, tuple(generators), tuple(trust))


def _load(config: PipelineConfig) -> tuple[Suite, Backbone]:
    backbone = load_backbone(config.backbone)
    known = {
        "seed": config.seed,
        "image_size": backbone.image_size,
        "classes": backbone.classes,
        "framing": backbone.framing,
    }
    return load_suite(config.suite, **{**known, **config.suite_options}), backbone


def run_pipeline(
    config: PipelineConfig, out: Path | str, *, command: str, reporter: Reporter = null_progress
) -> PipelineResult:
    """Zoo, reference, generators, adapters, table and page. Interrupted and called again, it resumes.

    Args:
        config: of the run.
        out: folder of the run; an unfinished run of the same configuration in it is finished.
        command: the command line, for the provenance.
        reporter: of stages and their progress.

    Raises:
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: whatever a stage raises.
    """
    folder = RunFolder(Path(out), reporter)
    folder.claim(config.to_json())
    made = prepare(config, folder)
    adapters = folder.timed(
        "generate adapters",
        lambda tick: _adapters(folder.folder / "adapters", config, made.suite, made.generators[0], tick=tick),
    )
    parts = (made.suite, made.backbone, made.zoo, made.reference, made.generators, config.suite_options, made.features)
    comparison = Comparison(*parts, seen_tasks=config.seen_tasks, trust=made.trust)
    results = folder.timed("evaluate", lambda tick: _results(config, comparison, folder, command, tick=tick))
    page = folder.timed("report", lambda tick: write_report(results, folder.folder).page)
    return PipelineResult(folder.folder, adapters, results, page)


def _generator(out: Path, config: PipelineConfig, training_set: TrainingSet, tick: Tick, *, number: int) -> Generator:
    folder, backbone = out / f"generator-{number}", training_set.backbone
    seed = config.seed + SEED_STEP * number
    wanted = {"config": encode(config.generator), "seed": seed, "zoo": training_set.zoo.plan.fingerprint}
    found = kept(
        lambda: Generator.from_pretrained(folder, backbone),
        lambda generator: all(generator.training.get(name) == value for name, value in wanted.items()),
    )
    if found is None:
        fitted = fit_generator(training_set, config.generator, seed=seed, progress=tick, store=_store(out, number))
        fitted.generator.save_pretrained(folder)
        shutil.rmtree(_store(out, number), ignore_errors=True)
        found = Generator.from_pretrained(folder, backbone)
    elif stored_kind(backbone) is not None and kept(lambda: Generator.from_pretrained(folder), lambda _: True) is None:
        save_backbone(backbone, folder.with_name(f"{folder.name}-{BACKBONE_FOLDER}"))  # only the copy is broken
    return found


def _store(out: Path, number: int) -> Path:
    """Folder of the networks of an unfinished fit."""
    return out / f".generator-{number}.unfinished"


def _trust(
    out: Path,
    config: PipelineConfig,
    training_set: TrainingSet,
    tick: Tick,
    *,
    number: int,
    generator: Generator,
) -> TrustModel:
    """The generator's model of trust, inside its folder."""
    folder = out / f"generator-{number}" / FOLDER
    found = kept(
        lambda: TrustModel.load(folder, generator.backbone), lambda model: model.generator == generator.fingerprint
    )
    if found is None:
        model = calibrate_generator(
            generator,
            training_set,
            config.generator,
            seed=config.seed + SEED_STEP * number,
            progress=tick,
            store=_store(out, number),
        )
        model.save(folder)
        shutil.rmtree(_store(out, number), ignore_errors=True)
        found = TrustModel.load(folder, generator.backbone)
    return found


def _adapters(
    folder: Path, config: PipelineConfig, suite: Suite, generator: Generator, *, tick: Tick
) -> tuple[Path, ...]:
    tasks = suite.tasks("unseen")
    wanted = {"generator": generator.fingerprint, "seed": config.seed}
    remove_leftovers(folder)
    paths = []
    for number, task in enumerate(tasks):
        path = folder / task.name
        description = task.description
        if description.task_id is None:
            description = replace(description, task_id=task.name)
        own = {**wanted, "task": description.task_id}

        def mine(adapter: Adapter, own: Mapping[str, Any] = own) -> bool:
            return all(adapter.provenance.get(name) == value for name, value in own.items())

        if kept(partial(Adapter.load, path), mine) is None or not (path / "README.md").is_file():
            generator.sample(description, 1, config.seed)[0].save(path)
        paths.append(path)
        tick(number + 1, len(tasks))
    return tuple(paths)


def _results(
    config: PipelineConfig,
    comparison: Comparison,
    folder: RunFolder,
    command: str,
    *,
    tick: Tick,
) -> Results:
    path = folder.folder / "results.json"
    hashes = tuple(generator.fingerprint for generator in comparison.generators)
    found = kept(
        partial(read_results, path),
        lambda results: (
            results.suite.fingerprint == content_hash(comparison.suite)
            and results.backbone.hash == comparison.backbone.backbone_hash
            and results.generator is not None
            and results.generator.hashes == hashes
        ),
    )
    if found is not None:
        return found
    made = provenance(command, config.seed)
    results = compare_sources(comparison, made=made, samples=config.samples, stages=folder.stages, progress=tick)
    write_results(path, results)
    return results
