"""The best of several posterior samples, chosen by the task's unlabelled images or by a few labels."""

from __future__ import annotations

from dataclasses import replace

import torch

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import LabelledData
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.selection import choose_by_labels, choose_by_unlabelled
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures

CANDIDATES = 8
LABELS = 5
BEST_BY_LABELS = f"best of {CANDIDATES} by {LABELS} labels"
BEST_BY_IMAGES = f"best of {CANDIDATES} by unlabelled images"
MOST_IMAGES = 64


class BestOfSource:
    """Draws several adapters from a stochastic source and gives the one that fits the task's own images best."""

    stochastic = True

    def __init__(
        self, source: Source, backbone: Backbone, images: LabelledData, *, by_labels: bool, candidates: int = CANDIDATES
    ) -> None:
        """Hold a source.

        Args:
            source: of the candidates.
            backbone: that they belong to.
            images: gives a task's images behind the stem by its name; training images are read alone, and their labels
                only where the choice is by labels.
            by_labels: choose by five labelled images, drawn at random; else by unlabelled images.
            candidates: how many there are.
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
            DescriptionError: the description names no task, whose images would be looked up.
        """
        description.require_any(["task_id"])
        name = description.task_id
        assert name is not None
        task = self._images(name)
        found = []
        for number in range(n):
            own = sub_seed(seed, self.name, number)
            adapters = self._source.sample(description, self._candidates, own)
            chosen = adapters[self._choose(task, adapters, own)]
            made = {**chosen.provenance, "source": self.name, "seed": seed, "sample": number, "candidates_seed": own}
            found.append(replace(chosen, provenance=made))
        return found

    def _choose(self, task: TaskFeatures, adapters: list[Adapter], seed: int) -> int:
        order = torch.randperm(len(task.train_labels), generator=torch_generator(seed, "images"))
        if not self._by_labels:
            return choose_by_unlabelled(self._backbone, adapters, task.train[order[:MOST_IMAGES]])
        few = order[:LABELS]
        inputs, labels = task.train[few], task.train_labels[few]
        return choose_by_labels(self._backbone, adapters, TaskFeatures(task.name, inputs, labels, inputs, labels))
