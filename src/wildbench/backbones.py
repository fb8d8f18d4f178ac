"""A small convolutional network for 32-pixel images whose adapters reach two blocks deep, and its pretraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.artifact import Artifact
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.pretrain import PretrainConfig, Pretraining, mirrored, pooled_images, train_classifier
from wildpdiff.backbones.registry import restored
from wildpdiff.backbones.savanna_cnn import RectifiedNorm
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.task import ImageTask

WIDTH = 48
BLOCKS = 2
NECK = 12
"""Values of the embedding before the classifier."""


class SpatialBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022): depthwise convolution, then normalise, widen, rectify, narrow, add.

    The two linear layers are the ones that adapters attach to; the depthwise convolution is shared by all tasks.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, width)

    def forward(self, inputs: Float[Tensor, "n f h w"]) -> Float[Tensor, "n f h w"]:
        """Mix neighbouring positions, then channels."""
        mixed = inputs + self.depthwise(inputs)
        # Positions become rows: with one weight matrix a task, a batched product of rows is the only fast one.
        rows = mixed.flatten(2).transpose(1, 2).flatten(0, 1)
        rows = rows + self.project(torch.relu(self.expand(self.norm(rows))))
        result: Tensor = rows.unflatten(0, (inputs.shape[0], -1)).transpose(1, 2).unflatten(2, inputs.shape[2:])
        return result


class SmallCNN(nn.Module):
    """Three strided convolutions (the stem), two blocks that adapters attach to, a narrow embedding, a classifier.

    The embedding keeps little that the pretraining had no use for, so that a classifier alone cannot reach it.
    """

    def __init__(self, classes: int, neck: int = NECK, width: int = WIDTH) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(64, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = RectifiedNorm(32)
        self.bn2 = RectifiedNorm(64)
        self.bn3 = RectifiedNorm(width)
        self.blocks = nn.ModuleList(SpatialBlock(width) for _ in range(BLOCKS))
        self.neck = nn.Linear(width, neck)
        self.norm = nn.LayerNorm(neck)
        self.classifier = nn.Linear(neck, classes)

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Preprocessed images to logits, on maps of an eighth of the height and width."""
        features = self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(inputs))))))
        for block in self.blocks:
            features = block(features)
        logits: Tensor = self.classifier(self.norm(self.neck(torch.relu(features).flatten(2).mean(2))))
        return logits


SMALL_LORA = LoraSpec(
    rank=8,
    alpha=8.0,
    target_modules=(
        *(f"blocks.{number}.{part}" for number in range(BLOCKS) for part in ("expand", "project")),
        "neck",
    ),
    modules_to_save=("classifier",),
)

NEW_PARTS = ("neck.", "norm.", "classifier.")
"""Parts that :func:`retrain_neck` trains."""


def small_cnn(artifact: Artifact) -> Backbone:
    """A stored :class:`SmallCNN`; an entry point of the group ``wildpdiff.architectures``."""
    neck = len(artifact.tensors["weights"]["neck.weight"])
    return restored(artifact, SmallCNN(len(artifact.config["classes"]), neck))


def pretrain_small_cnn(
    tasks: Sequence[ImageTask],
    classes: Sequence[str],
    image_size: int,
    config: PretrainConfig,
    *,
    neck: int = NECK,
    mirror: bool = False,
    name: str = "small-cnn",
    progress: Callable[[int, int], None] | None = None,
) -> Pretraining:
    """Train a :class:`SmallCNN` on the pooled images of the pretraining tasks.

    Images are moved by up to two pixels at random and, with ``mirror``, mirrored. Raises ``DataError`` without tasks
    or with a class that has no image.
    """
    data = pooled_images(tasks)
    module = _untrained(len(classes), neck, sub_seed(config.seed, "backbone", "weights"))

    def augment(values: Tensor, generator: torch.Generator) -> Tensor:
        moved = _moved(values, generator)
        return mirrored(moved, generator) if mirror else moved

    losses, steps = train_classifier(module, data, config, augment=augment, progress=progress)
    backbone = Backbone.wrap(module, name=name, classes=classes, image_size=image_size, lora=SMALL_LORA)
    return Pretraining(backbone, losses, steps)


def retrain_neck(
    backbone: Backbone,
    tasks: Sequence[ImageTask],
    classes: Sequence[str],
    *,
    neck: int,
    epochs: int,
    seed: int = 0,
    name: str = "small-cnn",
    progress: Callable[[int, int], None] | None = None,
) -> Pretraining:
    """A :class:`SmallCNN` with another embedding and classifier, all else as it was.

    Args:
        backbone: a small network, for example one that was trained on more classes.
        tasks: training tasks of the new parts.
        classes: of the new classifier.
        neck: values of the new embedding.
        epochs: of training.
        seed: of weights and batches.
        name: of the new backbone.
        progress: called with (steps done, in all).

    Raises:
        DataError: no tasks, or a class that has no image.
    """
    data = pooled_images(tasks)
    module = _untrained(len(classes), neck, sub_seed(seed, "backbone", "neck"))
    kept = {key: value for key, value in backbone.module.state_dict().items() if not key.startswith(NEW_PARTS)}
    module.load_state_dict({**module.state_dict(), **kept})
    for key, value in module.named_parameters():
        value.requires_grad_(key.startswith(NEW_PARTS))
    losses, steps = train_classifier(
        module, data, PretrainConfig(epochs, seed=seed), augment=mirrored, progress=progress
    )
    changed = Backbone.wrap(module, name=name, classes=classes, image_size=backbone.image_size, lora=backbone.lora)
    return Pretraining(changed.with_framing(backbone.framing), losses, steps)


def _untrained(classes: int, neck: int, seed: int) -> SmallCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallCNN(classes, neck)


def _moved(values: Tensor, generator: torch.Generator) -> Tensor:
    """A batch moved by up to two pixels along each axis, another move for every batch; the border is repeated."""
    across, down = torch.randint(0, 5, (2,), generator=generator).tolist()
    padded = nn.functional.pad(values, (2, 2, 2, 2), mode="replicate")
    return padded[:, :, down : down + values.shape[2], across : across + values.shape[3]]
