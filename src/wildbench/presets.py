"""Configurations of runs that take seconds, for smoke tests of the commands; their numbers mean nothing."""

from __future__ import annotations

from typing import Any

from wildbench.pipeline import PipelineConfig
from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.decoder import CodeConfig
from wildpdiff.posterior.fit import PosteriorFitConfig
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.zoo.steps import FinetuneConfig

SUITE = {"seen": 12, "unseen": 3, "train": 40, "validation": 10, "test": 20, "backgrounds": 4}
LATENTS = AutoencoderConfig(latent_size=8, steps=30)


POSTERIOR = PosteriorFitConfig(
    search=MapConfig(steps=6, batch=16, learning_rate=0.25),
    scales=(0.25, 1.0),
    samples=3,
    images=16,
    diffusion=DiffusionConfig(size="tiny", steps=30, batch=32),
    codes=CodeConfig(steps=15, images=8, directions=4),
)


def tiny_generator(latents: AutoencoderConfig = LATENTS, steps: int = 60, task_steps: int = 20) -> GeneratorConfig:
    """A generator of few parameters and steps."""
    return GeneratorConfig(
        components=4,
        autoencoder_config=latents,
        diffusion=DiffusionConfig(size="tiny", steps=steps, batch=32),
        task_loss=TaskLossConfig(steps=task_steps, tasks=4, images=8),
        posterior=POSTERIOR,
    )


def tiny_finetune(steps: int, checkpoints: int = 4) -> FinetuneConfig:
    """Fine-tuning of few steps."""
    return FinetuneConfig(steps=steps, batch=16, checkpoints=checkpoints, interval=2, warmup=2)


def tiny_run(finetune: FinetuneConfig, generator: GeneratorConfig, **settings: Any) -> PipelineConfig:
    """A run on few small tasks; ``settings`` are further fields of :class:`PipelineConfig`."""
    suite = settings.pop("suite_options", SUITE)
    return PipelineConfig(suite_options=suite, finetune=finetune, generator=generator, samples=2, **settings)
