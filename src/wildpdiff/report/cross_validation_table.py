"""The generator's cross-validation on seen tasks, and what its posterior is."""

from __future__ import annotations

from wildpdiff.evaluate.results import Results
from wildpdiff.report.blocks import Block, Cell, DataTable, TableRow, Text
from wildpdiff.report.wording import capital, number, signed


def cross_validation_blocks(results: Results) -> list[Block]:
    """What ``fit`` found on held-out seen tasks before any unseen one was scored; nothing where it did not."""
    generator = results.generator
    if generator is None or generator.cross_validation is None:
        return []
    found = generator.cross_validation
    rows = []
    for row in found.rows:
        delivered = row.weight is None
        lead = "–" if delivered else f"{signed(number(row.lead, 1))} [{number(row.low, 1)}, {number(row.high, 1)}]"
        weight = number(100 * row.weight, 0) if row.weight else "–"
        cells = (Cell(number(row.accuracy, 1)), Cell(lead), Cell(weight))
        rows.append(TableRow(capital(row.method), cells, frozenset({"generated"} if delivered else ())))
    columns = ("Adapters", "Accuracy, %", "Generated − it, points", "Weight in it, %")
    note = (
        f"{found.tasks} seen tasks, each scored with adapters made without it, on up to {found.images} labelled images "
        "that no other task learns from; intervals are 95 % over tasks. Of the first generator."
    )
    blocks: list[Block] = [Text(found.verdict), DataTable("", columns, tuple(rows), note)]
    if generator.posterior is not None:
        estimate, chosen = generator.posterior.estimate, generator.posterior.chosen
        blocks.append(
            Text(
                f"{generator.posterior.reason} Held out, the estimate has {number(estimate.one_sample, 1)} %, "
                f"one sample {number(chosen.one_sample, 1)} %, the best of eight by five labels "
                f"{number(chosen.best_of_8, 1)} % (codes: {chosen.density}, decoded by a {chosen.decoder})."
            )
        )
    return blocks
