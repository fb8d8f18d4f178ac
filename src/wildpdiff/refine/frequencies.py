"""Corrections for labels that are no random sample of a task, such as a few of every class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.tasks.batch import Batch

SMOOTHING = 0.5
"""Pseudo-count of every class, so that no frequency is zero (Jeffreys' prior)."""


def class_frequencies(
    backbone: Backbone, batch: Batch, tensors: Mapping[str, Tensor] | None = None
) -> Float[Tensor, " c"]:
    """Predicted frequencies of the classes among unlabelled images; positive, sum to 1.

    The mean of the model's probabilities: one step of the EM of Saerens, Latinne & Decaestecker (2002, equation 2.6)
    from the frequencies that the model itself assumes.

    Args:
        batch: at least one image.
    """
    probabilities = backbone.predict(batch, tensors).double().softmax(1)
    counts = probabilities.sum(0) + SMOOTHING
    return (counts / counts.sum()).float()


def label_offsets(labels: Int[Tensor, " n"], frequencies: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
    """Offsets of the logits in the loss, so that labels drawn class by class do not bias the frequencies.

    ``log p_labels(c) - log p_task(c)``: logit adjustment (Menon et al. 2021, "Long-tail learning via logit
    adjustment", equation 9) with the task's own frequencies instead of equal ones. A model trained with it is
    calibrated for the task and not for the labels. Labels with the task's frequencies give zero, but for smoothing.
    """
    counts = torch.bincount(labels, minlength=len(frequencies)).float() + SMOOTHING
    return (counts / counts.sum()).log() - frequencies.log()
