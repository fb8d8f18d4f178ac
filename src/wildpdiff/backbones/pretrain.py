"""Pretraining of the bundled backbone on the pretraining tasks of a suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN
from wildpdiff.errors import DataError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.task import ImageTask, LabelledImages
from wildpdiff.training import train


@dataclass(frozen=True)
class PretrainConfig:
    """Epochs, images a step, peak of the learning rate, and the seed of weights and of the order of images."""

    epochs: int = 6
    batch: int = 128
    learning_rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Pretraining:
    """A pretrained backbone.

    Attributes:
        backbone: the frozen model.
        losses: mean training loss of each epoch.
        steps: optimiser steps taken.
    """

    backbone: Backbone
    losses: tuple[float, ...]
    steps: int


def pooled_images(tasks: Sequence[ImageTask]) -> LabelledImages:
    """The training images of all tasks; raises ``DataError`` without tasks or with images of fewer than two classes.

    A class of the suite may have none: rare species are seen at few cameras, and adapters learn them there.
    """
    if not tasks:
        raise DataError("The suite has no pretraining tasks. Configure some, or give pretrained weights.")
    parts = [task.data("train") for task in tasks]
    labels = np.concatenate([part.labels for part in parts])
    if len(set(labels.tolist())) < 2:
        raise DataError(f"The {len(labels)} pretraining images are of fewer than two classes. Give more cameras.")
    return LabelledImages(np.concatenate([part.images for part in parts]), labels)


def pretrain_savanna_cnn(
    tasks: Sequence[ImageTask],
    classes: Sequence[str],
    image_size: int,
    config: PretrainConfig = PretrainConfig(),
    *,
    name: str = "savanna-cnn",
    progress: Callable[[int, int], None] | None = None,
) -> Pretraining:
    """Train the bundled architecture on the pooled images of the pretraining locations, mirrored at random.

    AdamW with a one-cycle learning rate. Raises ``DataError`` without tasks or with images of fewer than two classes.
    """
    data = pooled_images(tasks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(config.seed, "backbone", "weights"))
        module = SavannaCNN(len(classes))
    losses, steps = train_classifier(module, data, config, augment=mirrored, progress=progress)
    backbone = Backbone.wrap(module, name=name, classes=classes, image_size=image_size, lora=SAVANNA_LORA)
    return Pretraining(backbone, losses, steps)


def train_classifier(
    module: nn.Module,
    data: LabelledImages,
    config: PretrainConfig,
    *,
    augment: Callable[[Tensor, torch.Generator], Tensor],
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[float, ...], int]:
    """Train in place by AdamW with a one-cycle learning rate; returns the loss of each epoch and the steps."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU
    generator = torch_generator(config.seed, "backbone", "batches")
    optimizer = torch.optim.AdamW(
        [value for value in module.parameters() if value.requires_grad], lr=config.learning_rate, weight_decay=0.05
    )
    batch = min(config.batch, len(data))
    per_epoch = len(data) // batch
    steps = config.epochs * per_epoch
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=max(2, steps), pct_start=0.2
    )
    labels = torch.from_numpy(data.labels)
    module.train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad:
            part.eval()

    def batches() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            order = torch.randperm(len(data), generator=generator)
            yield from (order[i * batch : (i + 1) * batch] for i in range(per_epoch))

    rows_of = batches()

    def objective() -> Tensor:
        rows = next(rows_of)
        return cross_entropy(module(augment(_normalised(data.images[rows.numpy()]), generator)), labels[rows])

    losses = train(optimizer, objective, steps, name="backbone", schedule=cycle, progress=progress)
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return tuple(sum(part.tolist()) / per_epoch for part in torch.split(losses, per_epoch)), steps


def _normalised(images: np.ndarray) -> Tensor:
    """Preprocess a batch as :meth:`Backbone.preprocess` does."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255.0).sub_(0.5).div_(0.25)


def mirrored(values: Tensor, generator: torch.Generator) -> Tensor:
    """Half of a batch mirrored."""
    mirrored = torch.rand(len(values), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), values.flip(3), values)
