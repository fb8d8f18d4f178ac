"""The paper's tables in a terminal, and the results of its second question."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from wildbench.interpolation.interpolation_summary import kept_curve, midpoint_kept, ways_of
from wildbench.sections import INTERPOLATION, PAPER
from wildbench.study_sections import Interpolation, PaperRow
from wildpdiff.evaluate.results import Results
from wildpdiff.report.wording import percent, signed_points


def paper_table(results: Results) -> Group:
    """The rows of the paper's tables, the published numbers at the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("question")
    table.add_column("setting")
    table.add_column("method")
    for name in ("pretrained", "fine-tuned", "generated", "gap", "over samples", "over seeds", "in the paper"):
        table.add_column(name, justify="right")
    for row in PAPER.of(results) or ():
        table.add_row(*(Text(cell) for cell in _cells(row)))
    between = INTERPOLATION.of(results)
    lines = [] if between is None else _between(between)
    return Group(table, *(Text(sentence) for sentence in lines))


def _between(interpolation: Interpolation) -> list[str]:
    """The second question: gain kept half-way between two tasks, and its rank correlations."""
    sentences = [
        f"RQ2, between two tasks, {len(interpolation.pairs)} pairs; share of the gain that both keep half-way:"
    ]
    for way in ways_of(interpolation):
        kept = []
        for group in ("high", "middle", "low"):
            curve = kept_curve(interpolation, way, group)
            value = None if curve is None else curve.gains[len(curve.gains) // 2].value
            if value is not None:
                kept.append(f"{group} similarity {percent(value, 0)} %")
        known = {
            name: found.value
            for name, found in midpoint_kept(interpolation, way).correlations.items()
            if found is not None
        }
        ranked = ", ".join(f"{name} {value:+.2f}" for name, value in sorted(known.items(), key=lambda entry: -entry[1]))
        sentences.append(f"  {way}: {', '.join(kept)}; rank correlation with the gain kept: {ranked or 'undefined'}")
    return sentences


def _cells(row: PaperRow) -> tuple[str, ...]:
    return (
        row.question,
        row.setting,
        row.method,
        percent(row.pretrained),
        percent(row.finetuned),
        percent(row.generated),
        signed_points(row.generated - row.finetuned),
        "–" if row.over_samples is None else f"±{percent(row.over_samples)}",
        "–" if row.over_seeds is None else f"±{percent(row.over_seeds)}",
        _published(row),
    )


def _published(row: PaperRow) -> str:
    if row.published is None:
        return "–"
    numbers = (row.published.pretrained, row.published.finetuned, row.published.generated)
    if all(value is not None for value in numbers):
        return " / ".join(percent(value) for value in numbers if value is not None)
    return row.published.words
