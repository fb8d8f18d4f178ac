"""Trust calibrated on toy tasks, for a source that is right, one that is wrong, and one that guesses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eighteen_tasks import DESCRIPTIONS, TASKS

import toys
from refusals import refused
from trust_calibration import calibrate
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DataError, DescriptionError
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.trust.folds import Fold, calibration_folds
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo

LEVELS = [task.level for task in TASKS]
CONFIG = CalibrationConfig(random_folds=3, group_folds=1, samples=2)
NOTHING = Fold("nothing", (), False)


@dataclass(frozen=True)
class Nearest:
    """The adapter of the nearest level among those kept; with ``shift``, of one that far away."""

    adapters: dict[float, Adapter]
    shift: float = 0.0
    name: str = "nearest"
    stochastic: bool = False

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        level = float((description.metadata or {"level": 120.0})["level"]) + self.shift
        found = self.adapters[min(self.adapters, key=lambda own: abs(own - level))]
        return [Adapter(found.tensors, found.config, {"source": self.name, "seed": seed}) for _ in range(n)]


@dataclass(frozen=True)
class Flipped:
    """Adapters whose classifier predicts the opposite, with a little noise."""

    source: Nearest
    name: str = "flipped"
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        found = []
        for index, adapter in enumerate(self.source.sample(description, n, seed)):
            noise = toys.random_adapter(toys.backbone(), seed % 1000 + index, 0.02).tensors
            sign = {name: -1.0 if "classifier" in name else 1.0 for name in adapter.tensors}
            tensors = {name: sign[name] * value + noise[name] for name, value in adapter.tensors.items()}
            found.append(Adapter(tensors, adapter.config, {"source": self.name, "seed": seed}))
        return found


def nearest(zoo: Zoo) -> Callable[[Fold], Nearest]:
    adapters = zoo.task_adapters()

    def fit_without(fold: Fold) -> Nearest:
        return Nearest({task.level: adapters[task.name] for task in TASKS if task.name not in set(fold.held_out)})

    return fit_without


def calibrated(zoo: Zoo, backbone: Backbone, fit_without: Callable[[Fold], Source]) -> TrustModel:
    features = FeatureCache(backbone, TASKS, 8)
    return calibrate(
        zoo,
        DESCRIPTIONS,
        toys.SCHEMA,
        backbone,
        features,
        fit_without,
        config=CONFIG,
        seed=1,
        generator="f" * 64,
        progress=lambda *counts: PROGRESS.append((counts[0], counts[1])),
    )


HELD_OUT: list[tuple[str, ...]] = []
PROGRESS: list[tuple[int, int]] = []


@pytest.fixture(scope="module")
def good(zoo: Zoo, toy_backbone: Backbone) -> TrustModel:
    fit = nearest(zoo)

    def recording(fold: Fold) -> Source:
        HELD_OUT.append(fold.held_out)
        return fit(fold)

    return calibrated(zoo, toy_backbone, recording)


@pytest.fixture(scope="module")
def bad(zoo: Zoo, toy_backbone: Backbone) -> TrustModel:
    return calibrated(zoo, toy_backbone, lambda held_out: Flipped(nearest(zoo)(held_out)))


UNSEEN = toys.ToyTask("new", 103.0, known=False)
EXAMPLES = UNSEEN.data("train").images


def test_each_task_is_held_out_once_at_random_and_a_group_with_its_like(good: TrustModel, zoo: Zoo) -> None:
    assert len(HELD_OUT) == 4
    assert sorted(name for held_out in HELD_OUT[1:4] for name in held_out) == sorted(zoo.tasks)
    level = {task.name: task.level for task in TASKS}
    assert sorted(level[name] for name in HELD_OUT[0]) in (LEVELS[:4], LEVELS[-4:])
    own = PROGRESS[: PROGRESS.index((400, 400)) + 1]
    assert own == sorted(own)
    assert {(100, 400), (200, 400), (300, 400)} <= set(own)


def test_a_source_that_helps_is_trusted_and_one_that_guesses_is_not(
    good: TrustModel, bad: TrustModel, zoo: Zoo, toy_backbone: Backbone
) -> None:
    description = replace(UNSEEN.description, examples=EXAMPLES)
    right = good.assess(nearest(zoo)(NOTHING).sample(description, 1, 0), description)
    wrong = bad.assess(Flipped(nearest(zoo)(NOTHING)).sample(description, 2, 0), description)
    assert right.basis == wrong.basis == "examples"
    assert right.trust > 0.8 > 0.3 > wrong.trust
    assert right.gain > 0 > wrong.gain
    assert right.low < right.gain < right.high
    assert not wrong.use_generated


@dataclass(frozen=True)
class Center:
    """The mean adapter of the tasks that were kept: reads no description."""

    adapter: Adapter
    name: str = "center"
    stochastic: bool = False

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        return [self.adapter] * n


def test_a_source_that_ignores_its_description_is_not_trusted(
    good: TrustModel, zoo: Zoo, toy_backbone: Backbone
) -> None:
    assert all(summary.descriptions_matter and summary.over_shuffled[0] > 0 for summary in good.held_out.values())
    adapters = list(zoo.task_adapters().values())
    kinds = {name: torch.stack([adapter.tensors[name] for adapter in adapters]) for name in adapters[0].tensors}

    def fit_without(fold: Fold) -> Center:
        kept = [index for index, task in enumerate(TASKS) if task.name not in set(fold.held_out)]
        return Center(Adapter({name: value[kept].mean(0) for name, value in kinds.items()}, adapters[0].config))

    model = calibrated(zoo, toy_backbone, fit_without)
    summary = model.held_out["examples"]
    assert summary.helped > 0.5, "it helps all the same, and would be trusted for that alone"
    assert summary.over_shuffled == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    assert not summary.descriptions_matter
    description = replace(UNSEEN.description, examples=EXAMPLES)
    report = model.assess(fit_without(NOTHING).sample(description, 1, 0), description)
    assert report.trust == 0 < report.min_trust
    assert not report.use_generated


def test_the_predicted_gain_is_near_the_measured_one(good: TrustModel, zoo: Zoo, toy_backbone: Backbone) -> None:
    inside = 0
    for level in np.linspace(65, 225, 8):
        task = toys.ToyTask(f"new-{level:.0f}", float(level), known=False, sizes={"train": 48, "test": 60})
        description = replace(task.description, examples=task.data("train").images)
        (adapter,) = nearest(zoo)(NOTHING).sample(description, 1, 0)
        test = task.data("test")
        features, labels = toy_backbone.stem(test.images), torch.from_numpy(test.labels)
        after, before = (
            float((toy_backbone.predict(features, tensors).argmax(1) == labels).double().mean())
            for tensors in (adapter.tensors, None)
        )
        report = good.assess(adapter, description)
        inside += report.low <= 100 * (after - before) <= report.high
    assert inside >= 6


@pytest.mark.parametrize(
    ("description", "basis"),
    [
        (UNSEEN.description, "backgrounds"),
        (Description(metadata={"level": 103.0}), "description"),
        (replace(UNSEEN.description, examples=EXAMPLES), "examples"),
    ],
)
def test_the_strongest_evidence_is_used(good: TrustModel, zoo: Zoo, description: Description, basis: str) -> None:
    report = good.assess(nearest(zoo)(NOTHING).sample(description, 1, 0), description)
    assert report.basis == basis
    assert ("changed" in report.evidence) == (basis != "description")


def test_reasons_name_what_is_far_and_what_is_missing(good: TrustModel, zoo: Zoo) -> None:
    far = Description(metadata={"level": 350.0})
    report = good.assess(nearest(zoo)(NOTHING).sample(far, 1, 0), far)
    assert any("level" in entry and "all" in entry for entry in report.reasons)
    assert any("lacks" in entry and "backgrounds" in entry for entry in report.reasons)
    near = good.assess(nearest(zoo)(NOTHING).sample(UNSEEN.description, 1, 0), UNSEEN.description)
    assert not any("farther" in entry for entry in near.reasons)


def test_a_threshold_of_ones_own_decides_and_the_fallback_changes_nothing(
    good: TrustModel, zoo: Zoo, toy_backbone: Backbone
) -> None:
    description = replace(UNSEEN.description, examples=EXAMPLES)
    adapters = nearest(zoo)(NOTHING).sample(description, 1, 5)
    assert good.assess(adapters, description, min_trust=0.0).use_generated
    strict = good.assess(adapters, description, min_trust=1.0)
    assert not strict.use_generated
    kept = good.fallback(strict, description, 5)
    features = toy_backbone.stem(EXAMPLES)
    assert torch.equal(toy_backbone.predict(features, kept.tensors), toy_backbone.predict(features))
    assert kept.provenance["trust"]["use"] == "pretrained"
    assert json.loads(json.dumps(dict(kept.provenance))) == dict(kept.provenance)
    with refused(DescriptionError, 1.5):
        good.assess(adapters, description, min_trust=1.5)


def test_a_saved_model_predicts_the_same(good: TrustModel, zoo: Zoo, toy_backbone: Backbone, tmp_path: Path) -> None:
    again = TrustModel.load(good.save(tmp_path / "generator" / "trust"), toy_backbone)
    description = replace(UNSEEN.description, examples=EXAMPLES)
    adapters = nearest(zoo)(NOTHING).sample(description, 1, 0)
    assert again.assess(adapters, description) == good.assess(adapters, description)
    assert TrustModel.of_generator(tmp_path / "generator", toy_backbone, "f" * 64).generator == "f" * 64
    with refused(ArtifactError, "f" * 12, "e" * 12, tmp_path):
        TrustModel.of_generator(tmp_path / "generator", toy_backbone, "e" * 64)
    with refused(ArtifactError, tmp_path):
        TrustModel.of_generator(tmp_path, toy_backbone)
    with refused(AdapterMismatchError, toy_backbone.backbone_hash[:12]):
        TrustModel.load(tmp_path / "generator" / "trust", toys.backbone(seed=1))


def test_too_few_tasks_are_refused(zoo: Zoo, toy_backbone: Backbone) -> None:
    few = zoo.only(zoo.tasks[:4])
    with refused(DataError, "4 seen", "3 folds"):
        calibrate(few, DESCRIPTIONS, toys.SCHEMA, toy_backbone, FeatureCache(toy_backbone, TASKS, 8), nearest(zoo))


def test_groups_are_whole_categories_and_edges() -> None:
    from test_description_space import SCHEMA, SEEN, featurise

    names = [f"t{index}" for index in range(len(SEEN))]
    description = {
        name: replace(entry, metadata={**(entry.metadata or {}), "camera": ("Nyati", "Simba", "Tembo")[index % 3]})
        for index, (name, entry) in enumerate(zip(names, SEEN, strict=True))
    }
    folds = calibration_folds(names, description, SCHEMA, featurise, groups=3, seed=0)
    assert [fold.extrapolation for fold in folds] == [False] * 3 + [True] * 3
    category = folds[3]
    value = category.name.split()[1]
    assert category.held_out == tuple(name for name in names if (description[name].metadata or {})["camera"] == value)
    assert folds[4].name == "edge of the map"
    assert len(folds[4].held_out) == 8
    assert folds == calibration_folds(names, description, SCHEMA, featurise, groups=3, seed=0)
