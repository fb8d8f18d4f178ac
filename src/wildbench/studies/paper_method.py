"""The method of the paper as configurations of a generator, for many, several and single tasks."""

from __future__ import annotations

from dataclasses import replace

from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.sampling import Sampling

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
