"""The tables of the results in a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from wildpdiff.evaluate.results import Results, section_kinds
from wildpdiff.report.blocks import DataTable
from wildpdiff.report.findings import findings, main_first
from wildpdiff.report.palette import source_styles
from wildpdiff.report.sentences import ahead_sentence, headline
from wildpdiff.report.tables import sources_blocks


def results_table(results: Results) -> Group:
    """One table for each suite and split, the result of the main one in a sentence, and tables of other packages.

    Bold: best without labels of the task, and every source ahead of the generator.
    """
    parts = findings(results)
    if not parts:
        return Group(Text("The results hold no row."))
    several = len({part.suite for part in parts}) > 1
    main = main_first(parts)[0]
    sentence = headline(main)
    styles = source_styles({row.source: part.family(row) for part in parts for row in part.summary})
    tables = [
        block
        for part in parts
        for block in sources_blocks(results, part, styles, f"{part.suite}, " if several else "")
        if isinstance(block, DataTable)
    ]
    return Group(
        *(terminal_table(table) for table in tables),
        Text.assemble(sentence.before, (sentence.winner, "bold"), sentence.after),
        Text(ahead_sentence(main) or ""),
        *(
            terminal_table(kind.table(section))
            for kind in section_kinds().values()
            if kind.table is not None and (section := kind.of(results)) is not None
        ),
    )


def plain_table(title: str, name: str, *numbers: str, header: str = "bold") -> Table:
    """A table without lines and rows: a column of names, and columns of numbers; ``header`` is the headings' style."""
    table = Table(title=Text(title, "bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.header_style = header
    table.add_column(name)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def terminal_table(data: DataTable) -> Table:
    """A table of the report, with intervals on the second line of a row."""
    table = plain_table(data.title, *data.columns)
    for row in data.rows:
        if "group" not in row.tone:
            # Text, not markup: a task or a source may be named [like this].
            cells = (f"{cell.text}\n{cell.small}" if cell.small else cell.text for cell in row.cells)
            style = "bold" if "ahead" in row.tone else "dim" if "muted" in row.tone else ""
            table.add_row(Text(row.head), *(Text(cell) for cell in cells), style=style)
    return table
