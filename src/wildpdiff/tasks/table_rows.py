"""Rows of a table of images, and what follows from them alone: splits, groups and metadata."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import MetadataField, MetadataSchema, MetadataValue
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES
from wildpdiff.tasks.task import GROUPS, SPLITS, Group

RowSplit = Literal["train", "validation", "test", "unlabelled", "background"]
ROW_SPLITS: tuple[RowSplit, ...] = get_args(RowSplit)
NEEDED = ("path", "label", "task")
KNOWN = (*NEEDED, "split", "group")
MISSING = {"", "na", "n/a", "nan", "null"}
GEOGRAPHIC: dict[str, Literal["latitude", "longitude"]] = {
    **dict.fromkeys(("latitude", "lat"), "latitude"),
    **dict.fromkeys(("longitude", "lon", "lng", "long"), "longitude"),
}
TRAIN_SHARE, VALIDATION_SHARE = 0.60, 0.15
FOLDER_SPLITS: dict[str, RowSplit] = {"_unlabelled": "unlabelled", "_background": "background"}


@dataclass(frozen=True)
class Row:
    """One image of one task. ``where`` names the row in messages; an empty split is still to be drawn.

    ``drawn`` tells of a split that was: the table left it open.
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


def read_table(path: Path, ignore: Sequence[str], unseen: int | float | Sequence[str] | None, seed: int) -> Table:
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
        raise DataError(f"{path}, line {reader.line_num}: {error}. Look for a quote that is not closed.") from None
    if not rows:
        raise DataError(f"{path} has no rows below its header; add one row per image.")
    columns = [name for name in header if name not in KNOWN and name not in ignore]
    return _table(str(path), rows, columns, "group" in header, unseen, seed)


def read_folder(folder: Path, unseen: int | float | Sequence[str] | None, seed: int) -> Table:
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
    metadata = {name: value for name, value in values.items() if name not in KNOWN and name not in ignore}
    checked: RowSplit | Literal[""] = next((name for name in ROW_SPLITS if name == split), "")
    return Row(where, values["path"], values["label"], values["task"], checked, values.get("group", ""), metadata)


def _table(
    source: str,
    rows: Sequence[Row],
    columns: Sequence[str],
    has_groups: bool,
    unseen: int | float | Sequence[str] | None,
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
        raise DataError(f"{source} has a column 'group', and unseen tasks were asked for as well; give only one.")
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


def _hash(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def _with_splits(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows without a split get one: 60 % train, 15 % validation, 25 % test, in the order of their path's hash."""
    waiting = sorted((row for row in rows if not row.split), key=lambda row: _hash(row.path))
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


def _drawn_groups(
    source: str, names: Sequence[str], unseen: int | float | Sequence[str] | None, seed: int
) -> dict[str, Group]:
    if unseen is None:
        chosen: set[str] = set()
    elif isinstance(unseen, int | float):
        count = round(unseen * len(names)) if isinstance(unseen, float) else unseen
        if not 0 <= count < len(names) or (isinstance(unseen, float) and not 0 <= unseen < 1):
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


def _given(row: Row, column: str) -> str:
    value = row.metadata.get(column, "")
    return "" if value.lower() in MISSING else value


def _fields(source: str, rows: Sequence[Row], columns: Sequence[str]) -> list[MetadataField]:
    fields = []
    for column in columns:
        values = sorted({_given(row, column) for row in rows} - {""})
        if not values:
            continue
        words = [value for value in values if _number(value) is None]
        geographic = GEOGRAPHIC.get(column.lower())
        if words and geographic:
            raise DataError(
                f"{source}: column {column!r} holds {words[0]!r}; give the {geographic} in decimal degrees."
            )
        if words:
            fields.append(MetadataField(column, "category", categories=tuple(values)))
        else:
            unit = "degrees" if geographic else ""
            fields.append(MetadataField(column, "number", unit=unit, geographic=geographic))
    return fields


def _task_metadata(name: str, rows: Sequence[Row], schema: MetadataSchema) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for entry in schema.fields:
        values = {_given(row, entry.name): row for row in reversed(rows)}
        values.pop("", None)
        distinct = sorted(values.items(), key=lambda item: rows.index(item[1]))
        numbers = {value if entry.kind == "category" else _number(value) for value, _ in distinct}
        if len(numbers) > 1:
            raise DataError(
                f"{distinct[1][1].where}: task {name!r} has two values of {entry.name!r}, {distinct[0][0]!r} and "
                f"{distinct[1][0]!r}; metadata must be the same in all rows of a task, or the column be ignored."
            )
        if distinct:
            try:
                metadata[entry.name] = entry.check(distinct[0][0])
            except DescriptionError as error:
                raise DataError(f"{distinct[0][1].where}: {error}") from None
    return metadata
