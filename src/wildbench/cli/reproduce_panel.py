"""``wildpdiff reproduce panel``: families of tasks on which settings are judged together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show

if TYPE_CHECKING:
    from rich.table import Table

    from wildbench.studies.panel_page import PanelPage


BaselinesOption = Annotated[
    Literal["core", "all"],
    typer.Option("--baselines", help="core is without trained ones: multi-task adapters, hypernetwork, …."),
]


def panel(
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with the data sets; benchmarks without theirs are skipped.")
    ] = None,
    out: OutOption = Path("runs/panel"),
    benchmarks: Annotated[
        str | None, typer.Option("--benchmarks", "--worlds", help="Names, separated by commas; default: all.")
    ] = None,
    seed: SeedOption = 0,
    generators: Annotated[int, typer.Option("--generators", min=1, help="Number of generators per benchmark.")] = 3,
    baselines: BaselinesOption = "all",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score generated adapters, simple baselines and trust on many benchmarks with the same settings.

    Each benchmark has its own results.json and report; panel.md and panel.html have a row per benchmark. After an
    interruption, the same command resumes; benchmarks may come in several calls.
    """
    check_output_folder(out)
    prepare_torch(threads)
    from wildbench.studies.measuring import StudyConfig
    from wildbench.studies.panel import BENCHMARKS, find_benchmark
    from wildbench.studies.panel_page import METHODS
    from wildbench.studies.panel_run import run_panel
    from wildpdiff.records import encode

    names = None if benchmarks is None else [name.strip() for name in benchmarks.split(",") if name.strip()]
    chosen = BENCHMARKS if names is None else [find_benchmark(name) for name in names]
    methods = METHODS if baselines == "all" else tuple(method for method in METHODS if not method.trained)
    config = StudyConfig(seed=seed, generators=generators, methods=methods)
    with Stages() as stages:
        page = run_panel(config, chosen, data, out, command=recorded_command(), reporter=stages)
    if as_json:
        rows = [encode(row) for row in page.rows]
        print_json({"page": str(page.html), "table": str(page.markdown), "rows": rows, "remarks": list(page.remarks)})
        return
    show(_table(page))
    for remark in page.remarks:
        show(remark)
    show(f"\nTable: {page.markdown}\nPage: {page.html}")


def _table(page: PanelPage) -> Table:
    from rich.table import Table
    from rich.text import Text

    from wildpdiff.report.wording import percent, signed_points

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("benchmark", "LoRA adds", "pretrained", "best simple", "generated", "fine-tuned"):
        table.add_column(name)
    for row in page.rows:
        shown = (row.accuracy[name] for name in ("pretrained", row.simple, "generated", "fine-tuned"))
        cells = (row.benchmark, signed_points(row.lora.value), *(percent(value.value) for value in shown))
        table.add_row(*(Text(cell) for cell in cells))
    return table
