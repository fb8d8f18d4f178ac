"""One adapter of several candidates for a task, such as samples of a generator: by a few labels, or without labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.refine.cross_validation import TaskStarts
from wildpdiff.refine.starts import StartingPoint
from wildpdiff.tasks.description import Images
from wildpdiff.zoo.features import TaskFeatures

TOGETHER = 256
"""Images that are looked at in one pass."""


def choose_by_labels(
    backbone: Backbone, adapters: Sequence[Adapter], labelled: TaskFeatures, unlabelled: Tensor | None = None
) -> int:
    """Index of the adapter under which the labels are most probable.

    Cross-entropy with logits offset for labels that are no random sample
    (:func:`~wildpdiff.refine.frequencies.label_offsets`), as in refining.

    Args:
        backbone: the frozen model.
        adapters: the candidates.
        labelled: the labelled images as training images, behind the stem.
        unlabelled: more images of the task behind the stem, ``[n, …]``; without them the labels are taken as a random
            sample of the task.

    Raises:
        DataError: there is no candidate or no label.
        AdapterMismatchError: a candidate is of another backbone.
    """
    if not len(labelled.train_labels):
        raise DataError(f"Task {labelled.name!r} has no labels to choose by. Label at least one image.")
    _check(backbone, adapters)
    starts = [StartingPoint(f"candidate {number}", adapter, None) for number, adapter in enumerate(adapters)]
    losses = TaskStarts.of(backbone, labelled, starts, unlabelled).losses(backbone)
    return int(losses.nan_to_num(nan=math.inf).argmin())


def choose_by_unlabelled(backbone: Backbone, adapters: Sequence[Adapter], images: Images | Tensor) -> int:
    """Index of the adapter that is most certain of the images, corrected for class frequencies; see :func:`certainty`.

    Args:
        backbone: the frozen model.
        adapters: the candidates.
        images: of the task, ``uint8 [n, h, w, 3]``, or behind the stem.

    Raises:
        DataError: there is no candidate or no image, or images are not of the backbone's size.
        AdapterMismatchError: a candidate is of another backbone.
    """
    if not len(images):
        raise DataError("There are no images to choose by. Give at least one of the task.")
    _check(backbone, adapters)
    features = images if isinstance(images, Tensor) else backbone.stem(images)
    with torch.inference_mode():  # unchecked: a candidate whose logits are not finite is passed over, not refused
        parts = torch.split(features, TOGETHER)
        logits = [torch.cat([backbone.logits(part, entry.tensors) for part in parts]) for entry in adapters]
    return int(certainty(torch.stack(logits)).nan_to_num(nan=-math.inf).argmax())


def certainty(logits: Float[Tensor, "a n c"]) -> Float[Tensor, " a"]:
    """Of each of several models on some images, in nats; at most 0.

    Less the mean entropy of the predictions (a model fits a task on which it is certain, Wang et al. 2021), less the
    Kullback-Leibler divergence of the model's class frequencies from those of all models together: a model that is
    certain of one class for every image is not preferred.
    """
    logs = logits.double().log_softmax(-1)
    probabilities = logs.exp()
    frequencies = probabilities.mean(1).clamp_min(1e-12)
    common = frequencies.nanmean(0)
    divergence = (common * (common.log() - frequencies.log())).sum(-1)
    return (probabilities * logs).sum(-1).mean(1) - divergence


def _check(backbone: Backbone, adapters: Sequence[Adapter]) -> None:
    if not adapters:
        raise DataError("There are no candidates to choose among. Give at least one adapter.")
    for adapter in adapters:
        backbone.check(adapter)
