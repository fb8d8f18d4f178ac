from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import toys
from wildpdiff.autoencoder.fit import AutoencoderConfig, fit_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.codec.layout import Layout
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.conditions.kernel_mean import KernelMean, fit_kernel_mean
from wildpdiff.errors import TrainingError
from wildpdiff.task_training import TaskLossConfig, TaskLossProblem, train_mean
from wildpdiff.zoo.finetune import task_features
from wildpdiff.zoo.store import Zoo


@pytest.fixture(scope="module")
def problem(toy_backbone: Backbone, toy_zoo: Zoo) -> tuple[TaskLossProblem, KernelMean]:
    suite = toys.ToySuite()
    stacked = toy_zoo.tensors(range(len(toy_zoo)))
    layout = Layout.of({name: value[0] for name, value in stacked.items()})
    codec = Codec.fit(layout, layout.flatten_many(stacked), "tensor")
    normalized = codec.encode(layout.flatten_many(stacked))
    model = fit_autoencoder("pca", normalized, AutoencoderConfig(latent_size=4), 0).model
    tasks = [task for task in suite.tasks("seen") if task.name in toy_zoo.tasks]
    told = [task.description for task in tasks]
    fusion = fit_fusion(told, suite.metadata_schema, toy_backbone.image_features, components=2)
    latents = model.encode(normalized)
    of_task = torch.stack([latents[toy_zoo.rows_of(task.name)].mean(0) for task in tasks])
    embeddings = torch.stack([fusion.encode(entry).values for entry in told])
    mean = fit_kernel_mean(fusion, embeddings, of_task)
    term = mean.terms or fit_kernel_mean(fusion, embeddings, embeddings[:, :2]).terms
    features = [task_features(toy_backbone, task, 8) for task in tasks]
    return TaskLossProblem(toy_backbone, codec, model, features), replace(mean, terms=term)


def test_the_task_loss_falls_and_the_result_is_a_function_of_the_seed(
    problem: tuple[TaskLossProblem, KernelMean],
) -> None:
    config = TaskLossConfig(steps=30, images=16, learning_rate=0.3)
    first, second = (train_mean(problem[1], problem[0], config, seed=2) for _ in range(2))
    assert first.losses.shape == (30,)
    assert first.losses[-8:].mean() < first.losses[:8].mean()
    assert torch.equal(first.mean.coefficients, second.mean.coefficients)
    assert not torch.equal(first.mean.coefficients, problem[1].coefficients)


def test_no_steps_and_no_terms_leave_the_mean_as_it_was(problem: tuple[TaskLossProblem, KernelMean]) -> None:
    data, mean = problem
    assert train_mean(mean, data, TaskLossConfig(steps=0), seed=0).mean is mean
    bare = replace(mean, terms=())
    assert train_mean(bare, data, TaskLossConfig(steps=3), seed=0).mean is bare


def test_a_loss_that_is_not_finite_is_named(problem: tuple[TaskLossProblem, KernelMean]) -> None:
    data, mean = problem
    broken = replace(mean, constant=torch.full_like(mean.constant, torch.nan))
    with pytest.raises(TrainingError, match="not finite at update 1"):
        train_mean(broken, data, TaskLossConfig(steps=2), seed=0)
