"""Tasks with uninformative images, whose label frequencies follow one number of the metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import toys
from wildpdiff.backbones.backbone import LoraSpec
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.evaluate.score import mean_scores, test_set
from wildpdiff.rng import numpy_generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import LabelledImages, SplitName
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.steps import FinetuneConfig

FINETUNE = FinetuneConfig(steps=30, batch=16, learning_rate=0.05, warmup=3, checkpoints=2, interval=2, optimizer="adam")


@dataclass(frozen=True)
class PriorTask:
    """Noise, of class 0 mostly where ``level`` is low and of class 1 mostly where it is high."""

    name: str
    level: float

    @property
    def description(self) -> Description:
        rng = numpy_generator(5, "planted backgrounds", self.name)
        grey = rng.integers(0, 40, (3, toys.SIZE, toys.SIZE, 3)) + int(100 + 80 * self.level)
        return Description(metadata={"level": self.level}, backgrounds=grey.astype(np.uint8))

    def data(self, split: SplitName) -> LabelledImages:
        rng = numpy_generator(5, "planted", self.name, split)
        labels = (rng.random(40) < 0.5 + 0.45 * self.level).astype(np.int64)
        return LabelledImages(rng.integers(0, 256, (40, toys.SIZE, toys.SIZE, 3)).astype(np.uint8), labels)


UNSEEN = tuple(PriorTask(f"unseen-{number}", level) for number, level in enumerate((-0.9, -0.7, 0.7, 0.9)))


def planted(folder: Path, lora: LoraSpec = toys.LORA, tasks: int = 12) -> SeenTasks:
    """The seen tasks of the planted tasks, fine-tuned."""
    backbone = toys.backbone(lora=lora)
    seen = [PriorTask(f"seen-{number}", float(level)) for number, level in enumerate(np.linspace(-1, 1, tasks))]
    data = FeatureCache(backbone, seen, FINETUNE.batch)
    zoo = build_zoo(folder, backbone, seen, "planted", config=FINETUNE, features=data)
    descriptions = [task.description for task in seen]
    encoder = fit_fusion(descriptions, toys.SCHEMA, backbone.image_features, components=2)
    return SeenTasks(backbone, zoo, descriptions, encoder, {}, data, seed=0)


def with_seed(seen: SeenTasks, seed: int) -> SeenTasks:
    """The same tasks for a training with another seed."""
    return replace(seen, seed=seed)


def accuracy(seen: SeenTasks, source: Source) -> float:
    """Mean accuracy on the unseen tasks, described by their metadata and backgrounds."""
    scores = []
    for task in UNSEEN:
        scores += mean_scores(seen.backbone, test_set(seen.backbone, task), source.sample(task.description, 1, 0))
    return float(np.mean(scores))
