"""The common part of the studies: draw some of the seen tasks, fit the generator and the regressions to them alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import LabelledData
from wildpdiff.baselines.regression import (
    AdditiveKernelSource,
    KernelRegressionSource,
    NearestTaskSource,
    SeenDistances,
)
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.errors import DataError
from wildpdiff.evaluate.run import Method
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.rng import numpy_generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

Diversity = Literal["narrow", "wide"]

FEWEST_TASKS = 3
"""Kernel regression cannot be fitted to fewer."""


@dataclass(frozen=True)
class StudyInputs:
    """Common inputs of all fits of a study.

    Attributes:
        suite: its seen tasks are those of the zoo.
        backbone: the frozen model; remembers the features of the descriptions' images.
        zoo: checkpoints of the seen tasks, of which each fit gets a part.
        data: labelled images of the seen tasks by name, for the task loss.
        generator: what is fitted.
    """

    suite: Suite
    backbone: Backbone
    zoo: Zoo
    data: LabelledData
    generator: GeneratorConfig

    def descriptions(self, tasks: Sequence[str]) -> list[Description]:
        """The descriptions of some seen tasks, in the requested order."""
        known = {task.name: task.description for task in self.suite.tasks("seen")}
        return [known[name] for name in tasks]

    def training_set(self, zoo: Zoo) -> TrainingSet:
        """One part of the zoo with the descriptions and images of its tasks."""
        return TrainingSet.of(self.suite, self.backbone, zoo, self.data)


@dataclass(frozen=True)
class FittedSources:
    """The generators and their alternatives, all fitted to the same tasks.

    Attributes:
        methods: mean adapter, nearest task, both kernel regressions, then one generator a seed.
        seconds: of each source's fit beyond the zoo, by name; the mean over the generators' seeds.
    """

    methods: tuple[Method, ...]
    seconds: Mapping[str, float]


def fit_sources(inputs: StudyInputs, zoo: Zoo, seeds: Sequence[int]) -> FittedSources:
    """Fit everything to one part of the zoo. Nothing outside of it is read: also encoders and codec are fitted anew.

    Args:
        inputs: of the study; its own zoo is not used.
        zoo: the part.
        seeds: one generator each.

    Raises:
        DataError: no seed, or fewer tasks than :data:`FEWEST_TASKS`.
        TrainingError: a training diverged.
    """
    if not seeds:
        raise DataError("There is no generator seed. Give at least one.")
    if len(zoo.tasks) < FEWEST_TASKS:
        raise DataError(f"There are {len(zoo.tasks)} tasks to fit to; at least {FEWEST_TASKS} are needed.")
    descriptions = inputs.descriptions(zoo.tasks)
    training_set = inputs.training_set(zoo)
    fits = [fit_generator(training_set, inputs.generator, seed=seed) for seed in seeds]
    encoder = fits[0].generator.conditions
    features = encoder.image_features(descriptions)
    adapters = list(zoo.task_adapters().values())
    makers = (
        lambda: MeanSource(adapters),
        lambda: NearestTaskSource(encoder, descriptions, adapters, features),
        lambda: KernelRegressionSource(encoder, descriptions, adapters, features),
        lambda: AdditiveKernelSource(encoder, descriptions, adapters),
    )
    methods: list[Method] = []
    seconds: dict[str, float] = {}
    for make in makers:
        started = time.perf_counter()
        source: Source = make()
        seconds[source.name] = time.perf_counter() - started
        methods.append(Method(source, "none" if isinstance(source, MeanSource) else "own"))
    for seed, fitted in zip(seeds, fits, strict=True):
        methods.append(Method(fitted.generator, "own", seed))
    seconds[fits[0].generator.name] = sum(fitted.seconds for fitted in fits) / len(fits)
    return FittedSources(tuple(methods), seconds)


@dataclass(frozen=True)
class TaskDraws:
    """Draws of seen tasks for a study: from all of them, or from the half that is described most alike.

    Attributes:
        names: all seen tasks.
        distances: mean squared distance between their descriptions over the parts that both have.
    """

    names: tuple[str, ...]
    distances: Float[Tensor, "t t"]

    @classmethod
    def of(cls, inputs: StudyInputs) -> TaskDraws:
        """Measure the distances between the descriptions of all tasks of the zoo, as the nearest task does."""
        names = inputs.zoo.tasks
        descriptions = inputs.descriptions(names)
        config, featurise = inputs.generator, inputs.backbone.image_features
        encoder = fit_fusion(
            descriptions,
            inputs.suite.metadata_schema,
            featurise,
            config.parts,
            components=config.components,
            whiten=config.whiten,
        )
        seen = SeenDistances.of(encoder, descriptions)
        total = torch.zeros(len(names), len(names), dtype=torch.float64)
        shared = torch.zeros_like(total)
        for part in encoder.parts:
            present = seen.present([part])
            both = present[:, None] & present[None]
            total += torch.where(both, seen.between(part), 0.0)
            shared += both
        return cls(names, torch.where(shared > 0, total / shared.clamp_min(1), torch.inf).float())

    @property
    def narrow_size(self) -> int:
        """Tasks in a narrow pool: half of all, rounded up."""
        return (len(self.names) + 1) // 2

    def pool(self, diversity: Diversity, seed: int) -> tuple[str, ...]:
        """The tasks that may be drawn: all, or the half nearest to one of them, which the seed chooses."""
        if diversity == "wide":
            return self.names
        center = int(numpy_generator(seed, "scaling", "center").integers(len(self.names)))
        nearest = torch.argsort(self.distances[center], stable=True)[: self.narrow_size].tolist()
        return tuple(self.names[index] for index in sorted(nearest))

    def draw(self, count: int, diversity: Diversity, seed: int) -> tuple[str, ...]:
        """``count`` tasks of the pool. A smaller draw of the same seed is the beginning of a larger one.

        Raises:
            DataError: the pool has fewer tasks.
        """
        pool = self.pool(diversity, seed)
        if count > len(pool):
            raise DataError(
                f"{count} tasks are to be drawn from the {diversity} pool, which has {len(pool)} of the suite's "
                f"{len(self.names)} seen tasks. Give the suite more seen tasks, or request fewer."
            )
        order = numpy_generator(seed, "scaling", "draw", diversity).permutation(len(pool))
        return tuple(pool[index] for index in order[:count])
