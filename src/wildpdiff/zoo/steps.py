"""Fine-tuning step by step: its settings, and the rate, the images and the optimiser that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from wildpdiff.errors import TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.features import TaskFeatures

FASTEST = 1e30
"""Largest learning rate; the optimisers compute with 32 bits."""

MOST_EXAMPLES = 10**8
"""Examples of one task in all steps; their order is kept in memory."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of fine-tuning, the same for every task.

    Attributes:
        steps: optimiser steps.
        batch: examples a step and task.
        optimizer: ``sgd`` with momentum 0.9, or ``adam``. Adam moves parameters that the labels hardly constrain as
            far as all others, which makes the adapters of like tasks unlike; ``docs/log.md`` has the numbers.
        train_factor_a: train LoRA's A too. Left at the shared initialisation (LoRA-FA, Zhang et al. 2023), adapters
            differ in B alone: no GL(r) freedom is left, and differences and averages of adapters are those of ΔW.
        learning_rate: peak of the learning rate, after ``warmup`` steps; decays along a half cosine to
            ``final_rate`` times the peak.
        final_rate: what is left of the learning rate at the end; above zero, so that late checkpoints still differ.
        warmup: steps of linear warm-up.
        shrinkage: rate at which parameters are pulled to the shared initialisation (decoupled L2, Loshchilov &
            Hutter 2019, towards the pretrained model and not to zero). Directions that the labels do not constrain
            stay shared by all tasks.
        checkpoints: how many checkpoints of a run are kept.
        interval: steps between them; the last one is the end of the run.
    """

    steps: int = 200
    batch: int = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    train_factor_a: bool = False
    learning_rate: float = 0.05
    final_rate: float = 0.05
    warmup: int = 20
    shrinkage: float = 0.0
    checkpoints: int = 13
    interval: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= FASTEST:
            raise TrainingError(f"A learning rate of {self.learning_rate}: give a number above 0, at most {FASTEST:g}.")
        if not 0 < self.steps * self.batch <= MOST_EXAMPLES:
            raise TrainingError(
                f"{self.steps} steps of {self.batch} examples are {self.steps * self.batch:g}; a task takes 1 to "
                f"{MOST_EXAMPLES:g}. Give fewer steps, or a smaller batch."
            )
        first = self.steps - (self.checkpoints - 1) * self.interval
        if self.checkpoints < 1 or self.interval < 1 or first < 1:
            raise TrainingError(
                f"{self.checkpoints} checkpoints every {self.interval} steps need "
                f"{(self.checkpoints - 1) * self.interval + 1} steps; there are {self.steps}. Give more steps, or "
                "fewer checkpoints."
            )

    @property
    def saved_steps(self) -> tuple[int, ...]:
        """The steps after which a checkpoint is kept, counted from 1."""
        return tuple(self.steps - i * self.interval for i in reversed(range(self.checkpoints)))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dict(self.__dict__)


def learning_rate(config: FinetuneConfig, step: int) -> float:
    """Of one step, counted from 0: linear warm-up, then half a cosine."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    cosine = 0.5 * (1.0 + float(torch.cos(torch.tensor(progress * torch.pi))))
    return config.learning_rate * (config.final_rate + (1.0 - config.final_rate) * cosine)


def example_order(tasks: Sequence[TaskFeatures], config: FinetuneConfig, seed: int) -> Int[Tensor, "t s b"]:
    """Row numbers of every step: each task walks through its own shuffled examples again and again.

    The order depends on the seed and the task's name alone, so it does not matter which tasks share a pass.
    """
    orders = []
    for task in tasks:
        generator = torch_generator(seed, "batches", task.name)
        needed, rows = config.steps * config.batch, task.train_size
        epochs = [torch.randperm(rows, generator=generator) for _ in range(-(-needed // rows))]
        orders.append(torch.cat(epochs)[:needed].view(config.steps, config.batch))
    return torch.stack(orders)


def adam_step(value: Tensor, gradient: Tensor, first: Tensor, second: Tensor, *, step: int, rate: float) -> None:
    """Adam (Kingma & Ba 2015) in place. All is elementwise, so stacked tasks do not touch each other."""
    beta1, beta2, epsilon = 0.9, 0.99, 1e-8
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (second / (1 - beta2 ** (step + 1))).sqrt_().add_(epsilon)
    value.addcdiv_(first, denominator, value=-rate / (1 - beta1 ** (step + 1)))
