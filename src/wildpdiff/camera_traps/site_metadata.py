"""Metadata of cameras from the columns of their pictures: the same in all of them, as numbers and categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from wildpdiff.camera_traps.picture_files import some
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.tables.delimited import MISSING
from wildpdiff.tables.numbers import NumberColumn, number_column, parse_number
from wildpdiff.tasks.description import GEOGRAPHIC, LIMITS, MetadataField, MetadataSchema, MetadataValue

VARYING_CAMERAS = 0.2
"""A column whose values differ within more than this share of the cameras belongs to pictures, not to cameras."""

VARYING_ROWS = 0.2
"""So does one where more than this share of the pictures differ from their camera's most frequent value."""

MOST_KNOWN = 100
"""Values of a column of numbers next to which an odd one of a further camera is read."""


@dataclass(frozen=True)
class SiteMetadata:
    """Metadata by camera, and its fields.

    Attributes:
        schema: one field for each column that has any value at the cameras that it is inferred from.
        values: checked values by camera and column; categories that the schema does not list are as written.
        columns: which belong to pictures and are left out.
        remarks: one sentence each on what was left out or read in another way than written.
    """

    schema: MetadataSchema
    values: Mapping[str, Mapping[str, MetadataValue]]
    columns: tuple[str, ...]
    remarks: tuple[str, ...]


def site_metadata(
    table: PictureTable, by_camera: Mapping[str, Sequence[Picture]], learned: Collection[str], ignore: Collection[str]
) -> SiteMetadata:
    """The metadata of a table's cameras.

    Args:
        table: whose columns are read, those of its cameras first.
        by_camera: the pictures of each camera; cameras without any have an empty sequence.
        learned: cameras whose values decide what is a number and which categories there are; all where it is empty.
        ignore: columns that are no metadata.

    Raises:
        DataError: a column of coordinates holds other words, or an impossible coordinate.
    """
    names = dict.fromkeys(name for values in table.cameras.values() for name in values)
    names |= dict.fromkeys(table.columns)
    remarks: list[str] = []
    found = {
        name: {camera: cells[name].strip() for camera, cells in table.cameras.items() if _stated(cells.get(name, ""))}
        for name in names
        if name not in ignore
    }
    own = _by_picture(by_camera, set(found))
    pictured: list[str] = []
    for name, values in found.items():
        counts = own.get(name, {})
        known = {camera: cells for camera, cells in counts.items() if camera in learned} or counts
        if counts and not values and _varies(known):
            pictured.append(name)
            continue
        deviating = [camera for camera, cells in counts.items() if len(cells) > 1 and camera not in values]
        found[name] = {camera: _usual(cells) for camera, cells in counts.items()} | values
        if deviating:
            cells = counts[deviating[0]]
            remarks.append(
                f"The column {name!r} has several values at {_cameras(deviating)}, for example "
                f"{some([repr(cell) for cell in sorted(cells)])}: the most frequent counts."
            )
    if pictured:
        remarks.append(f"The {_columns(pictured)} from picture to picture: no metadata of cameras, left out.")
    fields: list[MetadataField] = []
    checked: dict[str, dict[str, MetadataValue]] = {camera: {} for camera in by_camera}
    for name in found:
        if name in pictured or not found[name]:
            continue
        entry, values_of, notes = _field(table, name, found[name], learned)
        remarks += notes
        if entry is not None:
            fields.append(entry)
            for camera, value in values_of.items():
                if camera in checked:
                    checked[camera][name] = value
    return SiteMetadata(MetadataSchema(tuple(fields)), checked, tuple(pictured), tuple(remarks))


def _stated(cell: str) -> bool:
    return cell.strip().lower() not in MISSING


def _by_picture(
    by_camera: Mapping[str, Sequence[Picture]], names: Collection[str]
) -> dict[str, dict[str, Counter[str]]]:
    """How often each camera's pictures have each value, by column."""
    counts: dict[str, dict[str, Counter[str]]] = {name: {} for name in names}
    for camera, pictures in by_camera.items():
        for picture in pictures:
            for name, cell in picture.values.items():
                if name in counts and _stated(cell):
                    counts[name].setdefault(camera, Counter())[cell.strip()] += 1
    return counts


def _varies(counts: Mapping[str, Counter[str]]) -> bool:
    """Whether the values differ from picture to picture."""
    several = sum(len(cells) > 1 for cells in counts.values())
    rows = sum(cells.total() for cells in counts.values())
    others = rows - sum(max(cells.values()) for cells in counts.values())
    return (several > 1 and several > VARYING_CAMERAS * len(counts)) or others > VARYING_ROWS * rows


def _usual(cells: Counter[str]) -> str:
    return min(cells, key=lambda cell: (-cells[cell], cell))


def _field(
    table: PictureTable, name: str, cells: Mapping[str, str], learned: Collection[str]
) -> tuple[MetadataField | None, dict[str, MetadataValue], list[str]]:
    """A column's field and the value of each camera; None where no camera that is learned from has a value."""
    known = [cell for camera, cell in cells.items() if camera in learned] if learned else list(cells.values())
    if not known:
        return None, {}, [f"The column {name!r} has values at cameras only that nothing is learned from: left out."]
    geographic = GEOGRAPHIC.get(name.lower())
    limit = {} if geographic is None else {"limit": LIMITS[geographic]}
    numbers = number_column(known, **limit)
    if numbers is None:
        if geographic:
            raise DataError(f"{table.source}: column {name!r} holds {known[0]!r}; give decimal degrees.")
        return MetadataField.of_values(name, known), dict(cells), _mixed(name, cells)
    read, odd = dict(numbers.values), dict(numbers.odd)
    for cell in set(cells.values()) - set(known):  # each alone: no camera changes how another's cell is read
        plain = parse_number(cell)
        column = None if plain.value is None or plain.oddity else NumberColumn({cell: plain.value}, {})
        column = column or number_column([*known[:MOST_KNOWN], cell], **limit) or NumberColumn({}, {})
        read |= {text: value for text, value in column.values.items() if text == cell}
        odd |= {text: words for text, words in column.odd.items() if text == cell}
    entry = MetadataField.of_values(name, map(str, numbers.values.values()))
    values: dict[str, MetadataValue] = {}
    for camera, cell in cells.items():
        if cell in read:
            try:
                values[camera] = entry.check(read[cell])
            except DescriptionError as error:
                raise DataError(f"{table.source}: camera {camera!r}: {error}") from None
    odd_at = [camera for camera, cell in cells.items() if cell in odd or cell not in read]
    if not odd_at:
        return entry, values, []
    more = f" and {len(odd_at) - 1} more" if len(odd_at) > 1 else ""
    how = odd.get(cells[odd_at[0]], f"{cells[odd_at[0]]!r} is left out")
    return entry, values, [f"In the column {name!r} of numbers, {how} at camera {odd_at[0]!r}{more}."]


def _mixed(name: str, cells: Mapping[str, str]) -> list[str]:
    """A remark on a column of names that has numbers too: one cell may have made it one."""
    words = {camera: cell for camera, cell in cells.items() if parse_number(cell).value is None}
    if len(words) == len(cells):
        return []
    camera, cell = next(iter(words.items()))
    return [
        f"The column {name!r} is read as one of names, not of numbers: {len(words)} of {len(cells)} cameras have none, "
        f"for example {camera!r} with {cell!r}."
    ]


def _cameras(names: Sequence[str]) -> str:
    return f"camera {names[0]!r}" if len(names) == 1 else f"{len(names)} cameras ({some(names)})"


def _columns(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    return f"column {listed[0]} differs" if len(listed) == 1 else f"columns {', '.join(listed)} differ"
