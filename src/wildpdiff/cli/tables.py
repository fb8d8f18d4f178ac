"""Tables that verbs show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from wildpdiff.conditional_mean.score_table import CrossValidation


def cross_validation_table(found: CrossValidation) -> Table:
    """A generator's cross-validation: what it delivers next to every alternative."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"held-out seen tasks ({found.tasks})")
    for name in ("accuracy, %", "generated − it, points", "weight, %"):
        table.add_column(name, justify="right")
    for row in found.rows:
        delivered = row.weight is None
        lead = "" if delivered else f"{row.lead:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
        weight = f"{100 * row.weight:.0f}" if row.weight else ""
        style = "bold" if delivered else ""
        table.add_row(*(Text(cell, style) for cell in (row.method, f"{row.accuracy:.1f}", lead, weight)))
    return table
