"""``wildpdiff check``: an adapter next to the pretrained model on labelled images or texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli import options
from wildpdiff.cli.delivery import backbone_of, labelled_texts
from wildpdiff.cli.terminal import Stages, answer, remark
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from wildpdiff.evaluate.checking import Check

MOST_CLASSES = 30
"""Rows of the table of classes; --json has all."""


def check(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of an adapter.")],
    images: options.LabelledOption,
    task: Annotated[str | None, typer.Option(help="Task of the table.")] = None,
    boxes: options.BoxesOption = None,
    columns: options.ColumnsOption = None,
    backbone: options.AdapterBackboneOption = None,
    skip_unreadable: options.SkipOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Score an adapter next to the pretrained model on labelled images or texts, none of which it was refined on."""
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.camera_traps.picture_files import Unreadable
    from wildpdiff.evaluate.checking import check_adapter, check_texts
    from wildpdiff.refine.labels import labelled_files

    loaded = Adapter.load(adapter)
    model = backbone_of(loaded, backbone)
    named = options.named_columns(columns)
    texts = labelled_texts(images, model, task, named, boxed=boxes is not None)
    if texts is not None:
        _answer(adapter, check_texts(loaded, model, texts, seed=seed), as_json=as_json)
        return
    labelled = labelled_files(images, model.classes, task, test=True, boxes=boxes, columns=named)
    for sentence in labelled.remarks:
        remark(sentence)
    unreadable: list[DataError] = []
    most = len(labelled.files) if skip_unreadable else Unreadable(len(labelled.files)).most

    def skipped(error: DataError) -> None:
        unreadable.append(error)
        if len(unreadable) > most:
            raise error

    with Stages() as stages:
        found = check_adapter(
            loaded,
            model,
            labelled,
            seed=seed,
            skipped=skipped,
            progress=stages(f"classify {len(labelled.files)} images"),
        )
    for error in unreadable:
        remark(f"Skipped: {error}")
    _answer(adapter, found, as_json=as_json)


def _answer(adapter: Path, found: Check, *, as_json: bool) -> None:
    values = {"adapter": str(adapter), **found.to_json()}
    answer(as_json, values, _scores(found), "", _classes(found), "", found.verdict)


def _examples(found: Check) -> str:
    return "images" if found.kind == "picture" else f"{found.kind}s"


def _scores(found: Check) -> Table:
    from wildpdiff.report.terminal import plain_table

    bursts = f" in {found.units} bursts" if found.bursts else ""
    columns = ("adapter", "pretrained", "difference", "95 % interval")
    table = plain_table(f"{found.pictures} labelled {_examples(found)}{bursts}", "", *columns)
    rows = (("accuracy, %", found.accuracy, found.accuracy_lead), ("macro-F1, %", found.macro_f1, found.macro_f1_lead))
    for name, scores, lead in rows:
        ends = lead.interval
        interval = "–" if ends is None else f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"
        table.add_row(name, *(f"{100 * score:.1f}" for score in scores), f"{100 * lead.value:+.1f}", interval)
    return table


def _classes(found: Check) -> Table:
    from rich.text import Text

    from wildpdiff.report.terminal import plain_table

    table = plain_table("Right, % of each class", "", _examples(found), "adapter", "pretrained", "difference")
    for row in found.classes[:MOST_CLASSES]:
        lead = 100 * (row.adapter - row.pretrained)
        style = "green" if lead > 0 else "yellow" if lead < 0 else ""
        cells = (str(row.pictures), f"{100 * row.adapter:.0f}", f"{100 * row.pretrained:.0f}", f"{lead:+.0f}")
        table.add_row(Text(row.name), *(Text(cell, style) for cell in cells))
    if len(found.classes) > MOST_CLASSES:
        table.add_row(Text(f"… {len(found.classes) - MOST_CLASSES} more (--json)"))
    return table
