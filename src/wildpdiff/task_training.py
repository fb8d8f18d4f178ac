"""Training the conditional mean with the task loss, through the decoder and the frozen backbone, on the seen tasks.

Regression of fine-tuned adapters learns the chance in them too. The loss of the task says what an adapter is for. It
acts on the coefficients of the additive kernel: one task's gradient moves the adapters of all tasks that are described
alike, and of no other, so that a handful of updates does what a network over the same description could not learn
from a hundred tasks (``docs/log.md``). Only seen tasks and their training images take part. Text-to-LoRA (2506.06105)
trains its hypernetwork by the task loss; here the hypernetwork is a kernel machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditions.kernel_mean import KernelMean
from wildpdiff.errors import TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.finetune import TaskFeatures

__all__ = ["TaskLossConfig", "TaskLossProblem", "TrainedMean", "train_mean"]


@dataclass(frozen=True)
class TaskLossConfig:
    """How the conditional mean is trained with the task loss.

    Attributes:
        steps: updates; 0 leaves it to regression alone. Few are wanted: stopping early is what regularises.
        tasks: most seen tasks an update.
        images: training images a task and update.
        learning_rate: peak, for Adam, in units of the latents' standard deviation.
    """

    steps: int = 60
    tasks: int = 1000
    images: int = 32
    learning_rate: float = 0.2

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of the attributes."""
        return asdict(self)


@dataclass(frozen=True)
class TaskLossProblem:
    """What the mean is trained on.

    Attributes:
        backbone: the frozen model.
        codec: adapter tensors to normalised vectors.
        autoencoder: frozen; the gradient passes through its decoder.
        features: for each seen task its images behind the stem.
    """

    backbone: Backbone
    codec: Codec
    autoencoder: Autoencoder
    features: Sequence[TaskFeatures]

    def losses(
        self, latents: Float[Tensor, "b l"], tasks: Int[Tensor, " b"], images: Sequence[Int[Tensor, " m"]]
    ) -> Float[Tensor, " b"]:
        """Cross-entropy of the adapter behind each latent on the given training images of its task."""
        tensors = self.codec.layout.unflatten(self.codec.decode(self.autoencoder.decode(latents)))
        picked = [self.features[int(task)] for task in tasks]
        inputs = torch.stack([task.train[rows] for task, rows in zip(picked, images, strict=True)])
        labels = torch.stack([task.train_labels[rows] for task, rows in zip(picked, images, strict=True)])
        return torch.func.vmap(lambda x, y, adapter: cross_entropy(self.backbone.logits(x, adapter), y))(
            inputs, labels, tensors
        )


@dataclass(frozen=True)
class TrainedMean:
    """The trained mean, and the mean task loss of every update."""

    mean: KernelMean
    losses: Float[Tensor, " steps"]


def train_mean(
    mean: KernelMean,
    problem: TaskLossProblem,
    config: TaskLossConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> TrainedMean:
    """Move the coefficients of the additive kernel down the task loss (Adam, one second moment a latent coordinate).

    A mean without terms, whose description tells nothing, is returned as it is.

    Raises:
        TrainingError: the loss is not finite.
    """
    if not mean.terms or not config.steps:
        return TrainedMean(mean, torch.zeros(0))
    draws = torch_generator(seed, "task loss")
    kernel = mean.kernel(mean.seen)
    scale = float(kernel.sum(1).mean())
    start = mean.smooth(mean.seen)
    change = torch.zeros_like(start)
    first, second = torch.zeros_like(start), torch.zeros(1, start.shape[1])
    losses = torch.zeros(config.steps)
    for step in range(config.steps):
        tasks = torch.randperm(len(start), generator=draws)[: config.tasks]
        images = [
            torch.randint(len(problem.features[int(task)].train_labels), (config.images,), generator=draws)
            for task in tasks
        ]
        latents = (start + kernel / scale @ change)[tasks].requires_grad_()
        loss = problem.losses(latents, tasks, images)
        if not bool(torch.isfinite(loss).all()):
            raise TrainingError(
                f"The task loss is not finite at update {step + 1}; lower its learning rate "
                f"(now {config.learning_rate:g})."
            )
        (found,) = torch.autograd.grad(loss.sum(), latents)
        gradient = torch.zeros_like(start)
        gradient[tasks] = found
        first.lerp_(gradient, 0.1)
        second.lerp_(found.square().mean(0, keepdim=True), 0.02)
        rate = config.learning_rate * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        corrected = (second / (1 - 0.98 ** (step + 1))).sqrt() + 1e-8
        change -= rate / (1 - 0.9 ** (step + 1)) * first / corrected
        losses[step] = loss.detach().mean()
        if progress is not None:
            progress(step + 1, config.steps)
    return TrainedMean(replace(mean, coefficients=mean.coefficients + change / scale), losses)
