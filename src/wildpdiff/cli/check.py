"""``wildpdiff check``: an adapter next to the pretrained model on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli import options
from wildpdiff.cli.delivery import backbone_of
from wildpdiff.cli.terminal import Stages, answer, remark
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from wildpdiff.evaluate.checking import Check
    from wildpdiff.tasks.task import Task
    from wildpdiff.texts import TextSuite

MOST_CLASSES = 30
"""Rows of the table of classes; --json has all."""


def check(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of an adapter.")],
    images: Annotated[
        Path,
        typer.Option(
            help="Labelled images: a folder CLASS/IMAGE, or a table (path,label,task); or a table (text,label,task)."
        ),
    ],
    task: Annotated[str | None, typer.Option(help="Task of the table.")] = None,
    boxes: options.BoxesOption = None,
    columns: options.ColumnsOption = None,
    backbone: options.AdapterBackboneOption = None,
    skip_unreadable: options.SkipOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Score an adapter next to the pretrained model on labelled images, none of which it was refined on."""
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.camera_traps.picture_files import Unreadable
    from wildpdiff.evaluate.checking import check_adapter, check_texts
    from wildpdiff.refine.labels import labelled_files
    from wildpdiff.texts import is_text_table, read_text_suite

    loaded = Adapter.load(adapter)
    model = backbone_of(loaded, backbone)
    named = options.named_columns(columns)
    if is_text_table(images, named):
        if boxes is not None or model.image_size:
            what = f"{model.name} reads" if model.image_size else "--boxes are of"
            raise DataError(f"{what} pictures, and {images} is a table of texts. Give labelled pictures.")
        suite = read_text_suite(images, columns=named, classes=model.classes, unseen=0, learning=False)
        for sentence in suite.remarks:
            remark(sentence)
        scored = check_texts(loaded, model, _task_of(suite, task), seed=seed)
        _answer(adapter, scored, as_json=as_json)
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


def _task_of(suite: TextSuite, name: str | None) -> Task:
    """The named task of a table, or its only one; raises :class:`DataError`."""
    if name is None and len(suite.all_tasks) != 1:
        raise DataError(f"{suite.name} has {len(suite.all_tasks)} tasks. Name one by --task.")
    return suite.all_tasks[0] if name is None else options.find_task(suite, name)


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
