"""The bundled backbone: a small convolutional network for 40-pixel camera-trap images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wildpdiff.backbones.backbone import LoraSpec

WIDTH = 96
MIXING_BLOCKS = 2


class PointwiseBlock(nn.Module):
    """Normalise, widen, rectify, narrow, add: the channel half of a ConvNeXt block (Liu et al. 2022), channels last.

    It mixes no positions, which makes it cheap to run with another adapter for every task in one batch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, width)

    def forward(self, inputs: Float[Tensor, "*positions f"]) -> Float[Tensor, "*positions f"]:
        """Update every position alone."""
        update: Tensor = self.project(torch.relu(self.expand(self.norm(inputs))))
        return inputs + update


class MixingBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022) on a channels-last map: depthwise convolution, then the pointwise block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = PointwiseBlock(width)

    def forward(self, inputs: Float[Tensor, "n h w f"]) -> Float[Tensor, "n h w f"]:
        """Mix neighbouring positions, then channels."""
        mixed = self.depthwise(inputs.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        result: Tensor = self.pointwise(inputs + mixed)
        return result


class RectifiedNorm(nn.BatchNorm2d):
    """Batch normalisation and ReLU in one module, whose output is kept where no adapter changes it."""

    def forward(self, inputs: Float[Tensor, "n f h w"]) -> Float[Tensor, "n f h w"]:
        """Normalise and rectify."""
        return torch.relu(super().forward(inputs))


class SavannaCNN(nn.Module):
    """Three strided convolutions and two mixing blocks, one pointwise block, pooling, a classifier.

    Adapters attach to the pointwise block and the classifier. Pooling adds mean and maximum over positions, since an
    animal far away fills one cell of the map.
    """

    def __init__(self, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 3, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width // 3, 2 * width // 3, 3, stride=2, padding=1, bias=False)
        self.conv3 = nn.Conv2d(2 * width // 3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = RectifiedNorm(width // 3)
        self.bn2 = RectifiedNorm(2 * width // 3)
        self.bn3 = RectifiedNorm(width)
        self.mixing = nn.Sequential(*(MixingBlock(width) for _ in range(MIXING_BLOCKS)))
        # A coarser map costs little accuracy and makes every step of every fine-tuning almost three times cheaper.
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.adapted = PointwiseBlock(width)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Preprocessed images to logits."""
        hidden = self.bn3(self.conv3(self.bn2(self.conv2(self.bn1(self.conv1(inputs))))))
        features = self.pool(self.mixing(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        # Positions become rows: with one weight matrix a task, a batched product of rows is the only fast one.
        rows = features.flatten(2).transpose(1, 2).flatten(0, 1)
        adapted = self.norm(self.adapted(rows)).unflatten(0, (features.shape[0], -1))
        logits: Tensor = self.classifier(adapted.mean(1) + adapted.amax(1))
        return logits


SAVANNA_LORA = LoraSpec(
    rank=4, alpha=4.0, target_modules=("adapted.expand", "adapted.project"), modules_to_save=("classifier",)
)
