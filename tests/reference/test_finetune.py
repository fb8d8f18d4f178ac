"""Fine-tuning one task after another, by autograd and an optimiser written out, as the vectorised one must."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import toys
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.tasks.batch import Batch, take
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

SGD = FinetuneConfig(steps=14, batch=8, learning_rate=0.02, warmup=4, shrinkage=0.7, checkpoints=4, interval=3)
CONFIG = replace(SGD, optimizer="adam", train_factor_a=True)


def slow_logits(backbone: Backbone, batch: Batch, tensors: dict[str, Tensor]) -> Tensor:
    """The toy network's head with LoRA as two layers in turn beside the frozen one."""
    net = backbone.module
    assert isinstance(net, toys.ToyNetwork)
    scaling = backbone.lora.alpha / backbone.lora.rank
    hidden = batch[toys.KEPT]
    for name in ("conv3", "conv1"):
        a, b = (tensors[f"{PEFT_PREFIX}{name}.lora_{factor}.weight"] for factor in "AB")
        frozen = getattr(net, name)
        update = torch.conv2d(torch.conv2d(hidden, a, padding=frozen.padding), b)
        hidden = torch.relu(frozen(hidden) + scaling * update)
    pooled = hidden.mean((2, 3))
    a, b = (tensors[f"{PEFT_PREFIX}body.lora_{factor}.weight"] for factor in "AB")
    embedded = torch.relu(net.body(pooled) + scaling * (pooled @ a.T) @ b.T)
    return embedded @ tensors[f"{PEFT_PREFIX}classifier.weight"].T + tensors[f"{PEFT_PREFIX}classifier.bias"]


def slow_rate(config: FinetuneConfig, step: int) -> float:
    """Linear warm-up over ``warmup`` steps, then half a cosine down to ``final_rate`` of the peak."""
    if step <= config.warmup:
        return config.learning_rate * step / config.warmup
    share = (step - 1 - config.warmup) / (config.steps - config.warmup)
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * (1 + math.cos(math.pi * share)) / 2)


def slow_finetune(
    backbone: Backbone, task: TaskFeatures, initial: dict[str, Tensor], rows: list[Tensor], config: FinetuneConfig
) -> tuple[list[dict[str, Tensor]], list[float]]:
    """Adam (Kingma & Ba 2015, algorithm 1; betas .9 and .99), or momentum, with decoupled shrinkage to the start."""
    parameters = {name: value.clone().requires_grad_() for name, value in initial.items()}
    m = {name: torch.zeros_like(value) for name, value in initial.items()}
    v = {name: torch.zeros_like(value) for name, value in initial.items()}
    checkpoints, losses = [], []
    for t in range(1, config.steps + 1):
        logits = slow_logits(backbone, take(task.train, rows[t - 1]), parameters)
        labels = task.train["targets"][rows[t - 1]]
        loss = -(logits - logits.exp().sum(1, keepdim=True).log())[torch.arange(len(labels)), labels].mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        rate = slow_rate(config, t)
        for (name, value), g in zip(parameters.items(), gradients, strict=True):
            if "lora_A" in name and not config.train_factor_a:
                continue
            shrunk = value.detach() - rate * config.shrinkage * (value.detach() - initial[name])
            if config.optimizer == "adam":
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.99 * v[name] + 0.01 * g * g
                m_hat, v_hat = m[name] / (1 - 0.9**t), v[name] / (1 - 0.99**t)
                step = m_hat / (v_hat.sqrt() + 1e-8)
            else:
                step = m[name] = 0.9 * m[name] + g
            parameters[name] = (shrunk - rate * step).requires_grad_()
        losses.append(float(loss.detach()))
        if (config.steps - t) % config.interval == 0 and (config.steps - t) // config.interval < config.checkpoints:
            checkpoints.append({name: value.detach() for name, value in parameters.items()})
    return checkpoints, losses


@pytest.fixture(scope="module")
def tasks(toy_backbone: Backbone) -> list[TaskFeatures]:
    return [task_features(toy_backbone, task, CONFIG.batch) for task in toys.ToySuite().tasks("seen")[:3]]


@pytest.mark.parametrize("config", [CONFIG, SGD], ids=["adam", "sgd"])
def test_the_vectorised_pass_is_the_slow_one(
    toy_backbone: Backbone, tasks: list[TaskFeatures], config: FinetuneConfig
) -> None:
    from wildpdiff.zoo.steps import example_order

    # From random tensors, for with B = 0 the gradient of A is zero and Adam's first step divides noise by noise.
    initial = toys.random_tensors(toy_backbone, 3, scale=0.3)
    fast = finetune(toy_backbone, tasks, initial, config=config, seed=5)
    orders = example_order(tasks, config, 5)
    assert fast.steps == (5, 8, 11, 14)
    for i, task in enumerate(tasks):
        checkpoints, losses = slow_finetune(toy_backbone, task, initial, list(orders[i]), config)
        assert len(checkpoints) == config.checkpoints
        for k, slow in enumerate(checkpoints):
            for name, value in slow.items():
                assert torch.allclose(fast.tensors[name][i, k], value, atol=2e-4), (task.name, fast.steps[k], name)
            right = slow_logits(toy_backbone, task.validation, slow).argmax(1) == task.validation["targets"]
            assert float(fast.validation_score[i, k]) == pytest.approx(float(right.float().mean()), abs=1e-6)
        means = [sum(losses[:5]) / 5, sum(losses[5:8]) / 3, sum(losses[8:11]) / 3, sum(losses[11:]) / 3]
        assert fast.train_loss[i].tolist() == pytest.approx(means, abs=1e-4)


def test_every_task_walks_through_all_its_images_before_any_comes_again(tasks: list[TaskFeatures]) -> None:
    from wildpdiff.zoo.steps import example_order

    rows = example_order(tasks, CONFIG, 5)
    assert rows.shape == (3, CONFIG.steps, CONFIG.batch)
    assert sorted(rows[0].flatten()[:48].tolist()) == list(range(48))
    assert rows[0].tolist() != rows[1].tolist()
    assert torch.equal(example_order(tasks[1:2], CONFIG, 5)[0], rows[1])
