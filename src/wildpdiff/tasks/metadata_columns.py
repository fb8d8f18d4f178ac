"""Metadata of tasks from columns of a table, as texts that people wrote."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wildpdiff.tables.delimited import MISSING
from wildpdiff.tables.numbers import number_column
from wildpdiff.tasks.description import GEOGRAPHIC, LIMITS, MetadataField, MetadataValue


@dataclass(frozen=True)
class MetadataColumn:
    """One column as metadata.

    Attributes:
        field: its field; None where it has no value.
        values: checked values by task; tasks without one are left out.
        remarks: on numbers that were read in another way than written.
    """

    field: MetadataField | None
    values: Mapping[str, MetadataValue]
    remarks: tuple[str, ...] = ()


def metadata_column(name: str, cells: Mapping[str, str], learned: Collection[str] | None = None) -> MetadataColumn:
    """Read a column: of numbers, or of categories.

    Args:
        name: of the column.
        cells: by task, as written.
        learned: tasks whose cells decide what the column holds and which categories there are; by default all. Other
            tasks' categories stay as written, and their words in a column of numbers are left out.

    Raises:
        DescriptionError: a value is not finite, or no coordinate in a column of these.
    """
    known = {task: text for task, text in cells.items() if text.lower() not in MISSING}
    deciding = {task: text for task, text in known.items() if learned is None or task in learned} or known
    limit = LIMITS.get(GEOGRAPHIC.get(name.lower(), ""), math.inf)
    values: dict[str, MetadataValue] = dict(known)
    remarks: tuple[str, ...] = ()
    if number_column(deciding.values(), limit) is not None and (numbers := number_column(known.values(), limit)):
        values = {task: numbers.values[text] for task, text in known.items() if text in numbers.values}
        remarks = tuple(f"Column {name!r}: {words}." for words in numbers.odd.values())
    if not values:
        return MetadataColumn(None, {}, remarks)
    field = MetadataField.of_values(name, [values[task] for task in deciding if task in values] or values.values())
    return MetadataColumn(
        field, {task: field.check(value, open_categories=True) for task, value in values.items()}, remarks
    )
