"""``wildpdiff suite export``: a simulated suite as ordinary files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.suite import SuiteArgument
from wildpdiff.cli.terminal import Stages, answer
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildpdiff.tasks.task import Group


def export(
    suite: SuiteArgument,
    out: options.OutOption,
    group: Annotated[
        Literal["pretraining", "seen", "unseen"] | None,
        typer.Option("--group", help="Only these tasks; seen and unseen by default."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of tasks of each group.")] = None,
    option: options.SuiteSettings = None,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Write a simulated suite as ordinary files: JPEG images, COCO Camera Traps annotations, and a CSV table."""
    check_output_folder(out)
    from wildpdiff.camera_traps.registry import suite_providers

    opened, provider = options.open_suite(suite, option, seed=seed), suite_providers().get(suite)
    if provider is None:
        names = ", ".join(suite_providers()) or "none is installed"
        raise DataError(f"{suite} is made of files already; only registered suites can be exported ({names}).")
    groups: tuple[Group, ...] = (group,) if group is not None else ("seen", "unseen")
    tasks = [task for name in groups for task in opened.tasks(name)[:limit]]
    with Stages() as stages:
        stages(f"write the images of {len(tasks)} tasks")
        provider.export(opened, tasks, out)
    values = {"folder": str(out), "tasks": [task.name for task in tasks], "table": str(out / "images.csv")}
    answer(as_json, values, f"{len(tasks)} tasks in {out}: images, annotations.json (COCO Camera Traps) and images.csv")
