"""A generator fitted to imported adapters: no task data, no backbone, and errors measured on the parameters alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.canonical import squared_updates
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.simple import MEAN, NEAREST, fit_simple_estimators
from wildpdiff.errors import TrainingError
from wildpdiff.fit import FittedGenerator, GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.zoo.importing import TaskDescriptions
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

FOLDS = 5
"""Parts of the tasks that a diffusion is fitted without, one at a time; a regression leaves out each task alone."""

IMPORTED = GeneratorConfig(parts=("metadata", "text"), centering=False)
"""Settings for adapters of which metadata and text are known."""

NOT_CALIBRATED = (
    "Errors are relative squared errors of the updates ΔW. Trust is not calibrated on task performance: no data of any "
    "task was at hand. Check a generated adapter on examples of your task."
)


@dataclass(frozen=True)
class ParameterErrors:
    """Relative squared errors ``|ΔŴ - ΔW|² / |ΔW|²`` on held-out tasks, means over tasks; 1 is that of no adapter.

    Attributes:
        generated: of the generator without the task (or without its fold).
        mean_adapter: of the mean of the other tasks' adapters.
        nearest: of the adapter of the task with the nearest description.
        tasks: number of tasks.
        note: limits of these errors.
    """

    generated: float
    mean_adapter: float
    nearest: float
    tasks: int
    note: str = NOT_CALIBRATED

    @property
    def rows(self) -> dict[str, float]:
        """Errors by method."""
        return {"generated": self.generated, "mean adapter": self.mean_adapter, "nearest": self.nearest}


@dataclass(frozen=True)
class FittedImport:
    """A generator of imported adapters with its errors on held-out tasks."""

    fitted: FittedGenerator
    errors: ParameterErrors

    @property
    def generator(self) -> Generator:
        """The generator; ``leave_one_out`` in its training holds the errors."""
        own = self.fitted.generator
        return replace(own, training={**own.training, "leave_one_out": asdict(self.errors)})


def fit_imported(
    zoo: Zoo,
    config: GeneratorConfig = IMPORTED,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FittedImport:
    """Fit a generator to imported adapters and the descriptions that they were imported with.

    Args:
        zoo: written by :func:`~wildpdiff.zoo.importing.import_adapters`.
        config: of the generator; of ``parts``, metadata and text are read.
        seed: of everything random.
        progress: called with (training steps done, in all).

    Raises:
        TrainingError: the zoo was not imported, or the settings read no part that adapters can be described by.
    """
    if not zoo.imported:
        raise TrainingError(f"The zoo in {zoo.folder} was fine-tuned here. Fit it with the data of its tasks.")
    descriptions = TaskDescriptions.of_zoo(zoo)
    parts = tuple(part for part in config.parts if part in ("metadata", "text", "task_id"))
    if not parts:
        raise TrainingError(f"The parts read are {', '.join(config.parts)}. Imported adapters have metadata and text.")
    config = replace(config, parts=parts, centering=False)
    backbone = Backbone.named(zoo.plan.adapter)

    def fit(part: Zoo, number: int = 0) -> FittedGenerator:
        return fit_generator(
            TrainingSet(part, descriptions.by_task, descriptions.schema, backbone),
            config,
            seed=sub_seed(seed, "fold", number) if number else seed,
            progress=progress if not number else None,
        )

    fitted = fit(zoo)
    generator = fitted.generator
    if generator.mean is not None:
        predicted = generator.mean.held_out
    else:
        rows = torch.zeros(len(zoo.tasks), generator.codec.size)
        order = torch.randperm(len(zoo.tasks), generator=torch_generator(seed, "folds"))
        for number, fold in enumerate(torch.chunk(order, FOLDS), 1):
            held = [zoo.tasks[row] for row in fold.tolist()]
            other = fit(zoo.without(held), number).generator
            embeddings = torch.stack([other.conditions.encode(descriptions.by_task[name]).values for name in held])
            sampled = other.sample_vectors(embeddings, 1, sub_seed(seed, "held out"))[:, 0]
            rows[fold] = generator.codec.encode(other.codec.decode(sampled))
        predicted = rows
    return FittedImport(fitted, _errors(zoo, generator, descriptions, predicted))


def _errors(
    zoo: Zoo, generator: Generator, descriptions: TaskDescriptions, predicted: Float[Tensor, "t d"]
) -> ParameterErrors:
    layout = generator.codec.layout
    raw = torch.cat([layout.flatten_many(zoo.tensors([row])) for row in range(len(zoo))])
    embeddings = torch.stack([generator.conditions.encode(descriptions.by_task[name]).values for name in zoo.tasks])
    start = generator.codec.encode(layout.flatten(zoo.initial.tensors)[None])[0]
    simple = fit_simple_estimators(generator.conditions.sizes, start, embeddings, generator.codec.encode(raw))
    others = simple.leave_one_out()
    truth = layout.unflatten(raw)
    norms = squared_updates(truth)

    def error(vectors: Tensor) -> float:
        squares = squared_updates(layout.unflatten(generator.codec.decode(vectors)), truth)
        return float((squares / norms.clamp_min(torch.finfo(torch.float64).tiny)).mean())

    return ParameterErrors(error(predicted), error(others[MEAN]), error(others[NEAREST]), len(zoo.tasks))
