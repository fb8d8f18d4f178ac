"""``wildpdiff report``: the page of one or several results.json, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import JsonOption
from wildpdiff.cli.terminal import Stages, print_json, show


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="A results.json, and further ones for sections that it lacks."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder; default: that of the first results.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the report of a results.json.

    It computes nothing and needs no torch. The table is that of the first file. Further files give the sections that it
    lacks, for example `wildpdiff reproduce paper`, `wildpdiff reproduce scaling`, and must be about the same tasks and
    backbone where the section is.
    """
    folder = results[0].parent if out is None else out
    check_output_folder(folder)
    from wildbench.merge_results import NamedResults, merge_results
    from wildpdiff.evaluate.results import read_results
    from wildpdiff.report.page import write_report

    first, *others = (NamedResults(str(path), read_results(path)) for path in results)
    merged = merge_results(first.results, others)
    with Stages() as stages:
        stages("draw the report")
        files = write_report(merged, folder)
    if as_json:
        print_json({"report": str(files.page), "figures": [str(path) for path in files.figures]})
        return
    show(f"Report: {files.page}")
