"""Fine-tuning of many adapters in one vectorised forward pass (``torch.func``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.task import LabelledImages, Task

__all__ = ["FeatureCache", "FinetuneConfig", "FinetuneRun", "TaskFeatures", "finetune", "task_features"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FinetuneConfig:
    """How every task is fine-tuned.

    Attributes:
        steps: optimiser steps.
        batch: images a step and task.
        optimizer: ``sgd`` with momentum 0.9, or ``adam``. Adam moves what the labels say little of as far as all else,
            which makes the adapters of like tasks unlike; ``docs/log.md`` has the numbers.
        train_factor_a: train LoRA's A too. Left at the shared initialisation (LoRA-FA, Zhang et al. 2023), adapters
            differ in B alone: no GL(r) freedom is left, and differences and averages of adapters are those of ΔW.
        learning_rate: peak of the learning rate, after ``warmup`` steps; decays along a half cosine to
            ``final_rate`` times the peak.
        final_rate: what is left of the learning rate at the end; above zero, so that late checkpoints still differ.
        warmup: steps of linear warm-up.
        shrinkage: rate at which parameters are pulled to the shared initialisation (decoupled L2, Loshchilov &
            Hutter 2019, towards the pretrained model and not to zero). It keeps directions that the labels do not
            speak of where all tasks share them.
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
        first = self.steps - (self.checkpoints - 1) * self.interval
        if self.checkpoints < 1 or self.interval < 1 or first < 1:
            raise TrainingError(
                f"{self.checkpoints} checkpoints every {self.interval} steps need "
                f"{(self.checkpoints - 1) * self.interval + 1} steps; there are {self.steps}. Raise the steps."
            )

    @property
    def saved_steps(self) -> tuple[int, ...]:
        """The steps after which a checkpoint is kept, counted from 1."""
        return tuple(self.steps - i * self.interval for i in reversed(range(self.checkpoints)))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class TaskFeatures:
    """A task's training and validation images behind the frozen stem, computed once."""

    name: str
    train: Tensor
    train_labels: Int[Tensor, " n"]
    validation: Tensor
    validation_labels: Int[Tensor, " m"]


@dataclass(frozen=True)
class FinetuneRun:
    """The checkpoints of several tasks fine-tuned together.

    Attributes:
        names: the tasks.
        steps: the step of each checkpoint.
        tensors: adapter tensors stacked as ``[task, checkpoint, …]`` under PEFT's names.
        train_loss: mean cross-entropy since the previous checkpoint.
        validation_accuracy: accuracy of each checkpoint on the task's validation images.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    tensors: dict[str, Tensor]
    train_loss: Float[Tensor, "t k"]
    validation_accuracy: Float[Tensor, "t k"]


def _features(backbone: Backbone, task: Task, data: LabelledImages, least: int) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(data.labels)
    if len(data) < least:
        raise DataError(
            f"Task {task.name!r} has {len(data)} training images, fewer than a batch of {least}. "
            "Add images, lower the batch size, or leave the task out."
        )
    if len(data) and int(labels.max()) >= len(backbone.classes):
        raise DataError(
            f"Task {task.name!r} has label {int(labels.max())}; the backbone knows {len(backbone.classes)} classes. "
            "Use the class list that the backbone was pretrained with."
        )
    return backbone.stem(data.images), labels


def task_features(backbone: Backbone, task: Task, batch: int) -> TaskFeatures:
    """Run a task's images through the frozen stem.

    Raises:
        DataError: fewer training images than a batch, only one class, no validation images, or a label that the
            backbone does not know.
    """
    train, validation = task.data("train"), task.data("validation")
    if len(train) and len(set(train.labels.tolist())) == 1:
        raise DataError(
            f"Task {task.name!r} has training images of one class only ({backbone.classes[int(train.labels[0])]!r}). "
            "Add images of a second class, or leave the task out."
        )
    train_features, train_labels = _features(backbone, task, train, batch)
    if not len(validation):
        raise DataError(f"Task {task.name!r} has no validation images. Add some, or leave the task out.")
    held_out, held_out_labels = _features(backbone, task, validation, 1)
    return TaskFeatures(task.name, train_features, train_labels, held_out, held_out_labels)


class FeatureCache:
    """Features of tasks by name, each computed when first asked for and kept in memory."""

    def __init__(self, backbone: Backbone, tasks: Sequence[Task], batch: int) -> None:
        self._backbone = backbone
        self._tasks = {task.name: task for task in tasks}
        self._batch = batch
        self._kept: dict[str, TaskFeatures] = {}

    def __call__(self, name: str) -> TaskFeatures:
        """The features of one task; raises as :func:`task_features`."""
        if name not in self._kept:
            self._kept[name] = task_features(self._backbone, self._tasks[name], self._batch)
        return self._kept[name]


def _rate(config: FinetuneConfig, step: int) -> float:
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    cosine = 0.5 * (1.0 + float(torch.cos(torch.tensor(progress * torch.pi))))
    return config.learning_rate * (config.final_rate + (1.0 - config.final_rate) * cosine)


def _batches(tasks: Sequence[TaskFeatures], config: FinetuneConfig, seed: int) -> Int[Tensor, "t s b"]:
    """Row numbers of every step: each task walks through its own shuffled images again and again.

    The order depends on the seed and the task's name alone, so it does not matter which tasks share a pass.
    """
    orders = []
    for task in tasks:
        generator = torch_generator(seed, "batches", task.name)
        needed, rows = config.steps * config.batch, len(task.train_labels)
        epochs = [torch.randperm(rows, generator=generator) for _ in range(-(-needed // rows))]
        orders.append(torch.cat(epochs)[:needed].view(config.steps, config.batch))
    return torch.stack(orders)


def _accuracies(backbone: Backbone, task: TaskFeatures, tensors: Mapping[str, Tensor]) -> Float[Tensor, " k"]:
    logits = backbone.predict_many(task.validation, tensors)
    return (logits.argmax(-1) == task.validation_labels).float().mean(-1)


def _starts(initial: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]], count: int) -> dict[str, Tensor]:
    """Starting tensors stacked as ``[task, …]``."""
    if isinstance(initial, Mapping):
        return {name: value.detach().expand(count, *value.shape) for name, value in initial.items()}
    if len(initial) != count:
        raise DataError(f"There are {len(initial)} starts and {count} tasks. Give one start a task, or a shared one.")
    return {name: torch.stack([own[name].detach() for own in initial]) for name in initial[0]}


def finetune(
    backbone: Backbone,
    tasks: Sequence[TaskFeatures],
    initial: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    config: FinetuneConfig,
    seed: int,
    progress: Progress | None = None,
    *,
    offsets: Float[Tensor, "t c"] | None = None,
) -> FinetuneRun:
    """Fine-tune one adapter a task, all tasks in one forward pass, from a shared or from each its own start.

    Args:
        backbone: the frozen model.
        tasks: features of the tasks.
        initial: the starting tensors under PEFT's names: shared by all tasks, or one mapping a task. Shrinkage pulls
            every task to its own (L2-SP, Li et al. 2018, where the start is not the pretrained model).
        config: steps, rates and checkpoints.
        seed: decides the order of images.
        progress: called with (steps done, steps in all).
        offsets: added to a task's logits in the loss, and in the loss alone (logit adjustment, Menon et al. 2021);
            none by default.

    Raises:
        TrainingError: the loss of a task is no longer finite.
        DataError: there is not one start a task.
    """
    count = len(tasks)
    start = _starts(initial, count)
    names = list(start)
    theta = {name: value.clone() for name, value in start.items()}
    shifts = torch.zeros(count, len(backbone.classes)) if offsets is None else offsets
    trained = {name for name in names if config.train_factor_a or ".lora_A." not in name}
    first = {name: torch.zeros_like(theta[name]) for name in names}
    second = {name: torch.zeros_like(theta[name]) for name in names}
    rows = _batches(tasks, config, seed)
    saved = set(config.saved_steps)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    losses: list[Tensor] = []
    running: list[Tensor] = []

    def loss_of(tensors: dict[str, Tensor], inputs: Tensor, labels: Tensor, shift: Tensor) -> Tensor:
        return cross_entropy(backbone.logits(inputs, tensors) + shift, labels)

    gradient = torch.func.vmap(torch.func.grad_and_value(loss_of))
    for step in range(config.steps):
        inputs = torch.stack([task.train[rows[i, step]] for i, task in enumerate(tasks)])
        labels = torch.stack([task.train_labels[rows[i, step]] for i, task in enumerate(tasks)])
        grads, loss = gradient(theta, inputs, labels, shifts)
        if not bool(torch.isfinite(loss).all()):
            bad = [task.name for task, value in zip(tasks, loss, strict=True) if not bool(torch.isfinite(value))]
            raise TrainingError(
                f"The loss of task {bad[0]!r} is not finite at step {step + 1}. Lower the learning rate "
                f"(now {config.learning_rate:g}) or look at the task's images."
            )
        running.append(loss.detach())
        rate = _rate(config, step)
        for name in trained:
            theta[name].lerp_(start[name], rate * config.shrinkage)
            if config.optimizer == "adam":
                _adam_step(theta[name], grads[name], first[name], second[name], step, rate)
            else:
                theta[name].sub_(first[name].mul_(0.9).add_(grads[name]), alpha=rate)
        if step + 1 in saved:
            for name in names:
                kept[name].append(theta[name].clone())
            losses.append(torch.stack(running).mean(0))
            running = []
        if progress is not None:
            progress(step + 1, config.steps)
    tensors = {name: torch.stack(kept[name], dim=1) for name in names}
    accuracy = torch.stack(
        [_accuracies(backbone, task, {n: v[i] for n, v in tensors.items()}) for i, task in enumerate(tasks)]
    )
    task_names = tuple(task.name for task in tasks)
    return FinetuneRun(task_names, config.saved_steps, tensors, torch.stack(losses, dim=1), accuracy)


def _adam_step(value: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, rate: float) -> None:
    """Adam (Kingma & Ba 2015) in place. All is elementwise, so stacked tasks do not touch each other."""
    beta1, beta2, epsilon = 0.9, 0.99, 1e-8
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (second / (1 - beta2 ** (step + 1))).sqrt_().add_(epsilon)
    value.addcdiv_(first, denominator, value=-rate / (1 - beta1 ** (step + 1)))
