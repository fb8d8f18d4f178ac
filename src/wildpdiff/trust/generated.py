"""Calibration of trust in a generator: on its adapters for each seen task without that task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.fit import fit_conditional_mean
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.errors import DataError
from wildpdiff.fit import GeneratorConfig
from wildpdiff.generator import Generator
from wildpdiff.parallel import Tick
from wildpdiff.posterior.posterior import Posterior
from wildpdiff.rng import first_by_name, torch_generator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.threads import one_thread
from wildpdiff.trust.calibrate import fit_trust, hold_out_folds
from wildpdiff.trust.folds import Fold, calibration_folds
from wildpdiff.trust.model import TrustModel
from wildpdiff.trust.seen import CalibrationConfig, SeenTasks
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

FEWEST_TASKS = 30
"""With fewer seen tasks there is too little held-out evidence for trust to rest on."""

GROUP_STEPS = 200
MOST_MEASURED = 30
"""Tasks of each random fold that are measured; each costs about a tenth of a second."""


@dataclass(frozen=True)
class EstimateSource:
    """A conditional mean's estimates for unseen tasks; a :class:`~wildpdiff.source.Source`.

    Attributes:
        codec: its vectors to adapters.
    """

    mean: ConditionalMean
    conditions: FusionEncoder
    codec: Codec
    config: AdapterConfig
    name: ClassVar[str] = "estimate"
    stochastic: ClassVar[bool] = False

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the adapter; raises :class:`DescriptionError` on an empty or bad description."""
        vectors = self.vectors(description)[1].expand(n, -1)
        provenance = {"source": self.name, "seed": seed, "task": description.task_id}
        return _adapters(self.codec, self.config, vectors, provenance)

    def vectors(self, description: Description) -> tuple[Tensor, Tensor]:
        """Embedding and normalised estimate, a row each."""
        with torch.no_grad():
            embedding = self.conditions.encode(description).values[None]
            return embedding, self.mean.predict(embedding, self.mean.shifts([description]))


@dataclass(frozen=True)
class PosteriorSource:
    """Posterior samples around the estimates for unseen tasks; a :class:`~wildpdiff.source.Source`.

    A mean that was fitted again without a group has an encoder and a codec of its own, with other columns and scales
    than the posterior's: its estimates are decoded and encoded again.

    Attributes:
        estimates: centers of the samples.
        posterior: without the tasks that the estimates are made without.
        conditions: descriptions to the posterior's embeddings.
        codec: adapters to the posterior's vectors.
    """

    estimates: EstimateSource
    posterior: Posterior
    conditions: FusionEncoder
    codec: Codec
    name: ClassVar[str] = "one sample"
    stochastic: ClassVar[bool] = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` samples; raises :class:`DescriptionError` on an empty or bad description."""
        embedding, estimate = self.estimates.vectors(description)
        with torch.no_grad():
            if self.conditions is not self.estimates.conditions:
                embedding = self.conditions.encode(description).values[None]
            if self.codec is not self.estimates.codec:
                estimate = self.codec.encode(self.estimates.codec.decode(estimate))
            draws = torch_generator(seed, "sample")
            vectors = self.posterior.sample(embedding.expand(n, -1), estimate.expand(n, -1), draws)
        provenance = {"source": self.name, "seed": seed, "task": description.task_id}
        return _adapters(self.codec, self.estimates.config, vectors, provenance)


def _adapters(codec: Codec, config: AdapterConfig, vectors: Tensor, provenance: Mapping[str, Any]) -> list[Adapter]:
    stacked = codec.layout.unflatten(codec.decode(vectors))
    return [
        Adapter({name: value[row].clone() for name, value in stacked.items()}, config, dict(provenance))
        for row in range(len(vectors))
    ]


def can_calibrate(generator: Generator, seen: Zoo | TrainingSet) -> bool:
    """Whether seen tasks can be left out of this generator, and those with data are enough for trust to rest on."""
    tasks = seen.tasks if isinstance(seen, Zoo) else seen.labelled
    return generator.mean is not None and len(tasks) >= FEWEST_TASKS


def calibrate_generator(
    generator: Generator,
    training_set: TrainingSet,
    config: GeneratorConfig,
    *,
    calibration: CalibrationConfig = CalibrationConfig(),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    store: Path | None = None,
) -> TrustModel:
    """Learn on seen tasks when this generator helps.

    Its random folds are those of the seen tasks that its networks were trained without: nothing is fitted for
    them. For groups of like tasks the conditional mean is fitted again, with fewer networks.

    Args:
        generator: with a conditional mean.
        training_set: that it was fitted to, with the labelled images of the seen tasks.
        calibration: numbers of folds and thresholds.
        store: folder in which the networks of every group are kept as they are finished, for a call that resumes.

    Raises:
        DataError: the generator has no conditional mean, there are no labelled images, or too few seen tasks.
        TrainingError: a training diverged.
    """
    if generator.mean is None:
        raise DataError(
            "Trust rests on a conditional mean, of which the seen tasks can be left out, and this generator has none. "
            "Fit it with a kernel mean, or go without trust."
        )
    zoo, schema = training_set.zoo, training_set.schema
    unnamed = {name: replace(training_set.descriptions[name], task_id=None) for name in zoo.tasks}
    training_set = replace(training_set, descriptions=unnamed, featurise=generator.conditions.featurise)
    groups = calibration_folds(
        training_set.labelled or zoo.tasks,
        unnamed,
        schema,
        generator.backbone.image_features,
        random=calibration.random_folds,
        groups=calibration.group_folds,
        seed=seed,
    )
    folds = _folds(generator.mean, zoo.tasks, groups, seed)
    sources = _Sources(generator, generator.mean, training_set, config, folds, seed, store)
    with one_thread():
        parts = generator.conditions.parts
        seen = SeenTasks.of(training_set, tuple(parts), calibration)
        estimates, *samples = hold_out_folds(seen, folds, sources, seed=seed, progress=progress)
        model = fit_trust(seen, estimates, generator.fingerprint)
        if not samples:
            return model
        return replace(model, samples=fit_trust(seen, samples[0], generator.fingerprint))


def _folds(mean: ConditionalMean, tasks: Sequence[str], folds: Sequence[Fold], seed: int) -> tuple[Fold, ...]:
    """The folds, random ones replaced by the parts that the mean's networks were trained without, if there are any."""
    if not mean.members:
        return tuple(folds)
    parts = [[task for task, part in zip(tasks, mean.fold.tolist(), strict=True) if part == number]
             for number in range(mean.folds)]  # fmt: skip
    own = [Fold(f"random {number}", _some(part, seed, number), False) for number, part in enumerate(parts)]
    return (*own, *(fold for fold in folds if fold.extrapolation))


@dataclass(frozen=True, eq=False)
class _Sources:
    """Estimates and samples of a generator without the tasks of a fold."""

    generator: Generator
    mean: ConditionalMean
    training_set: TrainingSet
    config: GeneratorConfig
    folds: tuple[Fold, ...]
    seed: int
    store: Path | None

    def __call__(self, fold: Fold, tick: Tick) -> tuple[Source, ...]:
        """The estimate and, where the generator has a posterior, its samples."""
        estimates = self._without(fold, tick)
        if self.generator.posterior is None:
            return (estimates,)
        kept = torch.tensor([name not in fold.held_out for name in self.training_set.tasks])
        posterior = self.generator.posterior.of_tasks(self.mean.seen[kept])
        return estimates, PosteriorSource(estimates, posterior, self.generator.conditions, self.generator.codec)

    def _without(self, fold: Fold, tick: Tick) -> EstimateSource:
        mean, generator, number = self.mean, self.generator, self.folds.index(fold)
        if mean.members and not fold.extrapolation:  # the random folds are the first, as the networks'
            left = mean.without(number)
            return EstimateSource(left, generator.conditions, generator.codec, generator.adapter_config)
        # The evaluation images of these tasks train no other seen task; they must not train these others alone either.
        features = self.training_set.features
        assert features is not None
        judged = {key for name in fold.held_out for key in features(name).keys}
        images = (lambda name: features(name).without_validation(judged)) if mean.members else None
        rest = replace(self.training_set.without(fold.held_out), features=images)
        encoded = EncodedTasks.of(rest, self.config)
        # One shorter training is enough to measure extrapolation.
        short = replace(self.config.task_loss, steps=min(GROUP_STEPS, self.config.task_loss.steps))
        fitted = fit_conditional_mean(
            encoded,
            short,
            self.seed,
            trained_folds=1,
            progress=lambda done, total: tick(done / total),
            store=self.store,
        )
        return EstimateSource(fitted.mean, encoded.conditions, encoded.codec, generator.adapter_config)


def _some(tasks: Sequence[str], seed: int, fold: int) -> tuple[str, ...]:
    """At most :data:`MOST_MEASURED` of a fold's tasks, drawn at random and in their order: a zoo may be sorted."""
    return tuple(tasks[index] for index in first_by_name(tasks, MOST_MEASURED, seed, "trust", "measured", fold))
