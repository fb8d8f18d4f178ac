"""``wildpdiff suite export``: a simulated suite as ordinary files, and labelled pictures in another format."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_file, check_output_folder, check_output_package
from wildpdiff.cli.prediction_output import PACKAGE, ZoneOption, as_bytes, parse_zone, write_package
from wildpdiff.cli.terminal import Stages, answer, remark
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from datetime import tzinfo

    from wildpdiff.camera_traps.records import PictureTable
    from wildpdiff.camera_traps.writers.camtrap_dp import Content
    from wildpdiff.tasks.task import Group

Format = Literal["csv", "coco", "megadetector", "camtrap-dp"]
NAMES: dict[Format, str] = {"csv": "images.csv", "coco": "annotations.json", "megadetector": "megadetector.json"}
"""Files in the folder of an exported suite; a package has several."""


def export(
    suite: Annotated[
        list[str],
        typer.Argument(metavar="SUITE", help="A registered name (savanna), or files of pictures, which are joined."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Output folder; a file for one --format of a suite of files.")],
    form: Annotated[
        Format | None, typer.Option("--format", help="Format: needed for files, one more for a simulated suite.")
    ] = None,
    group: Annotated[
        Literal["pretraining", "seen", "unseen"] | None,
        typer.Option("--group", help="Only these tasks; seen and unseen by default."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of tasks of each group.")] = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    zone: ZoneOption = None,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Write labelled pictures as CSV, COCO Camera Traps, MegaDetector JSON or Camtrap DP.

    A simulated suite is written as ordinary files: JPEG images, COCO Camera Traps annotations, and a CSV table.
    """
    from wildpdiff.camera_traps.registry import suite_providers

    inputs = options.suite_inputs(suite)
    given_zone = parse_zone(zone)
    if len(inputs) == 1 and inputs[0] in suite_providers():
        values = _simulated(inputs[0], out, (group, limit), (options.with_columns(option, columns), seed))
        if form in ("megadetector", "camtrap-dp"):
            from wildpdiff.camera_traps.joining import read_joined

            table = read_joined([out / "annotations.json", out / "images.csv"])
            _write(table, form, out if form == "camtrap-dp" else out / NAMES[form], given_zone, keep=True)
            values["format"] = form
        done = f"{len(values['tasks'])} tasks in {out}: images, annotations.json (COCO Camera Traps) and images.csv"
        answer(as_json, values, f"{done}{f', and {form}' if 'format' in values else ''}")
        return
    if form is None:
        known = ", ".join((*NAMES, "camtrap-dp"))
        names = ", ".join(suite_providers()) or "none is installed"
        raise DataError(
            f"{inputs[0]} is made of files already. Give the format of another file by --format ({known}); images are "
            f"written of simulated suites alone ({names})."
        )
    pairs = options.with_columns(option, columns)
    settings = options.suite_settings(inputs, pairs)
    if options.is_texts(inputs, pairs):
        raise DataError(f"{inputs[0]} is a table of texts, and pictures are exported. Give pictures.")
    _of_files(inputs, form, out, settings, zone=given_zone, as_json=as_json)


def _simulated(
    name: str, out: Path, chosen: tuple[Group | None, int | None], settings: tuple[list[str], int]
) -> dict[str, Any]:
    """Write a simulated suite as a folder of files, and return the values of the answer."""
    check_output_folder(out)
    from wildpdiff.camera_traps.registry import suite_providers

    (group, limit), (option, seed) = chosen, settings
    opened = options.images_of(options.open_suite(name, option, seed=seed))
    provider = suite_providers()[name]
    groups: tuple[Group, ...] = (group,) if group is not None else ("seen", "unseen")
    tasks = [task for entry in groups for task in opened.tasks(entry)[:limit]]
    with Stages() as stages:
        stages(f"write the images of {len(tasks)} tasks")
        provider.export(opened, tasks, out)
    return {"folder": str(out), "tasks": [task.name for task in tasks], "table": str(out / "images.csv")}


def _of_files(
    inputs: tuple[str, ...], form: Format, out: Path, settings: dict[str, object], *, zone: tzinfo, as_json: bool
) -> None:
    """Write the pictures of files in a format."""
    from wildpdiff.camera_traps.joining import read_joined

    missing = [entry for entry in inputs if not Path(entry).exists()]
    if missing:
        raise DataError(f"There is no suite {missing[0]!r}: it is no registered name, file or folder. Check it.")
    if form != "camtrap-dp":
        check_output_file(out, options.files_of(inputs))
    named = settings.get("columns")
    table = read_joined([Path(entry) for entry in inputs], named if isinstance(named, dict) else None)
    for sentence in table.remarks:
        remark(sentence)
    read = [*options.files_of(inputs), *(table.root / picture.path for picture in table.pictures)]
    if form == "camtrap-dp":
        check_output_package(out, PACKAGE, read)
    else:
        check_output_file(out, read)
    written = _write(table, form, out, zone)
    values = {"out": str(out), "format": form, "pictures": written, "root": str(table.root)}
    answer(as_json, values, f"{written} pictures in {out}; their paths are relative to {table.root}.")


def _write(table: PictureTable, form: Format, out: Path, zone: tzinfo, *, keep: bool = False) -> int:
    """Write a table in a format, and return the number of its pictures there.

    Args:
        keep: whether the folder has other files, which stay.
    """
    from wildpdiff.camera_traps.answers import kind_of
    from wildpdiff.camera_traps.records import EMPTY
    from wildpdiff.camera_traps.writers import camtrap_dp, coco, csv_files, megadetector
    from wildpdiff.disk import json_bytes, write_file

    now = datetime.now(UTC).replace(microsecond=0)
    pictures = tuple(
        replace(picture, labels=tuple(EMPTY if label in table.blanks else label for label in picture.labels))
        for picture in table.pictures
    )
    table = replace(table, pictures=pictures)
    if form == "csv":
        write_file(out, as_bytes(lambda write: csv_files.write_pictures(write, table)))
    elif form == "coco":
        content = coco.coco_of(table, table.source.stem, now)
        written = sum("bbox_relative" in entry for entry in content["annotations"])
        if lost := sum(len(picture.boxes or ()) for picture in pictures) - written:
            remark(f"Boxes that people gave no species, or of blanks, are not written: {lost:,}.")
        write_file(out, json_bytes(content))
    elif form == "megadetector":
        write_file(out, as_bytes(lambda write: megadetector.write_pictures(write, table, now)))
        return sum(bool(picture.labels) or picture.boxes is not None for picture in pictures)
    else:
        clock = camtrap_dp.Clock(zone)
        species = {label for picture in pictures for label in picture.labels if kind_of(label) == "animal"}
        files = camtrap_dp.package(
            table, lambda write: camtrap_dp.write_observations(write, table, clock), species, clock=clock, now=now
        )
        _write_files(out, files, keep)
    return len(pictures)


def _write_files(out: Path, files: dict[str, Content], keep: bool) -> None:
    """Write a package as a folder, or into one that has other files; its description comes last then."""
    from wildpdiff.disk import write_file

    if not keep:
        write_package(out, files)
        return
    for name in sorted(files, key=lambda name: name == "datapackage.json"):
        content = files[name]
        write_file(out / name, as_bytes(content) if callable(content) else content)
