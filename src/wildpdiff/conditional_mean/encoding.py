"""A training set as numbers: encoded descriptions and normalised checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec, NormalizationMode
from wildpdiff.conditional_mean.centering import FeatureAlignment
from wildpdiff.conditional_mean.network import moved_values
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.words import WordAlignment, WordReader
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion, has_part
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.errors import TrainingError
from wildpdiff.tasks.batch import Batch, take
from wildpdiff.zoo.features import ExampleRows, TaskFeatures, features_of

if TYPE_CHECKING:
    from wildpdiff.zoo.training_set import TrainingSet  # reading a generator needs no pyarrow


@dataclass(frozen=True)
class EncodingConfig:
    """Encoding of descriptions and adapters.

    Attributes:
        parts: of the description that are read.
        components: principal components of each part that is images or text.
        whiten: unit variance of each, instead of in their mean; it amplifies components that are mostly noise.
        drop_part: probability of hiding a part in training, so that any may be missing later.
        drop_all: probability of hiding all, needed for classifier-free guidance with a scale other than 1.
        normalization: ``coordinate`` (the paper's z-score) or ``tensor`` (one scale a tensor).
        centering: align predicted adapters with the images of their site
            (:mod:`wildpdiff.conditional_mean.centering`), or with its words where the backbone takes texts
            (:mod:`wildpdiff.conditional_mean.words`), with the strength that is best on held-out seen tasks; needs
            the images of the seen tasks.
    """

    parts: tuple[str, ...] = ("metadata", "backgrounds", "examples")
    components: int = 16
    whiten: bool = False
    drop_part: float = 0.15
    drop_all: float = 0.0
    normalization: NormalizationMode = "tensor"
    centering: bool = True

    def __post_init__(self) -> None:
        if self.components < 1 or not 0 <= self.drop_part < 1 or not 0 <= self.drop_all < 1:
            raise TrainingError(
                f"A generator is configured with {self.components} components of a part of examples and parts hidden "
                f"with probability {self.drop_part:g}, all with {self.drop_all:g}; give at least one component, and "
                "probabilities from 0 to below 1."
            )


SOME = 32
"""Tasks, and examples of each, whose mean features are the origin of those of words."""


def _some_examples(training_set: TrainingSet) -> list[Batch]:
    """Training examples of some tasks with data."""
    if training_set.features is None:
        return []
    tasks = features_of(training_set.features, training_set.labelled[:SOME])
    return [take(task.train, slice(SOME)) for task in tasks]


@dataclass(frozen=True)
class EncodedTasks:
    """A training set as numbers.

    Attributes:
        features: labelled images of a task behind the stem, by its name; None without data.
        tasks: their names, in the zoo's order.
        embeddings: of their whole descriptions.
        sampler: random views of their descriptions, by task index.
        normalized: all checkpoints.
        moved: which values of an adapter fine-tuning moves.
        start: normalised adapter that leaves the pretrained model as it is.
        centering: on the images of a site or the words of a description, of no strength yet; None without these.
        earlier: numbers of first tasks that networks were trained on before the others were added.
        with_data: tasks that have labelled images, the first ones; None for all.
    """

    backbone: Backbone
    features: Callable[[str], TaskFeatures] | None
    tasks: tuple[str, ...]
    conditions: FusionEncoder
    embeddings: Float[Tensor, "t e"]
    sampler: ConditionSampler
    codec: Codec
    normalized: Float[Tensor, "n d"]
    task_of: Int[Tensor, " n"]
    moved: Bool[Tensor, " d"]
    start: Float[Tensor, " d"]
    centering: FeatureAlignment | WordAlignment | None
    earlier: tuple[int, ...] = ()
    with_data: frozenset[str] | None = None

    @classmethod
    def of(
        cls,
        training_set: TrainingSet,
        config: EncodingConfig,
        *,
        conditions: FusionEncoder | None = None,
        codec: Codec | None = None,
    ) -> EncodedTasks:
        """The numbers of a training set.

        Args:
            conditions, codec: fitted before; by default they are fitted to these tasks.

        Raises:
            AdapterMismatchError: the zoo is of another backbone.
            DescriptionError: a task of the zoo has no description, or no part can be read.
        """
        training_set.validate()
        zoo, backbone, descriptions = training_set.zoo, training_set.backbone, training_set.ordered_descriptions
        featurise = training_set.featurise or backbone.image_features
        images: dict[str, ImageFeatures] = {
            part: ImageFeatures.of(descriptions, part, featurise)
            for part in ("backgrounds", "examples")
            if part in (config if conditions is None else conditions).parts
            and any(has_part(entry, part) for entry in descriptions)
        }
        conditions = conditions or fit_fusion(
            descriptions,
            training_set.schema,
            featurise,
            config.parts,
            components=config.components,
            whiten=config.whiten,
            features=images,
        )
        tables = conditions.tables(descriptions, images).values()
        flags = torch.stack([table.present for table in tables], 1)
        for row in (~flags.any(1)).nonzero()[:, 0].tolist():
            conditions.encode_parts(descriptions[row])  # raises, and names what is missing
        stacked = zoo.tensors(range(len(zoo)))
        layout = Layout.of({name: value[0] for name, value in stacked.items()})
        vectors = layout.flatten_many(stacked)
        codec = codec or Codec.fit(layout, vectors, config.normalization)
        initial = layout.flatten(training_set.initial)
        index_of = {task: number for number, task in enumerate(zoo.tasks)}
        centering: FeatureAlignment | WordAlignment | None = None
        if config.centering:
            words = WordReader.fit(descriptions, backbone, conditions.parts, partial(_some_examples, training_set))
            centering = WordAlignment.of(words, codec, descriptions) or FeatureAlignment.of(
                FeatureShift.fit(descriptions, backbone, conditions.parts), codec, descriptions
            )
        return cls(
            backbone=backbone,
            features=training_set.features,
            tasks=tuple(zoo.tasks),
            conditions=conditions,
            embeddings=torch.cat([*(table.values for table in tables), flags.float()], 1),
            sampler=conditions.sampler(descriptions, images, drop_part=config.drop_part, drop_all=config.drop_all),
            codec=codec,
            normalized=codec.encode(vectors),
            task_of=torch.tensor([index_of[task] for task in zoo.column("task")]),
            moved=moved_values(vectors, initial, layout.sizes),
            start=codec.encode(initial[None])[0],
            centering=centering,
            with_data=training_set.with_data,
        )

    @property
    def labelled(self) -> tuple[str, ...]:
        """Tasks with labelled examples."""
        names = () if self.features is None else self.tasks
        return tuple(name for name in names if self.with_data is None or name in self.with_data)

    def images(self, seed: int) -> TaskExamples:
        """Labelled examples of those tasks that have them; raises :class:`DataError` where one has none to train on.

        ``seed`` decides those of an evaluation.
        """
        assert self.features is not None
        tasks = tuple(features_of(self.features, self.labelled))
        return TaskExamples(tasks, seed, ExampleRows.of(tasks, self.earlier))

    def of_tasks(self) -> Float[Tensor, "t d"]:
        """The mean of each task's normalised checkpoints, the least noisy point of its run."""
        count = len(self.tasks)
        sums = torch.zeros(count, self.normalized.shape[1]).index_add_(0, self.task_of, self.normalized)
        return sums / torch.bincount(self.task_of, minlength=count)[:, None]
