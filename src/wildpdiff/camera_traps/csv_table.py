"""Tables of pictures, or of cameras, as people have them: CSV and TSV with columns of any usual name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from wildpdiff.camera_traps.fields import frame_of, path_of, placed
from wildpdiff.camera_traps.gathering import Gathering
from wildpdiff.camera_traps.labels import CellLabels, spelling_key
from wildpdiff.camera_traps.paths import clean_path, is_absolute, nearest_root, rooted
from wildpdiff.camera_traps.records import EMPTY, Picture, PictureTable
from wildpdiff.camera_traps.times import TIME_OF_DAY, has_time, parse_time
from wildpdiff.errors import DataError
from wildpdiff.tables.columns import SPLIT_WORDS, SYNONYMS, matched_columns, name_key, stated_word
from wildpdiff.tables.delimited import MISSING, Delimited, read_delimited, read_header
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES

MOST_ROWS = 4
"""Rows for each camera, on average, that a table of cameras has; one with more has rows of pictures."""

WITHOUT_LABEL = ("unlabelled", "background")
"""Splits whose pictures have no label, whatever their row has."""

_SPREADSHEET_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_BLANK_COLUMNS = frozenset({"blank", "isblank", "empty", "isempty"})
_TRUE, _FALSE = frozenset({"true", "1", "1.0", "yes"}), frozenset({"false", "0", "0.0", "no"})
_GROUPS = frozenset({"pretraining", "seen", "unseen"})


class CsvTableReader:
    """Reader of tables with a row for each picture, or for each camera."""

    format = "CSV table"

    def reads(self, path: Path) -> bool:
        """Whether a file is text with a column for paths or cameras, or a spreadsheet (which :meth:`read` refuses)."""
        if not path.is_file():
            return False
        if path.suffix.lower() in (*_SPREADSHEET_SUFFIXES, ".csv", ".tsv"):
            return True
        keys = {name_key(name) for name in read_header(path)}
        usual = {name for word in ("path", "task") for names in SYNONYMS[word] for name in names}
        return len(keys) > 1 and bool(keys & usual)

    def read(self, path: Path, columns: Mapping[str, str]) -> PictureTable:
        """The pictures of a table, or the metadata of a table of cameras.

        Columns are found by their usual names in any case (:data:`~wildpdiff.tables.columns.SYNONYMS`); a table
        needs one for the path. One without it, and with one row for each camera, is a table of cameras. Several rows
        of a picture are several labels of it.

        Args:
            path: of the file.
            columns: names of columns by word: path, folder, label, task, datetime, date, time, sequence, frame, split,
                group.

        Raises:
            DataError: the file is at fault; the message names the line.
        """
        if path.suffix.lower() in _SPREADSHEET_SUFFIXES:
            raise DataError(f"{path} is a spreadsheet file. Save the table as CSV (UTF-8) and give that file.")
        return table_of(read_delimited(path), path, columns, self.format)


def table_of(cells: Delimited, path: Path, columns: Mapping[str, str], format: str) -> PictureTable:
    """The pictures or cameras of a table whose cells are read; see :meth:`CsvTableReader.read`."""
    columns = {stated_word(word): name for word, name in columns.items()}
    found = matched_columns(cells.header, columns, cells.source, ("path",))
    if "path" not in found:
        return _cameras(cells, path, columns, format)
    if not cells.rows:
        raise DataError(f"{cells.source} has no rows below its header; add one row per image.")
    words = _usable(cells, columns, matched_columns(cells.header, columns, cells.source))
    times = [] if {"datetime", "date"} & words.keys() else _exposures(cells, words)
    words |= {"datetime": times[0]} if len(times) == 1 else {}
    rows = _Rows(cells, words)
    for name in times:
        known = ("holds", "another") if len(times) == 1 else ("may hold", "it")
        kind = f"The column {name!r} {known[0]} the times of the pictures"
        rows.remarks.add(kind, f"--columns datetime=COLUMN names {known[1]}")
    others = tuple(name for name in cells.header if name not in rows.used)
    if "label" not in words:
        kind = f"{cells.source} has no column of labels that is known; name it, as in --columns label=Species"
        rows.remarks.add(kind, f"it has {', '.join(others)}" if others else "it has no further columns")
    pictures = rows.pictures(others)
    remarks = (*cells.remarks, *rows.remarks.sentences())
    return _found(PictureTable(path, format, path.parent, pictures, columns=others, remarks=remarks))


def _exposures(cells: Delimited, words: Mapping[str, str]) -> list[str]:
    """The columns of any name that hold a date and a time of day, of pictures and not of their cameras."""
    cameras = len(set(cells.column(words["task"]))) if "task" in words else 1
    found = []
    for name in cells.header:
        if name in words.values():
            continue
        texts = [text for text in cells.column(name) if text.lower() not in MISSING]
        sample = texts[:: max(1, len(texts) // 200)]
        read = sum(bool(TIME_OF_DAY.search(text) and parse_time(text)) for text in sample)
        if sample and read > 0.9 * len(sample) and len(set(texts)) > max(cameras, len(texts) // 10):
            found.append(name)
    return found


def _found(table: PictureTable) -> PictureTable:
    """The table with the root, or the shorter paths, that its files are found by, where its own find none."""
    paths = [picture.path for picture in table.pictures]
    if any(map(is_absolute, paths)):
        return rooted(table, nearest_root(table.root, paths))
    table = rooted(table, table.root)
    remarks = Remarks()
    root, shorter = placed(table.root, paths, remarks)
    if shorter != paths:
        pictures = zip(table.pictures, shorter, strict=True)
        table = replace(table, pictures=tuple(replace(picture, path=path) for picture, path in pictures))
    return replace(table, root=root, remarks=(*table.remarks, *remarks.sentences()))


def _usable(cells: Delimited, stated: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str]:
    """The words of a table of pictures; names that mean other things elsewhere count where their values fit."""
    kept = dict(words)
    group = kept.get("group", "group")
    if group != "group" and "group" not in stated and not {c.lower() for c in cells.column(group)} <= _GROUPS | MISSING:
        del kept["group"]  # a column of any groups
    if "datetime" in kept or "date" not in kept:
        kept.pop("date", None)
        time = kept.pop("time", None)
        if "datetime" not in kept and time and any(parse_time(text) for text in cells.column(time)[:100]):
            kept["datetime"] = time
    elif "time" not in kept:
        date = kept.pop("date")
        if any(map(has_time, cells.column(date))):
            kept["datetime"] = date
    path_names = SYNONYMS["path"][2]
    file = next((name for name in cells.header if name_key(name) in path_names and name != kept["path"]), None)
    if (
        file
        and "path" not in stated
        and "folder" not in kept
        and _name_files(cells, file) > _name_files(cells, kept["path"])
    ):
        kept |= {"folder": kept["path"], "path": file}
    named = name_key(kept["path"]) in path_names or "folder" in stated
    if "folder" in kept and not named and any("/" in clean_path(cell) for cell in cells.column(kept["path"])[:100]):
        del kept["folder"]  # the path is whole
    return kept


def _name_files(cells: Delimited, column: str) -> int:
    """How many of the first cells of a column end like the name of a picture's file."""
    return sum(cell.lower().endswith(IMAGE_SUFFIXES) for cell in cells.column(column)[:100])


@dataclass
class _Draft:
    """A picture of which not all rows are read yet."""

    line: int
    camera: str
    path: str
    split: str
    group: str
    labels: dict[str, None]
    time: datetime | None
    sequence: str
    frame: int | None
    cells: tuple[str, ...]


@dataclass
class _Rows:
    """The rows of a table of pictures, read one after the other.

    Attributes:
        cells: of the table.
        words: names of columns by word.
        remarks: on rows that were left out or read in another way than written.
        labels: of the cells of their column.
    """

    cells: Delimited
    words: Mapping[str, str]
    remarks: Remarks = field(default_factory=Remarks)
    labels: CellLabels = field(default_factory=lambda: CellLabels(()))

    @property
    def used(self) -> set[str]:
        """The columns that are no further values."""
        return set(self.words.values())

    def pictures(self, others: Sequence[str]) -> tuple[Picture, ...]:
        """The pictures in the order of their first rows; ``others`` are the columns of their values."""
        index = {word: self.cells.header.index(name) for word, name in self.words.items()}
        self.labels = CellLabels(self.cells.column(self.words["label"]) if "label" in self.words else ())
        blank = self._blank_column(others)
        drafts: dict[tuple[str, str], _Draft] = {}
        times = self._times()
        for (line, row), time in zip(self.cells.rows, times, strict=True):
            values = {word: row[position] for word, position in index.items()}
            if blank and values.get("label", "").lower() in MISSING and row[blank[1]].lower() in _TRUE:
                self.remarks.add(f"Pictures without a label are blank by the column {blank[0]!r}", self._where(line))
                values["label"] = EMPTY
            draft = self._draft(line, row, values, time)
            if draft is not None:
                first = drafts.setdefault((draft.camera, draft.path), draft)
                if first is not draft:
                    self._join(first, draft)
        if not drafts:
            raise DataError(f"{self.cells.source}: no row has both a path and a camera; fill these columns.")
        positions = [(name, self.cells.header.index(name)) for name in others]
        return tuple(_picture(draft, positions) for draft in drafts.values())

    def _blank_column(self, others: Sequence[str]) -> tuple[str, int] | None:
        """Name and position of the column of flags of empty pictures, of Timelapse's templates for example."""
        for name in others:
            if (
                name_key(name) in _BLANK_COLUMNS
                and {c.lower() for c in self.cells.column(name)} <= _TRUE | _FALSE | MISSING
            ):
                return name, self.cells.header.index(name)
        return None

    def _where(self, line: int) -> str:
        return f"line {line} of {self.cells.source}"

    def _times(self) -> list[datetime | None]:
        if "datetime" in self.words:
            texts = self.cells.column(self.words["datetime"])
        elif "date" in self.words:
            pairs = zip(self.cells.column(self.words["date"]), self.cells.column(self.words["time"]), strict=True)
            texts = [f"{date} {time}" if date and time else "" for date, time in pairs]
        else:
            return [None] * len(self.cells.rows)
        gathering = Gathering(Path(self.cells.source), "", Path(), self.remarks)
        return gathering.times(["" if text.lower() in MISSING else text for text in texts])

    def _draft(
        self, line: int, row: tuple[str, ...], values: Mapping[str, str], time: datetime | None
    ) -> _Draft | None:
        path, camera = self._path(values), values.get("task", "")
        if "task" in self.words and self.words["task"] == self.words.get("folder"):
            camera = clean_path(camera)
        if not path or ("task" in values and camera.lower() in MISSING):
            self.remarks.add("Rows without a path or a camera are left out", self._where(line))
            return None
        split = values.get("split", "").lower()
        split = "" if split in MISSING else SPLIT_WORDS.get(split, split)
        label = values.get("label", "")
        labels = () if label.lower() in MISSING or split in WITHOUT_LABEL else self.labels.of(label)
        if len(labels) > 1:
            self.remarks.add("Cells with several labels", f"{label!r} on {self._where(line)}")
        elif not labels and label.lower() not in MISSING and split not in WITHOUT_LABEL:
            self.remarks.add("Labels without a letter or digit count as none", f"{label!r} on {self._where(line)}")
        return _Draft(
            line,
            camera,
            path,
            split,
            "" if (group := values.get("group", "").lower()) in MISSING else group,
            dict.fromkeys(labels),
            time,
            "" if (sequence := values.get("sequence", "")).lower() in MISSING else sequence,
            frame_of(values.get("frame")),
            row,
        )

    def _path(self, values: Mapping[str, str]) -> str:
        address = "://" in values["path"] and not values["path"].startswith("file:")
        path = path_of(values["path"]) if address else clean_path(values["path"])
        folder = clean_path(values.get("folder", "")).rstrip("/")
        if not path or path.lower() in MISSING or not folder or folder == ".":
            return "" if path.lower() in MISSING else path
        return path if path.startswith(f"{folder}/") else f"{folder}/{path}"

    def _join(self, first: _Draft, again: _Draft) -> None:
        """Add a further row of a picture."""
        if again.cells == first.cells:
            self.remarks.add("Rows that stand twice count once", self._where(again.line))
            return
        for word in ("split", "group"):
            own, its = getattr(first, word), getattr(again, word)
            if own and its and own != its:
                raise DataError(
                    f"{self.cells.source}, line {again.line}: the image {again.path} is in {word} {its!r}, and in "
                    f"{own!r} on line {first.line}; give one."
                )
            setattr(first, word, own or its)
        if again.time != first.time:
            self.remarks.add("Pictures with two times have the first", f"{again.path} on {self._where(again.line)}")
        if not set(map(spelling_key, again.labels)) <= set(map(spelling_key, first.labels)):
            self.remarks.add(
                "Several rows of a picture are several labels of it", f"{again.path} on {self._where(again.line)}"
            )
        first.labels.update(again.labels)


def _picture(draft: _Draft, positions: Sequence[tuple[str, int]]) -> Picture:
    cells = draft.cells
    return Picture(
        path=draft.path,
        line=draft.line,
        camera=draft.camera,
        labels=tuple(draft.labels),
        time=draft.time,
        sequence=draft.sequence,
        frame=draft.frame,
        split=draft.split,
        group=draft.group,
        values={name: cells[position] for name, position in positions if cells[position].lower() not in MISSING},
    )


def _cameras(cells: Delimited, path: Path, columns: Mapping[str, str], format: str) -> PictureTable:
    """A table of cameras: metadata by camera; raises :class:`DataError` where the table is none."""
    found = matched_columns(cells.header, columns, cells.source, ("task",))
    names = ", ".join(cells.header)
    if "task" not in found:
        raise DataError(
            f"{cells.source} has no column 'path' of pictures, nor one of cameras (found: {names}). Name them, for "
            "example with --columns path=File,label=Species,task=Station."
        )
    index = cells.header.index(found["task"])
    rows: dict[str, list[tuple[str, ...]]] = {}
    remarks = Remarks()
    for line, row in cells.rows:
        if row[index].lower() in MISSING:
            remarks.add("Rows without a camera are left out", f"line {line} of {cells.source}")
        else:
            rows.setdefault(row[index], []).append(row)
    if not rows:
        raise DataError(f"{cells.source} has no rows with a camera below its header; add one row for each.")
    if len(cells.rows) > MOST_ROWS * len(rows):
        raise DataError(
            f"{cells.source} has no column 'path' (found: {names}), and for a table of cameras too many rows, "
            f"{len(cells.rows):,} of {len(rows):,} cameras. Name the paths, for example with --columns path=File."
        )
    cameras: dict[str, dict[str, str]] = {camera: {} for camera in rows}
    metadata = [(name, position) for position, name in enumerate(cells.header) if position != index]
    for camera, own in rows.items():
        for name, position in metadata:
            values = {row[position] for row in own if row[position].lower() not in MISSING}
            if len(values) == 1:
                cameras[camera][name] = values.pop()
            elif values:
                remarks.add("Values that differ between a camera's rows are left out", f"{name!r} of camera {camera!r}")
    columns_of = tuple(name for name, _ in metadata)
    return PictureTable(
        path, format, path.parent, (), cameras, columns_of, remarks=(*cells.remarks, *remarks.sentences())
    )
