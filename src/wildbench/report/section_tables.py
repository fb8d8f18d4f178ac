"""Tables of the further sections: the paper's rows, spread, interpolation against alignment; rows of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from wildbench.interpolation.interpolation_summary import midpoint_kept, ways_of
from wildbench.report.wording import number_range
from wildbench.sections import PICTURES, ParameterSpread, Picture
from wildbench.study_sections import Interpolation, PaperRow
from wildpdiff.evaluate.results import Results
from wildpdiff.report.blocks import Block, Cell, DataTable, PictureRow, Shot, TableRow
from wildpdiff.report.wording import (
    capital,
    count,
    number,
    percent,
    percent_range,
    percentage,
    signed_points,
)


def paper_blocks(rows: Sequence[PaperRow]) -> list[Block]:
    """The paper's tables as measured here, each with the published row below."""
    if not rows:
        return []
    lines: list[TableRow] = []
    questions = list(dict.fromkeys(row.question for row in rows))
    for question in questions:
        own = [row for row in rows if row.question == question]
        lines.append(TableRow(question, (), frozenset({"group"})))
        for row, following in zip(own, [*own[1:], None], strict=True):
            lines.append(_paper_line(row))
            same = following is not None and (following.setting, following.published) == (row.setting, row.published)
            if row.published is not None and not same:
                lines.append(_published_line(row))
    columns = ("Setting", "Pretrained", "Fine-tuned", "Generated", "Generated − fine-tuned", "Spread of accuracy",
               "Spread of parameters")  # fmt: skip
    note = (
        "Accuracy in %, means over tasks, generated over all samples and seeds, with 95 % intervals over tasks. "
        "Spread: standard deviation over samples / over seeds of the generator, accuracy in points, parameters as a "
        "share of the distance to the pretrained adapter. The paper's numbers are for other data (Snapshot Serengeti), "
        "taken from secondary notes of the paper; only the pattern can be compared."
    )
    return [DataTable("", columns, tuple(lines), note)]


def _paper_line(row: PaperRow) -> TableRow:
    gap = row.generated - row.finetuned
    ends = (
        "–"
        if row.gap_interval is None
        else f"{signed_points(row.gap_interval[0])} to {signed_points(row.gap_interval[1])}"
    )
    method = "the paper's method" if row.method == "paper" else "wildpdiff"
    sizes = [count(row.tasks, "task"), count(row.samples, "sample"), count(row.seeds, "seed")]
    return TableRow(
        row.setting,
        (
            Cell(percent(row.pretrained)),
            Cell(percent(row.finetuned), percent_range(row.finetuned_interval)),
            Cell(percent(row.generated), percent_range(row.generated_interval)),
            Cell(signed_points(gap), ends),
            Cell(f"{_points(row.over_samples)} / {_points(row.over_seeds)}"),
            Cell(f"{_share(row.parameters_over_samples)} / {_share(row.parameters_over_seeds)}"),
        ),
        small=f"{method}; {', '.join(sizes)}",
    )


def _published_line(row: PaperRow) -> TableRow:
    published = row.published
    assert published is not None
    values = (published.pretrained, published.finetuned, published.generated)
    cells = [Cell("–" if value is None else percent(value)) for value in values]
    gap = (
        None
        if published.finetuned is None or published.generated is None
        else published.generated - published.finetuned
    )
    cells += [Cell("–" if gap is None else signed_points(gap)), Cell(""), Cell("")]
    return TableRow("the paper", tuple(cells), frozenset({"muted"}), published.words)


def _points(value: float | None) -> str:
    return "–" if value is None else percent(value, 2)


def _share(value: float | None) -> str:
    return "–" if value is None else percentage(value, 1 if value < 0.095 else 0)


def spread_table(spread: Sequence[ParameterSpread]) -> DataTable | None:
    """Spread of generated parameters and of their accuracy over samples and over seeds."""
    if not spread:
        return None
    rows = []
    for split in dict.fromkeys(entry.split for entry in spread):
        rows.append(TableRow(f"{capital(split)} tasks", (), frozenset({"group"})))
        rows += [
            TableRow(
                capital(entry.source),
                (
                    Cell(_share(entry.over_samples)),
                    Cell(_share(entry.over_seeds)),
                    Cell(_points(entry.accuracy_over_samples)),
                    Cell(_points(entry.accuracy_over_seeds)),
                ),
            )
            for entry in spread
            if entry.split == split
        ]
    columns = (
        "Source",
        "Parameters over samples",
        "Parameters over seeds",
        "Accuracy over samples",
        "Accuracy over seeds",
    )
    note = (
        "Parameters: root mean square distance to the mean, as a share of the mean's distance to the pretrained "
        "adapter. Accuracy: standard deviation in points. Means over tasks."
    )
    return DataTable("Spread of generated adapters", columns, tuple(rows), note)


def correlations_table(interpolation: Interpolation) -> DataTable | None:
    """Rank correlation of every alignment number with the gain kept half-way, for every way of interpolating."""
    middles = [midpoint_kept(interpolation, way) for way in ways_of(interpolation)]
    if not any(value is not None for middle in middles for value in middle.correlations.values()):
        return None
    rows = []
    for key in middles[0].correlations:
        cells = []
        for middle in middles:
            both, lower = middle.correlations[key], middle.correlations_lower[key]
            if both is None:
                cells.append(Cell("–"))
                continue
            small = number_range(both.interval).strip()
            small += f"; worse task {number(lower.value)}" if lower is not None else ""
            cells.append(Cell(number(both.value), small))
        rows.append(TableRow(capital(key.replace("_", " ")), tuple(cells)))
    columns = ("Alignment number", *(f"Interpolating {middle.way}" for middle in middles))
    note = (
        "Spearman's rank correlation with the share of fine-tuning's gain that both tasks keep half-way, over "
        f"{count(len(middles[0].pairs), 'pair')}, with 95 % intervals over pairs; small: with the share of the task "
        "that keeps less. Condition similarity is the negative distance of the descriptions."
    )
    return DataTable("Alignment and the gain kept half-way", columns, tuple(rows), note)


def picture_rows(results: Results) -> list[PictureRow]:
    """Pictures by task, best tasks first, each task with its accuracies."""
    pictures = PICTURES.of(results) or ()
    keys = dict.fromkeys((picture.role, picture.split, picture.task) for picture in pictures)
    order = sorted(keys, key=lambda key: key[0] != "best")
    rows = []
    for role, split, task in order:
        own = [entry for entry in pictures if (entry.role, entry.split, entry.task) == (role, split, task)]
        words = "largest" if role == "best" else "smallest"
        title = f"{task} ({split}), {words} gains{_change(results, split, task)}"
        rows.append(PictureRow(title, tuple(_shot(picture) for picture in own)))
    return rows


def _change(results: Results, split: str, task: str) -> str:
    values = {}
    for source in ("pretrained", "generated"):
        found = [
            row.accuracy
            for row in results.rows
            if (row.split, row.task, row.source) == (split, task, source) and row.condition in ("own", "none")
        ]
        if not found:
            return ""
        values[source] = sum(found) / len(found)
    return f": {percentage(values['pretrained'])} pretrained, {percentage(values['generated'])} generated"


def _shot(picture: Picture) -> Shot:
    return Shot(
        f"data:image/png;base64,{picture.png}",
        picture.label,
        picture.pretrained,
        picture.pretrained == picture.label,
        picture.generated,
        picture.generated == picture.label,
    )
