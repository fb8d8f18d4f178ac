"""Whole groups of tasks held out, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.summary import GENERATED
from wildpdiff.report.blocks import Block, Cell, DataTable, TableRow
from wildpdiff.report.findings import SplitFindings, grouped
from wildpdiff.report.palette import SourceStyle
from wildpdiff.report.tables import BY_DEFINITION
from wildpdiff.report.wording import capital, count, interval_text, percent


def groups_blocks(parts: Sequence[SplitFindings], styles: Mapping[str, SourceStyle], heading: str) -> list[Block]:
    """Whole groups of tasks held out, next to tasks held out at random: accuracy and recovered gain in each."""
    held_out = [part for part in parts if part.split.startswith("held-out ")]
    if not held_out:
        return []
    shown = [part for part in parts if part.split == "unseen"] + held_out
    wanted = {(row.source, row.condition) for part in held_out for row in part.summary}
    groups = grouped(shown, lambda row: (row.source, row.condition) in wanted)
    rows = []
    for line in (line for sources in groups.values() for line in sources):
        found = [(part, _same_source(part, line)) for part in shown]
        best = any(row is not None and (part.is_ahead(row) or row is part.winner) for part, row in found)
        tone = ({"ahead"} if best else set()) | ({"own"} if line.source == GENERATED and best else set())
        tone |= {"muted"} if line.source in BY_DEFINITION else set()
        cells = tuple(_group_cell(row) for _, row in found)
        rows.append(TableRow(capital(line.label), cells, frozenset(tone), "", styles[line.source], line.condition))
    columns = ("Source", *(f"{capital(part.split)}, {count(len(part.tasks), 'task')}" for part in shown))
    note = (
        "Accuracy in %, with the recovered gain below. Unseen tasks are held out at random; of a held-out group, no "
        "task was seen. Bold: best without labels, or ahead of the generator, in at least one column."
    )
    return [DataTable(capital(f"{heading}whole groups held out"), columns, tuple(rows), note)]


def _same_source(part: SplitFindings, line: SummaryRow) -> SummaryRow | None:
    return next((row for row in part.summary if (row.source, row.condition) == (line.source, line.condition)), None)


def _group_cell(row: SummaryRow | None) -> Cell:
    if row is None:
        return Cell("–")
    gain = BY_DEFINITION.get(row.source, "–")
    if row.recovered_gain is not None:
        gain = f"{percent(row.recovered_gain, 0)}{interval_text(row.recovered_gain_interval, 0)}"
    return Cell(percent(row.accuracy), f"gain {gain}")
