"""A generator fitted to imported adapters, without task data or with that of some, and errors of its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.canonical import squared_updates
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.conditional_mean.score_table import FEW_TASKS
from wildpdiff.conditional_mean.simple import MEAN, NEAREST, fit_simple_estimators
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.fit import FittedGenerator, GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.importing import TaskDescriptions
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

FOLDS = 5
"""Parts of the tasks that a diffusion is fitted without, one at a time; a regression leaves out each task alone."""

IMPORTED = GeneratorConfig(parts=("metadata", "text"), centering=False)
"""Settings for adapters of which metadata and text are known."""

NO_BETTER = "Descriptions do not help yet: the mean or the nearest adapter is as near. Give more adapters."
STANDARD_ERRORS = 2.0
"""Lead over the mean adapter, in its standard errors, from which descriptions count as of help: more than chance, and
choices that were made by the same errors, explain."""
RELATIVE = "Errors are relative squared errors of the updates ΔW."


def not_calibrated(data: str) -> str:
    """Limits of a generator without trust; ``data`` are the words for the data that was at hand."""
    return (
        f"{RELATIVE} Trust is not calibrated on task performance: {data}. Check a generated adapter on examples of "
        "your task."
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
    note: str = not_calibrated("no data of any task was at hand")

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


def imported_training_set(zoo: Zoo, suite: Suite | None = None, backbone: Backbone | None = None) -> TrainingSet:
    """Imported adapters with the descriptions that they were imported with.

    Args:
        suite: its seen tasks are labelled data of the adapters of their names, which become the first of the zoo; the
            others are left out.
        backbone: the base model, needed with a suite. Its adapters become those of the zoo.

    Raises:
        TrainingError: the zoo was not imported, or adapters attach to modules that the backbone lacks.
        AdapterMismatchError: adapters have other shapes than the backbone's.
        DataError: no task of the suite has the name of an adapter.
    """
    if not zoo.imported:
        raise TrainingError(f"The zoo in {zoo.folder} was fine-tuned here. Fit it with the data of its tasks.")
    found = TaskDescriptions.of_zoo(zoo)
    config = zoo.plan.adapter
    if suite is None or backbone is None:
        return TrainingSet(zoo, found.by_task, found.schema, Backbone.named(config))
    backbone = backbone.with_lora(LoraSpec.of(config))
    backbone.check(zoo.initial)
    tasks = [task for task in suite.tasks("seen") if task.name in found.by_task]
    if not tasks:
        raise DataError(
            f"None of the seen tasks of {suite.name!r} has the name of an adapter, for example {zoo.tasks[0]!r}. Name "
            "tasks like the adapters' folders."
        )
    names = frozenset(task.name for task in tasks)
    features = FeatureCache(backbone, tasks)
    return TrainingSet(zoo.with_first([*names]), found.by_task, found.schema, backbone, features, with_data=names)


def fit_imported(
    adapters: Zoo | TrainingSet,
    config: GeneratorConfig = IMPORTED,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    store: Path | None = None,
) -> FittedImport:
    """Fit a generator to imported adapters and the descriptions that they were imported with.

    Args:
        adapters: a zoo written by :func:`~wildpdiff.zoo.importing.import_adapters`, or one with labelled data of some
            tasks (:func:`imported_training_set`). With data of ten tasks networks are trained on them.
        config: of the generator; of ``parts``, metadata and text are read.
        seed: of everything random.
        progress: called with (training steps done, in all).
        store: folder of finished networks, as for :func:`~wildpdiff.fit.fit_generator`.

    Raises:
        TrainingError: the zoo was not imported, or the settings read no part that adapters can be described by.
    """
    training_set = imported_training_set(adapters) if isinstance(adapters, Zoo) else adapters
    zoo, descriptions = training_set.zoo, training_set.descriptions
    parts = tuple(part for part in config.parts if part in ("metadata", "text", "task_id"))
    if not parts:
        raise TrainingError(f"The parts read are {', '.join(config.parts)}. Imported adapters have metadata and text.")
    config = replace(config, parts=parts, centering=False)

    def fit(part: TrainingSet, number: int = 0) -> FittedGenerator:
        return fit_generator(
            part,
            config,
            seed=sub_seed(seed, "fold", number) if number else seed,
            progress=progress if not number else None,
            store=store,
        )

    fitted = fit(training_set)
    generator = fitted.generator
    if generator.mean is not None:
        predicted = generator.mean.held_out
    else:
        rows = torch.zeros(len(zoo.tasks), generator.codec.size)
        order = torch.randperm(len(zoo.tasks), generator=torch_generator(seed, "folds"))
        for number, fold in enumerate(torch.chunk(order, FOLDS), 1):
            held = [zoo.tasks[row] for row in fold.tolist()]
            other = fit(training_set.without(held), number).generator
            embeddings = torch.stack([other.conditions.encode(descriptions[name]).values for name in held])
            sampled = other.sample_vectors(embeddings, 1, sub_seed(seed, "held out"))[:, 0]
            rows[fold] = generator.codec.encode(other.codec.decode(sampled))
        predicted = rows
    return FittedImport(fitted, _errors(training_set, generator, predicted))


def _errors(training_set: TrainingSet, generator: Generator, predicted: Float[Tensor, "t d"]) -> ParameterErrors:
    zoo, described = training_set.zoo, training_set.ordered_descriptions
    layout = generator.codec.layout
    raw = torch.cat([layout.flatten_many(zoo.tensors([row])) for row in range(len(zoo))])
    embeddings = torch.stack([generator.conditions.encode(entry).values for entry in described])
    start = generator.codec.encode(layout.flatten(training_set.initial)[None])[0]
    simple = fit_simple_estimators(generator.conditions.sizes, start, embeddings, generator.codec.encode(raw))
    others = simple.leave_one_out()
    truth = layout.unflatten(raw)
    norms = squared_updates(truth)

    def errors(vectors: Tensor) -> Float[Tensor, " t"]:
        squares = squared_updates(layout.unflatten(generator.codec.decode(vectors)), truth)
        return squares / norms.clamp_min(torch.finfo(torch.float64).tiny)

    own, simpler = errors(predicted), [errors(others[name]) for name in (MEAN, NEAREST)]
    found = ParameterErrors(float(own.mean()), float(simpler[0].mean()), float(simpler[1].mean()), len(zoo.tasks))
    known = len(training_set.labelled)
    if known:
        needed = f", and trust needs {FEW_TASKS}" if known < FEW_TASKS else ""
        found = replace(found, note=not_calibrated(f"data of {known} tasks was at hand{needed}"))
    leads = simpler[0] - own  # over the mean adapter, which no description decides
    chance = STANDARD_ERRORS * float(leads.std()) / len(leads) ** 0.5 if len(leads) > 1 else math.inf
    ahead = float(leads.mean()) > chance and found.generated < 0.99 * found.nearest
    return found if ahead else replace(found, note=f"{found.note} {NO_BETTER}")
