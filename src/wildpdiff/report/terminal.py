"""The table of results in a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from wildpdiff.evaluate.results import Results, SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED
from wildpdiff.evaluate.trust_points import TrustSection
from wildpdiff.report.findings import SplitFindings, findings, main_first
from wildpdiff.report.groups import grouped
from wildpdiff.report.sentences import headline, split_name, table_sentences
from wildpdiff.report.trust_findings import trust_lines, trust_sentences
from wildpdiff.report.wording import capital, number, percent, signed, signed_points


def results_table(results: Results) -> Group:
    """One table for each suite and split, the result of the main one in words, and what became of trust.

    In bold is what is best without labels of the task, and every source that is ahead of the generator.
    """
    parts = findings(results)
    if not parts:
        return Group(Text("The results hold no row."))
    several = len({part.suite for part in parts}) > 1
    main = main_first(parts)[0]
    sentence = headline(main)
    return Group(
        *(_table(part, several) for part in parts),
        Text.assemble(sentence.before, (sentence.winner, "bold"), sentence.after),
        *(Text(text) for text in table_sentences(main)),
        *([] if results.trust is None else _trust(results.trust)),
    )


def _trust(trust: TrustSection) -> list[Table | Text]:
    """What trust kept back in each world and what it was worth, then in words."""
    table = _bare("trust in the generated adapters")
    table.add_column("world")
    for name in ("tasks", "gain without", "with", "harmed without, %", "with", "kept back, %", "area", "held, %"):
        table.add_column(name, justify="right")
    for line in trust_lines(trust):
        own = line.summary
        cells = (
            f"{capital(line.name)}, {line.small}" if line.small else capital(line.name),
            str(own.tasks),
            signed(number(own.gain_without.value, 1)),
            signed(number(own.gain_with.value, 1)),
            percent(own.harmed_without.value),
            percent(own.harmed_with.value),
            percent(1 - own.used_share.value, 0),
            "–" if own.auroc is None else number(own.auroc.value),
            percent(own.coverage.value, 0),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return [table, Text(" ".join(trust_sentences(trust)))]


def _bare(title: str) -> Table:
    return Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )


def _table(part: SplitFindings, several_suites: bool) -> Table:
    title = (f"{part.suite}, " if several_suites else "") + split_name(part.split, len(part.tasks))
    table = _bare(title)
    table.add_column("source")
    for name in ("accuracy, %", "95 % interval", "recovered gain, %", "95 % interval", "generated −", "seconds"):
        table.add_column(name, justify="right")
    for group in grouped(part):
        for row in group.lines:
            # Text, not markup: a task or a source may be named [like this].
            table.add_row(*(Text(cell) for cell in _cells(row, part)), style=_style(row, part))
    return table


def _style(row: SummaryRow, part: SplitFindings) -> str:
    if row is part.winner or part.is_ahead(row):
        return "bold"
    return "dim" if row.source in (PRETRAINED, FINETUNED) else ""


def _cells(row: SummaryRow, part: SplitFindings) -> tuple[str, ...]:
    lead = part.difference(row)
    by_definition = {PRETRAINED: "0", FINETUNED: "100"}.get(row.source, "–")
    return (
        row.label,
        percent(row.accuracy),
        _range(row.accuracy_interval, 1),
        by_definition if row.recovered_gain is None else percent(row.recovered_gain, 0),
        _range(row.recovered_gain_interval, 0),
        "–" if lead is None else signed_points(lead.value),
        "–" if row.seconds_per_adapter is None else f"{row.seconds_per_adapter:.2g}",
    )


def _range(interval: tuple[float, float] | None, digits: int) -> str:
    return "–" if interval is None else f"{percent(interval[0], digits)} to {percent(interval[1], digits)}"
