"""Unseen tasks in harder variants of savanna: the information in descriptions is removed part by part, then altogether.

Each variant is a run of its own: zoo, fine-tuned reference, generators, their trust, and simpler methods.
Results are compared with targets (:mod:`wildbench.studies.variant_targets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wildbench.methods.few_labels import FewLabelsSource
from wildbench.pipeline import PipelineConfig, RunInputs, prepare
from wildbench.run_folder import Reporter, RunFolder, Tick, kept, null_progress
from wildbench.studies.grid import StudyInputs
from wildbench.studies.groups import REGION
from wildbench.studies.variant_groups import GroupsStudy, measure_groups
from wildpdiff.backbones.pretrain import PretrainConfig, pretrain_savanna_cnn
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.backbones.savanna_cnn import SavannaCNN
from wildpdiff.camera_traps.registry import load_suite
from wildpdiff.errors import DataError
from wildpdiff.evaluate.comparison import Comparison, compare_sources, scored_seen_tasks
from wildpdiff.evaluate.methods import baseline_names
from wildpdiff.evaluate.results import Results, SourceInfo, TrustSection, provenance, read_results, write_results
from wildpdiff.evaluate.run import Method
from wildpdiff.report.page import write_report
from wildpdiff.report.wording import count
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo


@dataclass(frozen=True)
class Variant:
    """A variant of savanna.

    Attributes:
        name: of the variant.
        options: of the suite that make it.
        pretrained: whether its backbone is pretrained on its own pretraining locations. One that was pretrained where
            coats swap and light shifts is wrong about a variant without that, and everywhere in the same way: what
            fine-tuning gains would be that common error, which the mean of all adapters mends without a description.
    """

    name: str
    options: Mapping[str, Any]
    pretrained: bool = False


BASE = "both"
"""The variant whose metadata and backgrounds are both informative; groups are held out of it."""

VARIANTS = (
    Variant(BASE, {}),
    Variant("metadata only", {"background_shift": 0.0}, pretrained=True),
    Variant("backgrounds only", {"metadata_shift": 0.0}, pretrained=True),
    Variant("no information", {"description": "foreign"}),
)

EXTRAPOLATION = "extrapolation"
"""No suite of its own: groups of like tasks held out of :data:`BASE`."""

VARIANT_NAMES = (*(variant.name for variant in VARIANTS), EXTRAPOLATION)

OPPONENTS = (
    "mean adapter",
    "pretrained, centred",
    "nearest task",
    "kernel ridge regression",
    "additive kernel regression",
    "top-K merge",
    "multi-task adapter with description",
    "hypernetwork, task loss",
    "fine-tuned, 5 labels a class",
    "fine-tuned, 20 labels a class",
    "generated, refined on 5 labels a class",
)
"""Methods compared with the generator by default, in addition to pretrained, fine-tuned and shuffled descriptions."""


def _run() -> PipelineConfig:
    # Twice a demo's unseen tasks: with thirty a share of the gain is known to fifteen hundredths either way.
    return PipelineConfig(suite_options={"unseen": 60}, generator_seeds=3, seen_tasks=30)


@dataclass(frozen=True)
class VariantsConfig:
    """Configuration of every variant.

    Attributes:
        run: suite options besides a variant's own, backbone, zoo, generators and their seeds.
        opponents: methods compared with the generator, of :func:`~wildpdiff.evaluate.methods.baseline_names`.
        labels: labels a class of further fine-tuned references, besides 5 and 20.
        groups: what is held out of :data:`BASE`.
        epochs: of pretraining in variants that have a backbone of their own; None keeps the run's, as does one of
            another architecture than savanna's.
    """

    run: PipelineConfig = field(default_factory=_run)
    opponents: tuple[str, ...] = OPPONENTS
    labels: tuple[int, ...] = (10, 40)
    groups: GroupsStudy = field(default_factory=lambda: GroupsStudy(("habitat", REGION, "camera_model")))
    epochs: int | None = 6

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {
            **self.run.to_json(),
            "opponents": list(self.opponents),
            "labels": list(self.labels),
            "groups": self.groups.to_json(),
            "epochs": self.epochs,
        }


def measure_variant(
    config: VariantsConfig, name: str, out: Path, *, command: str, reporter: Reporter = null_progress
) -> Results:
    """One variant, measured in a folder of its own below ``out``. Interrupted and called again, it resumes.

    :data:`EXTRAPOLATION` rests on the zoo of :data:`BASE`, which is measured first where it was not.

    Args:
        config: of the study.
        name: one of :data:`VARIANT_NAMES`.
        out: folder of the study.
        command: what the user typed, for the record.
        reporter: receives every stage and its progress.

    Raises:
        DataError: no such variant, or the configuration requires what the suite does not have.
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: whatever a stage raises.
    """
    if name not in VARIANT_NAMES:
        raise DataError(f"There is no variant {name!r}; there are {', '.join(VARIANT_NAMES)}.")
    path = out / folder_name(name) / "results.json"
    if path.is_file():
        results = read_results(path)
    elif name == EXTRAPOLATION:
        base = measure_variant(config, BASE, out, command=command, reporter=reporter)
        results = _extrapolated(config, out, base, command, reporter=_prefixed(name, reporter))
        write_results(path, results)
    else:
        variant = next(variant for variant in VARIANTS if variant.name == name)
        results = _measured(config, variant, out, command, reporter=_prefixed(name, reporter))
        write_results(path, results)
    if not (path.parent / "report.html").is_file():
        _prefixed(name, reporter)("report")
        write_report(results, path.parent)
    return results


def folder_name(variant: str) -> str:
    """The folder of a variant below that of the study."""
    return variant.replace(" ", "-")


def _prefixed(name: str, reporter: Reporter) -> Reporter:
    return lambda stage: reporter(f"{name}: {stage}")


def _run_of(config: VariantsConfig, variant: Variant) -> PipelineConfig:
    return replace(config.run, suite_options={**config.run.suite_options, **variant.options})


def _measured(config: VariantsConfig, variant: Variant, out: Path, command: str, *, reporter: Reporter) -> Results:
    run = _run_of(config, variant)
    folder = RunFolder(out / folder_name(variant.name), reporter)
    epochs = config.epochs if variant.pretrained else None
    folder.claim(run.to_json() if epochs is None else {**run.to_json(), "epochs": epochs})
    if epochs is not None:
        run = folder.timed("pretrain the backbone", partial(_pretrained, run, folder.folder / "backbone", epochs))
    made = prepare(run, folder)
    results = folder.timed("evaluate", lambda tick: _evaluated(config, run, made, folder, command=command, tick=tick))
    if run.backbone != config.run.backbone:
        note = (
            f"The backbone was pretrained on this variant's own pretraining locations, {count(epochs or 0, 'epoch')}."
        )
        results = replace(results, notes=(*results.notes, note))
    if results.trust is None:
        note = "Trust was not assessed: it is switched off, or there are too few seen tasks to calibrate it on."
        return replace(results, notes=(*results.notes, note), stages=folder.stages)
    points = tuple(replace(point, world=variant.name) for point in results.trust.points)
    return replace(results, trust=TrustSection(points), stages=folder.stages)


def _pretrained(run: PipelineConfig, path: Path, epochs: int, tick: Tick) -> PipelineConfig:
    """The run on a backbone of the variant's own, which is trained where it is not there yet."""
    given = load_backbone(run.backbone)
    if not isinstance(given.module, SavannaCNN):
        return run
    if kept(lambda: load_backbone(path), lambda backbone: True) is None:
        known = {"seed": run.seed, "image_size": given.image_size}
        suite = load_suite(run.suite, **{**known, **run.suite_options})
        made = pretrain_savanna_cnn(
            suite.tasks("pretraining"), suite.classes, suite.image_size, PretrainConfig(epochs), progress=tick
        )
        save_backbone(made.backbone, path)
    return replace(run, backbone=str(path))


def _evaluated(
    config: VariantsConfig, run: PipelineConfig, made: RunInputs, folder: RunFolder, *, command: str, tick: Tick
) -> Results:
    comparison = Comparison(
        made.suite,
        made.backbone,
        made.zoo,
        made.reference,
        made.generators,
        run.suite_options,
        made.features,
        baselines="all",
        without=[name for name in baseline_names() if name not in config.opponents],
        seen_tasks=run.seen_tasks,
        further=_more_labels(config, run, made),
        trust=made.trust,
    )
    recorded = provenance(command, run.seed)
    return compare_sources(comparison, made=recorded, samples=run.samples, stages=folder.stages, progress=tick)


def _more_labels(config: VariantsConfig, run: PipelineConfig, made: RunInputs) -> list[tuple[Method, SourceInfo]]:
    """Fine-tuning from the pretrained model on other numbers of labels, to find how many are needed."""
    unseen = FeatureCache(made.backbone, made.suite.tasks("unseen"))
    names = [task.name for task in made.suite.tasks("unseen")]
    found = []
    for labels in config.labels:
        source = FewLabelsSource(
            lambda name: unseen(name) if name in names else made.features(name),
            made.backbone,
            made.zoo.initial,
            labels_per_class=labels,
            seed=run.seed,
        )
        source.prepare([*scored_seen_tasks(made.zoo.tasks, run.seen_tasks, run.seed), *names])
        note = f"fine-tuned on {labels} labelled images of each class of the task"
        found.append((Method(source), SourceInfo(source.name, "labels", None, note)))
    return found


def _extrapolated(config: VariantsConfig, out: Path, base: Results, command: str, *, reporter: Reporter) -> Results:
    run = _run_of(config, VARIANTS[0])
    backbone = load_backbone(run.backbone)
    known = {
        "seed": run.seed,
        "image_size": backbone.image_size,
        "classes": backbone.classes,
        "framing": backbone.framing,
    }
    suite = load_suite(run.suite, **{**known, **run.suite_options})
    features = FeatureCache(backbone, suite.tasks("seen"))
    inputs = StudyInputs(suite, backbone, Zoo.open(out / folder_name(BASE) / "zoo"), features, run.generator)
    folder = RunFolder(out / folder_name(EXTRAPOLATION), reporter)
    folder.claim({**run.to_json(), "groups": config.groups.to_json()})
    empty = Results(
        provenance=provenance(command, run.seed),
        suite=base.suite,
        backbone=base.backbone,
        generator=base.generator,
        autoencoder=None,
        rows=(),
        summary=(),
        sources=base.sources,
    )
    found = measure_groups(config.groups, run, inputs, folder=folder, results=empty, variant=EXTRAPOLATION)
    return replace(found, stages=folder.stages)
