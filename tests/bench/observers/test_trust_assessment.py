"""Trust put to the test: the very adapters that are scored, unlabelled images only, gains as measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import toys
from refusals import refused
from wildbench.observers.trust_assessment import FreshImages, assess_tasks, measured_gains, trust_point
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import PretrainedSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import ResultRow, contradiction
from wildpdiff.evaluate.run import Method, Scored, evaluate
from wildpdiff.evaluate.score import test_set
from wildpdiff.fit import FittedGenerator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, Images
from wildpdiff.tasks.metric import Metric
from wildpdiff.tasks.task import LabelledImages, SplitName
from wildpdiff.trust.evidence import AdapterSpace, Spaces
from wildpdiff.trust.gain import HeldOutGain, fit_gain_predictor
from wildpdiff.trust.model import BASES, TrustModel
from wildpdiff.trust.report import HeldOutSummary
from wildpdiff.trust.space import DescriptionSpace
from wildpdiff.zoo.features import task_features
from wildpdiff.zoo.store import Zoo

UNSEEN = toys.ToySuite().tasks("unseen")


@pytest.fixture(scope="module")
def model(toy_zoo: Zoo, toy_backbone: Backbone) -> TrustModel:
    """Predicts a larger gain the farther the adapters move the pretrained model."""
    initial = toy_zoo.initial
    layout = Layout.of(initial.tensors)
    vectors = torch.stack([layout.flatten(adapter.tensors) for adapter in toy_zoo.task_adapters().values()])
    descriptions = [task.description for task in toys.ToySuite().tasks("seen")]
    rows = [
        HeldOutGain(f"t{index}", f"f{index % 4}", False, False, {"move": index / 10}, index / 100 - 0.05, 60)
        for index in range(20)
    ]
    return TrustModel(
        backbone=toy_backbone,
        spaces=Spaces(
            DescriptionSpace.fit(descriptions, toys.SCHEMA, toy_backbone.image_features, adapters=vectors),
            AdapterSpace.fit(layout, layout.flatten(initial.tensors), vectors),
            torch.full((3,), 1 / 3),
        ),
        predictors=dict.fromkeys(BASES, fit_gain_predictor(rows)),
        min_trust={basis: {"near": 0.6, "far": 0.95} for basis in BASES},
        held_out=dict.fromkeys(BASES, HeldOutSummary(20, 60, 4.0, None, 0.8, 0.1, 0.9, (3.0, 2.0, 4.0))),
    )


@dataclass
class Recorder:
    """Another source, and its requests and samples."""

    source: Source
    name: str = "generated"
    stochastic: bool = True
    requests: list[Description] = field(default_factory=list)
    given: dict[str, list[Adapter]] = field(default_factory=dict)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        found = self.source.sample(description, n, seed)
        self.requests.append(description)
        self.given[str(description.task_id)] = found
        return found


@dataclass
class Watched:
    """A task that records which of its splits were read."""

    task: toys.ToyTask
    read: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def description(self) -> Description:
        return self.task.description

    def data(self, split: SplitName) -> LabelledImages:
        self.read.append(split)
        return self.task.data(split)


@dataclass
class Kept:
    """An observer that keeps the generator's adapters."""

    adapters: dict[str, Sequence[Adapter]] = field(default_factory=dict)

    def observe(self, scored: Scored) -> None:
        if scored.method.source.name == "generated":
            self.adapters[scored.test.task] = scored.adapters


@pytest.fixture(scope="module")
def scored(
    toy_latents_fit: FittedGenerator, toy_zoo: Zoo, toy_backbone: Backbone
) -> tuple[Kept, tuple[ResultRow, ...]]:
    methods = [Method(PretrainedSource(toy_zoo.initial), "none"), Method(toy_latents_fit.generator, "own", 7)]
    kept = Kept()
    tests = {"unseen": [test_set(toy_backbone, task) for task in UNSEEN]}
    found = evaluate("toy", tests, toy_backbone, methods, samples=3, seed=5, observers=[kept])
    return kept, found.rows


SETTINGS = {"split": "unseen", "samples": 3, "seed": 5}
KEY = {"world": "toy", "split": "unseen", "generator": 7}


def test_the_adapters_assessed_are_those_that_were_scored_and_the_gains_theirs(
    model: TrustModel, toy_latents_fit: FittedGenerator, scored: tuple[Kept, tuple[ResultRow, ...]]
) -> None:
    kept, rows = scored
    gains = measured_gains(rows, "unseen", 7)
    for task in UNSEEN:
        own = [row.accuracy for row in rows if (row.task, row.source) == (task.name, "generated")]
        (before,) = [row.accuracy for row in rows if (row.task, row.source) == (task.name, "pretrained")]
        assert gains[task.name] == pytest.approx(100 * (sum(own) / 3 - before))
    errors = measured_gains(rows, "unseen", 7, metric=Metric("error", higher_is_better=False, low=0.0))
    pretrained = [row.accuracy for row in rows if row.source == "pretrained"]
    usual = sum(pretrained) / len(pretrained)
    assert errors == pytest.approx({task: -gain / usual for task, gain in gains.items()})
    recorder = Recorder(toy_latents_fit.generator)
    reports = assess_tasks(model, recorder, UNSEEN, **SETTINGS)
    points = [trust_point(report, task, gains, **KEY) for task, report in reports.items()]
    for name, adapters in kept.adapters.items():
        for one, other in zip(recorder.given[name], adapters, strict=True):
            assert all(torch.equal(one.tensors[key], other.tensors[key]) for key in one.tensors)
    assert [point.task for point in points] == [task.name for task in UNSEEN]
    assert {point.task: point.gain for point in points} == gains
    assert {(point.world, point.split, point.generator) for point in points} == {("toy", "unseen", 7)}
    assert contradiction(points) is None
    for point, task in zip(points, UNSEEN, strict=True):
        report = model.assess(recorder.given[task.name], task.description)
        expected = (report.trust, report.gain, report.low, report.high, report.min_trust, report.use_generated)
        assert (point.trust, point.predicted, point.low, point.high, point.min_trust, point.used) == expected


def test_no_test_image_is_read_and_no_label_decides(model: TrustModel, toy_fit: FittedGenerator) -> None:
    tasks = [Watched(task) for task in UNSEEN]
    first = assess_tasks(model, toy_fit.generator, tasks, **SETTINGS)
    assert all(task.read == [] for task in tasks)
    assert {report.basis for report in first.values()} == {"backgrounds"}
    shown = assess_tasks(model, toy_fit.generator, tasks, **SETTINGS, images=FreshImages(frozenset()))
    assert all(task.read == ["train"] for task in tasks)
    assert {report.basis for report in shown.values()} == {"examples"}


@dataclass(frozen=True)
class Pooled:
    """A task of twelve pictures out of thirty, whose camera was left to run for some more."""

    name: str
    first: int
    examples: Sequence[int] = ()

    @property
    def description(self) -> Description:
        return Description(examples=POOL[list(self.examples)] if self.examples else None)

    def data(self, split: SplitName) -> LabelledImages:
        rows = range(self.first, self.first + 12) if split == "train" else range(28, 30)
        return LabelledImages(POOL[list(rows)], np.arange(len(rows), dtype=np.int64) % 3)


POOL = toys.random_images(30)


def pool_rows(images: Images) -> list[int]:
    return [next(index for index, other in enumerate(POOL) if np.array_equal(image, other)) for image in images]


def test_trust_is_put_to_the_test_on_images_that_no_seen_task_learned_from(toy_backbone: Backbone) -> None:
    seen = [task_features(toy_backbone, Pooled(f"seen-{first}", first), 8) for first in (0, 6)]
    fresh = FreshImages.of(seen)
    found = fresh(Pooled("unseen", 10, (3, 25, 19, 25)))
    assert found is not None
    assert pool_rows(found) == [18, 19, 20, 21, 25]
    assert fresh(Pooled("known", 4)) is None
    images = fresh(Pooled("new", 18))
    assert images is not None
    assert pool_rows(images) == [*range(18, 28), 28, 29], (
        "both seen tasks are validated by them, so neither learns from them"
    )


def test_a_task_without_a_measured_gain_is_refused(model: TrustModel, toy_fit: FittedGenerator) -> None:
    report = model.assess(toy_fit.generator.sample(UNSEEN[1].description, 1, seed=0), UNSEEN[1].description)
    with refused(DataError, UNSEEN[1].name):
        trust_point(report, UNSEEN[1].name, {UNSEEN[0].name: 1.0}, **KEY)


def test_gains_of_a_generator_that_was_not_scored_are_refused(scored: tuple[Kept, tuple[ResultRow, ...]]) -> None:
    with refused(DataError, "unseen", 8):
        measured_gains(scored[1], "unseen", 8)
