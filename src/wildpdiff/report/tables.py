"""Tables of the report: sources by family, held-out groups, worst tasks, cross-validation, trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.evaluate.results import Results, SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED
from wildpdiff.report.blocks import Block, Cell, DataTable, TableRow, Text
from wildpdiff.report.findings import SplitFindings, compare, grouped
from wildpdiff.report.palette import SourceStyle
from wildpdiff.report.sentences import split_name
from wildpdiff.report.wording import (
    Scores,
    capital,
    count,
    number,
    percent,
    percent_range,
    seconds_text,
    signed,
)
from wildpdiff.tasks.metric import ACCURACY

WORST_TASKS = 5
BY_DEFINITION = {PRETRAINED: "0", FINETUNED: "100"}


def sources_blocks(
    results: Results, part: SplitFindings, styles: Mapping[str, SourceStyle], heading: str
) -> list[Block]:
    """Every source of a split by family, and a warning where sources were scored on different tasks."""
    notes = {info.name: info.note for info in results.sources}
    uneven = len({frozenset(table) for table in part.accuracy.values()}) > 1
    groups = grouped([part])
    rows: list[TableRow] = []
    for title, sources in groups.items():
        if len(groups) > 2:
            rows.append(TableRow(title, (), frozenset({"group"})))
        for row in sources:
            small = [notes.get(row.source, ""), count(row.tasks, "task") if uneven else ""]
            rows.append(_source_row(row, part, styles[row.source], "; ".join(text for text in small if text)))
    lead = f"Generated − source, {part.metric.difference_unit}" if part.metric.higher_is_better else "Lead of generated"
    columns = ("Source", capital(part.metric.heading), "Recovered gain, %", lead, "Training", "Per adapter")
    blocks: list[Block] = [
        DataTable(capital(f"{heading}{split_name(part.split, len(part.tasks))}"), columns, tuple(rows))
    ]
    if uneven:
        blocks.append(Text("The sources were scored on different tasks: their means are not comparable.", "warning"))
    return blocks


def _source_row(row: SummaryRow, part: SplitFindings, style: SourceStyle, small: str) -> TableRow:
    reference = row.source in BY_DEFINITION
    gain = BY_DEFINITION.get(row.source, "–") if row.recovered_gain is None else percent(row.recovered_gain, 0)
    difference = part.difference(row)
    lead = Cell("–")
    if difference is not None:
        lead = Cell(part.scores.signed(difference.value), _signed_range(difference.interval, part.scores.signed))
    tone = {"ahead"} if part.is_ahead(row) or row is part.winner else set()
    tone |= {"own"} if row is part.generated else set()
    tone |= {"muted"} if reference else set()
    cells = (
        Cell(part.scores.number(row.accuracy), part.scores.range(row.accuracy_interval)),
        Cell(gain, "by definition" if reference else percent_range(row.recovered_gain_interval, 0)),
        lead,
        *(
            Cell("–" if cost is None else seconds_text(cost))
            for cost in (row.training_seconds, row.seconds_per_adapter)
        ),
    )
    return TableRow(capital(row.label), cells, frozenset(tone), small, style, row.condition)


def _signed_range(interval: tuple[float, float] | None, text: Callable[[float], str]) -> str:
    return "no interval" if interval is None else f"{text(interval[0])} to {text(interval[1])}"


def losses_blocks(part: SplitFindings) -> list[Block]:
    """Tasks with the lowest gain of the generated adapter over the pretrained model."""
    pretrained = part.of(PRETRAINED)
    lead = compare(part, part.generated, pretrained)
    if part.generated is None or pretrained is None or lead is None:
        return []
    rival = part.baseline if part.baseline is not pretrained else None
    before, own, other, top = (
        part.per_task(row) if row is not None else {} for row in (pretrained, part.generated, rival, part.of(FINETUNED))
    )
    change = {
        task: part.metric.sign * (own[task] - before[task]) for task in part.tasks if task in before and task in own
    }
    rows = []
    for task in sorted(change, key=change.__getitem__)[: min(lead.losses or WORST_TASKS, WORST_TASKS)]:
        values = [before, own, *([other] if rival else []), top]
        cells = [Cell(part.scores.number(table[task]) if task in table else "–") for table in values]
        rows.append(TableRow(task, (*cells[:2], Cell(part.scores.signed(change[task])), *cells[2:])))
    rivals = (capital(rival.label),) if rival else ()
    worse = "below" if part.metric.higher_is_better else "worse than"
    text = (
        f"Generated adapters are {worse} the pretrained model on {lead.losses} of {split_name(part.split, lead.tasks)}."
    )
    difference = "generated − pretrained, in points" if part.metric == ACCURACY else "that for the better"
    note = f"Lowest changes first. {capital(part.metric.name)} in {part.metric.unit}; change is {difference}."
    columns = ("Task", "Pretrained", "Generated", "Change", *rivals, "Fine-tuned")
    return [Text(text), DataTable("", columns, tuple(rows), note)]


def cross_validation_table(found: CrossValidation, title: str = "") -> DataTable:
    """A generator's delivered estimate next to its alternatives, on held-out seen tasks."""
    rows, metric, digits = [], found.metric, Scores(found.metric).digits
    for row in found.rows:
        delivered = row.weight is None
        lead = (
            Cell("–")
            if delivered
            else Cell(signed(number(row.lead, digits)), f"{number(row.low, digits)} to {number(row.high, digits)}")
        )
        cells = (Cell(number(row.accuracy, digits)), lead, Cell(number(100 * row.weight, 0) if row.weight else "–"))
        rows.append(TableRow(capital(row.method), cells, frozenset({"own"} if delivered else ())))
    lead_of = f"Generated − source, {metric.difference_unit}" if metric.higher_is_better else "Lead of generated"
    columns = ("Source", capital(metric.heading), lead_of, "Weight, %")
    note = (
        f"{found.tasks} seen tasks, each scored with adapters made without it, on up to {found.images} labelled "
        "examples that no other task learns from; 95 % intervals over tasks. First generator only."
    )
    return DataTable(title, columns, tuple(rows), note)


def cross_validation_blocks(results: Results) -> list[Block]:
    """The generator's cross-validation on seen tasks; nothing where there is none."""
    generator = results.generator
    if generator is None or generator.cross_validation is None:
        return []
    found = generator.cross_validation
    blocks: list[Block] = [Text(found.verdict), cross_validation_table(found)]
    if generator.posterior is not None:
        estimate, chosen = generator.posterior.estimate, generator.posterior.chosen
        blocks.append(
            Text(
                f"Posterior ({chosen.density} of codes, {chosen.decoder} decoder), held out: estimate "
                f"{number(estimate.one_sample, 1)} %, one sample {number(chosen.one_sample, 1)} %, best of eight by "
                f"five labels {number(chosen.best_of_8, 1)} %. {generator.posterior.reason}"
            )
        )
    return blocks
