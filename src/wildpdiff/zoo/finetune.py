"""Fine-tuning of many adapters in one vectorised forward pass (``torch.func``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import gradients_over_adapters
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.tasks.batch import Batch, stack, take
from wildpdiff.tasks.objective import of_many
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig, adam_step, example_order, learning_rate

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FinetuneRun:
    """The checkpoints of several tasks fine-tuned together.

    Attributes:
        names: the tasks.
        steps: the step of each checkpoint.
        tensors: adapter tensors stacked as ``[task, checkpoint, …]`` under PEFT's names.
        train_loss: mean loss since the previous checkpoint.
        validation_score: mean score of each checkpoint on the task's validation examples.
        data: hash of each task's data, by task; of those whose examples have keys.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    tensors: dict[str, Tensor]
    train_loss: Float[Tensor, "t k"]
    validation_score: Float[Tensor, "t k"]
    data: Mapping[str, str] = field(default_factory=dict)


def validation_scores(backbone: Backbone, task: TaskFeatures, tensors: Mapping[str, Tensor]) -> Float[Tensor, " k"]:
    """Mean scores of adapters stacked as ``[k, …]`` on a task's validation examples; raises :class:`TrainingError`."""
    try:
        outputs = backbone.predict_many(task.validation, tensors)
    except ArtifactError as error:
        raise TrainingError(f"Fine-tuning of task {task.name!r} diverged ({error}). Lower the learning rate.") from None
    return of_many(backbone.objective.score, outputs, task.validation).mean(-1)


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
    *,
    config: FinetuneConfig,
    seed: int,
    progress: Progress | None = None,
    offsets: Float[Tensor, "t ..."] | None = None,
) -> FinetuneRun:
    """Fine-tune one adapter a task, all tasks in one forward pass, from a shared or from each its own start.

    Args:
        backbone: the frozen model.
        tasks: features of the tasks.
        initial: the starting tensors under PEFT's names: shared by all tasks, or one mapping a task. Shrinkage pulls
            every task to its own (L2-SP, Li et al. 2018, where the start is not the pretrained model).
        config: steps, rates and checkpoints.
        seed: decides the order of examples.
        progress: called with (steps done, steps in all).
        offsets: added to a task's outputs in the loss, and in the loss alone (logit adjustment, Menon et al. 2021);
            none by default.

    Raises:
        TrainingError: the loss of a task is no longer finite.
        DataError: there is not one start a task.
    """
    count = len(tasks)
    start = _starts(initial, count)
    names = list(start)
    theta = {name: value.clone() for name, value in start.items()}
    shifts = torch.zeros(count) if offsets is None else offsets
    trained = {
        name: value
        for name, value in theta.items()
        if name not in backbone.buffers and (config.train_factor_a or ".lora_A." not in name)
    }
    fixed = {name: value for name, value in theta.items() if name not in trained}
    first = {name: torch.zeros_like(value) for name, value in trained.items()}
    second = {name: torch.zeros_like(value) for name, value in trained.items()}
    rows = example_order(tasks, config, seed)
    saved = set(config.saved_steps)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    losses: list[Tensor] = []
    running: list[Tensor] = []

    def loss_of(tensors: Batch, others: Batch, batch: Batch, shift: Tensor) -> Tensor:
        return backbone.objective.loss(backbone.outputs(batch, {**tensors, **others}) + shift, batch).mean()

    gradient = gradients_over_adapters(loss_of)
    for step in range(config.steps):
        batch = stack([take(task.train, rows[i, step]) for i, task in enumerate(tasks)])
        grads, loss = gradient(trained, fixed, batch, shifts)
        if not bool(torch.isfinite(loss).all()):
            bad = [task.name for task, value in zip(tasks, loss, strict=True) if not bool(torch.isfinite(value))]
            raise TrainingError(
                f"The loss of task {bad[0]!r} is not finite at step {step + 1}. Lower the learning rate "
                f"(now {config.learning_rate:g}) or check the task's examples."
            )
        running.append(loss.detach())
        rate = learning_rate(config, step)
        for name in trained:
            theta[name].lerp_(start[name], rate * config.shrinkage)
            if config.optimizer == "adam":
                adam_step(theta[name], grads[name], first[name], second[name], step=step, rate=rate)
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
    scores = torch.stack(
        [validation_scores(backbone, task, {n: v[i] for n, v in tensors.items()}) for i, task in enumerate(tasks)]
    )
    task_names = tuple(task.name for task in tasks)
    data = {task.name: task.data_hash for task in tasks if task.keys}
    return FinetuneRun(task_names, config.saved_steps, tensors, torch.stack(losses, dim=1), scores, data)
