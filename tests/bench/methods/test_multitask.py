from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted_priors import UNSEEN, accuracy, planted, with_seed

import toys
from refusals import refused
from wildbench.methods.multitask import MultiTaskConfig, MultiTaskSource
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.backbones.backbone import LoraSpec
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import NetworkTraining
from wildpdiff.errors import AdapterMismatchError, DataError, DescriptionError, TrainingError
from wildpdiff.tasks.batch import concatenate
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures

TRAINING = NetworkTraining(steps=60, tasks=6, warmup=5, evaluate_every=10, averaging=0.9)
CONFIG = MultiTaskConfig(TRAINING, images=8, learning_rate=5e-3, offset_rate=2e-2)
SHORT = replace(CONFIG, training=replace(TRAINING, steps=4, evaluate_every=2))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> SeenTasks:
    return planted(tmp_path_factory.mktemp("multitask") / "zoo")


@pytest.fixture(scope="module")
def described(seen: SeenTasks) -> MultiTaskSource:
    return MultiTaskSource(seen, True, CONFIG)


def tensors_of(source: MultiTaskSource, description: Description = UNSEEN[0].description) -> dict[str, torch.Tensor]:
    return dict(source.sample(description, 1, 0)[0].tensors)


def test_a_description_with_the_prior_helps_and_training_lowers_the_loss(
    seen: SeenTasks, described: MultiTaskSource
) -> None:
    without = MultiTaskSource(seen, False, CONFIG)
    assert accuracy(seen, described) > 0.8
    assert accuracy(seen, without) < 0.65
    losses, looks = described.fit.losses, described.fit.held_out_losses
    assert losses[-10:].mean() < 0.8 * losses[:5].mean()
    assert described.fit.steps > 0
    assert looks.min() < 0.8 * looks[0]
    assert described.fit.steps == TRAINING.evaluation_steps[int(looks.argmin())]


def test_the_description_moves_the_classifier_bias_alone(seen: SeenTasks, described: MultiTaskSource) -> None:
    low, high = (tensors_of(described, task.description) for task in (UNSEEN[0], UNSEEN[-1]))
    assert [name for name in low if not torch.equal(low[name], high[name])] == ["base_model.model.classifier.bias"]
    initial = seen.zoo.initial.tensors
    assert any(not torch.equal(low[name], initial[name]) for name in low if ".lora_B." in name)


def test_without_the_description_every_task_has_the_same_adapter(seen: SeenTasks) -> None:
    source = MultiTaskSource(seen, config=SHORT)
    first, second = (tensors_of(source, description) for description in (Description(), UNSEEN[-1].description))
    assert safetensors_bytes(first) == safetensors_bytes(second)


@pytest.mark.parametrize("part", ["metadata", "backgrounds"])
def test_one_part_is_enough(described: MultiTaskSource, part: str) -> None:
    biases = []
    for task in (UNSEEN[0], UNSEEN[-1]):
        description = Description(**{part: getattr(task.description, part)})
        biases.append(tensors_of(described, description)["base_model.model.classifier.bias"])
    # Class 1 is rarer in the first of the two tasks.
    assert (biases[0][1] - biases[0][0]) < (biases[1][1] - biases[1][0])


def test_an_empty_description_is_refused_where_it_is_read(described: MultiTaskSource) -> None:
    with refused(DescriptionError):
        described.sample(Description(), 1, 0)


@pytest.mark.parametrize("reads", [False, True])
def test_the_seed_decides_the_bytes(seen: SeenTasks, reads: bool) -> None:
    fixed = replace(SHORT, training=replace(SHORT.training, held_out=0.1, steps=8))
    first, again, other = (tensors_of(MultiTaskSource(with_seed(seen, s), reads, fixed)) for s in (0, 0, 1))
    assert safetensors_bytes(first) == safetensors_bytes(again) != safetensors_bytes(other)


def test_factor_a_can_be_left_at_its_initialisation(seen: SeenTasks) -> None:
    initial = seen.zoo.initial.tensors
    for train in (False, True):
        trained = tensors_of(MultiTaskSource(seen, False, replace(SHORT, train_factor_a=train)))
        same = {torch.equal(trained[name], initial[name]) for name in trained if ".lora_A." in name}
        assert same == {not train}


def test_a_diverging_rate_is_named(seen: SeenTasks) -> None:
    with refused(TrainingError, "multi-task adapter"):
        MultiTaskSource(seen, False, replace(CONFIG, learning_rate=1e25))


def test_a_classifier_without_bias_cannot_read_a_description(tmp_path: Path) -> None:
    bare = planted(tmp_path / "zoo", LoraSpec(2, 3.0, ("conv1", "body")), tasks=2)
    with refused(AdapterMismatchError, 3):
        MultiTaskSource(bare, True, SHORT)
    MultiTaskSource(bare, False, SHORT)


def test_a_training_of_no_updates_is_refused() -> None:
    with refused(TrainingError, 0):
        NetworkTraining(steps=0)


def test_a_task_without_training_images_is_refused() -> None:
    none, labels = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    with refused(DataError, "bare"):
        TaskExamples((TaskFeatures.of_few("bare", toys.batch(none, labels)),), 0)


def test_a_held_out_task_is_always_evaluated_on_the_same_images(seen: SeenTasks) -> None:
    images = TaskExamples(tuple(seen.data(name) for name in seen.zoo.tasks), 0)
    tasks = torch.tensor([3, 1])
    first, again = images.fixed(tasks, 4), images.fixed(tasks, 4)
    assert torch.equal(first[toys.KEPT], again[toys.KEPT])
    for row, task in enumerate(tasks.tolist()):
        for image, label in zip(first[toys.KEPT][row], first["targets"][row], strict=True):
            own = images.tasks[task]
            every = concatenate([own.train, own.validation])
            rows = (every[toys.KEPT] == image).flatten(1).all(1).nonzero()[:, 0]
            assert every["targets"][rows[0]] == label
