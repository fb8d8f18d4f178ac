"""``wildbench domain``: tasks of language, medicine, control and more, one table each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildbench.cli.reproduce_panel import BaselinesOption
from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import JsonOption, SeedOption, ThreadsOption, key_values
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, recorded_command
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from wildbench.report.plain_page import PlainTable


def domain(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the domain.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder with the data sets.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder; default: runs/domains/NAME.", show_default=False)
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the domains and the files that they read.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="An option of the domain; repeatable."),
    ] = None,
    seed: SeedOption = 0,
    generators: Annotated[int, typer.Option("--generators", min=1, help="Number of generators.")] = 1,
    baselines: BaselinesOption = "all",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the generator and its opponents on the tasks of one domain, seen and unseen, with trust.

    After an interruption, the same command resumes.
    """
    from wildbench.domains.registry import MODULES, find_domain

    if listed:
        known = [find_domain(entry) for entry in MODULES]
        values = [{"name": one.name, "title": one.title, "reads": one.reads} for one in known]
        answer(as_json, values, *(f"{one.name}: {one.title} ({one.reads or 'no files'})" for one in known))
        return
    if name is None:
        raise DataError(f"Name a domain: {', '.join(MODULES)}. `wildbench domain --list` describes them.")
    chosen = find_domain(name)
    if data is None and chosen.reads:
        raise DataError(f"The domain {name} reads {chosen.reads}. Give its place with --data.")
    folder = out or Path("runs/domains") / name
    check_output_folder(folder)
    prepare_torch(threads)
    from wildbench.domains.run import domain_config, run_domain
    from wildbench.domains.table import methods_table, regret_table, trust_table
    from wildpdiff.camera_traps.registry import parse_options
    from wildpdiff.records import encode

    options = parse_options(key_values("Option", option), chosen.options)
    config = domain_config(chosen, seed, generators, trained=baselines == "all")
    with Stages() as stages:
        table = run_domain(
            chosen, data or Path("."), folder, config, command=recorded_command(), options=options, reporter=stages
        )
    shown = [methods_table(table), regret_table(table), *([trust_table(table)] if table.trust else [])]
    files = {name: str(folder / name) for name in ("results.json", "report.html", "domain.md", "domain.json")}
    answer(as_json, {**encode(table), "files": files}, *map(_terminal, shown), f"\nTable: {files['domain.md']}")


def _terminal(table: PlainTable) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        shown.add_column(Text(column))
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown
