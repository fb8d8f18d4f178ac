"""Growth: a generator is trained further where its zoo has got more tasks, at a fraction of the time of a fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.fit import fit_conditional_mean
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.fit import GeneratorConfig
from wildpdiff.generator import Generator
from wildpdiff.records import decode
from wildpdiff.threads import one_thread
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

STEPS = 0.2
"""Updates of a network, as a share of those of a fit."""

MEASURED = " Measured on"

UNLIKE = 1.5
"""Ratio of residuals above which a refit is recommended (``benchmarks/experiments/growth``): .9 to 1.2 for tasks of the
same kind, 1.7 to 5.6 for others."""

LEAST = 0.01
"""Residual below which none is: the earlier adapters span everything then, and ratios are of rounding errors."""


@dataclass(frozen=True)
class UpdatedGenerator:
    """A generator that was trained further, with measurements of the tasks that were added.

    Residuals are mean shares of the squared distance from the pretrained model to a task's adapter that no sum of other
    seen adapters reaches.

    Attributes:
        added: names of these tasks.
        residual: of their adapters, outside of the span of the earlier tasks' adapters.
        usual: of the earlier tasks, each outside of the span of the others.
        unknown: a sentence for every value of their descriptions that the encoder, which stays, does not know.
    """

    generator: Generator
    added: tuple[str, ...]
    residual: float
    usual: float
    unknown: tuple[str, ...]
    seconds: float

    @property
    def refit(self) -> str:
        """Reason for a fit of the whole zoo, from the residuals or the descriptions; empty where none is needed."""
        if self.residual > max(UNLIKE * self.usual, LEAST):
            return f"A refit is recommended, since that is more than {UNLIKE:g} times as much."
        if self.unknown:
            return f"A refit is recommended, since the generator's encoder does not know all values: {self.unknown[0]}"
        return ""


def settings_of(generator: Generator) -> GeneratorConfig:
    """The configuration that a generator was fitted with; raises :class:`ArtifactError`."""
    config: GeneratorConfig = decode(GeneratorConfig, generator.training["config"], "training of the generator: config")
    return config


def updated_training(generator: Generator, zoo: Zoo) -> dict[str, Any]:
    """The plain JSON values about the fit of a generator that was updated to a zoo.

    Raises:
        TrainingError: the generator is of a kind that cannot be updated.
        ArtifactError: the zoo does not extend the one that the generator was fitted to.
    """
    if zoo.imported or generator.mean is None:
        kind = "imported adapters" if zoo.imported else "latents, without a conditional mean,"
        raise TrainingError(f"A generator of {kind} cannot be updated. Fit it again, to the whole zoo.")
    own = generator.training
    earlier = {plan.fingerprint: len(plan.tasks) for plan in zoo.plan.history if len(plan.tasks) < len(zoo.tasks)}
    if own.get("zoo") not in earlier:
        raise ArtifactError(
            f"The zoo in {zoo.folder} has no more tasks than the one that the generator was fitted to, or does not "
            f"extend it ({str(own.get('zoo'))[:12]}). Add tasks to that zoo with `wildpdiff zoo build`, or fit again."
        )
    step = {"generator": generator.fingerprint, "tasks": earlier[own["zoo"]]}
    grown = {"zoo": zoo.plan.fingerprint, "tasks": len(zoo.tasks), "updates": [*own.get("updates", ()), step]}
    return {**own, **grown}


@one_thread()
def update_generator(
    generator: Generator,
    training_set: TrainingSet,
    *,
    progress: Callable[[int, int], None] | None = None,
    store: Path | None = None,
) -> UpdatedGenerator:
    """Train a generator further on the tasks of a zoo that has grown.

    Codec, autoencoder, encoders and settings stay, as do the folds of the earlier tasks. Regressions are solved with
    all tasks; networks resume from their weights, each without its fold; blend, alignment and scores are chosen and
    measured anew on held-out tasks. The posterior stays, and its reason names the tasks that it was measured on.

    Args:
        training_set: of the zoo, which extends the one that the generator was fitted to (:func:`build_zoo`).
        store: folder of finished networks, as for :func:`~wildpdiff.fit.fit_generator`.

    Raises:
        TrainingError: the generator is of a kind that cannot be updated, or a training diverged.
        ArtifactError: the zoo does not extend the one that the generator was fitted to.
        AdapterMismatchError, DescriptionError: as for :func:`~wildpdiff.fit.fit_generator`.
    """
    started = time.perf_counter()
    training = updated_training(generator, training_set.zoo)
    if generator.mean is not None and generator.mean.members and training_set.features is None:
        raise TrainingError("The generator has networks, which learn from labelled examples. Give the tasks' data.")
    config, mean, count = settings_of(generator), generator.mean, training["updates"][-1]["tasks"]
    assert mean is not None
    reader = training_set.featurise or generator.conditions.featurise
    encoded = EncodedTasks.of(
        replace(training_set, featurise=reader), config, conditions=generator.conditions, codec=generator.codec
    )
    encoded = replace(encoded, earlier=tuple(entry["tasks"] for entry in training["updates"]))
    task_loss = config.task_loss
    if mean.members:
        task_loss = replace(task_loss, steps=max(1, round(STEPS * task_loss.steps)))
    start = mean if mean.members else None
    fitted = fit_conditional_mean(encoded, task_loss, training["seed"], progress=progress, store=store, start=start)
    posterior, measured = generator.posterior, training["updates"][0]["tasks"]
    if posterior is not None:
        reason = f"{posterior.reason.partition(MEASURED)[0]}{MEASURED} {measured} tasks, before the update."
        posterior = replace(posterior, reason=reason)
    updated = replace(
        generator, mean=fitted.mean, posterior=posterior, training=training, cross_validation=fitted.cross_validation
    )
    residual, usual = residuals(encoded.of_tasks() - encoded.start, count)
    added = training_set.tasks[count:]
    unknown = [text for name in added for text in generator.conditions.unknown(training_set.descriptions[name])]
    seconds = time.perf_counter() - started
    return UpdatedGenerator(updated, added, residual, usual, tuple(dict.fromkeys(unknown)), seconds)


def residuals(moves: Float[Tensor, "t d"], count: int) -> tuple[float, float]:
    """Mean shares of squared length outside of a span: of the later rows and of the first ``count`` rows.

    For the later rows it is the span of the first ones; for each of the first, that of the others.
    """
    unit = moves.double() / moves.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
    first, later = unit[:count], unit[count:]
    # The inverse of the Gram matrix has the reciprocal squared distance of each row from the span of the others.
    inverse = torch.linalg.inv(first @ first.T + 1e-6 * torch.eye(count, dtype=torch.float64))
    inner = later @ first.T
    outside = (1 - ((inner @ inverse) * inner).sum(1)).clamp_min(0)
    return float(outside.mean()), float((1 / inverse.diagonal()).mean())
