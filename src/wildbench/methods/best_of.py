"""Best of several posterior samples by the task's unlabelled images or by a few labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import LabelledData
from wildpdiff.errors import DataError
from wildpdiff.refine.cross_validation import TaskStarts
from wildpdiff.refine.starts import Start
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.source import Source
from wildpdiff.tasks.batch import Batch, count, take
from wildpdiff.tasks.description import Description, Inputs
from wildpdiff.zoo.features import TaskFeatures

CANDIDATES = 8
LABELS = 5
BEST_BY_LABELS = f"best of {CANDIDATES} by {LABELS} labels"
BEST_BY_IMAGES = f"best of {CANDIDATES} by unlabelled images"
MOST_IMAGES = 64


def choose_by_labels(
    backbone: Backbone, adapters: Sequence[Adapter], labelled: TaskFeatures, unlabelled: Batch | None = None
) -> int:
    """Index of the adapter under which the labels are most probable.

    Loss, for classes with logits offset for labels that are no random sample
    (:func:`~wildpdiff.refine.frequencies.label_offsets`), as in refining.

    Args:
        labelled: the labelled examples as training examples.
        unlabelled: a batch of more examples of the task; without them the labels are taken as a random
            sample of the task.

    Raises:
        DataError: there is no candidate or no label.
        AdapterMismatchError: a candidate is of another backbone.
    """
    if not labelled.train_size:
        raise DataError(f"Task {labelled.name!r} has no labels to choose by. Label at least one example.")
    _check(backbone, adapters)
    starts = [Start(f"candidate {index}", adapter, None) for index, adapter in enumerate(adapters)]
    losses = TaskStarts.of(backbone, labelled, starts, unlabelled).losses(backbone)
    return int(losses.nan_to_num(nan=math.inf).argmin())


def choose_by_unlabelled(backbone: Backbone, adapters: Sequence[Adapter], images: Inputs | Batch) -> int:
    """Index of the adapter that is most certain of the images, corrected for class frequencies; see :func:`certainty`.

    Args:
        images: of the task, ``uint8 [n, h, w, 3]``, or a batch.

    Raises:
        DataError: there is no candidate or no image, the outputs are no classes, or images are of another size than the
            backbone takes.
        AdapterMismatchError: a candidate is of another backbone.
    """
    if not count(images):
        raise DataError("There are no images to choose by. Give at least one of the task.")
    if not backbone.classes:
        raise DataError(f"Certainty is that of classes; the backbone's objective is {backbone.objective.kind}.")
    _check(backbone, adapters)
    batch = images if isinstance(images, Mapping) else backbone.stem(images)
    # Unchecked: a candidate whose logits are not finite is passed over, not refused.
    logits = [backbone.predict(batch, entry.tensors) for entry in adapters]
    return int(certainty(torch.stack(logits)).nan_to_num(nan=-math.inf).argmax())


def certainty(logits: Float[Tensor, "a n c"]) -> Float[Tensor, " a"]:
    """Certainty of each of several models on some images, in nats; at most 0.

    Minus the mean entropy of the predictions (a model fits a task on which it is certain, Wang et al. 2021), minus the
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


class BestOfSource:
    """The one of several adapters of a stochastic source that fits the task's own images best."""

    stochastic = True

    def __init__(
        self, source: Source, backbone: Backbone, images: LabelledData, *, by_labels: bool, candidates: int = CANDIDATES
    ) -> None:
        """Keep the source of the candidates.

        Args:
            images: a task's examples by its name; training examples are read alone, and their labels only where the
                choice is by labels.
            by_labels: choose by five labelled examples, drawn at random; else by unlabelled images.
        """
        self.name = BEST_BY_LABELS if by_labels else BEST_BY_IMAGES
        self._source = source
        self._backbone = backbone
        self._images = images
        self._by_labels = by_labels
        self._candidates = candidates

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` choices, each among other candidates and by other images; the description names the task.

        Raises:
            DescriptionError: the description names no task.
        """
        description.require_any(["task_id"])
        task = self._images(str(description.task_id))
        found = []
        for number in range(n):
            own = sub_seed(seed, self.name, number)
            adapters = self._source.sample(description, self._candidates, own)
            chosen = adapters[self._choose(task, adapters, own)]
            made = {**chosen.provenance, "source": self.name, "seed": seed, "sample": number, "candidates_seed": own}
            found.append(replace(chosen, provenance=made))
        return found

    def _choose(self, task: TaskFeatures, adapters: list[Adapter], seed: int) -> int:
        order = torch.randperm(task.train_size, generator=torch_generator(seed, "images"))
        if not self._by_labels:
            return choose_by_unlabelled(self._backbone, adapters, take(task.train, order[:MOST_IMAGES]))
        few = TaskFeatures.of_few(task.name, take(task.train, order[:LABELS]))
        return choose_by_labels(self._backbone, adapters, few)
