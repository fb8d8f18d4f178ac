"""Species in real camera-trap frames, cropped to the animal: pairs of species, some of them new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor, nn

from wildbench.datasets.species_pairs import (
    CLASSES,
    INDEX,
    Featurise,
    SpeciesPairsConfig,
    new_species,
    species_pairs,
)
from wildbench.domains.domain import Domain, in_groups
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head
from wildpdiff.backbones.image_features import BATCH
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.fit import GeneratorConfig
from wildpdiff.records import truth
from wildpdiff.tasks.description import Images
from wildpdiff.tasks.framing import check_framing
from wildpdiff.tasks.objective import Classification
from wildpdiff.tasks.task import Task

FOLDER = "missouri"
LORA = LoraSpec(4, 4.0, ("mix",), ("classifier",))
COMPONENTS = 64
SIZES = SpeciesPairsConfig()


class CropNetwork(nn.Module):
    """Principal components of EfficientNet-Lite0's embedding, a residual layer that starts at zero, a classifier."""

    def __init__(self, reduce: nn.Linear, classes: int) -> None:
        super().__init__()
        self.reduce = reduce
        self.mix = nn.Linear(reduce.out_features, reduce.out_features)
        self.classifier = nn.Linear(reduce.out_features, classes)
        for part in (*self.mix.parameters(), *self.classifier.parameters()):
            nn.init.zeros_(part)

    def forward(self, embedded: Float[Tensor, "n f"]) -> Float[Tensor, "n c"]:
        """Embeddings of crops to logits."""
        reduced = self.reduce(embedded)
        logits: Tensor = self.classifier(reduced + self.mix(torch.relu(reduced)))
        return logits


def embedded(images: Images) -> Float32[ndarray, "n f"]:
    """EfficientNet-Lite0's embeddings of images, of the weights on ImageNet."""
    trunk = efficientnet_lite0(CLASSES, 0, image_size=images.shape[1])
    parts = [trunk.embedding(trunk.stem(images[at : at + BATCH])) for at in range(0, len(images), BATCH)]
    return torch.cat([part for part in parts if part is not None]).numpy()


def crop_backbone(tasks: Sequence[Task], seed: int) -> Backbone:
    """A :class:`CropNetwork` with components and classifier of the pretraining tasks."""
    pooled = np.unique(np.concatenate([task.data("train").inputs for task in tasks]), axis=0)  # tasks share crops
    network = CropNetwork(principal_components(torch.from_numpy(pooled), COMPONENTS), len(CLASSES)).eval()
    backbone = Backbone.of(network, name="crop-network", lora=LORA, objective=Classification(CLASSES))
    return fit_head(backbone, tasks, seed)


def principal_components(values: Float[Tensor, "n f"], most: int) -> nn.Linear:
    """A layer that gives the principal components of standardised values, each of unit variance."""
    mean, std = values.mean(0), values.std(0, correction=0).clamp_min(1e-3)
    _, sizes, directions = torch.linalg.svd((values - mean) / std, full_matrices=False)
    count = min(most, int((sizes > 1e-3 * sizes[0]).sum()))
    weight = directions[:count] / (sizes[:count, None] / len(values) ** 0.5) / std
    layer = nn.Linear(values.shape[1], count)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(-weight @ mean)
    return layer


def open_missouri(
    data: Path,
    folder: Path,
    seed: int,
    tick: Tick,
    *,
    framing: str = "box",
    named: bool = False,
    featurise: Featurise = embedded,
) -> OpenBenchmark:
    """Suite and backbone.

    Args:
        data: a folder with ``missouri``.
        folder: of the run; not used: the backbone is made in seconds.
        seed: of all draws.
        tick: not used.
        framing: ``box`` crops to the animal; ``whole`` gives the same frames uncut.
        named: whether the species' names are categories of the metadata too.
        featurise: images to the inputs of the tasks.

    Raises:
        DataError: a file is missing or cannot be read, or there are too few species.
    """
    config = replace(SIZES, seed=seed, framing=check_framing(framing), named=named)
    suite = species_pairs(data / FOLDER, featurise, config)
    return OpenBenchmark(
        suite, crop_backbone(suite.pretraining, seed), knobs={**asdict(config), **in_groups(new_species(suite))}
    )


DOMAIN = Domain(
    "missouri",
    "Pairs of species in real camera-trap frames, described by names and traits",
    (f"{FOLDER}/{INDEX}",),
    open_missouri,
    GeneratorConfig(
        parts=("metadata", "examples", "text"),
        task_loss=TaskLossConfig(steps=240, tasks=8, images=12, folds=3, evaluate_every=20, patience=4),
    ),
    remarks=(
        "A sequence is of one camera and one species and lies in one split. A species has one test sequence, which "
        "all its pairs share: intervals over tasks are narrower than those over sequences would be.",
        "The pretrained model is fitted to other pairs, and knows what larger animals look like. Frames without a "
        "known box, and birds of no known species, are left out. Traits are approximate, from common knowledge.",
    ),
    options={"framing": str, "named": truth},
)
