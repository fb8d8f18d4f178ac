"""Tasks of plain Python objects: examples in memory, or the rows of a table, without a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from wildpdiff.disk import content_hash, json_bytes
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.batch import count, example_keys
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.task import GROUPS, SPLITS, Group, SplitName

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""Parts of a task's rows where no column names their split."""


@dataclass(frozen=True)
class Dataset:
    """Examples with their targets; they are :class:`~wildpdiff.tasks.task.Examples`.

    Attributes:
        inputs: an array, a tensor, a list, or several of one length by name.
        targets: as many, for the objective; None where they follow from the inputs.
    """

    inputs: Any
    targets: Any = None

    def __post_init__(self) -> None:
        if self.targets is not None and len(self.targets) != len(self):
            raise DataError(f"There are {len(self)} examples and {len(self.targets)} targets. Give one target each.")
        sizes = {len(values) for values in self.inputs.values()} if isinstance(self.inputs, Mapping) else set()
        if len(sizes) > 1:
            raise DataError(f"Named inputs have different numbers of examples: {sorted(sizes)}. Give as many of each.")

    def __len__(self) -> int:
        return count(self.inputs)


@dataclass(frozen=True)
class PlainTask:
    """A task in memory; a :class:`~wildpdiff.tasks.task.Task`.

    Attributes:
        splits: examples by split; a missing one is empty.
    """

    name: str
    splits: Mapping[SplitName, Dataset]
    description: Description = field(default_factory=Description)

    def data(self, split: SplitName) -> Dataset:
        """The examples of one split."""
        return self.splits.get(split, Dataset([], []))


@dataclass(frozen=True)
class PlainSuite:
    """Tasks in memory; a :class:`~wildpdiff.tasks.task.Suite`.

    Attributes:
        metadata_schema: by default that of the tasks' metadata: a number where all values are numbers, else a category.

    Raises:
        DataError: two tasks have one name.
    """

    name: str
    seen: Sequence[PlainTask]
    unseen: Sequence[PlainTask] = ()
    pretraining: Sequence[PlainTask] = ()
    metadata_schema: MetadataSchema = field(default_factory=lambda: MetadataSchema(()))

    def __post_init__(self) -> None:
        names = [task.name for group in GROUPS for task in self.tasks(group)]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise DataError(f"There are two tasks {double!r}. Give every task a name of its own.")
        if not self.metadata_schema.fields:
            known = [task.description.metadata or {} for group in GROUPS for task in self.tasks(group)]
            object.__setattr__(self, "metadata_schema", schema_of(known))

    def tasks(self, group: Group) -> tuple[PlainTask, ...]:
        """The tasks of one group."""
        return tuple(getattr(self, group))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all examples, targets and metadata."""
        values = [
            [task.name, split, [key.hex() for part in (data.inputs, data.targets) for key in example_keys(part)]]
            for group in GROUPS
            for task in self.tasks(group)
            for split in SPLITS
            for data in (task.data(split),)
        ]
        described = [dict(task.description.metadata or {}) for group in GROUPS for task in self.tasks(group)]
        return content_hash(json_bytes([self.name, values, described]))


def schema_of(described: Sequence[Mapping[str, Any]]) -> MetadataSchema:
    """The schema of some tasks' metadata."""
    values: dict[str, list[Any]] = {}
    for metadata in described:
        for name, value in metadata.items():
            values.setdefault(name, []).append(value)
    return MetadataSchema(tuple(MetadataField.of_values(name, found) for name, found in values.items()))


def tasks_of_table(
    table: Any, *, task: str, inputs: str | Sequence[str], target: str, split: str | None = None
) -> tuple[PlainTask, ...]:
    """Tasks from the rows of a table: a ``datasets.Dataset``, a data frame, or a dictionary of columns.

    Columns that have the same value in all rows of every task are the metadata of its description.

    Args:
        task: column with the name of the task.
        inputs: column of the examples; several become named inputs.
        target: column of the targets.
        split: column of ``train``, ``validation`` and ``test``; without it the rows are drawn by the task's name.

    Raises:
        DataError: there is no such column, or a split has another name.
    """
    names = list(getattr(table, "column_names", None) or table.keys())
    given = [task, *([inputs] if isinstance(inputs, str) else inputs), target, *([split] if split else [])]
    missing = [name for name in given if name not in names]
    if missing:
        raise DataError(f"The table has no column {missing[0]!r}; its columns are {', '.join(map(str, names))}.")
    columns = {name: list(table[name]) for name in names}
    odd = next((name for name in names if len(columns[name]) != len(columns[task])), None)
    if odd is not None:
        raise DataError(f"Column {odd!r} has {len(columns[odd])} rows, and {task!r} {len(columns[task])}.")
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(columns[task]):
        rows.setdefault(str(value), []).append(row)
    about = [
        name
        for name in names
        if name not in given and all(_is_one_value([columns[name][row] for row in own]) for own in rows.values())
    ]
    found = []
    for name, own in rows.items():
        parts = _drawn(name, own) if split is None else _split(columns[split], own, split)
        splits = {part: _dataset(columns, chosen, inputs, target) for part, chosen in parts.items()}
        first = {field: columns[field][own[0]] for field in about}
        metadata = {field: value.item() if isinstance(value, np.generic) else value for field, value in first.items()}
        found.append(PlainTask(name, splits, Description(metadata=metadata or None, task_id=name)))
    return tuple(found)


def _is_one_value(values: Sequence[Any]) -> bool:
    return all(
        isinstance(value, str | int | float | np.integer | np.floating | np.bool_) and value == values[0]
        for value in values
    )


def _dataset(
    columns: Mapping[str, list[Any]], rows: Sequence[int], inputs: str | Sequence[str], target: str
) -> Dataset:
    def column(name: str) -> list[Any]:
        return [columns[name][row] for row in rows]

    given = column(inputs) if isinstance(inputs, str) else {name: column(name) for name in inputs}
    return Dataset(given, column(target))


def _drawn(name: str, rows: Sequence[int]) -> dict[SplitName, list[int]]:
    """Rows of each split, drawn by the task's name."""
    order = numpy_generator(0, "splits", name).permutation(np.array(rows))
    cuts = np.cumsum([round(SHARES[split] * len(rows)) for split in SPLITS[:-1]])
    return {split: sorted(part.tolist()) for split, part in zip(SPLITS, np.split(order, cuts), strict=True)}


def _split(values: Sequence[Any], rows: Sequence[int], column: str) -> dict[SplitName, list[int]]:
    strange = [values[row] for row in rows if values[row] not in SPLITS]
    if strange:
        raise DataError(f"Column {column!r} has the split {strange[0]!r}; known are {', '.join(SPLITS)}.")
    return {split: [row for row in rows if values[row] == split] for split in SPLITS}
