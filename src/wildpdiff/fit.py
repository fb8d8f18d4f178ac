"""Fitting a generator to a zoo and the descriptions of its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wildpdiff.autoencoder.fit import AutoencoderConfig, AutoencoderKind, fit_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.normalize import NormalizationMode
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.fit import Reading, SeenMaterial, fit_conditional_mean
from wildpdiff.conditions.base import Featuriser
from wildpdiff.diffusion.fit import DiffusionConfig, fit_diffusion
from wildpdiff.errors import TrainingError
from wildpdiff.generator import Generator
from wildpdiff.posterior.fit import PosteriorFitConfig, fit_posterior
from wildpdiff.posterior.sampling import Sampling
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.threads import one_thread
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import Zoo

POSTERIOR_WORK = 600
"""What fitting the posterior counts as, in updates of a network, where progress is reported."""


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is made of. Defaults are those that measurement chose (``docs/log.md``).

    Attributes:
        parts: parts of the description that are read.
        components: principal components kept of each part that is images.
        whiten: give them unit variance each, instead of in their mean; it lifts components that are mostly noise.
        drop_part: probability of hiding a part in training, so that any may be missing later.
        drop_all: probability of hiding all, needed for classifier-free guidance with a scale other than 1.
        normalization: ``coordinate`` (the paper's z-score) or ``tensor`` (one scale a tensor).
        autoencoder: ``pca`` or ``vae`` (the paper's).
        autoencoder_config: its sizes and training.
        diffusion: network, schedule and training: over the codes of what descriptions leave open, or, without a
            conditional mean, over the latents of checkpoints.
        kernel_mean: estimate adapters by a conditional mean (:mod:`wildpdiff.conditional_mean`) and sample around it;
            without it a diffusion over latents alone carries the condition, as in the paper.
        centering: centre predicted adapters on the images of their place
            (:mod:`wildpdiff.conditional_mean.centering`), as strongly as helps on seen tasks held out; needs the
            images of the seen tasks.
        task_loss: networks from descriptions to adapters, trained with the task loss; ``steps=0`` leaves them out.
        posterior: how the distribution around the estimate is fitted and chosen.
        sampling: sampler, steps, guidance.
    """

    parts: tuple[str, ...] = ("metadata", "backgrounds", "examples")
    components: int = 16
    whiten: bool = False
    drop_part: float = 0.15
    drop_all: float = 0.0
    normalization: NormalizationMode = "tensor"
    autoencoder: AutoencoderKind = "pca"
    autoencoder_config: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(latent_size=160))
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(size="tiny", steps=600, batch=64))
    kernel_mean: bool = True
    centering: bool = True
    task_loss: TaskLossConfig = field(default_factory=TaskLossConfig)
    posterior: PosteriorFitConfig = field(default_factory=PosteriorFitConfig)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.components < 1 or not 0 <= self.drop_part < 1 or not 0 <= self.drop_all < 1:
            raise TrainingError(
                f"A generator was asked for with {self.components} components of an image part and parts hidden with "
                f"probability {self.drop_part:g}, all with {self.drop_all:g}; give at least one component, and "
                "probabilities from 0 to below 1."
            )

    @property
    def reading(self) -> Reading:
        """How descriptions and adapters are read."""
        return Reading(
            self.parts,
            self.components,
            self.whiten,
            self.drop_part,
            self.drop_all,
            self.normalization,
            self.centering,
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        posterior = {**asdict(self.posterior), "scales": list(self.posterior.scales)}
        return {
            **asdict(self),
            "parts": list(self.parts),
            "task_loss": self.task_loss.to_json(),
            "posterior": posterior,
        }


PAPER_METHOD = GeneratorConfig(
    parts=("backgrounds",),
    components=16,
    drop_part=0.0,
    normalization="coordinate",
    autoencoder="vae",
    autoencoder_config=AutoencoderConfig(latent_size=64, steps=600),
    diffusion=DiffusionConfig(network="unet", size="tiny", steps=2500, batch=64, dropout=0.0),
    kernel_mean=False,
    centering=False,
    task_loss=TaskLossConfig(steps=0),
    sampling=Sampling(sampler="ddim", steps=50),
)
"""The method of the paper: z-scored vectors, a variational autoencoder with noise on input and latent, a 1-D U-Net on
the latents conditioned on features of background images, and DDIM. Sizes, schedule and prediction are ours, as the
paper gives none; features are those of the frozen backbone, where the paper takes CLIP's."""

PAPER_METHOD_SEVERAL_TASKS = replace(
    PAPER_METHOD,
    autoencoder_config=replace(PAPER_METHOD.autoencoder_config, steps=300),
    diffusion=replace(PAPER_METHOD.diffusion, steps=1000),
)
"""The same with shorter trainings, for a handful of tasks."""

PAPER_METHOD_ONE_TASK = replace(
    PAPER_METHOD,
    parts=("task_id",),
    autoencoder_config=AutoencoderConfig(latent_size=32, steps=200),
    diffusion=replace(PAPER_METHOD.diffusion, steps=400),
)
"""The same for the checkpoints of a single task, whose condition never changes."""


@dataclass(frozen=True)
class FittedGenerator:
    """A generator with what its fit measured.

    Attributes:
        generator: ready to sample.
        reconstruction_error: of the autoencoder, mean squared, in normalised units.
        losses: of the diffusion over latents, one a step; empty with a conditional mean.
        task_losses: of the training with the task loss, one a step; empty where it was left out.
        seconds: wall-clock time of the whole fit.
    """

    generator: Generator
    reconstruction_error: float
    losses: Tensor = field(repr=False)
    task_losses: Tensor = field(repr=False)
    seconds: float


@one_thread()
def fit_generator(
    zoo: Zoo,
    descriptions: Mapping[str, Description],
    schema: MetadataSchema,
    backbone: Backbone,
    config: GeneratorConfig = GeneratorConfig(),
    *,
    features: Callable[[str], TaskFeatures] | None = None,
    featurise: Featuriser | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    store: Path | None = None,
) -> FittedGenerator:
    """Learn the distribution of a zoo's adapters given the descriptions of its tasks (paper, section on training).

    Checkpoints of a task and views of its description (subsets of its images, missing parts) are paired anew at
    every step.

    Args:
        zoo: adapters of the seen tasks.
        descriptions: by task name, one for every task of the zoo.
        schema: of the metadata.
        backbone: that the zoo was built on.
        config: what to fit.
        features: gives the images of a seen task, by its name, for the training with the task loss; without them
            (adapters of which no data is at hand) that training is left out.
        featurise: what images of descriptions are read by; the backbone's features by default.
        seed: decides everything random.
        progress: called with (training steps done, in all).
        store: folder in which every network of the conditional mean is kept as it is finished. A call with the same
            arguments takes them from there, and gives the same bytes; the caller removes the folder.

    Raises:
        AdapterMismatchError: the zoo is of another backbone.
        DescriptionError: a task of the zoo has no description, or no part can be read.
        TrainingError: a training diverged.
    """
    started = time.perf_counter()
    material = SeenMaterial.of(zoo, descriptions, schema, backbone, config.reading, featurise)
    autoencoder = fit_autoencoder(config.autoencoder, material.normalized, config.autoencoder_config, seed)
    with_task_loss = features is not None and config.kernel_mean
    task_steps = config.task_loss.steps * config.task_loss.networks if with_task_loss else 0
    total = task_steps + (config.diffusion.steps if not config.kernel_mean else POSTERIOR_WORK if features else 0)

    def tick(base: int) -> Callable[[int, int], None]:
        return lambda done, _: progress(base + done, total) if progress is not None else None

    mean, posterior, table = None, None, None
    denoiser, schedule = None, None
    losses = task_losses = torch.zeros(0)
    if config.kernel_mean:
        fitted = fit_conditional_mean(material, config.task_loss, features, seed, progress=tick(0), store=store)
        mean, table, task_losses = fitted.mean, fitted.cross_validation, fitted.losses
        if fitted.images is not None:
            spread = replace(config.posterior, diffusion=config.diffusion)
            posterior = fit_posterior(material, mean, fitted.images, spread, seed)
            tick(task_steps)(POSTERIOR_WORK, 0)
    else:
        latents = autoencoder.model.encode(material.normalized).clone()
        diffusion = fit_diffusion(
            latents,
            lambda rows, draws: material.sampler(material.task_of[rows], draws),
            config.diffusion,
            seed,
            tick(task_steps),
        )
        denoiser, schedule, losses = diffusion.model.requires_grad_(False), diffusion.schedule, diffusion.losses
    training = {"config": config.to_json(), "seed": seed, "zoo": zoo.plan.fingerprint, "tasks": len(zoo.tasks)}
    generator = Generator(
        backbone=backbone,
        codec=material.codec,
        autoencoder=autoencoder.model,
        conditions=material.conditions,
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
