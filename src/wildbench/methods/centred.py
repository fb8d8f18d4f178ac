"""The control for the generator's centering: the pretrained model, centred on the images of each site."""

from __future__ import annotations

from dataclasses import replace

import torch

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.centering import FeatureAlignment
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.description import Description

EVALUATION_IMAGES = 32
"""Labelled images of every seen task on which the strength is chosen."""


class CentredPretrainedSource:
    """The pretrained model with a share of a site's feature shift taken off what its classifier reads.

    No adapter of any task is used: it shows how much of a generated adapter's gain its centering alone is
    (:mod:`wildpdiff.conditional_mean.centering`). Where nothing can be centred it is the pretrained model.

    Attributes:
        centering: as strong as helps the pretrained model on the seen tasks; None where nothing can be centred.
    """

    name = "pretrained, centred"
    stochastic = False

    def __init__(self, seen: SeenTasks) -> None:
        """Choose the strength on the seen tasks' labelled images."""
        self._initial, self._parts = seen.zoo.initial, seen.encoder.parts
        layout = Layout.of(self._initial.tensors)
        vector = layout.flatten(self._initial.tensors)[None]
        reader = FeatureShift.fit(seen.descriptions, seen.backbone, seen.encoder.parts)
        centering = FeatureAlignment.of(reader, Codec.fit(layout, vector), seen.descriptions)
        self.centering = centering
        if centering is not None:
            images = TaskExamples(tuple(seen.data(name) for name in seen.zoo.tasks), sub_seed(seen.seed, self.name))
            start = centering.codec.encode(vector).expand(len(seen.descriptions), -1).contiguous()
            self.centering = centering.fitted(seen.backbone, start, images, EVALUATION_IMAGES)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the initial adapter with the site's bias; raises :class:`DescriptionError` on an empty one."""
        description.require_any(self._parts)
        return repeat_adapter(self._of(description), self.name, description, n=n, seed=seed)

    def _of(self, description: Description) -> Adapter:
        if self.centering is None:
            return self._initial
        codec = self.centering.codec
        with torch.no_grad():
            start = codec.encode(codec.layout.flatten(self._initial.tensors)[None])
            moved = codec.decode(self.centering(start, self.centering.reader.of([description])))
        tensors = {name: value[0].clone() for name, value in codec.layout.unflatten(moved).items()}
        return replace(self._initial, tensors=tensors)
