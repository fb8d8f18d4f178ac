"""``wildpdiff suite check``: one screen on all that a suite has, and on all that is wrong with it."""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli import options
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, remark
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

    from wildpdiff.camera_traps.records import PictureTable
    from wildpdiff.camera_traps.suite_check import SuiteCheck
    from wildpdiff.camera_traps.suite_options import TableOptions

BAR = 8
"""Characters of the longest bar."""

MOST_ROWS = 20
"""Cameras, and classes, on the screen; --json has all."""

LONGEST_NAME = 28
"""Characters of a camera's name, of longer ones the beginning."""

MOST_FILES = 3
"""Names of pictures of one kind of fault."""

BETWEEN = 3
"""Columns between two tables side by side."""

ENOUGH_TO_TRUST = 30
"""Seen cameras from which on trust is calibrated."""


def check(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Tables, folders or camera-trap files of the suite; joined.")
    ],
    columns: options.ColumnsOption = None,
    root: Annotated[Path | None, typer.Option(help="Folder that the pictures' paths are relative to.")] = None,
    option: options.SuiteSettings = None,
    threads: options.ThreadsOption = None,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Open every picture; show what the suite has, what is left out and why, and the next command."""
    prepare_torch(threads)
    from wildpdiff.camera_traps.registry import suite_providers
    from wildpdiff.camera_traps.suite_check import check_suite
    from wildpdiff.camera_traps.suite_options import TableOptions

    if len(inputs) == 1 and inputs[0] in suite_providers():
        raise DataError(f"{inputs[0]} is simulated and has no files; show it by wildpdiff suite show {inputs[0]}.")
    given = [*options.with_columns(option, columns), *([] if root is None else [f"root={root}"])]
    settings = options.suite_settings(inputs, given)
    if options.is_texts(inputs, given):
        from wildpdiff.cli.suite import show_suite

        show_suite(inputs, option=given, seed=seed, as_json=as_json)
        return
    names = options.suite_inputs(inputs)
    chosen = TableOptions(**{"image_size": options.TABLE_SIZE, "seed": seed, "framing": None, **settings})
    table = _read(names, chosen)
    with Stages() as stages:
        found = check_suite(table, chosen, stages(f"open {len(table.pictures):,} pictures"))
    following = _next(found, names, given)
    answer(as_json, {**found.to_json(), "next": following}, *_screen(found, following))


def _read(inputs: Sequence[str], chosen: TableOptions) -> PictureTable:
    """The joined inputs; where they cannot be read, every faulty one is named before the exit."""
    from wildpdiff.camera_traps.joining import read_joined

    root = None if chosen.root is None else Path(chosen.root)
    try:
        return read_joined([Path(entry) for entry in inputs], chosen.columns, root)
    except DataError as error:
        faults = [str(error)]
        for entry in inputs if len(inputs) > 1 else ():
            try:
                read_joined([Path(entry)])
            except DataError as other:
                faults.append(str(other))
        for sentence in dict.fromkeys(faults):
            remark(f"Error: {sentence}")
        raise typer.Exit(2) from None


def _next(found: SuiteCheck, inputs: Sequence[str], given: Sequence[str]) -> list[str]:
    """The commands to go on with; sentences begin with ``#``."""
    from wildpdiff.camera_traps.picture_files import MISSING

    unreadable = found.suite.unreadable
    missing = len(found.left_out.get(MISSING, ()))
    if missing > unreadable.total / 2:
        looked = os.path.abspath(found.suite.root)
        return [f"# {missing:,} pictures are not below {looked}. Give --root FOLDER, and check again."]
    if found.faults:
        return ["# Mend the table first, and check it again."]
    if not found.teaching():
        return ["# Label more pictures: eight for training, of two species, at each of some cameras. Then check again."]
    if len(found.teaching()) == 1:
        return [
            "# A generator learns from two cameras or more. Label pictures of others, or name the cameras by --columns "
            "task=COLUMN. Then check again."
        ]
    words = ["wildpdiff", "backbone", "pretrain"]
    for entry in inputs:
        words += ["--suite", entry]
    if len(unreadable.faults) > unreadable.most:
        share = min(1.0, len(unreadable.faults) / unreadable.total + 0.005)
        given = [*given, f"unreadable={share:.2f}"]
    words += options.setting_words(given)
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in found.suite.name)
    command = shlex.join([*words, "--out", f"{name}-model/backbone"])
    if importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        return ['pip install "wildpdiff[efficientnet]"', command]
    return [command]


def _screen(found: SuiteCheck, following: Sequence[str]) -> list[RenderableType]:
    from rich.text import Text

    blank = Text()
    parts: list[RenderableType] = [blank, _facts(found), blank, _SideBySide(_classes(found), _cameras(found)), blank]
    if found.left_out:
        parts += [_left_out_title(found), _left_out(found), blank]
    parts += [_sentences("To be mended", found.faults, "red"), blank] if found.faults else []
    parts += [_sentences("Read as follows", _remarks(found), ""), blank] if _remarks(found) else []
    parts += [Text("Next", "bold"), *(f"  {line}" for line in following)]
    return parts


def _remarks(found: SuiteCheck) -> list[str]:
    """The suite's remarks without those that the screen shows elsewhere, and one on the number of cameras."""
    suite, count = found.suite, len(found.teaching())
    elsewhere = {*suite.unreadable.remarks, *(text for text in suite.remarks if " not teach: " in text)}
    few = (
        f"Cameras to learn from: {count}. Trust is calibrated from {ENOUGH_TO_TRUST} on, and the fewer there are, the "
        "less a new camera gains."
    )
    shown = [text for text in suite.remarks if text not in elsewhere]
    return [*shown, *([few] if 0 < count < ENOUGH_TO_TRUST else [])]


def _facts(found: SuiteCheck) -> Table:
    """The suite in a few lines."""
    from rich.table import Table
    from rich.text import Text

    values, suite = found.to_json(), found.suite
    groups, boxes, times = values["groups"], values["boxes"], found.times
    title = Text.assemble((suite.name, "bold"), (f"   {suite.table.format}", "dim"))
    taken = "" if times is None else f", {times[0]:%Y-%m-%d} to {times[1]:%Y-%m-%d}"
    kinds = {
        "can teach": groups["seen"],
        "pretrain the model": groups["pretraining"],
        "unseen, to measure on": groups["unseen"] + groups["untuned"],
        "get an adapter only": groups["described"] - groups["untuned"],
    }
    out = sum(map(len, found.left_out.values()))
    metadata = [f"{field.name} ({field.kind})" for field in suite.metadata_schema.fields]
    grid = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    rows = {
        "pictures": f"{values['pictures']:,} in {values['bursts']:,} bursts{taken}",
        "": f"{values['labelled']:,} labelled, {values['blanks']:,} blank, {out:,} left out",
        "cameras": f"{len(suite.all_tasks)}: " + " · ".join(f"{n} {kind}" for kind, n in kinds.items() if n),
        "boxes": f"{boxes['boxes']:,} in {boxes['pictures']:,} pictures, {boxes['empty']:,} without any"
        if boxes["pictures"]
        else "none",
        "metadata": ", ".join(metadata) or "none",
    }
    for name, value in rows.items():
        grid.add_row(Text(name, "dim"), Text(value))
    return grid


def _classes(found: SuiteCheck) -> Table:
    """Pictures of each class as bars."""
    from rich.text import Text

    from wildpdiff.report.terminal import plain_table

    species = found.species
    title = f"{len(species)} {'class' if len(species) == 1 else 'classes'}"
    table = plain_table(title, "", *(["pictures", ""] if species else []), header="dim")
    if species:
        table.columns[2].justify = "left"
    most = max(species.values(), default=1)
    trained = set(found.suite.classes)
    shown = list(species.items())
    for label, count in shown if len(shown) <= MOST_ROWS else shown[: MOST_ROWS - 1]:
        eighths = max(1, round(8 * BAR * count / most))
        bar = "█" * (eighths // 8) + ("▏▎▍▌▋▊▉"[eighths % 8 - 1] if eighths % 8 else "")
        style = "green" if label in trained else "yellow"
        table.add_row(Text(label, no_wrap=True, overflow="ellipsis"), f"{count:,}", Text(bar, style))
    if len(shown) > MOST_ROWS:
        rest = shown[MOST_ROWS - 1 :]
        table.add_row(Text(f"{len(rest)} rarer, to {rest[-1][0]}"), f"{sum(n for _, n in rest):,}", "")
    if trained and set(species) - trained:
        table.caption, table.caption_justify = Text("yellow: nothing is trained on it", "dim"), "left"
    return table


def _cameras(found: SuiteCheck) -> Table:
    """A row for each camera; of many, those that cannot teach come first."""
    from rich.cells import cell_len
    from rich.text import Text

    from wildpdiff.camera_traps.suite_check import camera_row
    from wildpdiff.report.terminal import plain_table
    from wildpdiff.tasks.task import SPLITS

    tasks = list(found.suite.all_tasks)
    if len(tasks) > MOST_ROWS:
        tasks = sorted(tasks, key=lambda task: (task.group is not None, len(task.placement.pictures)))
    shown = tasks if len(tasks) <= MOST_ROWS else tasks[: MOST_ROWS - 1]
    table = plain_table("Cameras", "", "pictures", "bursts", "species", "train/val/test", header="dim")
    table.add_column("", no_wrap=True)
    table.columns[0].min_width = min(LONGEST_NAME, max((cell_len(task.title) for task in tasks), default=0))
    words = {"seen": ("teaches", "green"), "unseen": ("unseen", "cyan"), "pretraining": ("pretrains", "blue")}
    for task in shown:
        row = camera_row(task)
        other = (f"unseen, {task.fault}", "cyan") if task.untuned else (task.fault, "yellow")
        word, style = words.get(row["group"], other)
        cells = [f"{row[name]:,}" if row[name] else "–" for name in ("pictures", "bursts", "species")]
        splits = "/".join(f"{row[split]}" for split in SPLITS)
        cells.append(splits if any(row[split] for split in SPLITS) else "–")
        table.add_row(Text(task.title, no_wrap=True, overflow="ellipsis"), *cells, Text(word, style))
    if len(tasks) > len(shown):
        table.add_row(Text(f"… {len(tasks) - len(shown)} more (--json)", "dim"))
    return table


def _left_out(found: SuiteCheck) -> Table:
    """Pictures that cannot be read, by kind."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for kind, paths in sorted(found.left_out.items(), key=lambda entry: -len(entry[1])):
        names = ", ".join(sorted(paths)[:MOST_FILES]) + (", …" if len(paths) > MOST_FILES else "")
        table.add_row(Text(kind, "yellow"), Text(f"{len(paths):,}", justify="right"), Text(names))
        reasons = [found.reasons[path] for path in sorted(paths) if path in found.reasons]
        if reasons:
            table.add_row("", "", Text(reasons[0], "dim"))
    return table


def _left_out_title(found: SuiteCheck) -> Text:
    from rich.text import Text

    unreadable = found.suite.unreadable
    count = len(unreadable.faults)
    limit = f", more than the {unreadable.most:,} that verbs accept" if count > unreadable.most else ""
    return Text.assemble((f"Left out: {count:,} of {unreadable.total:,} pictures", "bold"), (limit, "bold red"))


def _sentences(title: str, sentences: Sequence[str], style: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "bold"), title_justify="left", box=None, show_header=False, pad_edge=False,
                  padding=(0, 1, 0, 0))  # fmt: skip
    for sentence in sentences:
        table.add_row("·", Text(sentence, style))
    return table


@dataclass(frozen=True)
class _SideBySide:
    """Two tables next to each other where both fit whole, else one below the other."""

    left: Table
    right: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.measure import Measurement
        from rich.table import Table

        wanted = sum(Measurement.get(console, options, table).maximum for table in (self.left, self.right))
        if options.max_width < wanted + BETWEEN:
            yield from (self.left, "", self.right)
            return
        grid = Table.grid(padding=(0, BETWEEN, 0, 0))
        grid.add_row(self.left, self.right)
        yield grid
