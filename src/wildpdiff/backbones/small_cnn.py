"""A small convolutional network for 32-pixel images whose adapters reach two blocks deep."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.backbones.backbone import LoraSpec

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
        self.bn1 = nn.BatchNorm2d(32)
        self.bn2 = nn.BatchNorm2d(64)
        self.bn3 = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(SpatialBlock(width) for _ in range(BLOCKS))
        self.neck = nn.Linear(width, neck)
        self.norm = nn.LayerNorm(neck)
        self.classifier = nn.Linear(neck, classes)

    def stem(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f h8 w8"]:
        """The part that no adapter touches: an eighth of the height and width."""
        hidden = torch.relu(self.bn1(self.conv1(inputs)))
        hidden = torch.relu(self.bn2(self.conv2(hidden)))
        result: Tensor = torch.relu(self.bn3(self.conv3(hidden)))
        return result

    def embed(self, features: Float[Tensor, "n f h w"]) -> Float[Tensor, "n e"]:
        """Stem features to the vector before the classifier."""
        for block in self.blocks:
            features = block(features)
        pooled: Tensor = self.norm(self.neck(torch.relu(features).flatten(2).mean(2)))
        return pooled

    def head(self, features: Float[Tensor, "n f h w"]) -> Float[Tensor, "n c"]:
        """Stem features to logits: the part that adapters touch."""
        logits: Tensor = self.classifier(self.embed(features))
        return logits

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Preprocessed images to logits."""
        return self.head(self.stem(inputs))


SMALL_LORA = LoraSpec(
    rank=8,
    alpha=8.0,
    target_modules=(
        *(f"blocks.{number}.{part}" for number in range(BLOCKS) for part in ("expand", "project")),
        "neck",
    ),
    modules_to_save=("classifier",),
)
