"""Alignment of two tasks' adapters: the paper's "well-structured subspaces" as numbers.

Higher is better aligned. All need the tasks' adapters; :func:`connectivity` also needs labelled images of both, which
seen tasks have. No test image is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.tasks.batch import concatenate
from wildpdiff.tasks.objective import of_many
from wildpdiff.zoo.features import TaskFeatures

ALIGNMENTS: Mapping[str, str] = {
    "connectivity": (
        "linear mode connectivity: the share of both tasks' gain on their training and validation images that the "
        "midpoint of their adapters keeps"
    ),
    "cosine": "cosine between the displacements of the two adapters by fine-tuning",
    "principal angles": "mean squared cosine of the principal angles between the column spaces of the two ΔW",
}
"""Definition of each measure."""

LEAST_GAIN = 0.02


def _moved(adapter: Adapter, initial: Adapter) -> Float[Tensor, " d"]:
    return torch.cat([(adapter.tensors[name] - value).flatten() for name, value in sorted(initial.tensors.items())])


def cosine(first: Adapter, second: Adapter, initial: Adapter) -> float:
    """Cosine between the displacements of two adapters from their shared initialisation, -1 to 1."""
    return float(torch.nn.functional.cosine_similarity(_moved(first, initial), _moved(second, initial), dim=0))


def principal_angles(first: Adapter, second: Adapter) -> float:
    """Mean squared cosine of the principal angles between the column spaces of ``ΔW = B A``, over the LoRA modules.

    The column space of ΔW is that of B (Björck & Golub 1973: the singular values of ``Q_1ᵀ Q_2`` are the cosines).
    1 where both tasks write into the same directions, ``rank / rows`` on average for unrelated directions.
    """
    shares = []
    for name, value in sorted(first.tensors.items()):
        if ".lora_B." in name:
            bases = [torch.linalg.qr(entry.flatten(1).double()).Q for entry in (value, second.tensors[name])]
            shares.append(torch.linalg.svdvals(bases[0].T @ bases[1]).square().mean())
    return float(torch.stack(shares).mean()) if shares else 0.0


def midpoint(first: Adapter, second: Adapter) -> Adapter:
    """Half way between two adapters, tensor by tensor."""
    tensors = {name: (value + second.tensors[name]) / 2 for name, value in first.tensors.items()}
    return Adapter(tensors, first.config, {"source": "midpoint"})


def connectivity(
    backbone: Backbone,
    tasks: tuple[TaskFeatures, TaskFeatures],
    adapters: tuple[Adapter, Adapter],
    initial: Adapter,
) -> float:
    """Share of the two tasks' gain over the pretrained model that the midpoint of their adapters keeps.

    Linear mode connectivity (Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis") in
    units of the gain: 1 is no barrier, 0 as bad as the pretrained model. Measured on the training and
    validation images, pooled over both tasks; a gain below 2 points counts as 2 points.
    """
    middle = midpoint(*adapters)
    gained = kept = 0.0
    for task, own in zip(tasks, adapters, strict=True):
        batch = concatenate([task.train, task.validation])
        stacked = {name: torch.stack([entry.tensors[name] for entry in (initial, own, middle)]) for name in own.tensors}
        outputs = backbone.predict_many(batch, stacked)
        before, after, between = of_many(backbone.objective.score, outputs, batch).double().mean(1).tolist()
        gained += after - before
        kept += between - before
    return kept / max(gained, LEAST_GAIN)
