"""Fitting the conditional mean to a zoo and the descriptions of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.autoencoder.training import Progress
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.codec.normalize import NormalizationMode
from wildpdiff.conditional_mean.centering import Centering
from wildpdiff.conditional_mean.choice import Estimators, cross_validated, without_images
from wildpdiff.conditional_mean.correction import TaskLossConfig, fit_correction
from wildpdiff.conditional_mean.kernel_fit import fit_kernel_mean
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.network import moved_values
from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.conditional_mean.simple import fit_simple_estimators
from wildpdiff.conditional_mean.task_images import TaskImages
from wildpdiff.conditions.base import ConditionSampler, Featuriser
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.errors import AdapterMismatchError, DescriptionError
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.threads import one_thread
from wildpdiff.zoo.features import TaskFeatures, features_of
from wildpdiff.zoo.store import Zoo


@dataclass(frozen=True)
class Reading:
    """How descriptions and adapters are read.

    Attributes:
        parts: parts of the description that are read.
        components: principal components kept of each part that is images or text.
        whiten: give them unit variance each, instead of in their mean.
        drop_part: probability of hiding a part in training, so that any may be missing later.
        drop_all: probability of hiding all, for classifier-free guidance.
        normalization: of the adapters.
        centering: centre predicted adapters on the images of their place.
    """

    parts: tuple[str, ...]
    components: int
    whiten: bool
    drop_part: float
    drop_all: float
    normalization: NormalizationMode
    centering: bool = True


@dataclass(frozen=True)
class SeenMaterial:
    """The seen tasks as numbers.

    Attributes:
        backbone: the frozen model.
        tasks: their names, in the zoo's order.
        conditions: the encoder of their descriptions.
        embeddings: of their whole descriptions.
        sampler: random views of their descriptions, by task index.
        codec: of the checkpoints.
        normalized: all checkpoints.
        task_of: the task of each.
        moved: which values of an adapter fine-tuning moves.
        start: normalised adapter that leaves the pretrained model as it is.
        centering: on the images of a place, of no strength yet; None where there are none to read.
    """

    backbone: Backbone
    tasks: tuple[str, ...]
    conditions: FusionEncoder
    embeddings: Float[Tensor, "t e"]
    sampler: ConditionSampler
    codec: Codec
    normalized: Float[Tensor, "n d"]
    task_of: Int[Tensor, " n"]
    moved: Bool[Tensor, " d"]
    start: Float[Tensor, " d"]
    centering: Centering | None

    @classmethod
    def of(
        cls,
        zoo: Zoo,
        descriptions: Mapping[str, Description],
        schema: MetadataSchema,
        backbone: Backbone,
        reading: Reading,
        featurise: Featuriser | None = None,
    ) -> SeenMaterial:
        """Encode descriptions and checkpoints.

        Raises:
            AdapterMismatchError: the zoo is of another backbone.
            DescriptionError: a task of the zoo has no description, or no part can be read.
        """
        if zoo.plan.adapter.backbone_hash != backbone.backbone_hash:
            raise AdapterMismatchError(
                f"The zoo in {zoo.folder} was built on {zoo.plan.adapter.backbone!r} with weights "
                f"{zoo.plan.adapter.backbone_hash[:12]}; the backbone given has {backbone.backbone_hash[:12]}."
            )
        missing = [task for task in zoo.tasks if task not in descriptions]
        if missing:
            raise DescriptionError(f"Task {missing[0]!r} of the zoo has no description. Give one for every task.")
        told = [descriptions[task] for task in zoo.tasks]
        conditions = fit_fusion(
            told,
            schema,
            featurise or backbone.image_features,
            reading.parts,
            components=reading.components,
            whiten=reading.whiten,
        )
        stacked = zoo.tensors(range(len(zoo)))
        layout = Layout.of({name: value[0] for name, value in stacked.items()})
        vectors = layout.flatten_many(stacked)
        codec = Codec.fit(layout, vectors, reading.normalization)
        initial = layout.flatten(zoo.initial.tensors)
        place = {task: number for number, task in enumerate(zoo.tasks)}
        shift = FeatureShift.fit(told, backbone, conditions.parts) if reading.centering else None
        return cls(
            backbone=backbone,
            tasks=tuple(zoo.tasks),
            conditions=conditions,
            embeddings=torch.stack([conditions.encode(entry).values for entry in told]),
            sampler=conditions.sampler(told, drop_part=reading.drop_part, drop_all=reading.drop_all),
            codec=codec,
            normalized=codec.encode(vectors),
            task_of=torch.tensor([place[task] for task in zoo.column("task")]),
            moved=moved_values(vectors, initial, layout.sizes),
            start=codec.encode(initial[None])[0],
            centering=Centering.of(shift, codec, told),
        )

    def of_tasks(self) -> Float[Tensor, "t d"]:
        """The mean of each task's normalised checkpoints, the least noisy point of its run."""
        count = len(self.tasks)
        sums = torch.zeros(count, self.normalized.shape[1]).index_add_(0, self.task_of, self.normalized)
        return sums / torch.bincount(self.task_of, minlength=count)[:, None]


@dataclass(frozen=True)
class FittedMean:
    """A conditional mean.

    Attributes:
        mean: fitted.
        losses: task loss of every update; none where nothing was trained.
        cross_validation: how good it is on seen tasks without themselves; None where they have no images.
        images: of the seen tasks; None where they have none.
    """

    mean: ConditionalMean
    losses: Float[Tensor, " steps"] = field(repr=False)
    cross_validation: CrossValidation | None
    images: TaskImages | None = None


def fit_conditional_mean(
    material: SeenMaterial,
    config: TaskLossConfig,
    features: Callable[[str], TaskFeatures] | None,
    seed: int,
    *,
    trained_folds: int | None = None,
    progress: Progress | None = None,
    store: Path | None = None,
) -> FittedMean:
    """Regression of the tasks' adapters on their descriptions, then networks on top of it.

    Args:
        material: the seen tasks.
        config: of the networks.
        features: gives the labelled images of a seen task, by its name; ``None`` where no data is at hand.
        seed: of everything random.
        trained_folds: without how many folds of the tasks networks are trained; each of them by default.
        progress: called with (updates done, most updates in all).
        store: folder in which every network is kept as it is finished; see :func:`fit_correction`.

    Raises:
        TrainingError: a training diverged.
        DataError: a task has no training images.
    """
    own = material.of_tasks()
    # Errors are measured on raw adapters: normalised ones give small tensors as much weight as large ones.
    kernel = fit_kernel_mean(material.conditions, material.embeddings, own, material.codec.decode(own))
    simple = fit_simple_estimators(material.conditions.sizes, material.start, material.embeddings, own)
    labelled = features_of(features, material.tasks) if features is not None else None
    correction = fit_correction(
        kernel,
        material.conditions,
        material.sampler,
        material.backbone,
        material.codec,
        material.moved,
        labelled,
        config,
        seed,
        trained_folds=trained_folds,
        progress=progress,
        store=store,
    )
    estimators = Estimators(material.backbone, material.codec, kernel, simple, correction)
    if labelled is None or len(material.tasks) < 2:  # one task alone cannot be held out
        return FittedMean(without_images(estimators), correction.losses, None)
    images = TaskImages(tuple(labelled), sub_seed(seed, "cross-validation"))
    with one_thread():
        mean, table = cross_validated(estimators, material.tasks, images, material.centering, config.looked_at)
    return FittedMean(mean, correction.losses, table, images)
