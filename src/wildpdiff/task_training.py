"""Training a denoiser with the task loss: decoded adapters run through the frozen backbone on the seen tasks' data.

Reconstruction alone learns what fine-tuned adapters look like, with all that chance put into them. The loss of the
task says what an adapter is for. It is applied to the denoiser's estimate of the clean latent at every noise level,
pure noise included, so that one evaluation and a whole chain of them both end in adapters that work. Only seen tasks
and their training images take part. (Text-to-LoRA, 2506.06105, trains a hypernetwork this way; ``docs/log.md`` has
what it brings here.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.training import flush_denormals, seeded, warmup_cosine
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.diffusion.denoiser import DenoiserNetwork
from wildpdiff.diffusion.fit import ConditionSampler
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.errors import TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.zoo.finetune import TaskFeatures

__all__ = ["TaskLossConfig", "TaskLossProblem", "train_with_task_loss"]


@dataclass(frozen=True)
class TaskLossConfig:
    """How the denoiser is trained with the task loss.

    Attributes:
        steps: updates; 0 leaves reconstruction alone (the paper's training).
        tasks: seen tasks an update.
        images: training images a task and update.
        learning_rate: peak, for AdamW with warm-up and cosine.
        weight_decay: decoupled weight decay.
        reconstruction: weight of the latents' mean squared error, which keeps samples among the zoo's adapters.
        pure_noise: share of the rows at the highest noise level, where sampling starts; the others are spread evenly.
        condition_noise: standard deviation of Gaussian noise added to the embeddings.
        ema_decay: decay of the moving average of the weights.
        gradient_clip: largest norm of a gradient.
    """

    steps: int = 1500
    tasks: int = 24
    images: int = 24
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    reconstruction: float = 0.05
    pure_noise: float = 0.5
    condition_noise: float = 0.1
    ema_decay: float = 0.995
    gradient_clip: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of the attributes."""
        return asdict(self)


@dataclass(frozen=True)
class TaskLossProblem:
    """What is trained on: the fixed parts of a generator and the seen tasks' data.

    Attributes:
        backbone: the frozen model.
        codec: adapter tensors to normalised vectors.
        autoencoder: frozen; the gradient passes through its decoder.
        schedule: of the diffusion.
        latents: of all checkpoints, "n l".
        rows_of: for each task the rows of its checkpoints in ``latents``.
        features: for each task its images behind the stem.
        conditions: embeddings of tasks by number.
    """

    backbone: Backbone
    codec: Codec
    autoencoder: Autoencoder
    schedule: Schedule
    latents: Float[Tensor, "n l"]
    rows_of: Sequence[Int[Tensor, " k"]]
    features: Sequence[TaskFeatures]
    conditions: ConditionSampler

    def loss(self, latents: Float[Tensor, "b l"], tasks: Int[Tensor, " b"], images: Int[Tensor, "b m"]) -> Tensor:
        """Mean cross-entropy of the adapters behind the latents on the given training images of their tasks."""
        tensors = self.codec.layout.unflatten(self.codec.decode(self.autoencoder.decode(latents)))
        picked = [self.features[int(task)] for task in tasks]
        inputs = torch.stack([task.train[rows] for task, rows in zip(picked, images, strict=True)])
        labels = torch.stack([task.train_labels[rows] for task, rows in zip(picked, images, strict=True)])
        logits = torch.func.vmap(self.backbone.logits)(inputs, tensors)
        return cross_entropy(logits.flatten(0, 1), labels.flatten())


def train_with_task_loss(
    model: DenoiserNetwork,
    problem: TaskLossProblem,
    config: TaskLossConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, " steps"]:
    """Train a denoiser in place; it is left with averaged weights. Returns the task loss of every update.

    Raises:
        TrainingError: the loss is not finite.
    """
    draws = torch_generator(seed, "task loss", "batches")
    condition_draws = torch_generator(seed, "task loss", "conditions")
    parameters = [value.requires_grad_() for value in model.parameters()]
    averaged = copy.deepcopy([value.detach() for value in parameters])
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, (0.9, 0.99), weight_decay=config.weight_decay)
    losses = torch.zeros(config.steps)
    model.train()
    with flush_denormals(), seeded(sub_seed(seed, "task loss", "dropout")):
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * warmup_cosine(step, config.steps, config.steps // 20)
            batch = _draw(problem, config, draws, condition_draws)
            clean = problem.schedule.sample_of(model(batch.z_t, batch.t, batch.cond), batch.z_t, batch.t)
            task_loss = problem.loss(clean, batch.tasks, batch.images)
            loss = task_loss + config.reconstruction * torch.nn.functional.mse_loss(clean, batch.z_0)
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"The task loss is not finite at update {step + 1}; lower its learning rate "
                    f"(now {config.learning_rate:g})."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            losses[step] = task_loss.detach()
            with torch.no_grad():
                decay = min(config.ema_decay, (1.0 + step) / (10.0 + step))
                torch._foreach_lerp_(averaged, parameters, 1.0 - decay)
            if progress is not None:
                progress(step + 1, config.steps)
    with torch.no_grad():
        torch._foreach_copy_(parameters, averaged)
    model.eval().requires_grad_(False)
    return losses


@dataclass(frozen=True)
class _Batch:
    tasks: Tensor
    images: Tensor
    z_0: Tensor
    z_t: Tensor
    t: Tensor
    cond: Tensor


def _draw(
    problem: TaskLossProblem, config: TaskLossConfig, draws: torch.Generator, condition_draws: torch.Generator
) -> _Batch:
    count = min(config.tasks, len(problem.features))
    tasks = torch.randperm(len(problem.features), generator=draws)[:count]
    images = torch.stack(
        [
            torch.randint(len(problem.features[int(task)].train_labels), (config.images,), generator=draws)
            for task in tasks
        ]
    )
    picks = torch.rand(count, generator=draws)
    rows = torch.stack([problem.rows_of[int(task)][int(u * len(problem.rows_of[int(task)]))] for task, u in
                        zip(tasks, picks.tolist(), strict=True)])  # fmt: skip
    z_0 = problem.latents[rows]
    last = problem.schedule.train_steps - 1
    spread = (torch.rand(count, generator=draws) * last).round()
    t = torch.where(torch.rand(count, generator=draws) < config.pure_noise, torch.full((count,), float(last)), spread)
    noise = torch.randn(z_0.shape, generator=draws)
    alpha, sigma = problem.schedule.alpha(t).float()[:, None], problem.schedule.sigma(t).float()[:, None]
    cond = problem.conditions(tasks, condition_draws)
    cond = cond + config.condition_noise * torch.randn(cond.shape, generator=condition_draws)
    return _Batch(tasks, images, z_0, alpha * z_0 + sigma * noise, t, cond)
