"""Refining: the better of the starts, its prior, and the labels that are there, give one adapter a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.refine.frequencies import class_frequencies, label_offsets
from wildpdiff.refine.posterior import PosteriorConfig, most_probable
from wildpdiff.refine.prior import RefinementPrior
from wildpdiff.refine.starts import StartingPoint, StartingPoints, StartName
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

__all__ = ["LabelledTask", "RefineConfig", "Refined", "refine", "refine_tasks"]

TOGETHER = 20
"""Tasks refined in one pass."""


@dataclass(frozen=True)
class RefineConfig:
    """How a few labels are used.

    Attributes:
        posterior: of the search where a prior is known.
        free: of the fine-tuning where none is; the end of the run is what counts.
        choose_start: start where the labels are most probable, and not always at the generated adapter.
    """

    posterior: PosteriorConfig = field(default_factory=PosteriorConfig)
    free: FinetuneConfig = field(
        default_factory=lambda: FinetuneConfig(steps=100, learning_rate=0.01, checkpoints=1, interval=1)
    )
    choose_start: bool = True


@dataclass(frozen=True)
class LabelledTask:
    """One task to refine.

    Attributes:
        features: its labelled images, as training images; no other part is read.
        starts: where to start from, the generated adapter first.
        unlabelled: more images of the task behind the stem, ``[n, …]``, as they come; they tell how frequent the
            classes are. Without them the labels are taken as a random sample of the task.
    """

    features: TaskFeatures
    starts: Sequence[StartingPoint]
    unlabelled: Tensor | None = None


@dataclass(frozen=True)
class Refined:
    """What refining gave.

    Attributes:
        adapter: refined; its provenance says start, labels, steps, and what it was generated from.
        start: where it started.
        losses: cross-entropy on the labels before refining, for each start that was looked at.
    """

    adapter: Adapter
    start: StartName
    losses: dict[StartName, float]


@dataclass(frozen=True)
class _Chosen:
    """A task with the start that was taken and the offsets that belong to it."""

    task: LabelledTask
    start: StartingPoint
    offsets: Float[Tensor, " c"]
    losses: dict[StartName, float]


def refine(
    backbone: Backbone,
    start: Adapter,
    task: TaskFeatures,
    config: RefineConfig | None = None,
    *,
    points: StartingPoints | None = None,
    unlabelled: Tensor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Refined:
    """Refine one generated adapter on a few labels.

    Args:
        backbone: that the adapter was made for.
        start: the generated adapter.
        task: the labelled images as its training images, behind the stem.
        config: how; defaults by measurement on seen tasks.
        points: prior and other starts, best :meth:`StartingPoints.of_generator` of the adapter's generator; without
            it all values move freely, which takes several times the labels.
        unlabelled: more images of the task behind the stem, see :class:`LabelledTask`.
        seed: decides the order of images.
        progress: called with (steps done, in all).

    Raises:
        AdapterMismatchError: the adapter is of another backbone or LoRA setting.
        DataError: there are no labelled images, or a label that the backbone does not know.
        TrainingError: the loss is not finite.
    """
    starts = (points or StartingPoints.without_generator(backbone))(start)
    return refine_tasks(backbone, [LabelledTask(task, starts, unlabelled)], config, seed=seed, progress=progress)[0]


def refine_tasks(
    backbone: Backbone,
    tasks: Sequence[LabelledTask],
    config: RefineConfig | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Refined]:
    """Refine one adapter a task, many tasks in one forward pass.

    Where a prior is known, the adapter is the most probable one given prior and labels (:func:`most_probable`), else
    the end of a short fine-tuning. Each task starts where its labels are most probable beforehand, a fair comparison
    where no start has seen them: seen tasks that share images with this one favour what was made of them. Raises as
    :func:`refine`.
    """
    config = config or RefineConfig()
    chosen = [_choose(backbone, task, config.choose_start) for task in tasks]
    results: dict[int, Refined] = {}
    for group in _groups(chosen):
        members = [chosen[place] for place in group]
        for place, one, adapter in zip(group, members, _run(backbone, members, config, seed, progress), strict=True):
            results[place] = Refined(adapter, one.start.name, one.losses)
    return [results[place] for place in range(len(tasks))]


def _choose(backbone: Backbone, task: LabelledTask, choose: bool) -> _Chosen:
    labels = task.features.train_labels
    if not len(labels):
        raise DataError(f"Task {task.features.name!r} has no labelled images. Label at least one.")
    if not task.starts:
        raise DataError(f"Task {task.features.name!r} has no adapter to start from. Give one.")
    if int(labels.max()) >= len(backbone.classes) or int(labels.min()) < 0:
        raise DataError(
            f"Task {task.features.name!r} has label {int(labels.max())}; the backbone knows {len(backbone.classes)} "
            "classes. Use the class list that the backbone was pretrained with."
        )
    found = []
    for start in task.starts if choose else task.starts[:1]:
        backbone.check(start.adapter)
        offsets = _offsets(backbone, task, start.adapter)
        logits = backbone.predict(task.features.train, start.adapter.tensors) + offsets
        found.append((float(cross_entropy(logits, labels)), start, offsets))
    losses = {start.name: loss for loss, start, _ in found}
    _, start, offsets = min(found, key=lambda entry: entry[0])
    return _Chosen(task, start, offsets, losses)


def _offsets(backbone: Backbone, task: LabelledTask, start: Adapter) -> Tensor:
    if task.unlabelled is None or not len(task.unlabelled):
        return torch.zeros(len(backbone.classes))
    frequencies = class_frequencies(backbone, task.unlabelled, start.tensors)
    return label_offsets(task.features.train_labels, frequencies)


def _groups(chosen: Sequence[_Chosen]) -> list[list[int]]:
    """Places of tasks that share a prior, so many at a time as run together."""
    by_prior: dict[int, list[int]] = {}
    for place, one in enumerate(chosen):
        by_prior.setdefault(id(one.start.prior), []).append(place)
    return [places[i : i + TOGETHER] for places in by_prior.values() for i in range(0, len(places), TOGETHER)]


def _run(
    backbone: Backbone,
    members: Sequence[_Chosen],
    config: RefineConfig,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> list[Adapter]:
    """Refine tasks that share a prior."""
    prior: RefinementPrior | None = members[0].start.prior
    features = [one.task.features for one in members]
    offsets = torch.stack([one.offsets for one in members])
    told: dict[str, Any]
    if prior is None:
        free = replace(config.free, checkpoints=1, interval=1)
        starts = [one.start.adapter.tensors for one in members]
        run = finetune(backbone, features, starts, free, seed, progress, offsets=offsets)
        stacked = {name: value[:, -1] for name, value in run.tensors.items()}
        told = {"steps": free.steps, "prior": None}
    else:
        flat = torch.stack([prior.layout.flatten(one.start.adapter.tensors) for one in members])
        vectors = most_probable(backbone, flat, prior, features, offsets, config.posterior, seed, progress)
        stacked = prior.layout.unflatten(vectors)
        told = {"steps": config.posterior.steps, "prior": f"{len(prior.directions)} directions, {prior.of}"}
    return [_adapter(one, {name: value[place].clone() for name, value in stacked.items()}, told, seed)
            for place, one in enumerate(members)]  # fmt: skip


def _adapter(one: _Chosen, tensors: dict[str, Tensor], told: dict[str, Any], seed: int) -> Adapter:
    generated = one.task.starts[0].adapter
    unlabelled = one.task.unlabelled
    provenance = {
        "source": "refined",
        "task": generated.provenance.get("task"),
        "start": one.start.name,
        "start_losses": dict(one.losses),
        "labels": len(one.task.features.train_labels),
        "classes_labelled": len(set(one.task.features.train_labels.tolist())),
        "unlabelled_images": 0 if unlabelled is None else len(unlabelled),
        "seed": seed,
        **told,
        "refined_from": dict(generated.provenance),
    }
    return Adapter(tensors, generated.config, provenance)
