"""Tasks from the user's own images: a CSV table, or folders ``TASK/CLASS/IMAGE``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Description, Images, MetadataSchema, MetadataValue
from wildpdiff.tasks.image_files import read_images
from wildpdiff.tasks.table_rows import Row, Table, read_folder, read_table
from wildpdiff.tasks.task import SPLITS, Group, LabelledImages, SplitName

VERSION = 1
"""Raised when the same table would give other data than before: splits, cropping, examples."""

MAX_EXAMPLES = 32


class TableTask:
    """One task of a table. Images are read when asked for and, where the suite says so, kept."""

    def __init__(
        self,
        name: str,
        rows: Sequence[Row],
        group: Group,
        metadata: Mapping[str, MetadataValue],
        suite: TableSuite,
    ) -> None:
        self._name = name
        self._rows = tuple(rows)
        self._metadata = dict(metadata)
        self._suite = suite
        self._kept: dict[SplitName, LabelledImages] = {}
        self.group = group

    @property
    def name(self) -> str:
        """The task's name in the table, with ``-`` for characters that a file name should not have."""
        return self._name

    def rows(self, split: str) -> tuple[Row, ...]:
        """The table's rows of one split, ``unlabelled`` and ``background`` included."""
        return tuple(row for row in self._rows if row.split == split)

    @cached_property
    def description(self) -> Description:
        """Metadata, background images, unlabelled example images; a task identity for seen tasks only.

        Where the table has no unlabelled rows for the task, the examples are at most 32 of its training images,
        chosen by the hash of their path, without their labels.
        """
        backgrounds = self.rows("background")
        examples = self.rows("unlabelled")
        if not examples:
            examples = tuple(sorted(self.rows("train"), key=_path_hash))[:MAX_EXAMPLES]
        return Description(
            metadata=self._metadata or None,
            backgrounds=self._read(backgrounds) if backgrounds else None,
            examples=self._read(examples) if examples else None,
            task_id=self.name if self.group == "seen" else None,
        )

    def data(self, split: SplitName) -> LabelledImages:
        """The labelled images of one split; raises :class:`DataError` for an image that cannot be read."""
        if split in self._kept:
            return self._kept[split]
        rows = self.rows(split)
        size = self._suite.image_size
        images = self._read(rows) if rows else np.zeros((0, size, size, 3), dtype=np.uint8)
        index = {label: position for position, label in enumerate(self._suite.classes)}
        data = LabelledImages(images, np.array([index[row.label] for row in rows], dtype=np.int64))
        if self._suite.keep:
            self._kept[split] = data
        return data

    def _read(self, rows: Sequence[Row]) -> Images:
        images = []
        for row in rows:
            try:
                images.append(read_images([self._suite.root / row.path], self._suite.image_size))
            except DataError as error:
                raise DataError(f"{row.where}: {error}") from None
        return np.concatenate(images)


class TableSuite:
    """Tasks listed in a CSV table (:meth:`from_csv`) or laid out in folders (:meth:`from_folder`)."""

    def __init__(
        self,
        table: Table,
        *,
        name: str,
        source: Path,
        root: Path,
        image_size: int,
        classes: Sequence[str] | None,
        minimum: int,
        keep: bool,
    ) -> None:
        if image_size < 1:
            raise DataError(f"image_size is {image_size}; give 1 or more pixels.")
        self._name = name
        self._image_size = image_size
        self._table = table
        self.root = root
        self.keep = keep
        labels = {row.label for rows in table.rows.values() for row in rows if row.split in SPLITS}
        self._classes = tuple(classes) if classes is not None else tuple(sorted(labels))
        for task, rows in table.rows.items():
            _check_task(source, task, rows, self._classes, minimum)
        self._sizes = _file_sizes(root, table)
        self._tasks = tuple(
            TableTask(task, rows, table.groups[task], table.metadata[task], self) for task, rows in table.rows.items()
        )

    @classmethod
    def from_csv(
        cls,
        path: Path | str,
        *,
        image_size: int,
        root: Path | str | None = None,
        classes: Sequence[str] | None = None,
        unseen: int | float | Sequence[str] | None = None,
        seed: int = 0,
        minimum: int = 8,
        ignore: Sequence[str] = (),
        keep: bool = True,
    ) -> TableSuite:
        """Tasks from a table with one row per image: columns ``path, label, task[, split][, group][, …]``.

        ``split`` is ``train``, ``validation``, ``test``, ``unlabelled`` (an example of the description; its label is
        not read) or ``background`` (an image of the empty place). Rows without one are split 60 : 15 : 25 within
        their task by the hash of their path. ``group`` is ``pretraining``, ``seen`` or ``unseen``. Every other
        column is metadata of the task: a number where all its values are numbers, else a category; ``latitude`` and
        ``longitude`` are known by name. Images are cropped to the centred square and resized to ``image_size``.

        Args:
            path: the table, UTF-8, comma-separated, with a header.
            image_size: height and width of the images in pixels.
            root: the folder that image paths are relative to; the table's own by default.
            classes: the class names in order; by default all labels of the table, sorted.
            unseen: which tasks are unseen where there is no column ``group``: a number or a fraction of the tasks,
                drawn by ``seed``, or their names; none by default.
            seed: draws the unseen tasks.
            minimum: the fewest training images that a task may have.
            ignore: columns that are no metadata, for example the time of each image.
            keep: keep images in memory once read.

        Raises:
            DataError: the table, a row, a task or an image file is at fault; the message names it.
        """
        path = Path(path)
        table = read_table(path, ignore, unseen, seed)
        root = path.parent if root is None else Path(root)
        return cls(
            table,
            name=path.stem,
            source=path,
            root=root,
            image_size=image_size,
            classes=classes,
            minimum=minimum,
            keep=keep,
        )

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        *,
        image_size: int,
        classes: Sequence[str] | None = None,
        unseen: int | float | Sequence[str] | None = None,
        seed: int = 0,
        minimum: int = 8,
        keep: bool = True,
    ) -> TableSuite:
        """Tasks from folders ``TASK/CLASS/IMAGE``, split as rows without a split are in :meth:`from_csv`.

        Images in ``TASK/_unlabelled`` and ``TASK/_background`` become the description's examples and backgrounds.

        Args:
            folder: the folder above the tasks' folders.
            image_size: height and width of the images in pixels.
            classes: as for :meth:`from_csv`.
            unseen: as for :meth:`from_csv`.
            seed: draws the unseen tasks.
            minimum: the fewest training images that a task may have.
            keep: keep images in memory once read.

        Raises:
            DataError: the folder, a task or an image file is at fault; the message names it.
        """
        folder = Path(folder)
        return cls(
            read_folder(folder, unseen, seed),
            name=folder.resolve().name,
            source=folder,
            root=folder,
            image_size=image_size,
            classes=classes,
            minimum=minimum,
            keep=keep,
        )

    @property
    def name(self) -> str:
        """The name of the table's file or of the folder."""
        return self._name

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label is an index into them."""
        return self._classes

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self._image_size

    @property
    def metadata_schema(self) -> MetadataSchema:
        """One field for each metadata column that has any value."""
        return self._table.schema

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the table's content, the image files' names and sizes, and the settings; never of their dates."""
        content = {
            "version": VERSION,
            "image_size": self.image_size,
            "classes": self.classes,
            "groups": dict(self._table.groups),
            "metadata": {task: dict(values) for task, values in self._table.metadata.items()},
            "schema": self.metadata_schema.to_json(),
            "rows": [[row.task, row.path, row.label, row.split] for rows in self._table.rows.values() for row in rows],
            "sizes": self._sizes,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def tasks(self, group: Group) -> tuple[TableTask, ...]:
        """The tasks of one group, in the order in which the table names them first."""
        return tuple(task for task in self._tasks if task.group == group)


def _path_hash(row: Row) -> str:
    return hashlib.sha256(row.path.encode()).hexdigest()


def _file_sizes(root: Path, table: Table) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for rows in table.rows.values():
        for row in rows:
            if row.path not in sizes:
                try:
                    sizes[row.path] = (root / row.path).stat().st_size
                except OSError:
                    raise DataError(
                        f"{row.where}: image {root / row.path} does not exist; correct the path or remove the row."
                    ) from None
    return sizes


def _check_task(source: Path, task: str, rows: Sequence[Row], classes: Sequence[str], minimum: int) -> None:
    counts: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for row in rows:
        if row.split not in counts:
            continue
        counts[row.split] += 1
        if row.label not in classes:
            raise DataError(
                f"{row.where}: the label {row.label!r} is unknown; the classes are {', '.join(classes)}. "
                "Correct the label or add the class."
            )
    if counts["train"] < minimum:
        raise DataError(
            f"{source}: task {task!r} has {counts['train']} training images; add some up to {minimum}, "
            "lower minimum, or leave the task out."
        )
    for split in ("validation", "test"):
        if not counts[split]:
            raise DataError(f"{source}: task {task!r} has no {split} images; add some or leave the task out.")
    found = sorted({row.label for row in rows if row.split == "train"})
    if len(found) == 1:
        raise DataError(
            f"{source}: the training images of task {task!r} are all {found[0]!r}; add images of a second class or "
            "leave the task out."
        )
