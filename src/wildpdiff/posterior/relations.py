"""Which seen tasks need like adapters though their descriptions do not tell: codes of what descriptions leave out.

An adapter that serves one task and fails another with nearly the same description shows that they differ in something
else. Cross losses between tasks described alike, adapter of one on images of the other, make a signed graph; its
leading eigenvectors are the start of the tasks' codes (spectral clustering; von Luxburg 2007, "A tutorial on spectral
clustering").
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.task_images import TaskImages

MOST_LOSS = 6.0
"""Cross losses are cut off here: wrong is wrong."""
IMAGES = 32
TaskRelations = Float[Tensor, "t t"]
"""Signed and symmetric: positive where two tasks described alike serve each other better than usual, 0 where unlike."""


def task_relations(
    backbone: Backbone,
    codec: Codec,
    vectors: Float[Tensor, "t d"],
    embeddings: Float[Tensor, "t e"],
    images: TaskImages,
) -> TaskRelations:
    """Relations of the seen tasks, each with the quarter of them (4 to 12) that is described most alike.

    Args:
        backbone: the frozen model.
        codec: of the adapters.
        vectors: normalised adapters of the tasks themselves.
        embeddings: of their descriptions.
        images: of the tasks.
    """
    count = len(vectors)
    neighbours = min(count - 1, max(4, min(12, count // 4)))
    distances = torch.cdist(embeddings, embeddings).fill_diagonal_(torch.inf)
    near = distances.argsort(1)[:, :neighbours]
    losses = torch.zeros(count, neighbours)
    with torch.no_grad():
        for task in range(count):
            inputs, labels = images.judged(task, IMAGES)
            logits = backbone.predict_many(inputs, codec.layout.unflatten(codec.decode(vectors[near[task]])))
            each = cross_entropy(logits.flatten(0, 1), labels.repeat(neighbours), reduction="none")
            losses[task] = each.view(neighbours, -1).mean(1).clamp_max(MOST_LOSS)
    signed = torch.zeros(count, count).scatter_(1, near, torch.tanh(losses.median() - losses))
    return (signed + signed.T) / 2


def spectral_codes(relations: TaskRelations, tasks: Int[Tensor, " s"], dimensions: int = 1) -> Float[Tensor, "s q"]:
    """Codes of unit mean square of some tasks.

    Args:
        relations: of all tasks.
        tasks: which are coded; the others are not read.
        dimensions: of a code.
    """
    _, vectors = torch.linalg.eigh(relations[tasks][:, tasks])
    codes = vectors[:, -dimensions:].flip(1)
    # The sign of an eigenvector is free: the largest entry is made positive.
    signs = codes.gather(0, codes.abs().argmax(0, keepdim=True)).sign()
    scaled: Tensor = codes * signs * len(tasks) ** 0.5
    return scaled
