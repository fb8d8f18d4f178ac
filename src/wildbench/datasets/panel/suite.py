"""A suite whose tasks are functions of named seeds: the frame that every suite of the panel fills."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.tasks.task import GROUPS, Group, LabelledImages, SplitName

Pool = npt.NDArray[np.int64]
"""Indices into a data set."""


class PanelTask:
    """A task made of two functions: one gives its description, one its data by split."""

    def __init__(
        self,
        name: str,
        group: Group,
        describe: Callable[[], Description],
        make: Callable[[SplitName], LabelledImages],
        *,
        keep: bool = True,
    ) -> None:
        """Name the task.

        Args:
            name: unique within the suite.
            group: of the task.
            describe: makes the description.
            make: makes the data of a split.
            keep: keep the data in memory once made.
        """
        self._name = name
        self._describe = describe
        self._make = make
        self._keep = keep
        self._kept: dict[SplitName, LabelledImages] = {}
        self.group = group

    @property
    def name(self) -> str:
        """For example ``seen-007``."""
        return self._name

    @cached_property
    def description(self) -> Description:
        """Known without labels; a task identity for seen tasks only."""
        made = self._describe()
        task_id = self.name if self.group == "seen" else None
        return Description(made.metadata, made.backgrounds, made.examples, made.text, task_id)

    def data(self, split: SplitName) -> LabelledImages:
        """The labelled images of one split. The same call gives the same images."""
        if split in self._kept:
            return self._kept[split]
        made = self._make(split)
        if self._keep:
            self._kept[split] = made
        return made


class PanelSuite:
    """Tasks in three disjoint groups, with a fingerprint of everything that decides their data."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        image_size: int,
        *,
        schema: MetadataSchema,
        tasks: Sequence[PanelTask],
        content: Mapping[str, Any],
    ) -> None:
        """Group the tasks.

        Args:
            name: of the suite.
            classes: names of the classes.
            image_size: pixels a side.
            schema: of the metadata.
            tasks: of all groups, in order.
            content: plain JSON values that decide the data: configuration, seed, hash of the source, version.

        Raises:
            DataError: two tasks of one name.
        """
        names = [task.name for task in tasks]
        if len(set(names)) != len(names):
            raise DataError(f"The suite {name} has {len(names)} tasks with {len(set(names))} names; names are unique.")
        self._name = name
        self._classes = tuple(classes)
        self._image_size = image_size
        self._schema = schema
        self._content = {"suite": name, "classes": list(classes), "image_size": image_size, **content}
        self._tasks = {group: tuple(task for task in tasks if task.group == group) for group in GROUPS}

    @property
    def name(self) -> str:
        """Of the suite."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self._classes

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self._image_size

    @property
    def metadata_schema(self) -> MetadataSchema:
        """The named values that descriptions may have."""
        return self._schema

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of configuration, seed, source data and version."""
        return hashlib.sha256(json.dumps(self._content, sort_keys=True).encode()).hexdigest()

    def tasks(self, group: Group) -> tuple[PanelTask, ...]:
        """The tasks of one group, in a fixed order."""
        return self._tasks[group]


def partition(indices: Pool, shares: Sequence[float], rng: np.random.Generator) -> tuple[Pool, ...]:
    """Disjoint random pools of these shares, which add up to one; the last takes what rounding leaves."""
    mixed = rng.permutation(indices)
    ends = np.round(np.cumsum(shares)[:-1] * len(mixed)).astype(int)
    return tuple(np.split(mixed, ends))


def draw(pool: Pool, count: int, rng: np.random.Generator, what: str) -> Pool:
    """Indices from a pool without repetition; raises :class:`DataError` where it has too few."""
    if count > len(pool):
        raise DataError(f"{what}: {count} images are requested and the pool has {len(pool)}. Request fewer images.")
    return rng.choice(pool, count, replace=False)


def read_arrays(path: Path | str, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of an ``.npz`` file by name.

    Raises:
        DataError: no such file, not an ``.npz`` file, or an array is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}. Give the folder that holds it with --data.")
    try:
        with np.load(path) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise DataError(f"{path} has no array {missing[0]!r}; it has {', '.join(file)}.")
            return {name: file[name] for name in names}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an .npz file ({error}).") from None
