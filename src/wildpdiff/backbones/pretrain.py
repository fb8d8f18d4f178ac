"""Pretraining of the bundled backbone on the suite's pretraining locations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.savanna_cnn import SAVANNA_LORA, SavannaCNN
from wildpdiff.backbones.small_cnn import NECK, SMALL_LORA, SmallCNN
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.task import LabelledImages, Task

NEW_PARTS = ("neck.", "norm.", "classifier.")
"""What :func:`retrain_neck` trains."""


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


def _pooled(tasks: Sequence[Task], classes: int) -> LabelledImages:
    if not tasks:
        raise DataError("The suite has no pretraining tasks. Configure some, or give pretrained weights.")
    parts = [task.data("train") for task in tasks]
    labels = np.concatenate([part.labels for part in parts])
    missing = sorted(set(range(classes)) - set(labels.tolist()))
    if missing:
        raise DataError(f"The pretraining tasks have no image of class {missing[0]}. Use more locations or images.")
    return LabelledImages(np.concatenate([part.images for part in parts]), labels)


def pretrain_savanna_cnn(
    tasks: Sequence[Task],
    classes: Sequence[str],
    image_size: int,
    *,
    epochs: int = 6,
    batch: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
    name: str = "savanna-cnn",
    progress: Callable[[int, int], None] | None = None,
) -> Pretraining:
    """Train the bundled architecture on the pooled images of the pretraining locations, mirrored at random.

    AdamW with a one-cycle learning rate. Raises ``DataError`` without tasks or with a class that has no image.
    """
    data = _pooled(tasks, len(classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "backbone", "weights"))
        module = SavannaCNN(len(classes))
    losses, steps = _train(module, data, epochs, batch, learning_rate, seed, _mirrored, progress)
    backbone = Backbone.wrap(module, name=name, classes=classes, image_size=image_size, lora=SAVANNA_LORA)
    return Pretraining(backbone, losses, steps)


def pretrain_small_cnn(
    tasks: Sequence[Task],
    classes: Sequence[str],
    image_size: int,
    *,
    epochs: int,
    neck: int = NECK,
    lora: LoraSpec = SMALL_LORA,
    mirror: bool = False,
    batch: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    name: str = "small-cnn",
    progress: Callable[[int, int], None] | None = None,
) -> Pretraining:
    """Train a :class:`~wildpdiff.backbones.small_cnn.SmallCNN` on the pooled images of the pretraining tasks.

    Images are moved by up to two pixels at random, and mirrored where ``mirror`` says so. Raises ``DataError`` without
    tasks or with a class that has no image.
    """
    data = _pooled(tasks, len(classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "backbone", "weights"))
        module = SmallCNN(len(classes), neck)

    def augment(values: Tensor, generator: torch.Generator) -> Tensor:
        moved = _moved(values, generator)
        return _mirrored(moved, generator) if mirror else moved

    losses, steps = _train(module, data, epochs, batch, learning_rate, seed, augment, progress)
    backbone = Backbone.wrap(module, name=name, classes=classes, image_size=image_size, lora=lora)
    return Pretraining(backbone, losses, steps)


def retrain_neck(
    backbone: Backbone,
    tasks: Sequence[Task],
    classes: Sequence[str],
    *,
    neck: int,
    epochs: int,
    seed: int = 0,
    name: str = "small-cnn",
    progress: Callable[[int, int], None] | None = None,
) -> Pretraining:
    """A :class:`~wildpdiff.backbones.small_cnn.SmallCNN` with another embedding and classifier, all else as it was.

    Args:
        backbone: a small network, for example one that was trained on more classes.
        tasks: what the new parts are trained on.
        classes: of the new classifier.
        neck: values of the new embedding.
        epochs: of training.
        seed: of weights and batches.
        name: of the new backbone.
        progress: called with (steps done, in all).

    Raises:
        DataError: no tasks, or a class that has no image.
    """
    data = _pooled(tasks, len(classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "backbone", "neck"))
        module = SmallCNN(len(classes), neck)
    kept = {key: value for key, value in backbone.module.state_dict().items() if not key.startswith(NEW_PARTS)}
    module.load_state_dict({**module.state_dict(), **kept})
    for key, value in module.named_parameters():
        value.requires_grad_(key.startswith(NEW_PARTS))
    losses, steps = _train(module, data, epochs, 128, 2e-3, seed, _mirrored, progress)
    made = Backbone.wrap(module, name=name, classes=classes, image_size=backbone.image_size, lora=backbone.lora)
    return Pretraining(made, losses, steps)


def _train(
    module: nn.Module,
    data: LabelledImages,
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
    augment: Callable[[Tensor, torch.Generator], Tensor],
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[float, ...], int]:
    """Train in place by AdamW with a one-cycle learning rate; returns the loss of each epoch and the steps."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU
    generator = torch_generator(seed, "backbone", "batches")
    optimizer = torch.optim.AdamW(
        [value for value in module.parameters() if value.requires_grad], lr=learning_rate, weight_decay=0.05
    )
    batch = min(batch, len(data))
    per_epoch = len(data) // batch
    steps = epochs * per_epoch
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(2, steps), pct_start=0.2)
    labels = torch.from_numpy(data.labels)
    losses: list[float] = []
    module.train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and not part.weight.requires_grad:
            part.eval()
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        total = 0.0
        for i in range(per_epoch):
            rows = order[i * batch : (i + 1) * batch]
            loss = cross_entropy(module(augment(_normalised(data.images[rows.numpy()]), generator)), labels[rows])
            if not bool(torch.isfinite(loss)):
                raise TrainingError(
                    f"The pretraining loss is not finite in epoch {epoch + 1}. Lower the learning rate."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
            total += float(loss.detach())
            if progress is not None:
                progress(epoch * per_epoch + i + 1, steps)
        losses.append(total / max(1, per_epoch))
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return tuple(losses), steps


def _normalised(images: np.ndarray) -> Tensor:
    """Preprocess a batch as :meth:`Backbone.preprocess` does."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255.0).sub_(0.5).div_(0.25)


def _mirrored(values: Tensor, generator: torch.Generator) -> Tensor:
    """Half of a batch mirrored."""
    mirrored = torch.rand(len(values), generator=generator) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), values.flip(3), values)


def _moved(values: Tensor, generator: torch.Generator) -> Tensor:
    """A batch moved by up to two pixels along each axis, another move for every batch; the border is repeated."""
    across, down = torch.randint(0, 5, (2,), generator=generator).tolist()
    padded = nn.functional.pad(values, (2, 2, 2, 2), mode="replicate")
    return padded[:, :, down : down + values.shape[2], across : across + values.shape[3]]
