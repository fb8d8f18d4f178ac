"""Tasks of text classification from a table with the columns ``text``, ``label`` and ``task``.

The split of a text is decided by a hash of the text alone: no text is trained on in one task and tested on in another,
and nothing moves when rows come or go.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.task_names import same_name, task_names
from wildpdiff.disk import content_hash, json_bytes
from wildpdiff.errors import DataError
from wildpdiff.rng import first_by_name
from wildpdiff.tables.columns import ALIASES, SPLIT_WORDS, SYNONYMS, matched_columns, name_key
from wildpdiff.tables.delimited import Delimited, read_delimited, read_header, read_lines
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.batch import example_keys, examples_hash
from wildpdiff.tasks.dataset import SHARES, Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.metadata_columns import metadata_column
from wildpdiff.tasks.task import SPLITS, Group, SplitName

TEXT = "text"
COLUMNS = (TEXT, "label", "task", "split", "group", "description")
"""Columns that are no metadata; the first three are needed."""
PICTURES = frozenset(name for names in SYNONYMS["path"] for name in names)
"""Columns of tables of pictures, which may have a column of texts as well."""
LINES = (".txt", ".text")
"""Suffixes of files with a text a line, unless their first line has the name of the column."""
UNLABELLED = "unlabelled"
"""Split of texts whose labels are not read."""

MOST_EXAMPLES = 32
"""Unlabelled texts in a description."""
FEWEST = 3
"""Texts of a class that a task needs of two classes to be learned from."""
UNSEEN_SHARE, FEWEST_FOR_UNSEEN = 0.2, 10
"""Share of the tasks that are kept unseen where no column names them, of as many tasks or more."""


def is_text_table(path: Path, columns: Mapping[str, str] | None = None) -> bool:
    """Whether a file is a table of texts: a column is named as such, or is ``text`` and none is of pictures."""
    words = {ALIASES.get(word, word) for word in columns or ()}
    if "path" in words or not path.is_file():
        return False
    keys = {name_key(name) for name in read_header(path)}
    return bool(keys) and (TEXT in words or (TEXT in keys and not keys & PICTURES))


@dataclass(frozen=True)
class TextTask(PlainTask):
    """A task of a table.

    Attributes:
        title: the user's own name of it; ``name`` is safe in file names.
        unlabelled: texts without a label.
        tested: labelled texts whose split is stated to be the test's; no refinement may read them.
    """

    title: str = ""
    unlabelled: list[str] = field(default_factory=list)
    tested: frozenset[str] = frozenset()

    @property
    def labelled(self) -> int:
        """Number of texts with a label."""
        return sum(len(self.data(split)) for split in SPLITS)

    @property
    def labels(self) -> dict[str, int]:
        """The target of every labelled text of any split."""
        parts = [self.data(split) for split in SPLITS]
        return {text: int(target) for part in parts for text, target in zip(part.inputs, part.targets, strict=True)}


@dataclass(frozen=True)
class TextSuite(PlainSuite):
    """Tasks of a table of texts.

    Attributes:
        classes: the class names; a target is an index into them.
        described: tasks without enough labels to learn from or to be scored on; adapters can be generated for them.
        remarks: on what was left out.
    """

    classes: tuple[str, ...] = ()
    described: Sequence[TextTask] = ()
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def find(self, name: str) -> TextTask | None:
        """The task of this name, the user's own or the safe one, in any group or none."""
        own = next((task for task in self.all_tasks if same_name(task.title, name)), None)
        return own or next((task for task in self.all_tasks if task.name == name), None)

    @property
    def all_tasks(self) -> tuple[TextTask, ...]:
        """All tasks, those of no group last."""
        own = (*self.seen, *self.unseen, *self.pretraining, *self.described)
        return tuple(task for task in own if isinstance(task, TextTask))

    @property
    def texts(self) -> list[str]:
        """The texts of all tasks."""
        data = (task.data(split).inputs for task in self.all_tasks for split in SPLITS)
        return [
            *(text for part in data for text in part),
            *(text for task in self.all_tasks for text in task.unlabelled),
        ]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is learned from: the seen tasks' texts of training and validation, and their descriptions."""
        return self.learned_fingerprint("seen")

    @cached_property
    def content_hash(self) -> str:
        """A hash of all data."""
        return PlainSuite(self.name, self.seen, self.unseen, self.pretraining, self.metadata_schema).fingerprint

    def learned_fingerprint(self, group: Group) -> str:
        """The :attr:`fingerprint` of another group's tasks."""
        splits: tuple[SplitName, ...] = ("train", "validation")
        values = []
        for task in self.tasks(group):
            data = [task.data(split) for split in splits]
            keys = [[key.hex() for part in (own.inputs, own.targets) for key in example_keys(part)] for own in data]
            about = task.description
            described = [dict(about.metadata or {}), about.text or "", examples_hash(about.examples or [])]
            values.append([task.name, keys, described])
        return content_hash(json_bytes([self.classes, values]))


@dataclass(frozen=True)
class _Row:
    line: int
    text: str
    label: str
    split: str


def read_text_suite(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    unseen: int | float | Sequence[str] | None = None,
    seed: int = 0,
    learning: bool = True,
) -> TextSuite:
    """Read a table of texts, one row each.

    A column that has one value in each task is metadata; ``description`` is the text of the task's description. Rows
    without a label are unlabelled examples; the texts that are trained on are too, without their labels. Spellings of
    a label are joined; rows without a text or a task, and texts with several labels in one task, are left out, with
    remarks.

    Args:
        path: a CSV or TSV file.
        columns: names of the columns by word, for example ``{"text": "Utterance"}``.
        classes: the classes that a backbone knows, in the order of its outputs; by default those of the table, sorted.
        unseen: number, share or names of the tasks that are kept unseen, where no column ``group`` names them; by
            default a fifth of ten tasks or more.
        seed: of drawing them.
        learning: whether models learn from it; without, labels that are not among the classes count as none.

    Raises:
        DataError: it is no table, lacks a column, names an unknown split, group or class, or has less than two classes.
    """
    table = read_delimited(Path(path))
    own = _matched(table, columns or {})
    others = [name for name in table.header if name not in own.values()]
    read, stated, found = _rows(table, own, [*others, *(own[word] for word in ("group", "description") if word in own)])
    rows, known, spelled = _with_classes(table, read, classes, learning=learning)
    names = task_names(rows)
    undescribed = {title: _task(names[title], title, found, known) for title, found in rows.items()}
    groups = _groups(table, undescribed, stated, own.get("group"), unseen=unseen, seed=seed)
    learned = {title for title, task in undescribed.items() if groups[title] == "seen" and _can_be_learned(task)}
    described, schema, remarks = _described(table, others, rows, stated, words=own.get("description"), learned=learned)
    tasks = {
        title: replace(task, description=replace(described[title], task_id=task.name))
        for title, task in undescribed.items()
    }
    by_group: dict[Group, list[TextTask]] = {"seen": [], "unseen": [], "pretraining": []}
    rest: list[TextTask] = []
    for title, one in sorted(tasks.items()):
        group = groups[title]
        fit = _can_be_learned(one) if group != "unseen" else len(one.data("test")) > 0
        (by_group[group] if fit else rest).append(one)
    few = [task.title for task in rest if task.labelled]
    if few:
        remarks.append(
            f"{len(few)} of {len(tasks)} tasks, for example {few[0]!r}, have too few labels to learn from (two classes "
            f"of {FEWEST} texts): adapters can be generated for them."
        )
    return TextSuite(
        Path(path).stem,
        by_group["seen"],
        by_group["unseen"],
        by_group["pretraining"],
        metadata_schema=schema,
        classes=known,
        described=rest,
        remarks=(*table.remarks, *found, *spelled, *remarks),
    )


def read_texts(paths: Sequence[Path], columns: Mapping[str, str] | None = None) -> list[str]:
    """Texts of files: the column ``text`` of a table, or the lines of a file of another kind.

    Raises:
        DataError: a file cannot be read, or none has a text.
    """
    found: list[str] = []
    for path in paths:
        named = (columns or {}).get(TEXT, TEXT)
        lines = path.suffix.lower() in LINES and name_key(named) not in map(name_key, read_header(path))
        if not lines and is_text_table(path, columns):
            table = read_delimited(path)
            found += [text for text in table.column(_named(table, named)) if text]
            continue
        found += [line.strip() for line in read_lines(path) if line.strip()]
    if not found:
        raise DataError(f"{paths[0] if paths else 'The command'} has no text. Give a file with a text a line.")
    return found


def _rows(
    table: Delimited, own: Mapping[str, str], further: Sequence[str]
) -> tuple[dict[str, list[_Row]], dict[str, dict[str, set[str]]], tuple[str, ...]]:
    """Rows by task, the values that each task has in further columns, and remarks on rows that are left out."""
    remarks = Remarks()
    rows: dict[str, list[_Row]] = {}
    stated: dict[str, dict[str, set[str]]] = {}
    for line, cells in table.records(table.header):
        task, text = cells[own["task"]], cells[own[TEXT]]
        if not task or not text:
            remarks.add("Rows without a text or a task are left out", f"line {line} of {table.source}")
            continue
        label, split = cells[own["label"]], cells.get(own.get("split", ""), "").lower()
        split = SPLIT_WORDS.get(split, split)
        if split not in ("", UNLABELLED, *SPLITS):
            known = ", ".join((*SPLITS, UNLABELLED))
            raise DataError(f"{table.source}, line {line}: the split is {split!r}; known are {known}.")
        label, split = ("", "") if split == UNLABELLED else (label, split)
        rows.setdefault(task, []).append(_Row(line, text, label, split))
        kept = stated.setdefault(task, {name: set() for name in further})
        for name in further:
            if cells[name]:
                kept[name].add(cells[name])
    return rows, stated, remarks.sentences()


def _with_classes(
    table: Delimited, rows: Mapping[str, Sequence[_Row]], classes: Sequence[str] | None, *, learning: bool
) -> tuple[dict[str, list[_Row]], tuple[str, ...], tuple[str, ...]]:
    """The rows with one spelling for each label, the classes, and remarks."""
    labels = joined_labels((row.label for own in rows.values() for row in own if row.label), None, classes or ())
    rows = {
        task: [replace(row, label=labels.canonical.get(row.label, "")) for row in own] for task, own in rows.items()
    }
    several = {task: _of_several_labels(own) for task, own in rows.items()}
    shown = {row.label for task, own in rows.items() for row in own if row.label and row.text not in several[task]}
    known = tuple(sorted(shown) if classes is None else classes)
    strange = sorted(shown - set(known))
    if len(known) < 2 or (strange and learning):
        why = f"has the label {strange[0]!r}, which the model does not know" if strange else "has fewer than 2 labels"
        raise DataError(f"{table.source} {why}; {', '.join(known[:5]) or 'no label'} is known.")
    remarks = Remarks()
    found: dict[str, list[_Row]] = {task: [] for task in rows}
    for task, own in rows.items():
        for row in own:
            if row.text in several[task]:
                remarks.add("Rows of texts with several labels in one task are left out", f"line {row.line}")
            elif row.label in strange:
                remarks.add("Labels that the model does not know count as none", f"{row.label!r} on line {row.line}")
                found[task].append(replace(row, label=""))
            else:
                found[task].append(row)
    return found, known, (*labels.remarks, *remarks.sentences())


def _of_several_labels(rows: Sequence[_Row]) -> set[str]:
    """The texts with different labels, of which none can be believed."""
    pairs = Counter(text for text, _ in {(row.text, row.label) for row in rows if row.label})
    return {text for text, labels in pairs.items() if labels > 1}


def _matched(table: Delimited, columns: Mapping[str, str]) -> dict[str, str]:
    """Names of the table's columns by word."""
    given = {ALIASES.get(word, word): name for word, name in columns.items()}
    odd = next((word for word in given if word not in COLUMNS), None)
    if odd is not None:
        raise DataError(f"--columns names {odd!r}; of a table of texts {', '.join(COLUMNS)} can be named.")
    words = (TEXT, "description")
    found = {word: _named(table, given.pop(word)) for word in words if word in given}
    keys = {name_key(name): name for name in reversed(table.header)}
    found |= {word: keys[word] for word in words if word in keys and word not in found}
    free = [name for name in table.header if name not in found.values()]
    found |= matched_columns(free, given, table.source, ("label", "task", "split", "group"))
    missing = next((word for word in COLUMNS[:3] if word not in found), None)
    if missing is not None:
        raise DataError(
            f"{table.source} has no column {missing!r}; its columns are {', '.join(table.header)}. Name it, for "
            f"example with --columns {missing}={table.header[0]}."
        )
    return found


def _named(table: Delimited, name: str) -> str:
    found = next((own for own in table.header if name in (own, own.strip())), None) or next(
        (own for own in table.header if name_key(own) == name_key(name)), None
    )
    if found is None:
        raise DataError(f"{table.source} has no column {name!r}; its columns are {', '.join(table.header)}.")
    return found


def _described(
    table: Delimited,
    others: Sequence[str],
    rows: Mapping[str, Sequence[_Row]],
    stated: Mapping[str, Mapping[str, set[str]]],
    *,
    words: str | None,
    learned: Collection[str],
) -> tuple[dict[str, Description], MetadataSchema, list[str]]:
    """Descriptions by task, the schema of their metadata, and remarks on columns that are none."""
    remarks: list[str] = []
    fields: list[MetadataField] = []
    metadata: dict[str, dict[str, Any]] = {task: {} for task in rows}
    for name in others:
        if any(len(values[name]) > 1 for values in stated.values()):
            remarks.append(f"Column {name!r} has several values in one task and is no metadata.")
            continue
        read = metadata_column(name, {task: text for task, own in stated.items() for text in own[name]}, learned)
        remarks += read.remarks
        if read.field is not None:
            fields.append(read.field)
            for task, value in read.values.items():
                metadata[task][name] = value
    found = {}
    for task, listed in rows.items():
        texts = sorted(stated[task][words]) if words else []
        if len(texts) > 1:
            raise DataError(f"{table.source}: task {task!r} has {len(texts)} descriptions. Give it one.")
        usable = {row.text for row in listed if not row.label or _split(row) == "train"}
        examples = sorted(usable, key=_share)[:MOST_EXAMPLES]
        found[task] = Description(
            metadata=metadata[task] or None,
            examples=examples or None,
            text=texts[0] if texts else None,
        )
    return found, MetadataSchema(tuple(fields)), remarks


def _share(text: str) -> float:
    """A number from 0 to 1 by the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def _split(row: _Row) -> SplitName:
    if row.split:
        return next(split for split in get_args(SplitName) if split == row.split)
    share = _share(row.text)
    return "train" if share < SHARES["train"] else "validation" if share < 1 - SHARES["test"] else "test"


def _task(name: str, title: str, rows: Sequence[_Row], classes: tuple[str, ...]) -> TextTask:
    """A task, not described yet."""
    parts: dict[SplitName, list[_Row]] = {split: [] for split in SPLITS}
    for row in rows:
        if row.label:
            parts[_split(row)].append(row)
    splits = {
        split: Dataset([row.text for row in own], np.array([classes.index(row.label) for row in own], dtype=np.int64))
        for split, own in parts.items()
    }
    tested = frozenset(row.text for row in rows if row.label and row.split == "test")
    return TextTask(name, splits, title=title, unlabelled=[row.text for row in rows if not row.label], tested=tested)


def _can_be_learned(task: TextTask) -> bool:
    counts = np.bincount(task.data("train").targets) if len(task.data("train")) else np.zeros(1)
    return int((counts >= FEWEST).sum()) > 1 and len(task.data("validation")) > 0


def _groups(
    table: Delimited,
    tasks: Mapping[str, TextTask],
    stated: Mapping[str, Mapping[str, set[str]]],
    column: str | None,
    *,
    unseen: int | float | Sequence[str] | None,
    seed: int,
) -> dict[str, Group]:
    """The group of each task: that of the table, or drawn."""
    if column is not None and unseen is None:
        found: dict[str, Group] = {}
        for title in tasks:
            named = {name.lower() for name in stated[title][column]}
            if len(named) > 1 or not named <= set(get_args(Group)):
                raise DataError(
                    f"{table.source}: the group of task {title!r} is {', '.join(sorted(named))}; known are "
                    f"{', '.join(get_args(Group))}."
                )
            found[title] = next((group for group in get_args(Group) if group in named), "seen")
        return found
    if isinstance(unseen, Sequence):
        safe = {task.name: title for title, task in tasks.items()}
        alike = [next((own for own in tasks if same_name(own, name)), safe.get(name, "")) for name in unseen]
        if "" in alike:
            raise DataError(f"{table.source} has no task {unseen[alike.index('')]!r}, which is to be unseen.")
        return {title: "unseen" if title in alike else "seen" for title in tasks}
    taught = sorted(title for title, task in tasks.items() if _can_be_learned(task) and len(task.data("test")))
    few = len(taught) < FEWEST_FOR_UNSEEN
    wanted = (0 if few else UNSEEN_SHARE) if unseen is None else unseen
    count = round(wanted * len(taught)) if isinstance(wanted, float) else wanted
    if not 0 <= count < max(1, len(taught)):
        raise DataError(f"unseen is {unseen}; {table.source} has {len(taught)} tasks that can be learned from.")
    drawn = {taught[index] for index in first_by_name(taught, count, seed, "unseen")}
    return {title: "unseen" if title in drawn else "seen" for title in tasks}
