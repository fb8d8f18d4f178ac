"""Pictures of one source gathered to a table: each path once, times comparable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from wildpdiff.camera_traps.fields import labels_of
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.times import counted_time, days_first, has_time, parse_time
from wildpdiff.tables.columns import ALIASES
from wildpdiff.tables.delimited import MISSING, read_delimited
from wildpdiff.tables.remarks import Remarks

Row = dict[str, str]

ZONES = "Some times have a zone and some have none; zones are left out"
"""A remark."""


@dataclass
class Gathering:
    """A source that is being read.

    Attributes:
        source, format, root: as in :class:`PictureTable`.
        remarks: on what is left out or changed.
        repeated: beginning of the remark on a path that comes more than once; empty where a format has several
            records a picture.
        notes: sentences of the tables that were read.
    """

    source: Path
    format: str
    root: Path
    remarks: Remarks = field(default_factory=Remarks)
    repeated: str = "Pictures that are listed more than once are joined"
    notes: list[str] = field(default_factory=list)

    def rows(self, file: Path, wanted: Mapping[str, str], columns: Mapping[str, str]) -> list[tuple[int, Row]]:
        """The line and the cells of each row of a table with known columns; empty where a cell or column is missing.

        Args:
            file: the table.
            wanted: names of columns, by the words that the cells are given under.
            columns: the user's names in their place, for words of that mapping.

        Raises:
            DataError: the table is at fault.
        """
        table = read_delimited(file)
        self.notes += table.remarks
        stated = {ALIASES.get(word, word): name for word, name in columns.items()}
        positions = {}
        for word, usual in wanted.items():
            name = stated.get(word, usual)
            name = name if name in table.header else usual
            positions[word] = table.header.index(name) if name in table.header else None
        return [
            (line, {word: _cell(cells[at]) if at is not None else "" for word, at in positions.items()})
            for line, cells in table.rows
        ]

    def times(self, texts: Sequence[str], day_first: bool | None = None) -> list[datetime | None]:
        """The times of pictures, from their texts; None, with a remark, where one cannot be read.

        Args:
            texts: one a picture; empty where it has none.
            day_first: whether ``1/5/2013`` is the first of May; None to find it out, with a remark where the texts
                do not show it.
        """
        first = days_first(texts) if day_first is None else day_first
        times = []
        seconds = all((time := counted_time(text)) and time.tzinfo for text in texts if text)
        for text in texts:
            day, month = (parse_time(text, True), parse_time(text, False)) if has_time(text) else (None, None)
            counted = counted_time(text) if day is None else None
            if counted is not None and (seconds or counted.tzinfo is None):
                what = "seconds since 1970 (UTC)" if counted.tzinfo else "a spreadsheet's number of days"
                self.remarks.add(f"Times that are numbers are read as {what}", f"{text} is {counted}")
                day = month = counted
            if text and day is None:
                self.remarks.add("Times that cannot be read, or have no time of day, are left out", repr(text[:40]))
            if first is None and day != month:
                self.remarks.add("Dates do not show whether day or month is first; the first is the day", repr(text))
            times.append(month if first is False else day)
        zones = {time.tzinfo is not None for time in times if time is not None}
        if len(zones) == 2:
            self.remarks.add(ZONES, "as read")
            times = [time and time.replace(tzinfo=None) for time in times]
        return times

    def table(
        self,
        pictures: Iterable[Picture],
        *,
        columns: Iterable[str] | None = None,
        cameras: Mapping[str, Mapping[str, str]] | None = None,
        blanks: frozenset[str] = frozenset(),
        threshold: float | None = None,
    ) -> PictureTable:
        """The table of the pictures; ``columns`` are those of their values where not given."""
        once: dict[str, Picture] = {}
        for picture in pictures:
            first = once.setdefault(picture.path, picture)
            if first is not picture:
                if self.repeated:
                    self.remarks.add(self.repeated, repr(picture.path))
                once[picture.path] = joined(first, picture, self.remarks)
        found = dict.fromkeys(name for picture in once.values() for name in picture.values)
        return PictureTable(
            source=self.source,
            format=self.format,
            root=self.root,
            pictures=tuple(once.values()),
            cameras=cameras or {},
            columns=tuple(found) if columns is None else tuple(name for name in columns if name in found),
            blanks=blanks,
            threshold=threshold,
            remarks=(*self.notes, *self.remarks.sentences()),
        )


def _cell(text: str) -> str:
    return "" if text.lower() in MISSING else text


def joined(first: Picture, other: Picture, remarks: Remarks) -> Picture:
    """One picture of two records of it: labels and boxes of both, all else of the first that has it."""
    boxes = first.boxes
    if other.boxes is not None:
        boxes = tuple(dict.fromkeys((*(boxes or ()), *other.boxes)))
    labels = labels_of((*first.labels, *other.labels), remarks, repr(first.path))
    return replace(first.completed(other), labels=labels, boxes=boxes)
