"""The first table: the generator beside everything simpler, on seen and on unseen tasks."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.additive_kernel import AdditiveKernelSource
from wildpdiff.baselines.finetuned import FinetunedSource
from wildpdiff.baselines.kernel_regression import KernelRegressionSource
from wildpdiff.baselines.mean import MeanSource
from wildpdiff.baselines.nearest import NearestTaskSource
from wildpdiff.baselines.pretrained import PretrainedSource
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import (
    AutoencoderInfo,
    BackboneInfo,
    Ceiling,
    GeneratorInfo,
    Provenance,
    Results,
    Split,
    Stage,
    SuiteInfo,
)
from wildpdiff.evaluate.run import Entrant, RoundTripSource, evaluate
from wildpdiff.evaluate.score import TestSet, test_set
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED, summarise
from wildpdiff.generator import Generator
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.store import Zoo

SEEN_STAGE = "fine-tune seen tasks"
"""The stage whose time is shared out among the fine-tuned adapters."""

__all__ = ["Comparison", "compare_sources", "hardware", "provenance"]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        suite: seen and unseen tasks.
        backbone: the frozen model.
        zoo: adapters of the seen tasks, that the generators were fitted on.
        reference: adapters of the unseen tasks, fine-tuned on their labels only for this comparison.
        generators: one a training seed; at least one.
        knobs: settings of the suite, for the record.
    """

    suite: Suite
    backbone: Backbone
    zoo: Zoo
    reference: Zoo | None
    generators: Sequence[Generator]
    knobs: Mapping[str, Any]


def hardware() -> str:
    """The machine in words, without its name: architecture and number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, no GPU used"


def provenance(command: str, seed: int) -> Provenance:
    """Who made the numbers, how and when."""
    try:
        package = version("wildpdiff")
    except PackageNotFoundError:
        package = "not installed"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(package, command, seed, hardware(), platform.python_version(), str(torch.__version__), now)


def _entrants(comparison: Comparison) -> list[Entrant]:
    zoo, first = comparison.zoo, comparison.generators[0]
    by_name = {task.name: task.description for task in comparison.suite.tasks("seen")}
    descriptions: list[Description] = [by_name[name] for name in zoo.tasks]
    features = {
        encoder.part: ImageFeatures.of(descriptions, encoder.part, comparison.backbone.image_features)
        for encoder in first.conditions.encoders
        if encoder.part in ("backgrounds", "examples")
    }
    # Baselines get the mean of each run's last checkpoints, the least noisy point of it: a stronger opponent.
    adapters = list(zoo.mean_adapters().values())
    finetuned = zoo.final_adapters()
    if comparison.reference is not None:
        finetuned |= comparison.reference.final_adapters()
    encoder = first.conditions
    entrants = [
        Entrant(PretrainedSource(zoo.initial), "none"),
        Entrant(MeanSource(adapters), "none"),
        Entrant(NearestTaskSource(encoder, descriptions, adapters, features)),
        Entrant(KernelRegressionSource(encoder, descriptions, adapters, features)),
        Entrant(AdditiveKernelSource(encoder, descriptions, adapters)),
    ]
    for generator in comparison.generators:
        seed = int(generator.training["seed"])
        entrants += [Entrant(generator, "own", seed), Entrant(generator, "shuffled", seed)]
    return [*entrants, Entrant(FinetunedSource(finetuned), "own")]


def _seconds(measured: Mapping[str, float], stages: Sequence[Stage], tasks: int) -> dict[str, float]:
    """Seconds for one adapter. Looking a fine-tuned one up costs nothing; what counts is its share of the training."""
    seconds = {name: value for name, value in measured.items() if name not in (PRETRAINED, FINETUNED)}
    trained = [stage.seconds for stage in stages if stage.name == SEEN_STAGE]
    return seconds | ({FINETUNED: trained[0] / tasks} if trained else {})


def compare_sources(
    comparison: Comparison,
    *,
    made: Provenance,
    samples: int = 4,
    stages: Sequence[Stage] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Score every source on every task and write down all that a reader needs to trust or doubt the table.

    Raises:
        DataError: no generator, or no unseen and no seen tasks.
    """
    if not comparison.generators:
        raise DataError("There is no generator to compare. Fit one with `wildpdiff fit`.")
    suite, backbone = comparison.suite, comparison.backbone
    tests: dict[Split, list[TestSet]] = {"seen": [test_set(backbone, task) for task in suite.tasks("seen")]}
    if comparison.reference is not None:
        tests["unseen"] = [test_set(backbone, task) for task in suite.tasks("unseen")]
    entrants = _entrants(comparison)
    seed = made.seed
    found = evaluate(suite.name, tests, backbone, entrants, samples=samples, seed=seed, progress=progress)
    first = comparison.generators[0]
    rounded = Entrant(RoundTripSource(entrants[-1].source, first), "own")
    ceiling: dict[str, Ceiling] = {}
    for split, part in tests.items():
        scores = evaluate(suite.name, {split: part}, backbone, [rounded, entrants[-1]], samples=1, seed=seed).rows
        means = [sum(row.accuracy for row in scores if row.source == name) / len(part) for name in
                 (rounded.source.name, entrants[-1].source.name)]  # fmt: skip
        ceiling[split] = Ceiling(*means)
    return Results(
        provenance=made,
        suite=SuiteInfo(
            suite.name,
            len(suite.classes),
            suite.fingerprint,
            len(tests["seen"]),
            len(tests.get("unseen", [])),
            dict(comparison.knobs),
        ),
        backbone=BackboneInfo(
            backbone.name,
            backbone.backbone_hash,
            sum(value.numel() for value in backbone.module.parameters()),
            comparison.zoo.initial.size,
        ),
        generator=GeneratorInfo(
            tuple(generator.fingerprint for generator in comparison.generators),
            dict(first.training["config"]),
            len(comparison.zoo),
        ),
        autoencoder=AutoencoderInfo(str(first.autoencoder.config["kind"]), first.autoencoder.latent_size, ceiling),
        rows=found.rows,
        summary=tuple(summarise(found.rows, _seconds(found.seconds, stages, len(comparison.zoo.tasks)), seed=seed)),
        stages=tuple(stages),
    )
