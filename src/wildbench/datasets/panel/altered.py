"""Suites made of another suite: with irrelevant metadata, or with another division into seen and unseen tasks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial

from wildbench.datasets.panel.suite import PanelSuite, PanelTask
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.task import GROUPS, Group, ImageSuite, ImageTask

VERSION = 1
PREFIX = "distractor"


def with_distractors(suite: ImageSuite, columns: int = 10, *, seed: int = 0) -> PanelSuite:
    """The same tasks whose metadata has further columns of random numbers that are independent of the task.

    Args:
        suite: any.
        columns: how many.
        seed: of the numbers, one standard normal draw a task and column.

    Raises:
        DataError: fewer than one column, or the suite has a field of such a name.
    """
    if columns < 1:
        raise DataError(f"{columns} distractors are requested; give one or more.")
    fields = tuple(MetadataField(f"{PREFIX}-{number}", "number") for number in range(columns))
    names = set(suite.metadata_schema.names)
    if any(field.name in names for field in fields):
        raise DataError(f"The suite {suite.name} has a field {fields[0].name!r} already.")
    schema = MetadataSchema((*suite.metadata_schema.fields, *fields))
    tasks = []
    for group in GROUPS:
        for task in suite.tasks(group):
            describe = partial(_distracted, task, columns, seed)
            tasks.append(PanelTask(task.name, group, describe, task.data, keep=False))
    content = {"version": VERSION, "columns": columns, "seed": seed, "of": suite.fingerprint}
    return PanelSuite(
        f"{suite.name}-distractors", suite.classes, suite.image_size, schema=schema, tasks=tasks, content=content
    )


def _distracted(task: ImageTask, columns: int, seed: int) -> Description:
    values = numpy_generator(seed, "distractors", task.name).standard_normal(columns)
    metadata = {f"{PREFIX}-{number}": round(float(value), 4) for number, value in enumerate(values)}
    return replace(task.description, metadata={**(task.description.metadata or {}), **metadata})


def divided(suite: ImageSuite, name: str, unseen: Collection[str]) -> PanelSuite:
    """The seen tasks of a suite divided anew: those named are unseen, the others seen; no other task is unseen.

    Args:
        suite: any.
        name: of the new suite.
        unseen: names of seen tasks.

    Raises:
        DataError: a name is no seen task's, or no seen task is left.
    """
    names = {task.name for task in suite.tasks("seen")}
    strange = sorted(set(unseen) - names)
    if strange:
        raise DataError(f"The suite {suite.name} has no seen task {strange[0]!r}.")
    if not names - set(unseen):
        raise DataError(f"All {len(names)} seen tasks of {suite.name} are named as unseen. Name fewer.")
    tasks = [
        PanelTask(task.name, "pretraining", partial(getattr, task, "description"), task.data, keep=False)
        for task in suite.tasks("pretraining")
    ]
    for task in suite.tasks("seen"):
        group: Group = "unseen" if task.name in unseen else "seen"
        tasks.append(PanelTask(task.name, group, partial(getattr, task, "description"), task.data, keep=False))
    content = {"version": VERSION, "unseen": sorted(unseen), "of": suite.fingerprint}
    return PanelSuite(name, suite.classes, suite.image_size, schema=suite.metadata_schema, tasks=tasks, content=content)
