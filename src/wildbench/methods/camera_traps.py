"""Rules of the field on top of the pretrained model: species of the site, frames of one event, crops of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from wildbench.methods.few_labels import labelled_task
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import PretrainedSource
from wildpdiff.baselines.material import LabelledData
from wildpdiff.camera_traps.answers import kind_of
from wildpdiff.camera_traps.smoothing import smoothed
from wildpdiff.errors import DataError
from wildpdiff.evaluate.methods import Candidate, MethodInputs
from wildpdiff.evaluate.score import TestSet, outputs_of
from wildpdiff.tasks.objective import TARGETS

EXCLUDED = 50.0
"""Logits by which an excluded class lies below all others; infinite ones would have no likelihood."""

FIELD_NAMES = (MASK, SMOOTHING, CROP) = ("species mask", "event smoothing", "crop first")


class SpeciesMaskSource(PretrainedSource):
    """The pretrained model without the animals that a task's training labels do not show.

    It has seen these labels, as a list of the site's species made by people; blanks, people and vehicles stay.
    """

    name = MASK

    def __init__(self, initial: Adapter, data: LabelledData) -> None:
        super().__init__(initial)
        self._data = data

    def outputs(self, backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> Float[Tensor, "a n c"]:
        """Logits, those of the excluded classes below all others; raises :class:`DescriptionError` without labels."""
        found = outputs_of(backbone, test, adapters)
        kept = torch.tensor([kind_of(name) != "animal" for name in backbone.classes])
        kept[labelled_task(self._data, test.description).train[TARGETS]] = True
        return torch.where(kept, found, found.amin(-1, keepdim=True) - EXCLUDED)


class EventSmoothingSource(PretrainedSource):
    """The pretrained model with one answer for all frames of a burst: the mean of their log-probabilities."""

    name = SMOOTHING

    def outputs(self, backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> Float[Tensor, "a n c"]:
        """Log-probabilities; raises :class:`DataError` where examples are no pictures of a camera."""
        if test.bursts is None:
            raise DataError(f"No bursts are known of task {test.task!r}. Leave event smoothing out.")
        found = outputs_of(backbone, test, adapters).double().softmax(-1).numpy()
        joined = torch.stack([torch.from_numpy(smoothed(one, test.bursts)) for one in found])
        return joined.clamp_min(torch.finfo(torch.float32).tiny).log().float()


class CropFirstSource(PretrainedSource):
    """The pretrained model on each picture's largest detected animal; of cameras without boxes, on whole frames."""

    name = CROP

    def outputs(self, backbone: Backbone, test: TestSet, adapters: Sequence[Adapter]) -> Float[Tensor, "a n c"]:
        """Logits of the crops."""
        return outputs_of(backbone, test if test.crops is None else replace(test, batch=test.crops), adapters)


def field_candidates(inputs: MethodInputs) -> list[Candidate]:
    """The rules that the evaluated tasks have what it takes for: classes with labels, bursts of frames, boxes."""
    initial, labelled, candidates = inputs.seen.zoo.initial, inputs.labelled, list[Candidate]()
    if not inputs.seen.backbone.classes:
        return candidates
    if labelled is not None:
        note = "pretrained, without the animals that the task's training labels do not show"
        candidates.append(Candidate(MASK, "labels", note, lambda: SpeciesMaskSource(initial, labelled)))
    bursts = [test.bursts for test in inputs.tests if test.bursts is not None]
    if len(bursts) == len(inputs.tests) and any(len(set(names)) < len(names) for names in bursts):
        note = "pretrained, one answer for all frames of a burst of test pictures"
        candidates.append(Candidate(SMOOTHING, "no description", note, lambda: EventSmoothingSource(initial)))
    if any(test.crops is not None for test in inputs.tests):
        note = "pretrained, on a detector's crops of the test pictures"
        candidates.append(Candidate(CROP, "no description", note, lambda: CropFirstSource(initial)))
    return candidates
