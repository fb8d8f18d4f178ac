"""Eighteen seen toy tasks, a generator fitted to them, and settings of its calibration."""

from __future__ import annotations

from dataclasses import dataclass

import toys
from wildpdiff.autoencoder.fit import AutoencoderConfig
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.fit import GeneratorConfig
from wildpdiff.generator import Generator
from wildpdiff.posterior.decoder import CodeConfig
from wildpdiff.posterior.fit import PosteriorFitConfig
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.trust.generated import calibrate_generator
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import CalibrationConfig
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

TASKS = tuple(toys.ToyTask(f"seen-{index:02d}", 60.0 + 10 * index) for index in range(18))
DESCRIPTIONS = {task.name: task.description for task in TASKS}
CONFIG = GeneratorConfig(
    components=2,
    autoencoder_config=AutoencoderConfig(latent_size=4),
    diffusion=DiffusionConfig(size="tiny", steps=20, batch=16),
    task_loss=TaskLossConfig(steps=30, tasks=6, images=8, folds=3, hidden=12, directions=4, evaluate_every=10),
    posterior=PosteriorFitConfig(
        directions=6,
        scales=(0.5, 1.0),
        search=MapConfig(steps=10, batch=16, learning_rate=0.25),
        codes=CodeConfig(steps=20, directions=6),
    ),
)
CALIBRATION = CalibrationConfig(group_folds=1, samples=1)


@dataclass(frozen=True)
class Toy:
    generator: Generator
    zoo: Zoo
    features: FeatureCache

    @property
    def training_set(self) -> TrainingSet:
        return TrainingSet(self.zoo, DESCRIPTIONS, toys.SCHEMA, self.generator.backbone, self.features)

    def calibrate(self, generator: Generator | None = None, calibration: CalibrationConfig = CALIBRATION) -> TrustModel:
        made = generator or self.generator
        return calibrate_generator(made, self.training_set, CONFIG, calibration=calibration, seed=3)
