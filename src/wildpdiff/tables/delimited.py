"""Delimited text (CSV, TSV) as spreadsheets and statistics programs write it: encodings, separators, quotes."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from wildpdiff.errors import DataError
from wildpdiff.tables.columns import NEEDED, SYNONYMS, name_key
from wildpdiff.tables.remarks import Remarks

DELIMITERS = (",", ";", "\t", "|")
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null"})
"""Cells without a value, in lower case."""

MOST_BYTES = 4 * 2**30
"""Of a compressed file, once it is unpacked."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of cells that a spreadsheet would run."""

SPREADSHEETS = {b"PK\x03\x04": "a spreadsheet or an archive", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
"""First bytes of files that people take for tables, and that are no text."""

HEADERS = 20
"""Lines with text at a table's beginning of which one may name the columns."""

_BEGINNING = 2**16
_SAMPLE_ROWS = 60
_FOREIGN = re.compile("[^\x00-\x7f]{4}")
"""Letters that no Western European text has in a row: a sign of another 8-bit encoding."""
_PANDAS_INDEX = re.compile(r"Unnamed: \d+(\.\d+)*")
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")


@dataclass(frozen=True)
class Delimited:
    """A table of texts.

    Attributes:
        source: the file, as messages name it.
        header: names of the columns, stripped, each once.
        rows: line in the file (from 1) and cells, stripped, as many as the header has.
        remarks: on the encoding, and on columns and rows that were left out.
    """

    source: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    remarks: tuple[str, ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column, in the order of the rows."""
        index = self.header.index(name)
        return [cells[index] for _, cells in self.rows]

    def without(self, names: Collection[str]) -> Delimited:
        """The table without some of its columns."""
        kept = [index for index, name in enumerate(self.header) if name not in names]
        rows = tuple((line, tuple(cells[index] for index in kept)) for line, cells in self.rows)
        return replace(self, header=tuple(self.header[index] for index in kept), rows=rows)

    def records(self, names: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """The line and the named cells of each row; a cell without a value, or of no column, is empty."""
        positions = [(name, self.header.index(name) if name in self.header else None) for name in names]
        for line, cells in self.rows:
            yield (
                line,
                {name: "" if at is None or cells[at].lower() in MISSING else cells[at] for name, at in positions},
            )


def read_delimited(path: Path) -> Delimited:
    """A table from a file of comma-, semicolon-, tab- or pipe-separated text, plain or compressed (gzip).

    Text is UTF-8, UTF-16 or, with a remark, Windows-1252. Columns without a name (row numbers of R and pandas) are
    left out with a remark.

    Raises:
        DataError: there is no such file, it is no text, a column has no name of its own, a quote is not closed, or a
            row has another number of cells than the header.
    """
    return parse_delimited(read_bytes(path), str(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in any of a table's encodings; raises :class:`DataError` as :func:`read_delimited`."""
    return [line.rstrip("\n") for line in io.StringIO(_decoded(read_bytes(path), str(path))[0], newline=None)]


def read_header(path: Path) -> tuple[str, ...]:
    """The names of a table's columns from the file's beginning; none where the file is no table."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_BEGINNING)
        if data[:2] == b"\x1f\x8b":
            data = zlib.decompressobj(wbits=31).decompress(data, _BEGINNING)
        wide = data[:4000].count(0) > 0  # UTF-16
        text = _decoded(data[: len(data) // 2 * 2] if wide else data[: data.rfind(b"\n") + 1] or data, str(path))[0]
        lines, delimiter = _lines(text)
        records = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        found = [names for cells in islice(records, HEADERS) if any(names := tuple(cell.strip() for cell in cells))]
        return found[_header_index(found)] if found else ()
    except (OSError, ValueError, zlib.error, csv.Error, DataError):
        return ()


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked where it is compressed by gzip; raises :class:`DataError` where it cannot be read."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, ValueError):
        raise DataError(f"{str(path)!r} is no file; give the path of a table.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file's permissions.") from None
    return unpacked(data, str(path))


def unpacked(data: bytes, source: str) -> bytes:
    """The content as it is, or unpacked where it is compressed by gzip; raises :class:`DataError` where it is cut."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            data = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source} cannot be unpacked ({error}); copy the file again.") from None
    if len(data) > MOST_BYTES:
        raise DataError(f"{source} holds more than {MOST_BYTES >> 30} GiB once unpacked; cut it into parts.")
    return data


def parse_delimited(data: bytes, source: str) -> Delimited:
    """A table from a file's content; see :func:`read_delimited`."""
    remarks = Remarks()
    text, encoding = _decoded(data, source)
    if encoding == "cp1252":
        line, word = _first_foreign_word(text)
        remarks.add("The text is no UTF-8 and was read as Windows-1252", f"{word!r} on line {line} of {source}")
    lines, delimiter = _lines(text)
    records = _records(lines, delimiter, source, text)
    full = [(line, cells) for line, cells in records if any(cells)]
    if not full:
        raise DataError(f"{source} is an empty file; the first line must name the columns.")
    at = _header_index([cells for _, cells in full[:HEADERS]])
    for line, cells in full[:at]:
        where = f"line {line} of {source}, {next(filter(None, cells))!r}"
        remarks.add("Lines above the names of the columns are left out", where)
    names, rows = _aligned(full[at][1], full[at + 1 :], source, remarks)
    names, rows = _distinct(source, names, rows, remarks)
    unnamed = _unnamed_columns(source, names, rows, remarks)
    table = Delimited(source, names, tuple(rows), remarks.sentences())
    return table.without(unnamed) if unnamed else table


def _decoded(data: bytes, source: str) -> tuple[str, str]:
    """The text, and the name of its encoding."""
    for start, kind in SPREADSHEETS.items():
        if data.startswith(start):
            raise DataError(f"{source} is {kind}, no text. Save the table as CSV (UTF-8) and give that file.")
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif data[:4000].count(0) > len(data[:4000]) // 4:  # every second byte of Western text, without a mark
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-16"):
            raise DataError(f"{source} is damaged UTF-16 text (byte {error.start}); save it as UTF-8 CSV.") from None
        text, encoding = _western(data, source), "cp1252"
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{source}, line {line}, holds the byte 0: it is no text, or damaged. Save it as UTF-8 CSV.")
    return text, encoding


def _western(data: bytes, source: str) -> str:
    """Windows-1252 text; raises :class:`DataError` for damaged UTF-8 and for other 8-bit encodings."""
    sound, damaged = data.decode("utf-8", "ignore"), data.decode("utf-8", "replace").count("\ufffd")
    if _SURROGATE.search(data) or len(sound) - len(sound.encode("ascii", "ignore")) >= damaged:
        position = _damage(data)
        line = data.count(b"\n", 0, position) + 1
        raise DataError(f"{source}, line {line}, is damaged UTF-8 text (byte {position}); correct it or save it again.")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        byte, position = data[error.start], error.start
    else:
        found = _FOREIGN.search(text)
        if not found:
            return text
        byte, position = data[found.start()], found.start()
    line = data.count(b"\n", 0, position) + 1
    raise DataError(
        f"{source}, line {line}, is neither UTF-8 nor Western European text (byte {byte:#04x} at {position}); "
        "save the table as UTF-8 CSV."
    )


def _damage(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _first_foreign_word(text: str) -> tuple[int, str]:
    found = re.search(r"\w*[^\x00-\x7f]\w*", text)
    assert found is not None, "ASCII is UTF-8"
    return text.count("\n", 0, found.start()) + 1, found[0][:40]


def _lines(text: str) -> tuple[Iterator[str], str]:
    """The text's lines, and what separates its cells: named by Excel's ``sep=;``, or found in the first rows."""
    stated = re.match(r"\s*\"?sep=(.)\"?\r?\n", text)
    lines = io.StringIO(text, newline="")
    if stated:
        return _without_first(lines), stated[1]
    return lines, _sniffed(text)


def _without_first(lines: Iterator[str]) -> Iterator[str]:
    next(lines)
    yield "\n"  # so that lines are numbered as in the file
    yield from lines


def _sniffed(text: str) -> str:
    scores = {}
    for delimiter in DELIMITERS:
        sample = io.StringIO(text[:_BEGINNING], newline="")
        reader = csv.reader(sample, delimiter=delimiter, skipinitialspace=True)
        try:
            widths = [len(cells) for cells in islice(reader, _SAMPLE_ROWS) if any(cells)]
        except csv.Error:
            continue
        usual = widths[0] if widths and widths[0] > 1 else Counter(widths).most_common(1)[0][0] if widths else 0
        if usual > 1:
            scores[delimiter] = (sum(width == usual for width in widths) / len(widths), usual)
    return max(scores, key=lambda delimiter: scores[delimiter], default=",")


def _records(lines: Iterator[str], delimiter: str, source: str, text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and stripped cells of every record; raises :class:`DataError` where a quote is not closed."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if "field larger" in str(error) and reader.line_num == start:
                limit = csv.field_size_limit()
                raise DataError(f"{source}, line {start}: a cell has over {limit:,} characters; shorten it.") from None
            opened = _unclosed(text, start, delimiter)
            raise DataError(
                f"{source}, line {opened}: a quote is opened there and not closed before the next cell; close it, or "
                "double every quote inside a cell."
            ) from None
        if cells is None:
            return
        yield start, tuple([_as_shown(cell.strip()) for cell in cells])


def _as_shown(cell: str) -> str:
    """A cell without the apostrophe that keeps spreadsheets from running it, which they do not show."""
    return cell[1:] if cell[:1] == "'" and cell.startswith(FORMULA, 1) else cell


def _unclosed(text: str, start: int, delimiter: str) -> int:
    """The line where the quote opens that a record's reader stumbled over; ``start`` is the record's first line."""
    stream = io.StringIO(text, newline="")
    inside, opened, previous = False, start, delimiter
    for number, line in enumerate(islice(stream, start - 1, None), start):
        characters = line.rstrip("\r\n")
        index = 0
        while index < len(characters):
            letter = characters[index]
            if inside and letter == '"':
                if characters[index + 1 : index + 2] == '"':
                    index += 1
                elif characters[index + 1 : index + 2] not in ("", delimiter):
                    return opened
                else:
                    inside = False
            elif not inside and letter == '"' and previous == delimiter:
                inside, opened = True, number
            previous = previous if letter == " " and previous == delimiter else letter
            index += 1
        if not inside:
            previous = delimiter
    return opened


def _header_index(records: Sequence[Sequence[str]]) -> int:
    """Which of a table's first records names the columns: the first, or one below lines of a title.

    Lines of a title have fewer cells with text than the names below them; and one alone, unless the names are known.
    """
    known = {name for word in ("path", "task") for names in SYNONYMS[word] for name in names}
    named = [any(name_key(cell) in known for cell in cells) for cells in records]
    if not records or named[0]:
        return 0
    counts = [sum(map(bool, cells)) for cells in records]
    for index in range(1, len(records)):
        above = max(counts[:index])
        if counts[index] > max(above, 1) and (named[index] or (above == 1 and True not in named[index:])):
            return index
    return 0


def _distinct(
    source: str, names: Sequence[str], rows: Sequence[tuple[int, tuple[str, ...]]], remarks: Remarks
) -> tuple[tuple[str, ...], list[tuple[int, tuple[str, ...]]]]:
    """Names, each once, and rows: a further column of a name goes where it has the first one's cells, else is numbered.

    Raises:
        DataError: two columns are those of the path, the label or the camera.
    """
    first: dict[str, int] = {}
    counts: Counter[str] = Counter()
    kept: dict[int, str] = {}
    for index, name in enumerate(names):
        counts[name] += 1
        again = first.setdefault(name, index)
        if name and again != index:
            same = bool(rows) and all(cells[index] == cells[again] for _, cells in rows)
            if not same and any(name_key(name) in tied for word in NEEDED for tied in SYNONYMS[word]):
                raise DataError(f"{source} has the column {name!r} twice; rename or remove one.")
            kind = "with the same cells count once" if same else "with other cells have numbers"
            remarks.add(f"Further columns of a name {kind}", f"{name!r} in {source}")
            if same:
                continue
            name = f"{name} ({counts[name]})"
        kept[index] = name
    if len(kept) == len(names):
        return tuple(kept.values()), list(rows)
    return tuple(kept.values()), [(line, tuple(cells[index] for index in kept)) for line, cells in rows]


def _aligned(
    header: Sequence[str], records: Sequence[tuple[int, tuple[str, ...]]], source: str, remarks: Remarks
) -> tuple[tuple[str, ...], list[tuple[int, tuple[str, ...]]]]:
    """Names and rows of one length; rows that repeat the header are left out."""
    while header and not header[-1] and len(header) > max((len(cells) for _, cells in records), default=0):
        header = header[:-1]
    full = [(line, cells) for line, cells in records if any(cells)]
    names = tuple(header)
    numbered = (cells[0] == str(number) for number, (_, cells) in enumerate(full, 1))
    if full and all(len(cells) == len(names) + 1 for _, cells in full) and all(numbered):
        names = ("", *names)  # R's write.table gives row numbers without a name in the header
    rows, wrong = [], []
    for line, cells in full:
        if cells == names:
            remarks.add("Rows that repeat the header are left out", f"line {line} of {source}")
        elif len(cells) == len(names):
            rows.append((line, cells))
        elif len(cells) > len(names) and not any(cells[len(names) :]):
            rows.append((line, cells[: len(names)]))
        elif len(cells) < len(names) and not cells[-1]:
            remarks.add("Rows that end too early have empty cells at their end", f"line {line} of {source}")
            rows.append((line, cells + ("",) * (len(names) - len(cells))))
        else:
            wrong.append((line, len(cells)))
    if wrong:
        line, count = wrong[0]
        more = f", and {len(wrong) - 1:,} further lines differ" if len(wrong) > 1 else ""
        raise DataError(
            f"{source}, line {line}: {count} cells where the header has {len(names)}{more}; quote cells that hold the "
            "separator, and fill or remove cut rows."
        )
    return names, rows


def _unnamed_columns(
    source: str, names: Sequence[str], rows: Sequence[tuple[int, tuple[str, ...]]], remarks: Remarks
) -> set[str]:
    """The names, empty or pandas' own, of columns without one; a remark names those that have values."""
    unnamed = {name for name in names if not name or _PANDAS_INDEX.fullmatch(name)}
    for index, name in enumerate(names):
        first = next(((line, cells[index]) for line, cells in rows if cells[index]), None) if name in unnamed else None
        if first:
            where = f"column {index + 1} of {source}, {first[1]!r} on line {first[0]}"
            remarks.add("Columns without a name (row numbers) are left out", where)
    return unnamed
