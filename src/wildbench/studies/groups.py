"""Whole groups of tasks held out: every task of a habitat, every task of a region, and not only random ones.

A random unseen task has neighbours of its own kind among the seen ones. Leaving out all tasks that share a category, or
a quarter of the map, measures whether a generator extrapolates to a kind of task that it has never met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wildbench.studies.grid import FEWEST_TASKS, FittedSources, StudyInputs, fit_sources
from wildpdiff.baselines.constant import FinetunedSource, PretrainedSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import ResultRow, Results
from wildpdiff.evaluate.run import Method, evaluate
from wildpdiff.evaluate.score import test_set
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED, summarise
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.tasks.description import MetadataField, MetadataSchema
from wildpdiff.tasks.task import Task
from wildpdiff.zoo.store import Zoo

REGION = "region"
"""The kind of group that is made of coordinates: quarters of the map, cut at the median latitude and longitude."""


@dataclass(frozen=True)
class TaskGroup:
    """Seen tasks that are held out together: ``value`` is what they share, for example ``woodland``."""

    value: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class HeldOutGroups:
    """Results of holding out one kind of group.

    Attributes:
        rows: every score, of split ``held-out KIND``.
        seconds: for one adapter, by source, the mean over groups.
        training: seconds of a source's fit beyond the zoo, the mean over groups.
        notes: a sentence on every group that was left out, and on every one of which only some tasks were scored.
    """

    rows: tuple[ResultRow, ...]
    seconds: dict[str, float]
    training: dict[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class GroupChoice:
    """The groups of one kind that can be held out, and a sentence on each that is too small or leaves too few."""

    groups: tuple[TaskGroup, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class HeldOutGroup:
    """Results of holding out one group, and what was fitted to the others.

    Attributes:
        found: scores and costs.
        rest: the zoo without the group.
        fitted: to the rest.
        scored: tasks of the group that were scored.
        seed: of the samples, as :func:`~wildpdiff.evaluate.run.evaluate` was given it.
    """

    found: HeldOutGroups
    rest: Zoo
    fitted: FittedSources
    scored: tuple[Task, ...]
    seed: int


def group_kinds(schema: MetadataSchema) -> tuple[str, ...]:
    """Kinds of groups: the categories of the metadata, then :data:`REGION` where it has coordinates."""
    categories = tuple(entry.name for entry in schema.fields if entry.kind == "category")
    return categories + ((REGION,) if _coordinates(schema) is not None else ())


def task_groups(tasks: Sequence[Task], schema: MetadataSchema, kind: str) -> tuple[TaskGroup, ...]:
    """The groups of one kind, in the order of the schema's categories or south-west to north-east.

    Tasks whose metadata lacks the value belong to no group and are never held out.

    Raises:
        DataError: the tasks cannot be grouped by this.
    """
    if kind not in group_kinds(schema):
        raise DataError(
            f"Tasks cannot be grouped by {kind!r}; this suite has {', '.join(group_kinds(schema)) or 'no categories'}."
        )
    metadata = {task.name: dict(task.description.metadata or {}) for task in tasks}
    members: dict[str, list[str]] = {}
    coordinates = _coordinates(schema)
    if kind == REGION and coordinates is not None:
        members = {f"{south}-{west}": [] for south in ("south", "north") for west in ("west", "east")}
        names = [name for name, entry in metadata.items() if all(field.name in entry for field in coordinates)]
        positions = np.array([[float(metadata[name][field.name]) for field in coordinates] for name in names])
        if names:
            for name, (north, east) in zip(names, positions > np.median(positions, axis=0), strict=True):
                members[f"{'north' if north else 'south'}-{'east' if east else 'west'}"].append(name)
    else:
        members = {value: [] for entry in schema.fields if entry.name == kind for value in entry.categories}
        for name, entry in metadata.items():
            if kind in entry:
                members[str(entry[kind])].append(name)
    return tuple(TaskGroup(value, tuple(names)) for value, names in members.items() if names)


def choose_groups(inputs: StudyInputs, kind: str) -> GroupChoice:
    """The groups of one kind among the seen tasks that can be held out.

    Raises:
        DataError: the suite cannot be grouped by this, or no group can be held out.
    """
    seen = {task.name: task for task in inputs.suite.tasks("seen")}
    groups = task_groups([seen[name] for name in inputs.zoo.tasks], inputs.suite.metadata_schema, kind)
    return _usable(groups, kind, len(inputs.zoo.tasks))


def hold_out_group(
    inputs: StudyInputs,
    kind: str,
    group: TaskGroup,
    *,
    generator_seeds: Sequence[int] = (0,),
    most_tasks: int = 12,
    samples: int = 4,
    seed: int = 0,
) -> HeldOutGroup:
    """Fit everything to the tasks of the other groups and score it on this one's test images.

    The zoo's own final adapters are the fine-tuned reference. The pretrained and the fine-tuned are scored on the same
    tasks, so that gains are comparable.

    Args:
        inputs: suite, backbone, zoo, labelled images of the seen tasks, and what is fitted.
        kind: name of a field of categories, or :data:`REGION`.
        group: one of that kind, as :func:`choose_groups` gives them.
        generator_seeds: one generator each.
        most_tasks: of the group that are scored, drawn by the seed; all of them are held out.
        samples: adapters a task and generator; all of them count.
        seed: of the draws and the samples.

    Raises:
        DataError: no task is to be scored.
        TrainingError: a training diverged.
    """
    if most_tasks < 1:
        raise DataError(f"{most_tasks} tasks of each group are to be scored; at least 1 is needed.")
    split = f"held-out {kind}"
    seen = {task.name: task for task in inputs.suite.tasks("seen")}
    rest = inputs.zoo.without(group.tasks)
    fitted = fit_sources(inputs, rest, generator_seeds)
    scored = tuple(seen[name] for name in _drawn(group, kind, most_tasks, seed))
    sampling = sub_seed(seed, split, group.value)
    found = evaluate(
        inputs.suite.name,
        {split: [test_set(inputs.backbone, task) for task in scored]},
        inputs.backbone,
        (
            Method(PretrainedSource(inputs.zoo.initial), "none"),
            *fitted.methods,
            Method(FinetunedSource(inputs.zoo.task_adapters()), "own"),
        ),
        samples=samples,
        seed=sampling,
    )
    few = f"{split}, {group.value}: {len(scored)} of its {len(group.tasks)} tasks are scored."
    notes = (few,) if len(scored) < len(group.tasks) else ()
    return HeldOutGroup(
        HeldOutGroups(found.rows, dict(found.seconds), dict(fitted.seconds), notes), rest, fitted, scored, sampling
    )


def join_groups(parts: Sequence[HeldOutGroups], notes: Sequence[str] = ()) -> HeldOutGroups:
    """Several groups of one kind as one: all rows, costs as their mean over groups, and the notes after those given."""
    return HeldOutGroups(
        tuple(row for part in parts for row in part.rows),
        _mean([part.seconds for part in parts]),
        _mean([part.training for part in parts]),
        (*notes, *(note for part in parts for note in part.notes)),
    )


def held_out_groups(
    inputs: StudyInputs,
    kind: str,
    *,
    generator_seeds: Sequence[int] = (0,),
    most_tasks: int = 12,
    samples: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeldOutGroups:
    """Hold out each group of one kind in turn; arguments and errors are those of :func:`hold_out_group`.

    Args:
        progress: called with (groups done, in all).

    Raises:
        DataError: the suite cannot be grouped by this, no group can be held out, or no task is to be scored.
        TrainingError: a training diverged.
    """
    chosen = choose_groups(inputs, kind)
    parts = []
    for number, group in enumerate(chosen.groups):
        held_out = hold_out_group(
            inputs,
            kind,
            group,
            generator_seeds=generator_seeds,
            most_tasks=most_tasks,
            samples=samples,
            seed=seed,
        )
        parts.append(held_out.found)
        if progress is not None:
            progress(number + 1, len(chosen.groups))
    return join_groups(parts, chosen.notes)


def add_groups(results: Results, found: HeldOutGroups, *, seed: int = 0) -> Results:
    """The results with the rows of held-out groups, their summary and their notes; a new split next to the others.

    Raises:
        DataError: the results have rows of the same split.
    """
    splits = {row.split for row in found.rows}
    twice = sorted(splits & {row.split for row in results.rows})
    if twice:
        raise DataError(f"The results already have rows of the split {twice[0]!r}. Add each kind of group once.")
    seconds = {name: value for name, value in found.seconds.items() if name not in (PRETRAINED, FINETUNED)}
    lines = summarise(found.rows, seconds, found.training, seed=seed)
    return replace(
        results,
        rows=(*results.rows, *found.rows),
        summary=(*results.summary, *lines),
        notes=(*results.notes, *found.notes),
    )


def _coordinates(schema: MetadataSchema) -> tuple[MetadataField, MetadataField] | None:
    """The fields of latitude and longitude, where there is one of each."""
    latitude = [entry for entry in schema.fields if entry.geographic == "latitude"]
    longitude = [entry for entry in schema.fields if entry.geographic == "longitude"]
    return (latitude[0], longitude[0]) if len(latitude) == 1 and len(longitude) == 1 else None


def _usable(groups: Sequence[TaskGroup], kind: str, tasks: int) -> GroupChoice:
    """The groups that are large enough and leave enough, and a sentence on each of the others."""
    kept, notes = [], []
    for group in groups:
        count, rest = len(group.tasks), tasks - len(group.tasks)
        if count < FEWEST_TASKS:
            notes.append(f"held-out {kind}, {group.value}: left out, because it has {count} tasks.")
        elif rest < FEWEST_TASKS:
            notes.append(f"held-out {kind}, {group.value}: left out, because only {rest} tasks are of another group.")
        else:
            kept.append(group)
    if not kept:
        raise DataError(
            f"No {kind} can be held out: each has fewer than {FEWEST_TASKS} of the {tasks} seen tasks, or leaves so "
            "few. Group the tasks by something else, or give the suite more of them."
        )
    return GroupChoice(tuple(kept), tuple(notes))


def _drawn(group: TaskGroup, kind: str, most: int, seed: int) -> list[str]:
    """At most so many tasks of a group, in its order."""
    order = numpy_generator(seed, "held-out", kind, group.value).permutation(len(group.tasks))
    return [group.tasks[index] for index in sorted(order[:most])]


def _mean(entries: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(entry[name] for entry in entries) / len(entries) for name in entries[0]}
