"""Cross-validation on the seen tasks of exactly what a generator delivers, next to every simpler estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.score_table import DELIVERED, CrossValidation, MethodScore
from wildpdiff.conditional_mean.task_images import TaskImages

MOST_IMAGES = 256
TASKS_AT_ONCE = 16
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Divisors of the logits at which losses are compared."""


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of adapters that were made without the task they are scored on.

    Attributes:
        loss: mean cross-entropy by task.
        accuracy: share of right answers by task, 0 to 1.
        images: scored a task, the median.
    """

    loss: Float[Tensor, " t"]
    accuracy: Float[Tensor, " t"]
    images: int


def score_held_out(
    backbone: Backbone,
    codec: Codec,
    vectors: Float[Tensor, "t d"],
    images: TaskImages,
    tasks: Sequence[int] | None = None,
    *,
    validation: bool = False,
) -> HeldOutScores:
    """Scores of one normalised adapter a task, on images of the task that no other task learns from.

    Args:
        backbone: the frozen model.
        codec: of the adapters.
        vectors: normalised adapters, each made without its task.
        images: of the tasks.
        tasks: which are scored; all by default.
        validation: score on the task's validation images, which its own adapter was not trained on.
    """
    numbers = list(range(len(vectors))) if tasks is None else list(tasks)
    losses, rights = torch.zeros(len(numbers)), torch.zeros(len(numbers))
    tensors = codec.layout.unflatten(codec.decode(vectors))
    counts = []
    with torch.no_grad():
        for row, number in enumerate(numbers):
            inputs, labels = images.judged(number, MOST_IMAGES, validation=validation)
            logits = backbone.logits(inputs, {name: value[number] for name, value in tensors.items()})
            losses[row] = cross_entropy(logits, labels)
            rights[row] = (logits.argmax(1) == labels).float().mean()
            counts.append(len(labels))
    return HeldOutScores(losses, rights, int(np.median(counts)))


def tempered_losses(
    backbone: Backbone, codec: Codec, vectors: Float[Tensor, "t d"], images: TaskImages, tasks: Int[Tensor, " s"],
    most: int,
) -> Float[Tensor, "k s"]:  # fmt: skip
    """Mean cross-entropy of some tasks' normalised adapters at each of :data:`TEMPERATURES`, on the same images always.

    Args:
        backbone: the frozen model.
        codec: of the adapters.
        vectors: normalised adapters, one a task.
        images: of the tasks.
        tasks: which are scored.
        most: images a task.
    """
    found = []
    with torch.no_grad():
        for part in torch.split(tasks, TASKS_AT_ONCE):
            batch = images.fixed(part, most)
            tensors = codec.layout.unflatten(codec.decode(vectors[part]))
            logits = torch.func.vmap(lambda x, adapter: backbone.logits(x, adapter))(batch.inputs, tensors)
            losses = [cross_entropy((logits / value).flatten(0, 1), batch.labels.flatten(), reduction="none")
                      for value in TEMPERATURES]  # fmt: skip
            found.append(torch.stack(losses).view(len(TEMPERATURES), *batch.labels.shape).mean(2))
    return torch.cat(found, dim=1)


def tabulate(
    scores: Mapping[str, HeldOutScores], weights: Mapping[str, float], delivered: HeldOutScores
) -> CrossValidation:
    """The table.

    Args:
        scores: of every method that what is delivered is compared with.
        weights: of the methods that it is made of.
        delivered: of what is delivered.
    """
    from scipy.special import stdtrit  # late: reading a generator that holds a table needs no scipy

    rows = []
    for name, own in (*scores.items(), (DELIVERED, delivered)):
        leads = 100 * (delivered.accuracy - own.accuracy).double().numpy()
        lead, reach = float(leads.mean()), 200.0
        if len(leads) > 1:
            reach = float(stdtrit(len(leads) - 1, 0.975) * np.std(leads, ddof=1) / len(leads) ** 0.5)
        accuracy, loss = 100 * float(own.accuracy.double().mean()), float(own.loss.double().mean())
        low, high = max(lead - reach, -100.0), min(lead + reach, 100.0)
        rows.append(MethodScore(name, accuracy, loss, lead, low, high, weights.get(name)))
    return CrossValidation(tuple(rows), len(delivered.loss), delivered.images)
