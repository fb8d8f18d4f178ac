"""The most probable adapter, given a prior and a few labels, for many tasks in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import gradients_over_adapters
from wildpdiff.errors import TrainingError
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import Batch, stack, take
from wildpdiff.zoo.features import TaskFeatures


@dataclass(frozen=True)
class MapConfig:
    """Search of the most probable adapter.

    Attributes:
        steps: of Adam (Kingma & Ba 2015).
        learning_rate: peak, in standard deviations of the prior; a half cosine leads down to a fiftieth of it.
        strength: of the prior. 1 takes its covariance as it is, larger values hold the adapter nearer to the start.
    """

    steps: int = 40
    batch: int = 64
    learning_rate: float = 0.1
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.learning_rate > 0 or not self.strength > 0:
            raise TrainingError(
                f"Refining has {self.steps} steps of {self.batch} examples with rate {self.learning_rate:g} and "
                f"strength {self.strength:g}; all must be positive."
            )


def maximum_a_posteriori(
    backbone: Backbone,
    starts: Float[Tensor, "t d"],
    prior: RefinementPrior,
    tasks: Sequence[TaskFeatures],
    *,
    offsets: Float[Tensor, "t ..."],
    config: MapConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "t d"]:
    """Maximum a posteriori adapters of several tasks, optimised independently in one pass.

    Minimises over ``w``, for each task, ``Σ_i loss(outputs_i + offset) + strength |w|² / 2`` with the outputs of
    the adapter ``start + w @ directions``.

    Args:
        tasks: their training examples are the labelled ones.
        offsets: of the outputs in the loss (:func:`~wildpdiff.refine.frequencies.label_offsets`).
        seed: of the order of examples, with a task's name.

    Raises:
        TrainingError: the loss of a task is not finite.
    """
    layout, directions = prior.layout, prior.directions
    counts = torch.tensor([float(task.train_size) for task in tasks])
    weights = torch.zeros(len(tasks), len(directions))
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    rows = torch.stack([_rows(task, config, seed) for task in tasks])

    def loss(own: Batch, start: Tensor, batch: Batch, offset: Tensor, count: Tensor) -> Tensor:
        outputs = backbone.outputs(batch, layout.unflatten(start + own["weights"] @ directions))
        fit = backbone.objective.loss(outputs + offset, batch).mean()
        return count * fit + 0.5 * config.strength * own["weights"].square().sum()

    gradient = gradients_over_adapters(loss)
    for step in range(config.steps):
        batch = stack([take(task.train, rows[i, step]) for i, task in enumerate(tasks)])
        slopes, value = gradient({"weights": weights}, starts, batch, offsets, counts)
        slope = slopes["weights"]
        if not bool(torch.isfinite(value).all()):
            bad = next(task.name for task, one in zip(tasks, value, strict=True) if not bool(torch.isfinite(one)))
            raise TrainingError(
                f"The loss of task {bad!r} is not finite at step {step + 1}; check its examples and its start."
            )
        first.lerp_(slope, 0.1)
        second.lerp_(slope.square(), 0.01)
        rate = config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))
        scale = (second / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
        weights = weights - rate / (1 - 0.9 ** (step + 1)) * first / scale
        if progress is not None:
            progress(step + 1, config.steps)
    return starts + weights @ directions


def _rows(task: TaskFeatures, config: MapConfig, seed: int) -> Int[Tensor, "s b"]:
    """Row indices of every step: epochs over the task's examples, each in a new order."""
    draws = torch_generator(seed, "refine", task.name)
    needed, count = config.steps * config.batch, task.train_size
    orders = [torch.randperm(count, generator=draws) for _ in range(-(-needed // count))]
    return torch.cat(orders)[:needed].view(config.steps, config.batch)
