"""The tables of accuracies: every source of a split in groups, held-out groups side by side, the lost tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wildpdiff.evaluate.results import Results, SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.blocks import Block, Cell, DataTable, TableRow, Text
from wildpdiff.report.findings import SplitFindings, compare
from wildpdiff.report.groups import grouped, joined_groups
from wildpdiff.report.palette import SourceStyle
from wildpdiff.report.sentences import source_name, split_name
from wildpdiff.report.wording import (
    capital,
    count,
    interval_text,
    listed,
    percent,
    percent_range,
    percentage,
    seconds_text,
    signed_points,
)

WORST_TASKS = 5
BY_DEFINITION = {PRETRAINED: "0", FINETUNED: "100"}


def sources_blocks(
    results: Results, part: SplitFindings, styles: Mapping[str, SourceStyle], heading: str
) -> list[Block]:
    """The table of a split, grouped by what the sources use, and a warning where they were scored on other tasks."""
    notes = {info.name: info.note for info in results.sources}
    uneven = len({frozenset(table) for table in part.accuracy.values()}) > 1
    groups = grouped(part)
    rows: list[TableRow] = []
    for group in groups:
        if len(groups) > 2:
            rows.append(TableRow(group.title, (), frozenset({"group"})))
        rows += [_source_row(row, part, styles[row.source], notes.get(row.source, ""), uneven) for row in group.lines]
    columns = ("Source", "Accuracy, %", "Recovered gain, %", "Generated − source, points", "Training", "Per adapter")
    blocks: list[Block] = [
        DataTable(capital(f"{heading}{split_name(part.split, len(part.tasks))}"), columns, tuple(rows))
    ]
    if uneven:
        blocks.append(
            Text("The sources were scored on different tasks: their means cannot be compared directly.", "warning")
        )
    return blocks


def _source_row(row: SummaryRow, part: SplitFindings, style: SourceStyle, note: str, uneven: bool) -> TableRow:
    reference = row.source in BY_DEFINITION
    gain = BY_DEFINITION.get(row.source, "–") if row.recovered_gain is None else percent(row.recovered_gain, 0)
    difference = part.difference(row)
    lead = Cell("–") if difference is None else Cell(
        signed_points(difference.value), _signed_range(difference.interval)
    )  # fmt: skip
    tone = {"ahead"} if part.is_ahead(row) or row is part.winner else set()
    tone |= {"own"} if row is part.generated else set()
    tone |= {"muted"} if reference else set()
    return TableRow(
        capital(row.label),
        (
            Cell(percent(row.accuracy), percent_range(row.accuracy_interval)),
            Cell(gain, "by definition" if reference else percent_range(row.recovered_gain_interval, 0)),
            lead,
            Cell(_seconds(row.training_seconds)),
            Cell(_seconds(row.seconds_per_adapter)),
        ),
        frozenset(tone),
        "; ".join(text for text in (note, count(row.tasks, "task") if uneven else "") if text),
        style,
        row.condition,
    )


def _signed_range(interval: tuple[float, float] | None) -> str:
    return "no interval" if interval is None else f"{signed_points(interval[0])} to {signed_points(interval[1])}"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else seconds_text(seconds)


def groups_blocks(parts: Sequence[SplitFindings], styles: Mapping[str, SourceStyle], heading: str) -> list[Block]:
    """Whole groups of tasks held out beside tasks held out at random: recovered gain of every source in both."""
    held_out = [part for part in parts if part.split.startswith("held-out ")]
    if not held_out:
        return []
    shown = [part for part in parts if part.split == "unseen"] + held_out
    wanted = {(row.source, row.condition) for part in held_out for row in part.summary}
    groups = joined_groups(
        [
            group
            for part in shown
            for group in grouped(part, [row for row in part.summary if (row.source, row.condition) in wanted])
        ]
    )
    rows = []
    for group in groups:
        for line in group.lines:
            found = [_line(part, line) for part in shown]
            best = any(row is not None and (part.is_ahead(row) or row is part.winner)
                       for part, row in zip(shown, found, strict=True))  # fmt: skip
            tone = ({"ahead"} if best else set()) | ({"own"} if line.source == GENERATED and best else set())
            tone |= {"muted"} if line.source in BY_DEFINITION else set()
            cells = tuple(_group_cell(part, row) for part, row in zip(shown, found, strict=True))
            rows.append(TableRow(capital(line.label), cells, frozenset(tone), "", styles[line.source], line.condition))
    columns = ("Source", *(f"{capital(part.split)}, {count(len(part.tasks), 'task')}" for part in shown))
    note = (
        "Accuracy in %, with the recovered gain beside it. Unseen tasks are held out at random; of a held-out group no "
        "task of the same kind was seen. In bold: what is best without labels in a column, and what is ahead of the "
        "generator in one."
    )
    table = DataTable(capital(f"{heading}whole groups held out"), columns, tuple(rows), note)
    return [Text(" ".join(_group_sentence(part) for part in shown)), table]


def _line(part: SplitFindings, line: SummaryRow) -> SummaryRow | None:
    return next((row for row in part.summary if (row.source, row.condition) == (line.source, line.condition)), None)


def _group_cell(part: SplitFindings, row: SummaryRow | None) -> Cell:
    if row is None:
        return Cell("–")
    if row.recovered_gain is None:
        gain = BY_DEFINITION.get(row.source)
        return Cell(percent(row.accuracy), "no gain" if gain is None else f"gain {gain}")
    return Cell(
        percent(row.accuracy),
        f"gain {percent(row.recovered_gain, 0)}{interval_text(row.recovered_gain_interval, 0)}",
    )


def _group_sentence(part: SplitFindings) -> str:
    own = part.generated
    if own is None or own.recovered_gain is None:
        return ""
    text = f"On {split_name(part.split, len(part.tasks))} the generator recovers {percentage(own.recovered_gain, 0)}"
    text += interval_text(own.recovered_gain_interval, 0)
    ahead = [row for row in part.ahead if part.is_rival(row)]
    if ahead:
        return (
            text
            + f"; {listed([source_name(row) for row in ahead[:3]])} {'is' if len(ahead) == 1 else 'are'} ahead of it."
        )
    return text + ", and no source without labels is ahead of it."


def losses_blocks(part: SplitFindings, styles: Mapping[str, SourceStyle]) -> list[Block]:
    """The tasks on which the generated adapter does worst against the pretrained model."""
    pretrained = part.of(PRETRAINED)
    lead = compare(part, part.generated, pretrained)
    if part.generated is None or pretrained is None or lead is None:
        return []
    rival = part.baseline if part.baseline is not pretrained else None
    columns = [
        part.per_task(row) if row is not None else {} for row in (pretrained, part.generated, rival, part.of(FINETUNED))
    ]
    shared = [task for task in part.tasks if task in columns[0] and task in columns[1]]
    change = {task: columns[1][task] - columns[0][task] for task in shared}
    worst = sorted(shared, key=change.__getitem__)[: min(lead.losses or WORST_TASKS, WORST_TASKS)]
    rows = []
    for task in worst:
        before, own, other, top = (Cell(percent(table[task]) if task in table else "–") for table in columns)
        cells = (before, own, Cell(signed_points(change[task])), *((other,) if rival else ()), top)
        rows.append(TableRow(task, cells))
    rivals = (capital(rival.label),) if rival else ()
    tasks = split_name(part.split, lead.tasks)
    text = (
        f"The generated adapter is worse than the pretrained model on {lead.losses} of {tasks}; the worst are:"
        if lead.losses
        else f"On none of {tasks} is the generated adapter worse than the pretrained model; the smallest changes are:"
    )
    note = "Accuracy in %; change is generated − pretrained, in points."
    table = DataTable("", ("Task", "Pretrained", "Generated", "Change", *rivals, "Fine-tuned"), tuple(rows), note)
    return [Text(text), table]
