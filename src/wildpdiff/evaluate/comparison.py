"""Comparison of the generator with every baseline, on seen and on unseen tasks, and further measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import FinetunedSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.camera_traps.picture_files import some
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.evaluate.methods import Baselines, MethodInputs, Methods, build_methods
from wildpdiff.evaluate.results import (
    AutoencoderInfo,
    BackboneInfo,
    Ceiling,
    GeneratorInfo,
    Provenance,
    ResultRow,
    Results,
    SourceInfo,
    Split,
    Stage,
    SuiteInfo,
)
from wildpdiff.evaluate.run import Method, RoundTripSource, Scorer, SectionObserver, evaluate
from wildpdiff.evaluate.score import TestSet, test_set
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED, summarise
from wildpdiff.generator import Generator
from wildpdiff.parallel import in_parallel
from wildpdiff.registry import registered
from wildpdiff.rng import first_by_name
from wildpdiff.tasks.description import Description, Inputs
from wildpdiff.tasks.task import Group, Suite, Task, content_hash, learned_fingerprint, title_of
from wildpdiff.threads import one_thread
from wildpdiff.trust.model import TrustModel
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.store import Zoo

SEEN_STAGE = "fine-tune seen tasks"
"""The stage whose time is shared out among the fine-tuned adapters."""

FIT_STAGE = "fit generator"
"""Prefix of the stages that fit one generator each."""


@dataclass(frozen=True)
class Comparison:
    """Inputs of a comparison.

    Attributes:
        zoo: adapters of the seen tasks, which the generators were fitted to.
        reference: adapters of the unseen tasks, fine-tuned on their labels only for this comparison.
        untuned: further unseen tasks, with test examples and too few others to fine-tune on: methods without labels
            are scored on them too, with their own descriptions.
        generators: one a training seed; at least one.
        knobs: settings of the suite, for the record.
        features: labelled images of the seen tasks behind the stem, where they are computed already.
        without: names of baselines that are left out.
        seen_tasks: number of scored seen tasks, drawn by the seed; None scores all of them.
        method_settings: texts by key for methods of other packages.
        trust: a model of trust for each generator, in their order; none where there is none.
        scorer: of all adapters, in place of the objective's score.
        best_of: whether the best of several posterior samples are methods too.
    """

    suite: Suite
    backbone: Backbone
    zoo: Zoo
    reference: Zoo | None
    generators: Sequence[Generator]
    knobs: Mapping[str, Any]
    features: FeatureCache | None = None
    baselines: Baselines = "core"
    without: Sequence[str] = field(default=())
    seen_tasks: int | None = None
    further: Sequence[tuple[Method, SourceInfo]] = ()
    method_settings: Mapping[str, str] = field(default_factory=dict)
    trust: Sequence[TrustModel] = ()
    scorer: Scorer | None = None
    best_of: bool = True
    untuned: Sequence[Task] = ()

    def check(self) -> None:
        """Refuse parts of several runs.

        Raises:
            AdapterMismatchError: a zoo is of another backbone.
            ArtifactError: a zoo is of other tasks or of another suite, a generator was fitted to another zoo, or a
                model of trust was calibrated for another generator.
        """
        _check_zoo(self.suite, self.backbone, self.zoo, "seen")
        if self.reference is not None:
            _check_zoo(self.suite, self.backbone, self.reference, "unseen")
        for generator in self.generators:
            fitted = generator.training.get("zoo")
            if fitted != self.zoo.plan.fingerprint:
                raise ArtifactError(
                    f"Generator {generator.fingerprint[:12]} was fitted to zoo {str(fitted)[:12]}; the one in "
                    f"{self.zoo.folder} is {self.zoo.plan.fingerprint[:12]}. They do not belong together: give the zoo "
                    "that the generator was fitted to, or fit it again."
                )
        for model, generator in zip(self.trust, self.generators, strict=False):
            if model.generator and model.generator != generator.fingerprint:
                raise ArtifactError(
                    f"A model of trust is of generator {model.generator[:12]}; its generator here is "
                    f"{generator.fingerprint[:12]}. They do not belong together: calibrate trust again."
                )


def _check_zoo(suite: Suite, backbone: Backbone, zoo: Zoo, group: Group) -> None:
    """Refuse a zoo that was not built on exactly these tasks and this backbone."""
    names = {task.name for task in suite.tasks(group)}
    if zoo.plan.suite != learned_fingerprint(suite, group) or set(zoo.tasks) != names:
        raise ArtifactError(
            f"The zoo in {zoo.folder} was not built on the {group} tasks of this suite: they do not belong together. "
            "Give the same --suite, seed and -o options as for the zoo, and zoos of the right groups."
        )
    backbone.require(zoo.plan.adapter, f"The zoo in {zoo.folder} is", "Give the zoo's backbone.")


@dataclass(frozen=True)
class ObserverInputs:
    """Inputs of the observers of other packages (entry points of the group ``wildpdiff.observers``)."""

    comparison: Comparison
    seen: SeenTasks
    finetuned: Mapping[str, Adapter]
    tests: Mapping[Split, Sequence[TestSet]]


def seen_material(
    suite: Suite, backbone: Backbone, zoo: Zoo, *, generator: Generator, features: FeatureCache | None, seed: int
) -> SeenTasks:
    """Training set of the baselines, with descriptions encoded as in the generator."""
    by_name = {task.name: task.description for task in suite.tasks("seen")}
    descriptions: list[Description] = [by_name[name] for name in zoo.tasks]
    images = generator.conditions.image_features(descriptions)
    if features is None:
        features = FeatureCache(backbone, suite.tasks("seen"))
    return SeenTasks(backbone, zoo, descriptions, generator.conditions, images, features, seed)


def scored_seen_tasks(names: Sequence[str], count: int | None, seed: int) -> tuple[str, ...]:
    """The seen tasks that are scored: all, or ``count`` of them drawn by the seed, in their order."""
    if count is None or count >= len(names):
        return tuple(names)
    return tuple(names[index] for index in first_by_name(names, count, seed, "scored seen tasks"))


@one_thread()
def compare_sources(
    comparison: Comparison,
    *,
    made: Provenance,
    samples: int = 4,
    stages: Sequence[Stage] = (),
    observers: Sequence[SectionObserver] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Scores of every method on every task, with provenance and further measurements.

    ``observers`` are measurements besides those of installed packages.

    Raises:
        DataError: no generator, or no unseen and no seen tasks.
        ArtifactError: the parts do not belong together.
    """
    if not comparison.generators:
        raise DataError("There is no generator to compare. Fit one with `wildpdiff fit`.")
    suite, backbone, zoo, seed = comparison.suite, comparison.backbone, comparison.zoo, made.seed
    comparison.check()
    first = comparison.generators[0]
    seen = seen_material(suite, backbone, zoo, generator=first, features=comparison.features, seed=seed)
    scored = set(scored_seen_tasks(zoo.tasks, comparison.seen_tasks, seed))
    crops = comparison.baselines == "all"
    tests: dict[Split, list[TestSet]] = {
        "seen": _test_sets(backbone, [task for task in suite.tasks("seen") if task.name in scored], crops)
    }
    finetuned = zoo.task_adapters()
    if comparison.reference is not None:
        tests["unseen"] = _test_sets(backbone, suite.tasks("unseen"), crops)
        finetuned |= comparison.reference.task_adapters()
    every = [test for part in tests.values() for test in part]
    fits = [stage.seconds for stage in stages if stage.name.startswith(FIT_STAGE)]
    built = build_methods(
        MethodInputs(
            seen,
            comparison.generators,
            _labelled(comparison, seen),
            [test.task for test in every],
            comparison.method_settings,
            every,
            _unlabelled(suite),
        ),
        finetuned,
        baselines=comparison.baselines,
        without=comparison.without,
        further=comparison.further,
        best_of=comparison.best_of,
        fit_seconds=sum(fits) / len(fits) if fits else None,
    )
    inputs = ObserverInputs(comparison, seen, finetuned, tests)
    observers = [*observers, *(entry for build in registered("observers").values() for entry in build(inputs))]
    found = evaluate(
        suite.name,
        tests,
        backbone,
        built.methods,
        samples=samples,
        seed=seed,
        observers=observers,
        scorer=comparison.scorer,
        progress=progress,
    )
    rows = (*found.rows, *_untuned_rows(comparison, built, samples=samples, seed=seed))
    metric = backbone.objective.metric if comparison.scorer is None else comparison.scorer.metric
    training = {info.name: info.training_seconds for info in built.sources if info.training_seconds is not None}
    summary = summarise(rows, _seconds(found.seconds, stages, len(zoo.tasks)), training, seed=seed, metric=metric)
    coded = RoundTripSource(FinetunedSource(finetuned), first)
    again = evaluate("", tests, backbone, [Method(coded)], samples=1, scorer=comparison.scorer).rows
    results = Results(
        provenance=made,
        **_about(comparison, tests, _ceilings(list(tests), again, found.rows)),
        rows=rows,
        metric=metric,
        summary=tuple(summary),
        stages=tuple(stages),
        notes=_untuned_note(comparison.untuned),
        sources=built.sources,
    )
    return results.with_sections({observer.section: observer.result() for observer in observers})


def _test_sets(backbone: Backbone, tasks: Sequence[Task], crops: bool) -> list[TestSet]:
    return list(in_parallel(lambda task, _: test_set(backbone, task, crops=crops), tasks))


def _untuned_rows(comparison: Comparison, built: Methods, *, samples: int, seed: int) -> tuple[ResultRow, ...]:
    """Scores on the unseen tasks that no adapter was fine-tuned on, of the methods that need no label of them."""
    if not comparison.untuned:
        return ()
    families = {info.name: info.family for info in built.sources}
    methods = [
        method
        for method in built.methods
        if method.condition in ("own", "none")
        and method.source.name != FINETUNED
        and families[method.source.name] in ("reference", "no description", "description")
    ]
    tests: dict[Split, list[TestSet]] = {"unseen": _test_sets(comparison.backbone, comparison.untuned, False)}
    scored: dict[str, Any] = {"samples": samples, "seed": seed, "scorer": comparison.scorer}
    return evaluate(comparison.suite.name, tests, comparison.backbone, methods, **scored).rows


def _untuned_note(tasks: Sequence[Task]) -> tuple[str, ...]:
    if not tasks:
        return ()
    names = some([title_of(task) for task in tasks])
    return (
        f"Unseen, with too few labelled pictures to fine-tune on: {len(tasks)} ({names}). They count in the rows of "
        "methods without labels, and not in those of fine-tuning, of shuffled and random descriptions, nor in the "
        "recovered gain.",
    )


def _about(
    comparison: Comparison, tests: Mapping[Split, Sequence[TestSet]], ceilings: dict[str, Ceiling]
) -> dict[str, Any]:
    """The parts of the results that hold no score: suite, backbone, generators, autoencoder."""
    suite, backbone, zoo, first = comparison.suite, comparison.backbone, comparison.zoo, comparison.generators[0]
    weights = sum(value.numel() for value in backbone.module.parameters())
    counts = (len(tests["seen"]), len(tests.get("unseen", [])) + len(comparison.untuned))
    return {
        "suite": SuiteInfo(suite.name, len(backbone.classes), content_hash(suite), *counts, dict(comparison.knobs)),
        "backbone": BackboneInfo(backbone.name, backbone.backbone_hash, weights, zoo.initial.size),
        "generator": GeneratorInfo(
            tuple(generator.fingerprint for generator in comparison.generators),
            dict(first.training["config"]),
            len(zoo),
            first.cross_validation,
            None if first.posterior is None else first.posterior.summary,
        ),
        "autoencoder": AutoencoderInfo(str(first.autoencoder.config["kind"]), first.autoencoder.latent_size, ceilings),
    }


def _labelled(comparison: Comparison, seen: SeenTasks) -> Callable[[str], TaskFeatures]:
    """Labelled images of seen and of unseen tasks, for the methods that use labels."""
    unseen = {task.name for task in comparison.suite.tasks("unseen")}
    cache = FeatureCache(comparison.backbone, comparison.suite.tasks("unseen"))
    return lambda name: cache(name) if name in unseen else seen.data(name)


def _unlabelled(suite: Suite) -> Callable[[str], Inputs]:
    """A task's training examples without their labels."""
    by_name = {task.name: task for group in ("seen", "unseen") for task in suite.tasks(group)}
    return lambda name: by_name[name].data("train").inputs


def _ceilings(splits: Sequence[Split], after: Sequence[ResultRow], before: Sequence[ResultRow]) -> dict[str, Ceiling]:
    """Score of fine-tuned adapters before and after the autoencoder's round trip."""

    def mean(found: Sequence[ResultRow], split: Split, source: str) -> float:
        accuracies = [row.accuracy for row in found if (row.split, row.source) == (split, source)]
        return sum(accuracies) / len(accuracies)

    return {
        split: Ceiling(mean(after, split, RoundTripSource.name), mean(before, split, FINETUNED)) for split in splits
    }


def _seconds(measured: Mapping[str, float], stages: Sequence[Stage], tasks: int) -> dict[str, float]:
    """Seconds for one adapter; for a fine-tuned one, its share of the training."""
    seconds = {name: value for name, value in measured.items() if name not in (PRETRAINED, FINETUNED)}
    trained = [stage.seconds for stage in stages if stage.name == SEEN_STAGE]
    return seconds | ({FINETUNED: trained[0] / tasks} if trained else {})
