"""A tiny backbone with every kind of adapted layer, and a tiny suite that fine-tuning can solve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.rng import numpy_generator, torch_generator
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.tasks.task import Group, LabelledImages, SplitName
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig

if TYPE_CHECKING:
    from wildpdiff.fit import GeneratorConfig

CLASSES = ("dark", "bright", "striped")
SIZE = 8
SCHEMA = MetadataSchema((MetadataField("level", "number"),))
LORA = LoraSpec(2, 3.0, ("conv3", "conv1", "body"), ("classifier",))
FINETUNE = FinetuneConfig(
    steps=60, batch=8, learning_rate=0.03, warmup=3, checkpoints=5, interval=2, optimizer="adam", train_factor_a=True
)


class ToyNetwork(nn.Module):
    """What is kept, then a 3x3 convolution, a 1x1 convolution and a linear layer for LoRA, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 6, 1)
        self.body = nn.Linear(6, 5)
        self.classifier = nn.Linear(5, len(CLASSES))
        self.relu0 = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.conv1(self.conv3(self.relu0(self.conv0(inputs))).relu()).relu()
        return self.classifier(self.body(hidden.mean((2, 3))).relu())


KEPT = "prefix:relu0"
"""Name of what is kept of an image in a batch."""


def batch(features: Tensor | Batch, labels: Tensor) -> dict[str, Tensor]:
    """Examples with their classes; maps are those that :class:`ToyNetwork` keeps."""
    known = features if isinstance(features, Mapping) else {KEPT if features.ndim == 4 else "inputs": features}
    return {**known, TARGETS: labels}


def relabelled(task: TaskFeatures, train: Tensor | None = None, validation: Tensor | None = None) -> TaskFeatures:
    """The task with other classes."""
    given = {"train": train, "validation": validation}
    changed = {name: batch(getattr(task, name), labels) for name, labels in given.items() if labels is not None}
    return replace(task, **changed)


def network(seed: int = 0) -> ToyNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ToyNetwork()


def backbone(seed: int = 0, lora: LoraSpec = LORA) -> Backbone:
    return Backbone.wrap(network(seed), name="toy", classes=CLASSES, image_size=SIZE, lora=lora)


def random_tensors(of: Backbone, seed: int, scale: float = 0.5) -> dict[str, Tensor]:
    draws = torch_generator(seed, "adapter")
    return {name: scale * torch.randn(shape, generator=draws) for name, shape in sorted(of.shapes.items())}


def random_adapter(of: Backbone, seed: int, scale: float = 0.5) -> Adapter:
    return Adapter(random_tensors(of, seed, scale), of.adapter_config, {"source": "random", "seed": seed})


def random_images(n: int, seed: int = 0) -> np.ndarray:
    return numpy_generator(seed, "images").integers(0, 256, (n, SIZE, SIZE, 3)).astype(np.uint8)


@dataclass(frozen=True)
class ToyTask:
    """Grey pictures; where dark ends and bright begins is the task's ``level``, so that no fixed model is right."""

    name: str
    level: float
    known: bool = True
    sizes: Mapping[str, int] = field(default_factory=lambda: {"train": 48, "validation": 12, "test": 24})

    @property
    def description(self) -> Description:
        rng = numpy_generator(3, "toy backgrounds", self.name)
        grey = rng.integers(0, 60, (4, SIZE, SIZE, 3)) + self.level
        return Description(
            metadata={"level": self.level},
            backgrounds=np.clip(grey, 0, 255).astype(np.uint8),
            task_id=self.name if self.known else None,
        )

    def data(self, split: SplitName) -> LabelledImages:
        rng = numpy_generator(3, "toy", self.name, split)
        n = self.sizes[split]
        value = rng.integers(20, 236, n)
        striped = rng.random(n) < 0.3
        images = np.broadcast_to(value[:, None, None, None], (n, SIZE, SIZE, 3)) + rng.integers(
            -15, 16, (n, SIZE, SIZE, 3)
        )
        images[striped, ::2] = 255 - images[striped, ::2]
        labels = np.where(striped, 2, (value > self.level).astype(np.int64))
        return LabelledImages(np.clip(images, 0, 255).astype(np.uint8), labels.astype(np.int64))


LEVELS = (60.0, 90.0, 120.0, 150.0, 180.0)
MORE_LEVELS = tuple(60.0 + 10 * number for number in range(12))
"""Of enough seen tasks for a posterior."""


@dataclass(frozen=True)
class ToySuite:
    """Three unseen toy tasks and, by default, five seen ones."""

    name: str = "toy"
    classes: tuple[str, ...] = CLASSES
    image_size: int = SIZE
    metadata_schema: MetadataSchema = SCHEMA
    fingerprint: str = "toy-suite-1"
    seen: tuple[float, ...] = LEVELS

    def tasks(self, group: Group) -> tuple[ToyTask, ...]:
        levels = {"pretraining": (), "seen": self.seen, "unseen": (75.0, 105.0, 165.0)}[group]
        return tuple(ToyTask(f"{group}-{i}", level, group == "seen") for i, level in enumerate(levels))


@dataclass(frozen=True)
class FixedTask:
    """Images and labels as given, the same in every split."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    description: Description = field(default_factory=Description)

    def data(self, split: SplitName) -> LabelledImages:
        return LabelledImages(self.images, self.labels.astype(np.int64))


def generator_config() -> GeneratorConfig:
    """Imported late: a test looks at what is loaded on the way from a saved generator to an adapter."""
    from wildpdiff.diffusion.fit import DiffusionConfig
    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.posterior.sampling import Sampling

    diffusion = DiffusionConfig(size="tiny", steps=150, batch=32, learning_rate=3e-3)
    parts = ("metadata", "backgrounds")
    return GeneratorConfig(parts=parts, components=3, diffusion=diffusion, sampling=Sampling(steps=6))


def latents_config() -> GeneratorConfig:
    """Without a conditional mean: a diffusion over latents carries the condition, as in the paper."""
    return replace(generator_config(), kernel_mean=False, centering=False)


def posterior_config() -> GeneratorConfig:
    """Of a generator with a small posterior."""
    from wildpdiff.conditional_mean.correction import TaskLossConfig
    from wildpdiff.posterior.decoder import CodeConfig
    from wildpdiff.posterior.fit import PosteriorFitConfig
    from wildpdiff.posterior.maximum_a_posteriori import MapConfig

    config = generator_config()
    task_loss = TaskLossConfig(steps=30, tasks=6, images=8, folds=3, hidden=12, directions=4, evaluate_every=10)
    search = MapConfig(steps=10, batch=16, learning_rate=0.25)
    posterior = PosteriorFitConfig(
        directions=6, scales=(0.5, 1.0), search=search, codes=CodeConfig(steps=20, directions=6)
    )
    diffusion = replace(config.diffusion, steps=40)
    return replace(config, task_loss=task_loss, posterior=posterior, diffusion=diffusion)
