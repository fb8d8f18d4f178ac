"""Labels that are no random sample of a task: a few of every class, where the classes are not equally frequent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone

SMOOTHING = 0.5
"""Images of every class that are counted on top, so that no frequency is zero (Jeffreys' prior)."""


def class_frequencies(
    backbone: Backbone, features: Tensor, tensors: Mapping[str, Tensor] | None = None
) -> Float[Tensor, " c"]:
    """How frequent a model thinks each class is among unlabelled images; positive, sums to 1.

    The mean of the model's probabilities: one step of the EM of Saerens, Latinne & Decaestecker (2002, equation 2.6)
    from the frequencies that the model itself assumes.

    Args:
        backbone: the frozen model.
        features: the images behind the stem, ``[n, …]``; at least one.
        tensors: of the adapter; the pretrained model where left out.
    """
    probabilities = backbone.predict(features, tensors).double().softmax(1)
    counts = probabilities.sum(0) + SMOOTHING
    return (counts / counts.sum()).float()


def label_offsets(labels: Int[Tensor, " n"], frequencies: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
    """What is added to the logits in the loss, so that labels drawn class by class teach nothing false of frequencies.

    ``log p_labels(c) - log p_task(c)``: logit adjustment (Menon et al. 2021, "Long-tail learning via logit
    adjustment", equation 9) with the task's own frequencies in the place of equal ones. A model trained with it is
    calibrated for the task and not for the labels. Labels with the task's frequencies give zero, but for smoothing.
    """
    counts = torch.bincount(labels, minlength=len(frequencies)).float() + SMOOTHING
    return (counts / counts.sum()).log() - frequencies.log()
