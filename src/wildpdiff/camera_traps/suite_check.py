"""A check of a whole suite before anything is trained: every picture is opened, and all faults are named at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from wildpdiff.camera_traps.picture_files import some
from wildpdiff.camera_traps.placement import PICTURE_SPLITS
from wildpdiff.camera_traps.records import EMPTY, Picture, PictureTable
from wildpdiff.camera_traps.suite_options import TableOptions
from wildpdiff.camera_traps.table_suite import TableSuite, TableTask
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import View
from wildpdiff.tasks.image_files import read_views
from wildpdiff.tasks.task import GROUPS, SPLITS

CHUNK = 512
"""Pictures that are read before the next are."""


@dataclass(frozen=True)
class SuiteCheck:
    """The contents of a suite, and its faults.

    Attributes:
        suite: without the pictures that cannot be read.
        faults: sentences on what the table states and no verb takes: they have to be mended.
        reasons: why each picture cannot be decoded, by path; of those that are there and look like pictures.
    """

    suite: TableSuite
    faults: tuple[str, ...]
    reasons: Mapping[str, str]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures, those that cannot be read included."""
        return self.suite.table.pictures

    @property
    def species(self) -> dict[str, int]:
        """Pictures of each class, the most frequent first."""
        labels = (label for picture in self.pictures for label in self.suite.labels.of(picture.labels))
        counts = Counter(labels)
        return {label: counts[label] for label in sorted(counts, key=lambda label: (-counts[label], label))}

    @property
    def times(self) -> tuple[datetime, datetime] | None:
        """The first and the last time of a picture; None where no picture has one."""
        known = [picture.time.replace(tzinfo=None) for picture in self.pictures if picture.time is not None]
        return (min(known), max(known)) if known else None

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Pictures that cannot be read, by the kind of fault."""
        kinds: dict[str, list[str]] = {}
        for path, kind in self.suite.unreadable.faults.items():
            kinds.setdefault(kind, []).append(path)
        return kinds

    def teaching(self) -> tuple[TableTask, ...]:
        """The cameras that the generator learns from."""
        return self.suite.tasks("seen")

    def to_json(self) -> dict[str, Any]:
        """All counts as plain JSON values."""
        suite, times, boxes = self.suite, self.times, [p.boxes for p in self.pictures if p.boxes is not None]
        return {
            "suite": suite.name,
            "format": suite.table.format,
            "root": str(suite.root),
            "framing": suite.framing,
            "pictures": len(self.pictures),
            "labelled": sum(bool(picture.labels) for picture in self.pictures),
            "species": self.species,
            "blanks": sum(map(suite.cropping.is_blank, self.pictures)),
            "bursts": sum(task.placement.bursts for task in suite.all_tasks),
            "times": None if times is None else [time.isoformat() for time in times],
            "boxes": {
                "pictures": len(boxes),
                "boxes": sum(map(len, boxes)),
                "empty": sum(not found for found in boxes),
            },
            "metadata": {field.name: field.kind for field in suite.metadata_schema.fields},
            "groups": {group: len(suite.tasks(group)) for group in GROUPS}
            | {"described": len(suite.described), "untuned": len(suite.untuned)},
            "left_out": {kind: sorted(paths) for kind, paths in self.left_out.items()},
            "reasons": dict(self.reasons),
            "most_left_out": suite.unreadable.most,
            "cameras": [camera_row(task) for task in suite.all_tasks],
            "faults": list(self.faults),
            "remarks": list(suite.remarks),
        }


def camera_row(task: TableTask) -> dict[str, Any]:
    """Counts of one camera."""
    labels = Counter(row.label for row in task.placement.labelled())
    return {
        "camera": task.title,
        "task": task.name,
        "group": task.group or "described",
        "fault": task.fault,
        "untuned": task.untuned,
        "pictures": len({row.path for row in task.placement.pictures}),
        "bursts": task.placement.bursts,
        "species": len(labels.keys() - {EMPTY}),
        **{split: len(task.rows(split)) for split in SPLITS},
        "examples": len(task.examples),
        "backgrounds": len(task.backgrounds),
    }


def check_suite(
    table: PictureTable, options: TableOptions, progress: Callable[[int, int], None] | None = None
) -> SuiteCheck:
    """Open every picture of a table.

    Args:
        table: of pictures.
        options: of the suite; any share of pictures may be unreadable.
        progress: called with (pictures read, in all).

    Raises:
        DataError: the table cannot be taken for a suite, whatever of it is left out.
    """
    lenient = replace(options, unreadable=1.0)
    mended, faults = _mended(table)
    suite = TableSuite(mended, lenient)
    rows = [row for task in suite.all_tasks for row in task.placement.pictures]
    other = suite.files.keys() - {row.path for row in rows}
    views = [suite.view(row.path, row.box) for row in rows]
    views += [suite.view(path) for path in sorted(other) if not suite.files[path].fault]
    reasons = _decoded(suite, views, progress)
    names = {str(suite.view(path).path): path for path in suite.files}
    damaged = {names[path]: reason for path, reason in reasons.items()}
    suite = TableSuite(mended, lenient, damaged.keys()) if damaged else suite
    suite.unreadable.share = options.unreadable
    return SuiteCheck(suite, faults, damaged)


def _decoded(suite: TableSuite, views: list[View], progress: Callable[[int, int], None] | None) -> dict[str, str]:
    """Read views, and so fill the cache; the reason by path of those that cannot be."""
    reasons: dict[str, str] = {}
    for start in range(0, len(views), CHUNK):
        some_views = views[start : start + CHUNK]

        def skipped(number: int, fault: DataError, chunk: list[View] = some_views) -> None:
            reasons[str(chunk[number].path)] = str(fault)

        read_views(some_views, suite.image_size, suite.framing, cache=suite.cache, skipped=skipped)
        if progress is not None:
            progress(min(start + CHUNK, len(views)), len(views))
    return reasons


def _mended(table: PictureTable) -> tuple[PictureTable, tuple[str, ...]]:
    """The table without splits and groups that are none, and a sentence on each kind of these."""
    splits = _wrong([picture for picture in table.pictures if picture.split not in ("", *PICTURE_SPLITS)], "split")
    groups = _wrong([picture for picture in table.pictures if picture.group not in ("", *GROUPS)], "group")
    pictures = [
        replace(
            picture,
            split=picture.split if picture.split in PICTURE_SPLITS else "",
            group=picture.group if picture.group in GROUPS else "",
        )
        for picture in table.pictures
    ]
    first: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for picture in pictures:
        if picture.group and first.setdefault(picture.camera, picture.group) != picture.group:
            several.setdefault(picture.camera, {first[picture.camera]}).add(picture.group)
    cut = [replace(picture, group=first.get(picture.camera, "")) for picture in pictures]
    two = [f"More than one group at each of these cameras: {some(sorted(several))}; give one."] if several else []
    return replace(table, pictures=tuple(cut)), (*splits, *groups, *two)


def _wrong(pictures: list[Picture], word: str) -> list[str]:
    if not pictures:
        return []
    counts = Counter(getattr(picture, word) for picture in pictures)
    known = PICTURE_SPLITS if word == "split" else GROUPS
    named = some([f"{value!r} {count}" for value, count in counts.most_common()])
    return [f"The {word} is none of {', '.join(known)}: {named}, first on line {pictures[0].line}."]
