"""Training of the denoiser on the latents of a zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.diffusion.denoiser import DenoiserNetwork, Size
from wildpdiff.diffusion.networks import NetworkName, build_denoiser
from wildpdiff.diffusion.schedule import Prediction, Schedule, ScheduleKind
from wildpdiff.errors import TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread
from wildpdiff.training import ParameterAverage, Progress, flush_denormals, seeded, train, warmup_cosine

ConditionSampler = Callable[[Int[Tensor, " b"], torch.Generator], Float[Tensor, "b e"]]
"""Condition embeddings of the latents of these indices, drawn anew at every update."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Network, schedule and training of a denoiser.

    Attributes:
        network: ``residual`` (perceptron) or ``unet`` (the paper's).
        width: hidden width of the residual network instead of the size's.
        dropout: share of hidden units dropped in training; with few distinct conditions it keeps the mean given a new
            condition from following the noise of the known ones.
        prediction: what the network predicts. ``velocity`` weighs all noise levels alike; ``sample`` hardly counts
            errors at little noise, so that its samples spread too little; ``epsilon`` does not determine the mean.
        train_steps: number T of times of the schedule.
        steps: updates. Many more of them sharpen the known tasks at the cost of the mean of new ones.
        learning_rate: peak of warm-up and cosine, for AdamW.
        warmup: updates of linear warm-up; at most a tenth of ``steps`` is used.
        ema_decay: decay of the moving average of the weights, which is what is returned.
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
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        if min(self.train_steps, self.steps, self.batch) < 1:
            raise TrainingError(
                f"A diffusion has {self.train_steps} times, {self.steps} updates and batches of {self.batch}. Give at "
                "least 1 of each."
            )


@dataclass(frozen=True)
class FittedDiffusion:
    """A trained denoiser."""

    model: DenoiserNetwork
    schedule: Schedule
    losses: Float[Tensor, " steps"] = field(repr=False)


def fit_diffusion(
    latents: Float[Tensor, "n l"],
    conditions: ConditionSampler,
    config: DiffusionConfig,
    *,
    seed: int,
    progress: Progress | None = None,
) -> FittedDiffusion:
    """Train a denoiser by the simple loss (Ho et al. 2020, algorithm 1 and equation 14) for the prediction type.

    The result is a function of the arguments alone, to the byte for one number of threads.

    Args:
        latents: of about unit variance.
        conditions: embeddings of latents by index; called once an update with a generator of its own.

    Raises:
        TrainingError: no latents, values that are not finite, or a loss that diverged.
    """
    if latents.shape[0] == 0 or not bool(torch.isfinite(latents).all()):
        raise TrainingError(f"The {latents.shape[0]} latents are none or hold NaN. Check the zoo and the autoencoder.")
    schedule = Schedule(config.schedule, config.prediction, config.train_steps)
    width = conditions(torch.zeros(1, dtype=torch.long), torch_generator(seed, "diffusion", "width")).shape[1]
    with flush_denormals(), one_thread(), seeded(sub_seed(seed, "diffusion", "weights")):
        model = build_denoiser(_network_config(config, latents.shape[1], width)).train()
        average = ParameterAverage(model, config.ema_decay)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )

        def after(step: int) -> bool:
            average.update(step)
            return False

        losses = train(
            optimizer,
            _objective(model, latents.float(), conditions, schedule, config=config, seed=seed),
            config.steps,
            name="denoiser",
            schedule=warmup_cosine(optimizer, config.steps, min(config.warmup, config.steps // 10)),
            clip=config.gradient_clip,
            after=after,
            progress=progress,
        )
    return FittedDiffusion(average.module, schedule, losses)


def _network_config(config: DiffusionConfig, latent_size: int, condition_size: int) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "network": config.network,
        "latent_size": latent_size,
        "condition_size": condition_size,
        "size": config.size,
        "dropout": config.dropout,
    }
    return arguments | ({"width": config.width} if config.network == "residual" else {})


def _objective(
    model: DenoiserNetwork,
    latents: Tensor,
    conditions: ConditionSampler,
    schedule: Schedule,
    *,
    config: DiffusionConfig,
    seed: int,
) -> Callable[[], Tensor]:
    draws = torch_generator(seed, "diffusion", "batches")
    condition_draws = torch_generator(seed, "diffusion", "conditions")
    n, size, b = latents.shape[0], latents.shape[1], config.batch
    abar = schedule.alphas_cumprod
    alphas, sigmas = abar.sqrt().float()[:, None], (1.0 - abar).sqrt().float()[:, None]
    rows = torch.arange(b)

    def objective() -> Tensor:
        index = torch.randint(n, (b,), generator=draws)
        # One uniform offset spreads the times of a batch evenly, which lowers the loss's variance
        # (Kingma et al. 2021, "Variational diffusion models", appendix I.1).
        position = (rows + torch.rand((), generator=draws)) / b
        t = (position * schedule.train_steps).long().clamp_max(schedule.train_steps - 1)
        epsilon = torch.randn(b, size, generator=draws)
        cond = conditions(index, condition_draws)
        z_0, alpha, sigma = latents[index], alphas[t], sigmas[t]
        target = z_0
        if config.prediction == "epsilon":
            target = epsilon
        elif config.prediction == "velocity":
            target = alpha * epsilon - sigma * z_0
        return torch.nn.functional.mse_loss(model(alpha * z_0 + sigma * epsilon, t.float(), cond), target)

    return objective
