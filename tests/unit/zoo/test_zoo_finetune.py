import dataclasses

import numpy as np
import pytest
import torch

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

CONFIG = FinetuneConfig(
    steps=12, batch=8, learning_rate=0.02, warmup=2, checkpoints=3, interval=2, optimizer="adam", train_factor_a=True
)


@pytest.fixture(scope="module")
def tasks(toy_backbone: Backbone) -> list[TaskFeatures]:
    return [task_features(toy_backbone, task, CONFIG.batch) for task in toys.ToySuite().tasks("seen")]


def test_a_task_does_not_feel_who_shares_its_pass(toy_backbone: Backbone, tasks: list[TaskFeatures]) -> None:
    initial = toys.random_tensors(toy_backbone, 0, scale=0.3)
    together = finetune(toy_backbone, tasks, initial, config=CONFIG, seed=1)
    alone = finetune(toy_backbone, tasks[3:4], initial, config=CONFIG, seed=1)
    turned = finetune(toy_backbone, tasks[::-1], initial, config=CONFIG, seed=1)
    for name, value in together.tensors.items():
        assert torch.allclose(alone.tensors[name][0], value[3], atol=1e-4)
        assert torch.allclose(turned.tensors[name].flip(0), value, atol=1e-4)
    assert turned.names == tuple(task.name for task in tasks[::-1])


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(
    toy_backbone: Backbone, tasks: list[TaskFeatures]
) -> None:
    initial = toys.random_tensors(toy_backbone, 0, scale=0.3)
    one, same, other = (finetune(toy_backbone, tasks[:2], initial, config=CONFIG, seed=seed) for seed in (1, 1, 2))
    name = next(iter(initial))
    assert torch.equal(one.tensors[name], same.tensors[name])
    assert not torch.equal(one.tensors[name], other.tensors[name])


def test_fine_tuning_helps_and_leaves_initial_and_backbone_alone(
    toy_backbone: Backbone, tasks: list[TaskFeatures]
) -> None:
    initial = toys.random_tensors(toy_backbone, 0, scale=0.3)
    before = {name: value.clone() for name, value in initial.items()}
    run = finetune(toy_backbone, tasks, initial, config=dataclasses.replace(CONFIG, steps=30, interval=12), seed=1)
    assert all(torch.equal(before[name], value) for name, value in initial.items())
    assert float(run.train_loss[:, -1].mean()) < 0.9 * float(run.train_loss[:, 0].mean())
    assert run.train_loss.shape == run.validation_score.shape == (5, 3)
    assert all(value.shape[:2] == (5, 3) for value in run.tensors.values())


def test_strong_shrinkage_holds_at_the_start(toy_backbone: Backbone, tasks: list[TaskFeatures]) -> None:
    initial = toys.random_tensors(toy_backbone, 0, scale=0.3)

    def moved(shrinkage: float) -> float:
        config = dataclasses.replace(CONFIG, shrinkage=shrinkage)
        run = finetune(toy_backbone, tasks[:1], initial, config=config, seed=1)
        return float(sum((run.tensors[n][0, -1] - v).square().sum() for n, v in initial.items()))

    assert moved(20.0) < 0.5 * moved(0.0)


def test_progress_counts_steps(toy_backbone: Backbone, tasks: list[TaskFeatures]) -> None:
    seen: list[tuple[int, int]] = []
    initial = toys.random_tensors(toy_backbone, 0, scale=0.3)
    finetune(
        toy_backbone, tasks[:1], initial, config=CONFIG, seed=0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(step, 12) for step in range(1, 13)]


def test_saved_steps_end_with_the_run() -> None:
    assert CONFIG.saved_steps == (8, 10, 12)
    assert FinetuneConfig(steps=5, checkpoints=5, interval=1).saved_steps == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("steps", "checkpoints", "interval"), [(4, 3, 2), (4, 0, 1), (4, 1, 0), (0, 1, 1)])
def test_more_checkpoints_than_steps_are_refused(steps: int, checkpoints: int, interval: int) -> None:
    with refused(TrainingError, checkpoints, steps):
        FinetuneConfig(steps=steps, checkpoints=checkpoints, interval=interval)


def test_a_loss_that_is_no_number_names_task_and_step(toy_backbone: Backbone, tasks: list[TaskFeatures]) -> None:
    bad = dataclasses.replace(
        tasks[1], train={**tasks[1].train, toys.KEPT: torch.full_like(tasks[1].train[toys.KEPT], float("nan"))}
    )
    with refused(TrainingError, "'seen-1'", "step 1", CONFIG.learning_rate):
        finetune(toy_backbone, [tasks[0], bad], toys.random_tensors(toy_backbone, 0), config=CONFIG, seed=0)


def fixed(labels: list[int]) -> toys.FixedTask:
    return toys.FixedTask("camera-7", toys.random_images(len(labels)), np.array(labels, dtype=np.int64))


@pytest.mark.parametrize(
    ("labels", "values"),
    [([1] * 12, ["'bright'"]), ([0, 1, 2], [3, 8]), ([], [0, 8]), ([0, 1, 3] * 4, ["index 3", "striped"])],
)
def test_a_task_that_cannot_be_trained_on_is_named(
    toy_backbone: Backbone, labels: list[int], values: list[object]
) -> None:
    with refused(DataError, "'camera-7'", *values):
        task_features(toy_backbone, fixed(labels), 8)


def test_a_task_without_validation_images_is_named_as_that(toy_backbone: Backbone) -> None:
    task = toys.ToyTask("camera-7", 100.0, sizes={"train": 20, "validation": 0, "test": 5})
    with refused(DataError, "'camera-7'", "validation"):
        task_features(toy_backbone, task, 8)
