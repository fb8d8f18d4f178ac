"""One adapter of several candidates for a task, such as samples of a generator: by a few labels, or without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.refine.cross_validation import TaskStarts
from wildpdiff.refine.starts import StartingPoint
from wildpdiff.tasks.description import Images
from wildpdiff.zoo.features import TaskFeatures

__all__ = ["choose_by_labels", "choose_by_unlabelled", "information"]


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
    return int(TaskStarts.of(backbone, labelled, starts, unlabelled).losses(backbone).argmin())


def choose_by_unlabelled(backbone: Backbone, adapters: Sequence[Adapter], images: Images | Tensor) -> int:
    """Index of the adapter whose predictions have the most information about the images; see :func:`information`.

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
    stacked = {name: torch.stack([entry.tensors[name] for entry in adapters]) for name in adapters[0].tensors}
    return int(information(backbone.predict_many(features, stacked)).argmax())


def information(logits: Float[Tensor, "a n c"]) -> Float[Tensor, " a"]:
    """Of each model's predictions about some images, in nats.

    Entropy of the mean prediction less the mean entropy of the predictions (Bridle, Heading & MacKay 1991): a certain
    model scores high, unless it is certain of one class for every image.
    """
    logs = logits.double().log_softmax(-1)
    mean = logs.exp().mean(1)
    return -(mean * mean.clamp_min(1e-12).log()).sum(-1) + (logs.exp() * logs).sum(-1).mean(1)


def _check(backbone: Backbone, adapters: Sequence[Adapter]) -> None:
    if not adapters:
        raise DataError("There are no candidates to choose among. Give at least one adapter.")
    for adapter in adapters:
        backbone.check(adapter)
