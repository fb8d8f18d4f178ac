"""Training of the denoiser on the latents of a zoo."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.autoencoder.training import Progress, check_finite, flush_denormals, seeded, warmup_cosine
from wildpdiff.diffusion.denoiser import DenoiserNetwork, Size
from wildpdiff.diffusion.networks import NetworkName, build_denoiser
from wildpdiff.diffusion.schedule import Prediction, Schedule, ScheduleKind
from wildpdiff.errors import TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread

ConditionSampler = Callable[[Int[Tensor, " b"], torch.Generator], Float[Tensor, "b e"]]
"""Condition embeddings for the latents of these indices; re-pairing and dropping of parts happen in there."""

_CHECK_EVERY = 50


@dataclass(frozen=True)
class DiffusionConfig:
    """What to train and how.

    Attributes:
        network: ``residual`` (perceptron) or ``unet`` (the paper's).
        size: width and depth of the network.
        width: hidden width of the residual network instead of the size's.
        dropout: share of hidden units dropped in training; with few distinct conditions it keeps the mean given a new
            condition from following the noise of the known ones.
        schedule: noise schedule.
        prediction: what the network predicts. ``velocity`` weighs all noise levels alike; ``sample`` hardly counts
            errors at little noise, so that its samples spread too little; ``epsilon`` says nothing about the mean.
        train_steps: number T of times of the schedule.
        steps: updates. Many more of them sharpen the known tasks at the cost of the mean of new ones.
        batch: latents an update.
        learning_rate: peak of warm-up and cosine, for AdamW.
        warmup: updates of linear warm-up; at most a tenth of ``steps`` is used.
        weight_decay: decoupled weight decay.
        ema_decay: decay of the moving average of the weights, which is what is returned.
        condition_noise: standard deviation of Gaussian noise added to the embeddings.
        latent_noise: standard deviation of Gaussian noise added to the latents.
        gradient_clip: largest norm of a gradient.
    """

    network: NetworkName = "residual"
    size: Size = "small"
    width: int | None = None
    dropout: float = 0.2
    schedule: ScheduleKind = "cosine"
    prediction: Prediction = "velocity"
    train_steps: int = 1000
    steps: int = 3000
    batch: int = 128
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-2
    ema_decay: float = 0.999
    condition_noise: float = 0.0
    latent_noise: float = 0.0
    gradient_clip: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of the attributes."""
        return asdict(self)


@dataclass(frozen=True)
class FittedDiffusion:
    """A trained denoiser.

    Attributes:
        model: the network with averaged weights, in evaluation mode.
        schedule: the schedule it was trained on.
        losses: loss of every update, "steps".
        seconds: wall-clock time of the training.
    """

    model: DenoiserNetwork
    schedule: Schedule
    losses: Float[Tensor, " steps"] = field(repr=False)
    seconds: float


def fit_diffusion(
    latents: Float[Tensor, "n l"],
    conditions: ConditionSampler,
    config: DiffusionConfig,
    seed: int,
    progress: Progress | None = None,
) -> FittedDiffusion:
    """Train a denoiser by the simple loss (Ho et al. 2020, algorithm 1 and equation 14) for the prediction type.

    The result is a function of the arguments alone, to the byte for one number of threads.

    Args:
        latents: training latents of about unit variance, "n l".
        conditions: gives the embeddings of latents by index; called once an update with a generator of its own.
        config: network and training.
        seed: of everything random here.
        progress: called after every update.

    Raises:
        TrainingError: no latents, values that are not finite, or a loss that diverged.
    """
    if latents.shape[0] == 0 or not bool(torch.isfinite(latents).all()):
        raise TrainingError(
            f"The {latents.shape[0]} training latents are empty or hold NaN; check the zoo and the autoencoder."
        )
    started = time.perf_counter()
    schedule = Schedule(config.schedule, config.prediction, config.train_steps)
    width = conditions(torch.zeros(1, dtype=torch.long), torch_generator(seed, "diffusion", "width")).shape[1]
    with flush_denormals(), one_thread(), seeded(sub_seed(seed, "diffusion", "weights")):
        model = build_denoiser(_network_config(config, latents.shape[1], width)).train()
        batches = _batches(latents.float(), conditions, schedule, config, seed)
        losses = _train(model, batches, config, progress)
    return FittedDiffusion(model.eval(), schedule, losses, time.perf_counter() - started)


def _network_config(config: DiffusionConfig, latent_size: int, condition_size: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "network": config.network,
        "latent_size": latent_size,
        "condition_size": condition_size,
        "size": config.size,
        "dropout": config.dropout,
    }
    return arguments | ({"width": config.width} if config.network == "residual" else {})


def _train(
    model: DenoiserNetwork, batches: Iterator[_Batch], config: DiffusionConfig, progress: Progress | None
) -> Tensor:
    """Run all updates and leave the averaged weights in the model."""
    parameters: list[Tensor] = list(model.parameters())
    averaged = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    losses = torch.zeros(config.steps)
    for step in range(config.steps):
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warmup_cosine(
                step, config.steps, min(config.warmup, config.steps // 10)
            )
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(model(batch.z_t, batch.t, batch.cond), batch.target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimizer.step()
        losses[step] = loss.detach()
        # A young average forgets its random start faster than an old one.
        decay = min(config.ema_decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1.0 - decay)
        if (step + 1) % _CHECK_EVERY == 0 or step + 1 == config.steps:
            _check(losses[: step + 1])
        if progress is not None:
            progress(step + 1, config.steps)
    with torch.no_grad():
        torch._foreach_copy_(parameters, averaged)
    return losses


@dataclass(frozen=True)
class _Batch:
    z_t: Tensor
    t: Tensor
    cond: Tensor
    target: Tensor


def _batches(
    latents: Tensor,
    conditions: ConditionSampler,
    schedule: Schedule,
    config: DiffusionConfig,
    seed: int,
) -> Iterator[_Batch]:
    draws = torch_generator(seed, "diffusion", "batches")
    condition_draws = torch_generator(seed, "diffusion", "conditions")
    n, size, b = latents.shape[0], latents.shape[1], config.batch
    abar = schedule.alphas_cumprod
    alphas, sigmas = abar.sqrt().float()[:, None], (1.0 - abar).sqrt().float()[:, None]
    places = torch.arange(b)
    while True:
        index = torch.randint(n, (b,), generator=draws)
        # One uniform offset spreads the times of a batch evenly, which lowers the loss's variance
        # (Kingma et al. 2021, "Variational diffusion models", appendix I.1).
        position = (places + torch.rand((), generator=draws)) / b
        t = (position * schedule.train_steps).long().clamp_max(schedule.train_steps - 1)
        epsilon = torch.randn(b, size, generator=draws)
        cond = conditions(index, condition_draws)
        z_0 = latents[index]
        if config.latent_noise > 0.0:
            z_0 = z_0 + config.latent_noise * torch.randn(b, size, generator=draws)
        if config.condition_noise > 0.0:
            cond = cond + config.condition_noise * torch.randn(cond.shape, generator=draws)
        alpha, sigma = alphas[t], sigmas[t]
        target = z_0
        if config.prediction == "epsilon":
            target = epsilon
        elif config.prediction == "velocity":
            target = alpha * epsilon - sigma * z_0
        yield _Batch(alpha * z_0 + sigma * epsilon, t.float(), cond, target)


def _check(losses: Tensor) -> None:
    if not bool(torch.isfinite(losses).all()):
        step = int((~torch.isfinite(losses)).nonzero()[0])
        check_finite(float(losses[step]), step, "denoiser")
