"""Fitting a generator to a zoo and the descriptions of its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from wildpdiff.autoencoder.fit import AutoencoderConfig, AutoencoderKind, fit_autoencoder
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.encoding import EncodedTasks, EncodingConfig
from wildpdiff.conditional_mean.fit import fit_conditional_mean
from wildpdiff.diffusion.fit import DiffusionConfig, fit_diffusion
from wildpdiff.generator import Generator
from wildpdiff.posterior.fit import PosteriorFitConfig, fit_posterior
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.records import encode
from wildpdiff.threads import one_thread
from wildpdiff.zoo.training_set import TrainingSet

POSTERIOR_WORK = 600
"""Share of the posterior in the progress of a fit, in updates of a network."""


@dataclass(frozen=True)
class GeneratorConfig(EncodingConfig):
    """Parts of a generator and their training. Defaults were chosen by measurement (``docs/log.md``).

    Attributes:
        autoencoder: ``pca`` or ``vae`` (the paper's).
        diffusion: network, schedule and training: over the codes of the posterior, or, without a conditional mean, over
            the latents of checkpoints.
        kernel_mean: estimate adapters by a conditional mean (:mod:`wildpdiff.conditional_mean`) and sample around it;
            without it a diffusion over latents alone carries the condition, as in the paper.
        task_loss: networks from descriptions to adapters, trained with the task loss; none with ``steps=0``.
    """

    autoencoder: AutoencoderKind = "pca"
    autoencoder_config: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(latent_size=160))
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(size="tiny", steps=600, batch=64))
    kernel_mean: bool = True
    task_loss: TaskLossConfig = field(default_factory=TaskLossConfig)
    posterior: PosteriorFitConfig = field(default_factory=PosteriorFitConfig)
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class FittedGenerator:
    """A generator with measurements of its fit.

    Attributes:
        reconstruction_error: of the autoencoder, mean squared, in normalised units.
        losses: of every step of the diffusion over latents; empty with a conditional mean.
        task_losses: of every step with the task loss; empty without one.
    """

    generator: Generator
    reconstruction_error: float
    losses: Tensor = field(repr=False)
    task_losses: Tensor = field(repr=False)
    seconds: float


@one_thread()
def fit_generator(
    training_set: TrainingSet,
    config: GeneratorConfig = GeneratorConfig(),
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    store: Path | None = None,
) -> FittedGenerator:
    """Learn the distribution of a zoo's adapters given the descriptions of its tasks (paper, section on training).

    Checkpoints of a task and views of its description (subsets of its images, missing parts) are paired anew at
    every step.

    Args:
        training_set: the seen tasks; without their labelled images (adapters of which no data is at hand) the training
            with the task loss is left out.
        store: folder of finished networks of the conditional mean, from which a call with the same arguments takes
            them and gives the same bytes; the caller removes it.

    Raises:
        AdapterMismatchError: the zoo is of another backbone.
        DescriptionError: a task of the zoo has no description, or no part can be read.
        TrainingError: a training diverged.
    """
    started = time.perf_counter()
    encoded = EncodedTasks.of(training_set, config)
    zoo, features = training_set.zoo, training_set.features
    autoencoder = fit_autoencoder(config.autoencoder, encoded.normalized, config.autoencoder_config, seed)
    with_task_loss = features is not None and config.kernel_mean
    task_steps = config.task_loss.steps * config.task_loss.networks if with_task_loss else 0
    total = task_steps + (config.diffusion.steps if not config.kernel_mean else POSTERIOR_WORK if features else 0)

    def tick(base: int) -> Callable[[int, int], None]:
        return lambda done, _: progress(base + done, total) if progress is not None else None

    mean, posterior, table = None, None, None
    denoiser, schedule = None, None
    losses = task_losses = torch.zeros(0)
    if config.kernel_mean:
        fitted = fit_conditional_mean(encoded, config.task_loss, seed, progress=tick(0), store=store)
        mean, table, task_losses = fitted.mean, fitted.cross_validation, fitted.losses
        if fitted.images is not None:
            spread = replace(config.posterior, diffusion=config.diffusion)
            posterior = fit_posterior(encoded, mean, fitted.images, config=spread, seed=seed)
            tick(task_steps)(POSTERIOR_WORK, 0)
    else:
        latents = autoencoder.model.encode(encoded.normalized).clone()
        diffusion = fit_diffusion(
            latents,
            lambda rows, draws: encoded.sampler(encoded.task_of[rows], draws),
            config.diffusion,
            seed=seed,
            progress=tick(task_steps),
        )
        denoiser, schedule, losses = diffusion.model.requires_grad_(False), diffusion.schedule, diffusion.losses
    training = {"config": encode(config), "seed": seed, "zoo": zoo.plan.fingerprint, "tasks": len(zoo.tasks)}
    generator = Generator(
        backbone=training_set.backbone,
        codec=encoded.codec,
        autoencoder=autoencoder.model,
        conditions=encoded.conditions,
        mean=mean,
        posterior=posterior,
        denoiser=denoiser,
        schedule=schedule,
        sampling=config.sampling,
        training=training,
        cross_validation=table,
    )
    seconds = time.perf_counter() - started
    return FittedGenerator(generator, autoencoder.reconstruction_error, losses, task_losses, seconds)
