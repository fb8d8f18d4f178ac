"""Settings of the domains of texts, chosen on held-out seen tasks; small enough for minutes on two cores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.decoder import CodeConfig
from wildpdiff.posterior.fit import PosteriorFitConfig
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.tasks.dataset import Dataset
from wildpdiff.zoo.steps import FinetuneConfig

FINETUNE = FinetuneConfig(steps=120, batch=16, learning_rate=0.005, warmup=12, checkpoints=4, interval=4)

GENERATOR = GeneratorConfig(
    parts=("text",),
    components=32,
    diffusion=DiffusionConfig(size="tiny", steps=300, batch=32),
    task_loss=TaskLossConfig(
        steps=160, tasks=8, images=8, folds=3, evaluate_every=20, patience=3, evaluation_images=10
    ),
    posterior=PosteriorFitConfig(
        tasks=32,
        search=MapConfig(steps=20, batch=16, learning_rate=0.25),
        scales=(0.25, 1.0),
        samples=4,
        images=24,
        diffusion=DiffusionConfig(size="tiny", steps=300, batch=32),
        codes=CodeConfig(steps=100, images=8),
    ),
)


def joined_data(parts: Sequence[Dataset]) -> Dataset:
    """Texts of several tasks together."""
    return Dataset([text for part in parts for text in part.inputs], np.concatenate([part.targets for part in parts]))
