"""Tasks from the user's own images: a CSV table, or folders ``TASK/CLASS/IMAGE``."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import GEOGRAPHIC, Description, Images, MetadataField, MetadataSchema, MetadataValue
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES, read_images
from wildpdiff.tasks.task import GROUPS, SPLITS, Group, LabelledImages, SplitName

VERSION = 1
"""Raised when the same table would give other data than before: splits, cropping, examples."""

MAX_EXAMPLES = 32

RowSplit = Literal["train", "validation", "test", "unlabelled", "background"]
ROW_SPLITS: tuple[RowSplit, ...] = get_args(RowSplit)
NEEDED = ("path", "label", "task")
KNOWN = (*NEEDED, "split", "group")
MISSING = {"", "na", "n/a", "nan", "null"}
TRAIN_SHARE, VALIDATION_SHARE = 0.60, 0.15
FOLDER_SPLITS: dict[str, RowSplit] = {"_unlabelled": "unlabelled", "_background": "background"}

Unseen = int | float | Sequence[str] | None
"""The unseen tasks where a table has no column ``group``: a number, a fraction, or names."""


@dataclass(frozen=True)
class Row:
    """One image of one task.

    Attributes:
        where: file and line, for messages.
        path: of the image, relative to the table's root.
        label, task, group: as written.
        split: empty until it is drawn.
        metadata: the other columns that have a value.
        drawn: whether the split was drawn, since the table left it open.
    """

    where: str
    path: str
    label: str
    task: str
    split: RowSplit | Literal[""]
    group: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    drawn: bool = False


@dataclass(frozen=True)
class Table:
    """Checked rows by task (in order of first appearance, every split known), groups and metadata."""

    rows: Mapping[str, tuple[Row, ...]]
    groups: Mapping[str, Group]
    metadata: Mapping[str, Mapping[str, MetadataValue]]
    schema: MetadataSchema


def read_table(path: Path, ignore: Sequence[str], unseen: Unseen, seed: int) -> Table:
    """Read and check a CSV file (see ``TableSuite.from_csv``); raises :class:`DataError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{path} is no file; give the path of a CSV table of images.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save the table as UTF-8 CSV.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file's permissions.") from None
    reader = csv.reader(text.splitlines(keepends=True))
    header = [name.strip() for name in next(reader, [])]
    _check_header(path, header)
    rows = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(_row(path, reader.line_num, header, cells, ignore))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Close every quote.") from None
    if not rows:
        raise DataError(f"{path} has no rows below its header; add one row per image.")
    columns = [name for name in header if name not in KNOWN and name not in ignore]
    return _table(str(path), rows, columns, "group" in header, unseen, seed)


def read_folder(folder: Path, unseen: Unseen, seed: int) -> Table:
    """Read ``TASK/CLASS/IMAGE`` (see ``TableSuite.from_folder``); raises :class:`DataError`."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give a folder of the form TASK/CLASS/IMAGE.")
    rows = []
    for path in sorted(folder.glob("*/*/*")):
        task, label, file = path.relative_to(folder).parts
        if path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in (task, label, file)):
            split: RowSplit | Literal[""] = FOLDER_SPLITS.get(label, "")
            relative = path.relative_to(folder).as_posix()
            rows.append(Row(f"{path}", relative, "" if split else label, _task_name(task), split, ""))
    if not rows:
        raise DataError(f"{folder} holds no images of the form TASK/CLASS/IMAGE; give the folder above the tasks.")
    return _table(str(folder), rows, [], False, unseen, seed)


def _check_header(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))} (found: {', '.join(header) or 'an empty file'}); "
            "the first line must name the columns path, label and task, separated by commas."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice; rename or remove one.")


def _task_name(text: str) -> str:
    """Names go into file names, so other characters than letters, digits, ``-`` and ``_`` become ``-``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text.strip())


def _row(path: Path, line: int, header: Sequence[str], cells: Sequence[str], ignore: Sequence[str]) -> Row:
    where = f"{path}, line {line}"
    if len(cells) != len(header):
        raise DataError(f"{where}: {len(cells)} cells where the header has {len(header)}; quote cells with commas.")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for name in ("path", "task"):
        if not values[name]:
            raise DataError(f"{where}: the column {name!r} is empty; fill it or remove the row.")
    split = values.get("split", "")
    if split and split not in ROW_SPLITS:
        raise DataError(f"{where}: the split is {split!r}; give one of {', '.join(ROW_SPLITS)}, or leave it empty.")
    if split not in ("unlabelled", "background") and not values["label"]:
        raise DataError(f"{where}: the label is empty; fill it or set the split to unlabelled.")
    others = {name: value for name, value in values.items() if name not in KNOWN and name not in ignore}
    metadata = {name: value for name, value in others.items() if value.lower() not in MISSING}
    checked: RowSplit | Literal[""] = next((name for name in ROW_SPLITS if name == split), "")
    return Row(where, values["path"], values["label"], values["task"], checked, values.get("group", ""), metadata)


def _table(
    source: str,
    rows: Sequence[Row],
    columns: Sequence[str],
    has_groups: bool,
    unseen: Unseen,
    seed: int,
) -> Table:
    by_task: dict[str, list[Row]] = {}
    written: dict[str, str] = {}
    for row in rows:
        name = _task_name(row.task)
        if written.setdefault(name, row.task) != row.task:
            raise DataError(
                f"{row.where}: tasks {written[name]!r} and {row.task!r} would share the name {name!r}; rename."
            )
        by_task.setdefault(name, []).append(replace(row, task=name))
    for task_rows in by_task.values():
        _check_paths(task_rows)
    if has_groups and unseen is not None:
        raise DataError(f"{source} has a column 'group', and unseen tasks are given as well; give only one.")
    groups = _stated_groups(by_task) if has_groups else _drawn_groups(source, tuple(by_task), unseen, seed)
    schema = MetadataSchema(tuple(_fields(source, rows, columns)))
    return Table(
        {name: _with_splits(task_rows) for name, task_rows in by_task.items()},
        groups,
        {name: _task_metadata(name, task_rows, schema) for name, task_rows in by_task.items()},
        schema,
    )


def _check_paths(rows: Sequence[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        before = first.setdefault(row.path, row)
        if before is not row:
            raise DataError(
                f"{row.where}: task {row.task!r} has the image {row.path} twice ({before.split or 'any split'} and "
                f"{row.split or 'any split'}); an image may be in one split of a task only, remove one row."
            )


def _path_hash(row: Row) -> str:
    return hashlib.sha256(row.path.encode()).hexdigest()


def _with_splits(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows without a split get one: 60 % train, 15 % validation, 25 % test, in the order of their path's hash."""
    waiting = sorted((row for row in rows if not row.split), key=_path_hash)
    train = round(TRAIN_SHARE * len(waiting))
    validation = train + math.ceil(VALIDATION_SHARE * len(waiting))
    sizes = (train, validation - train, len(waiting) - validation)
    splits = chain.from_iterable([name] * size for name, size in zip(SPLITS, sizes, strict=True))
    drawn = {row.path: split for row, split in zip(waiting, splits, strict=False)}
    return tuple(row if row.split else replace(row, split=drawn[row.path], drawn=True) for row in rows)


def _stated_groups(by_task: Mapping[str, Sequence[Row]]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for name, rows in by_task.items():
        for row in rows:
            group = next((known for known in GROUPS if known == row.group), None)
            if group is None:
                raise DataError(f"{row.where}: the group is {row.group!r}; give one of {', '.join(GROUPS)}.")
            if groups.setdefault(name, group) != group:
                raise DataError(
                    f"{row.where}: task {name!r} is in group {groups[name]!r} above and {group!r} here; give one group."
                )
    return groups


def _drawn_groups(source: str, names: Sequence[str], unseen: Unseen, seed: int) -> dict[str, Group]:
    if unseen is None:
        chosen: set[str] = set()
    elif isinstance(unseen, int | float):
        share = unseen if isinstance(unseen, float) else unseen / len(names)
        count = round(share * len(names)) if 0 <= share < 1 else len(names)
        if count == len(names):
            raise DataError(
                f"{source}: unseen is {unseen} of {len(names)} tasks; give a number below that, or a fraction below 1."
            )
        order = numpy_generator(seed, "unseen tasks").permutation(len(names))
        chosen = {names[index] for index in order[:count]}
    else:
        chosen = {_task_name(name) for name in unseen}
        unknown = sorted(chosen - set(names))
        if unknown:
            raise DataError(f"{source} has no task {unknown[0]!r} to be unseen; its tasks are {', '.join(names)}.")
    return {name: "unseen" if name in chosen else "seen" for name in names}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _fields(source: str, rows: Sequence[Row], columns: Sequence[str]) -> list[MetadataField]:
    fields = []
    for column in columns:
        values = sorted({row.metadata[column] for row in rows if column in row.metadata})
        if not values:
            continue
        words = [value for value in values if _number(value) is None]
        geographic = GEOGRAPHIC.get(column.lower())
        if words and geographic:
            raise DataError(
                f"{source}: column {column!r} holds {words[0]!r}; give the {geographic} in decimal degrees."
            )
        try:
            fields.append(MetadataField.of_values(column, values))
        except DescriptionError as error:
            raise DataError(f"{source}: {error}") from None
    return fields


def _task_metadata(name: str, rows: Sequence[Row], schema: MetadataSchema) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for entry in schema.fields:
        given = [row for row in rows if entry.name in row.metadata]
        if not given:
            continue
        first, kind = given[0].metadata[entry.name], str if entry.kind == "category" else float
        for row in given:
            value = row.metadata[entry.name]
            if kind(value) != kind(first):
                raise DataError(
                    f"{row.where}: task {name!r} has two values of {entry.name!r}, {first!r} and {value!r}; metadata "
                    "must be the same in all rows of a task, or the column be ignored."
                )
        try:
            metadata[entry.name] = entry.check(first)
        except DescriptionError as error:
            raise DataError(f"{given[0].where}: {error}") from None
    return metadata


class TableTask:
    """One task of a table. Images are read when needed and, by an option of the suite, kept."""

    def __init__(self, name: str, table: Table, suite: TableSuite) -> None:
        self.name, self.group = name, table.groups[name]
        self._rows, self._metadata, self._suite = table.rows[name], table.metadata[name], suite
        self._kept: dict[SplitName, LabelledImages] = {}

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
            metadata=dict(self._metadata) or None,
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
        if self._suite.options.keep:
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


@dataclass(frozen=True)
class TableOptions:
    """Settings of reading a table or a folder of images.

    Attributes:
        image_size: height and width of the images in pixels; they are cropped to the centred square and resized.
        root: the folder that image paths are relative to; the table's own by default. Of tables only.
        classes: the class names in order; by default all labels, sorted.
        unseen: which tasks are unseen where there is no column ``group``: a number or a fraction of the tasks, drawn
            by ``seed``, or their names; none by default.
        seed: draws the unseen tasks.
        minimum: the fewest training images that a task may have.
        ignore: columns that are no metadata, for example the time of each image. Of tables only.
        keep: keep images in memory once read.
    """

    image_size: int
    root: Path | str | None = None
    classes: Sequence[str] | None = None
    unseen: Unseen = None
    seed: int = 0
    minimum: int = 8
    ignore: Sequence[str] = ()
    keep: bool = True

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise DataError(f"image_size is {self.image_size}; give 1 or more pixels.")


class TableSuite:
    """Tasks listed in a CSV table (:meth:`from_csv`) or laid out in folders (:meth:`from_folder`).

    Attributes:
        name: of the table's file or of the folder.
        classes: the class names; a label is an index into them.
        image_size: height and width of the images in pixels.
        metadata_schema: one field for each metadata column that has any value.
        root: folder of the images.
        options: of the table.
    """

    def __init__(self, table: Table, source: Path, root: Path, options: TableOptions) -> None:
        self.name = source.stem if source.is_file() else source.resolve().name
        self.root, self.options, self.image_size = root, options, options.image_size
        self.metadata_schema = table.schema
        labels = {row.label for rows in table.rows.values() for row in rows if row.split in SPLITS}
        self.classes: tuple[str, ...] = tuple(sorted(labels) if options.classes is None else options.classes)
        for task, rows in table.rows.items():
            _check_task(source, task, rows, self.classes, options.minimum)
        self._table, self._sizes = table, _file_sizes(root, table)
        self._tasks = tuple(TableTask(task, table, self) for task in table.rows)

    @classmethod
    def from_csv(cls, path: Path | str, **options: Any) -> TableSuite:
        """Tasks from a table with one row per image: columns ``path, label, task[, split][, group][, …]``.

        ``split`` is ``train``, ``validation``, ``test``, ``unlabelled`` (an example of the description; its label is
        not read) or ``background`` (an image of the empty site). Rows without one are split 60 : 15 : 25 within
        their task by the hash of their path. ``group`` is ``pretraining``, ``seen`` or ``unseen``. Every other
        column is metadata of the task: a number where all its values are numbers, else a category; ``latitude`` and
        ``longitude`` are known by name.

        Args:
            path: the table, UTF-8, comma-separated, with a header.
            **options: those of :class:`TableOptions`.

        Raises:
            DataError: the table, a row, a task or an image file is at fault; the message names it.
        """
        path, chosen = Path(path), TableOptions(**options)
        root = path.parent if chosen.root is None else Path(chosen.root)
        return cls(read_table(path, chosen.ignore, chosen.unseen, chosen.seed), path, root, chosen)

    @classmethod
    def from_folder(cls, folder: Path | str, **options: Any) -> TableSuite:
        """Tasks from folders ``TASK/CLASS/IMAGE``, split as rows without a split are in :meth:`from_csv`.

        Images in ``TASK/_unlabelled`` and ``TASK/_background`` become the description's examples and backgrounds.

        Args:
            folder: the folder above the tasks' folders.
            **options: those of :class:`TableOptions` but for ``root`` and ``ignore``.

        Raises:
            DataError: the folder, a task or an image file is at fault; the message names it.
        """
        for name in options.keys() & {"root", "ignore"}:
            raise TypeError(f"a folder of images has no option {name!r}")
        folder, chosen = Path(folder), TableOptions(**options)
        return cls(read_folder(folder, chosen.unseen, chosen.seed), folder, folder, chosen)

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
    for row in rows:
        if row.split in SPLITS and row.label not in classes:
            raise DataError(
                f"{row.where}: the label {row.label!r} is unknown; the classes are {', '.join(classes)}. "
                "Correct the label or add the class."
            )
    counts = Counter(row.split for row in rows)
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
