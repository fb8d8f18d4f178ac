"""``wildpdiff report``: the page of a results.json, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wildpdiff.cli.options import JsonOption
from wildpdiff.cli.terminal import Stages, print_json, show

__all__ = ["report"]


def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results.json.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder that is written; that of the results.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the report of measured results again; computes nothing and needs no torch."""
    from wildpdiff.evaluate.results import read_results
    from wildpdiff.report.html import write_report

    read = read_results(results)
    with Stages() as stages:
        stages("draw the report")
        files = write_report(read, results.parent if out is None else out)
    if as_json:
        print_json({"report": str(files.page), "figures": [str(path) for path in files.figures]})
        return
    show(f"Report: {files.page}")
