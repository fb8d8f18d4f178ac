"""Small CSV tables that accompany a suite: taxonomies and lists of species."""

from __future__ import annotations

import csv
from pathlib import Path

from wildpdiff.errors import DataError


def read_small_table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Header and rows of a table in UTF-8, separated by commas, semicolons or tabs; cells without spaces around.

    Raises:
        DataError: the file cannot be read, is empty, names a column twice, or has a row of more cells than columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}). Give a CSV table in UTF-8.") from None
    separator = max(",;\t", key=(lines or [""])[0].count)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = tuple(name.strip() for name in next(reader, []))
        if not any(header) or len(set(header)) < len(header):
            raise DataError(f"{path} has no header with one name a column ({', '.join(header) or 'empty'}). Add one.")
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if any(values[len(header) :]):
                raise DataError(f"{path}, line {reader.line_num}: {len(cells)} cells, and {len(header)} columns.")
            if any(values):
                values += [""] * (len(header) - len(values))
                rows.append(dict(zip(header, values, strict=False)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Close every quote.") from None
    return header, rows
