"""Configuration and inputs of the calibration of trust: the seen tasks, encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.errors import DataError
from wildpdiff.trust.evidence import AdapterSpace, Spaces
from wildpdiff.trust.space import DescriptionSpace
from wildpdiff.zoo.features import ExampleRows, TaskFeatures, features_of
from wildpdiff.zoo.training_set import TrainingSet


@dataclass(frozen=True)
class CalibrationConfig:
    """Settings of the calibration.

    Attributes:
        random_folds: folds of random tasks; each task is held out in one of them.
        group_folds: folds of like tasks (:func:`calibration_folds`).
        samples: adapters a held-out task, where the source is stochastic.
        loss: accuracy that a harmed task loses at least.
        risk: share of all tasks that may be harmed with the chosen threshold.
        floor: least threshold, whatever the risk.
    """

    random_folds: int = 3
    group_folds: int = 3
    samples: int = 3
    loss: float = 0.01
    risk: float = 0.05
    floor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.risk < 1 or not 0 <= self.floor <= 1 or self.samples < 1:
            raise DataError(
                f"Trust cannot be calibrated with risk {self.risk}, floor {self.floor} and {self.samples} samples. "
                "Risk and floor are shares; give at least one sample."
            )


@dataclass(frozen=True, eq=False)
class SeenTasks:
    """The seen tasks in the zoo's order: descriptions, flat adapters, and the pretrained model's mean probabilities.

    Gains are measured on a task's ``leak_free`` examples: those that no other task learns from. They are differences of
    scores, of a metric without bounds in units of the pretrained model's mean score on the seen tasks.

    Attributes:
        features: examples of the tasks.
        parts: of the descriptions that the generator reads.
        priors: zero where outputs are no classes.
        gain_unit: divisor of differences of scores, negative where lower scores are better.
    """

    training_set: TrainingSet
    features: Callable[[str], TaskFeatures]
    parts: tuple[str, ...]
    config: CalibrationConfig
    layout: Layout
    initial: Float[Tensor, " d"]
    vectors: Float[Tensor, "t d"]
    priors: Float[Tensor, "l c"]
    gain_unit: float
    leak_free: tuple[Int[Tensor, " _"], ...]

    @classmethod
    def of(cls, training_set: TrainingSet, parts: tuple[str, ...], config: CalibrationConfig) -> SeenTasks:
        """Encode the seen tasks; raises :class:`DataError` where there are no labelled images."""
        zoo, features, backbone = training_set.zoo, training_set.features, training_set.backbone
        initial = training_set.initial
        if features is None:
            raise DataError("Trust is calibrated on labelled examples of seen tasks. Give a training set with them.")
        layout, images, metric = (
            Layout.of(initial),
            features_of(features, training_set.labelled),
            backbone.objective.metric,
        )
        outputs = [backbone.predict(task.train) for task in images]
        scores = [backbone.objective.score(own, task.train).mean() for own, task in zip(outputs, images, strict=True)]
        unit = max(float(torch.stack(scores).abs().mean()), 1e-12) if metric.span is None else metric.span
        return cls(
            training_set,
            features,
            parts,
            config,
            layout,
            layout.flatten(initial),
            torch.stack([layout.flatten(adapter.tensors) for adapter in zoo.task_adapters().values()]),
            torch.stack([own.softmax(1).mean(0) if backbone.classes else torch.zeros(1) for own in outputs]),
            metric.sign * unit,
            tuple(rows.leak_free for rows in ExampleRows.of(images)),
        )

    def spaces(self, without: Sequence[str] = ()) -> Spaces:
        """Descriptions and adapters of the seen tasks as points, some of the tasks left out."""
        seen = self.training_set
        kept = [index for index, name in enumerate(seen.tasks) if name not in set(without)]
        labelled = [index for index in kept if index < len(self.priors)]  # they come first
        descriptions, vectors = [seen.descriptions[seen.tasks[index]] for index in kept], self.vectors[kept]
        space = DescriptionSpace.fit(
            descriptions, seen.schema, seen.backbone.image_features, adapters=vectors, parts=self.parts
        )
        return Spaces(space, AdapterSpace.fit(self.layout, self.initial, vectors), self.priors[labelled].mean(0))
