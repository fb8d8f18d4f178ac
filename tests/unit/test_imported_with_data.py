"""Imported adapters with labelled data of some of their tasks: cross-validation by task loss, and trust."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import toys
from refusals import refused
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.mean import NETWORKS
from wildpdiff.conditional_mean.score_table import PRETRAINED
from wildpdiff.errors import AdapterMismatchError, DataError, TrainingError
from wildpdiff.fit import GeneratorConfig
from wildpdiff.generator import Generator
from wildpdiff.imported import FittedImport, fit_imported, imported_training_set
from wildpdiff.trust.generated import calibrate_generator, can_calibrate
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.importing import TaskDescriptions, import_adapters
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

LEVELS = tuple(60.0 + 7 * (5 * number % 18) for number in range(18))
DATA = 15
CONFIG = replace(toys.posterior_config(), parts=("metadata", "text"))


@dataclass(frozen=True)
class Suite(toys.ToySuite):
    """Toy tasks of which the first have no adapter, or no data."""

    first: int = 0

    def tasks(self, group: str) -> tuple[toys.ToyTask, ...]:  # type: ignore[override]
        return super().tasks(group)[self.first :] if group == "seen" else super().tasks(group)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Zoo:
    """Eighteen adapters without provenance, as anybody's."""
    folder = tmp_path_factory.mktemp("imported")
    tasks = toys.ToySuite(seen=LEVELS).tasks("seen")
    built = build_zoo(folder / "built", toy_backbone, tasks, "toys", config=toys.FINETUNE, per_shard=18)
    for name, adapter in built.task_adapters().items():
        (adapter.save(folder / name) / "provenance.json").unlink()
    with open(folder / "tasks.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("task", "level"), *((task.name, task.level) for task in tasks)])
    found = [folder / task.name for task in tasks]
    return import_adapters(found, TaskDescriptions.from_csv(folder / "tasks.csv"), folder / "zoo", per_shard=4)


@pytest.fixture(scope="module")
def training_set(zoo: Zoo, toy_backbone: Backbone) -> TrainingSet:
    """With data of the last fifteen tasks."""
    return imported_training_set(zoo, Suite(seen=LEVELS, first=len(LEVELS) - DATA), toy_backbone)


@pytest.fixture(scope="module")
def found(training_set: TrainingSet) -> FittedImport:
    return fit_imported(training_set, CONFIG)


def test_tasks_with_data_come_first_and_every_adapter_keeps_its_tensors(zoo: Zoo, training_set: TrainingSet) -> None:
    without = ("seen-0", "seen-1", "seen-2")
    assert training_set.labelled == tuple(name for name in zoo.tasks if name not in without)
    assert training_set.tasks == (*training_set.labelled, *without)
    own = training_set.zoo.task_adapters()
    assert all(own[name].distance(adapter) == 0 for name, adapter in zoo.task_adapters().items())
    assert training_set.without(training_set.labelled[:2]).labelled == training_set.labelled[2:]


def test_what_leaves_the_model_as_it_is_has_the_pretrained_classifier(
    training_set: TrainingSet, toy_backbone: Backbone
) -> None:
    inputs = toy_backbone.stem(toys.random_images(6))
    assert torch.equal(training_set.backbone.predict(inputs, training_set.initial), toy_backbone.predict(inputs))


def test_methods_are_compared_by_task_loss_on_the_tasks_with_data(found: FittedImport, zoo: Zoo) -> None:
    generator, table = found.generator, found.generator.cross_validation
    assert table is not None
    assert table.tasks == DATA
    assert {PRETRAINED, *NETWORKS.values()} < {row.method for row in table.rows}
    assert generator.mean is not None
    assert generator.mean.fold.tolist()[DATA:] == [-1] * 3
    assert set(generator.mean.fold.tolist()[:DATA]) == {0, 1, 2}
    pretrained = table.row(PRETRAINED)
    assert pretrained is not None
    assert table.delivered.accuracy > pretrained.accuracy
    assert found.errors.tasks == len(zoo)
    assert f"data of {DATA} tasks" in found.errors.note
    assert "not calibrated" in found.errors.note


def test_estimates_of_tasks_without_data_are_those_of_networks_that_never_saw_them(found: FittedImport) -> None:
    mean = found.generator.mean
    assert mean is not None
    kernel = mean.kernel
    for row in range(DATA, len(LEVELS)):
        one = torch.arange(len(kernel.seen)) == row
        rest = replace(mean, kernel=kernel.without(one), simple=mean.simple.without(one), delivered_fold=None)
        torch.testing.assert_close(rest.predict(mean.seen[one])[0], mean.held_out[row], atol=1e-4, rtol=1e-4)


def test_the_generator_is_read_again_and_its_adapters_are_those_of_the_backbone(
    found: FittedImport, toy_backbone: Backbone, tmp_path: Path
) -> None:
    generator = Generator.from_pretrained(found.generator.save_pretrained(tmp_path / "generator"), toy_backbone)
    assert generator.fingerprint == found.generator.fingerprint
    description = toys.ToySuite().tasks("unseen")[0].description
    (adapter,) = generator.sample(replace(description, backgrounds=None))
    loaded = Adapter.load(adapter.save(tmp_path / "adapter"))
    generator.backbone.check(loaded)
    assert loaded.config.backbone_hash == toy_backbone.backbone_hash
    assert loaded.provenance["cross_validation"]["tasks"] == DATA


def test_trust_is_calibrated_on_the_tasks_with_data(
    found: FittedImport, training_set: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = found.generator
    assert not can_calibrate(generator, training_set)
    monkeypatch.setattr("wildpdiff.trust.generated.FEWEST_TASKS", DATA)
    assert can_calibrate(generator, training_set)
    few = CalibrationConfig(group_folds=1, samples=1)
    model = calibrate_generator(generator, training_set, CONFIG, calibration=few)
    assert model.held_out["description"].tasks == DATA
    description = replace(toys.ToyTask("new", 110.0).description, backgrounds=None)
    report = model.assess(generator.sample(description), description)
    assert report.low <= report.gain <= report.high


def test_data_of_two_tasks_compares_methods_without_training(zoo: Zoo, toy_backbone: Backbone) -> None:
    few = imported_training_set(zoo, toys.ToySuite(seen=LEVELS[:2]), toy_backbone)
    generator = fit_imported(few, CONFIG).generator
    assert generator.cross_validation is not None
    assert generator.cross_validation.tasks == 2
    assert generator.posterior is None
    alone = imported_training_set(zoo, toys.ToySuite(seen=LEVELS[:1]), toy_backbone)
    assert fit_imported(alone, CONFIG).generator.cross_validation is None


def test_data_that_does_not_belong_to_the_adapters_is_refused(zoo: Zoo, toy_backbone: Backbone) -> None:
    suite = toys.ToySuite(seen=LEVELS)
    with refused(DataError, "toy", zoo.tasks[0]):
        imported_training_set(zoo, Suite(seen=(*LEVELS, 70.0), first=len(LEVELS)), toy_backbone)
    with refused(TrainingError, "body", "Identity"):
        module = toys.network()
        module.body = torch.nn.Identity()
        lora = replace(toys.LORA, target_modules=("conv1",), modules_to_save=())
        other = Backbone.wrap(module, name="other", classes=toys.CLASSES, image_size=toys.SIZE, lora=lora)
        imported_training_set(zoo, suite, other)
    with refused(AdapterMismatchError, "classifier"):
        module = toys.network()
        module.classifier = torch.nn.Linear(5, 7)
        classes = tuple("abcdefg")
        other = Backbone.wrap(module, name="other", classes=classes, image_size=toys.SIZE, lora=toys.LORA)
        imported_training_set(zoo, suite, other)


def test_the_diffusion_over_latents_reads_no_data(training_set: TrainingSet) -> None:
    settings: GeneratorConfig = replace(toys.latents_config(), parts=("metadata",))
    fitted = fit_imported(replace(training_set, zoo=training_set.zoo.only(training_set.tasks[:6])), settings)
    assert fitted.generator.mean is None
    assert not can_calibrate(fitted.generator, training_set)
