"""``wildpdiff suite``: suites of tasks and their contents."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_file
from wildpdiff.cli.suite_check import check
from wildpdiff.cli.terminal import answer

if TYPE_CHECKING:
    from wildpdiff.tasks.task import ClassSuite, Task

app = typer.Typer(help="Suites of tasks: ls, check, show, export.", rich_markup_mode=None)
app.command("check", short_help="Show what a suite has, what is left out and why, and what is next.")(check)

SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A registered name (savanna), a CSV table, or a folder of images.")
]
SuiteArguments = Annotated[list[str], typer.Argument(metavar="SUITE", help=f"{options.SUITE_HELP} Several are joined.")]
KINDS = {
    "TABLE.csv": "your images, one row each: path,label,task[,split][,group][,metadata…]",
    "FOLDER": "your images as TASK/CLASS/IMAGE",
    "TEXTS.csv": "your texts, one row each: text,label,task[,split][,group][,description][,metadata…]",
}


@app.command("ls")
def ls(as_json: options.JsonOption = False) -> None:
    """List the kinds of suites."""
    from wildpdiff.camera_traps.registry import suite_providers

    kinds = {name: provider.summary for name, provider in suite_providers().items()} | KINDS
    rows = [{"suite": name, "what": what} for name, what in kinds.items()]
    answer(as_json, rows, *(f"{name:<10} {what}" for name, what in kinds.items()))


@app.command("show")
def show_suite(
    suite: SuiteArguments,
    task: Annotated[str | None, typer.Option(help="Show this task only.")] = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    seed: options.SeedOption = 0,
    image: Annotated[Path | None, typer.Option(help="Write a contact sheet of test images, PNG.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show the contents of a suite, or of one of its tasks."""
    if image is not None:
        check_output_file(image)
    opened = options.open_suite(suite, options.with_columns(option, columns), seed=seed, remarks="all")
    chosen = None if task is None else options.find_task(opened, task)
    values = _suite_values(opened) if chosen is None else _task_values(opened, chosen)
    if image is not None:
        from PIL import Image

        from wildpdiff.disk import write_file
        from wildpdiff.tasks.contact_sheet import contact_sheet

        stream, pictures = io.BytesIO(), options.images_of(opened)
        shown: list[Any] | None = None if chosen is None else [chosen]
        Image.fromarray(contact_sheet(pictures, shown)).save(stream, "PNG")
        write_file(image, stream.getvalue())
        values["image"] = str(image)
    answer(as_json, values, *(f"{key + ':':<13}{_line(value)}" for key, value in values.items()))


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items()) or "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _suite_values(suite: ClassSuite) -> dict[str, Any]:
    from wildpdiff.camera_traps.table_suite import TableSuite
    from wildpdiff.tasks.task import GROUPS, ImageSuite
    from wildpdiff.texts import TextSuite

    fields = {
        field.name: ("/".join(field.categories) if field.kind == "category" else f"{field.kind} {field.unit}".strip())
        for field in suite.metadata_schema.fields
    }
    described = (
        {"described": len(suite.described)} if isinstance(suite, TableSuite | TextSuite) and suite.described else {}
    )
    return {
        "suite": suite.name,
        "classes": list(suite.classes),
        **({"image size": suite.image_size} if isinstance(suite, ImageSuite) else {}),
        "tasks": {group: len(suite.tasks(group)) for group in GROUPS} | described,
        "metadata": fields,
        "fingerprint": suite.fingerprint,
    }


def _task_values(suite: ClassSuite, task: Task) -> dict[str, Any]:
    import numpy as np

    from wildpdiff.camera_traps.table_suite import TableTask
    from wildpdiff.tasks.description import description_provenance
    from wildpdiff.tasks.task import SPLITS, ImageSuite
    from wildpdiff.texts import TextTask

    title = {"camera": task.title} if isinstance(task, TableTask) else {}
    title |= {"title": task.title} if isinstance(task, TextTask) else {}
    values: dict[str, Any] = {**title, "task": task.name, "suite": suite.name}
    for part, value in description_provenance(task.description).items():
        values[part] = value["images"] if isinstance(value, dict) and "sha256" in value else value
    labels = {split: np.asarray(task.data(split).targets, dtype=np.int64) for split in SPLITS}
    values["images" if isinstance(suite, ImageSuite) else "texts"] = {
        split: len(found) for split, found in labels.items()
    }
    counts = np.bincount(np.concatenate(list(labels.values())), minlength=len(suite.classes))
    values["labels"] = {name: int(number) for name, number in zip(suite.classes, counts, strict=True) if number}
    return values
