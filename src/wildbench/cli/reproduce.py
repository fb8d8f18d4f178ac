"""``wildpdiff reproduce``: whole studies from one command each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildbench.cli.domain import domain
from wildbench.cli.groups import groups
from wildbench.cli.reproduce_panel import panel
from wildbench.cli.reproduce_paper import paper
from wildbench.cli.reproduce_unseen import unseen
from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import (
    BackboneOption,
    JsonOption,
    OutOption,
    SeedOption,
    SuiteOption,
    SuiteSettings,
    ThreadsOption,
    suite_settings,
)
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show
from wildpdiff.errors import DataError

if TYPE_CHECKING:
    from wildbench.studies.grid import Diversity

app = typer.Typer(
    short_help="Run a whole study, for example the paper's or many benchmarks.",
    help="Run a whole study: the paper's questions, unseen tasks in harder variants, or how many tasks it takes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command(short_help="The paper's three questions, its method next to ours.")(paper)
app.command(short_help="Unseen tasks with less and less informative descriptions, against targets.")(unseen)
app.command(short_help="Many benchmarks with the same settings, one row each.")(panel)
app.command(short_help="Tasks of language, medicine and more: a table for each domain.")(domain)
app.command(short_help="Whole groups of seen tasks held out, as a split of their own.")(groups)

SAVANNA_SEEN = 320
"""Seen tasks of the simulated suite by default: the narrow half of them holds the largest cell."""


@app.command(short_help="The effect of the number of seen tasks, their diversity and their checkpoints.")
def scaling(
    out: OutOption = Path("runs/scaling"),
    tasks: Annotated[str, typer.Option("--tasks", help="Numbers of seen tasks.")] = "5,10,20,40,80,160",
    checkpoints: Annotated[str, typer.Option("--checkpoints", help="Last checkpoints kept of each task.")] = "1,13",
    drawn_from: Annotated[
        str, typer.Option("--drawn-from", help="All seen tasks (wide), the half described most alike (narrow).")
    ] = "narrow,wide",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Draws of tasks, each with a fit of its own.")] = 3,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Adapters per task; all of them count.")] = 4,
    suite: SuiteOption = "savanna",
    option: SuiteSettings = None,
    backbone: BackboneOption = "savanna-cnn",
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the generator and the regressions to more and more seen tasks; score all on the same unseen ones.

    Tasks are drawn from all seen ones (wide) and from the half that is described most alike (narrow). After an
    interruption, the same command resumes.
    """
    check_output_folder(out)
    prepare_torch(threads)
    from wildbench.report.scaling_summary import scaling_sentences
    from wildbench.sections import SCALING
    from wildbench.studies.scaling import ScalingConfig, run_scaling

    known = {"seen": SAVANNA_SEEN} if suite == "savanna" else {}
    config = ScalingConfig(
        suite=suite,
        suite_options=known | suite_settings(suite, option),
        backbone=backbone,
        seed=seed,
        tasks=_numbers("--tasks", tasks),
        diversities=_pools(drawn_from),
        checkpoints=_numbers("--checkpoints", checkpoints),
        seeds=seeds,
        samples=samples,
    )
    with Stages() as stages:
        result = run_scaling(config, out, command=recorded_command(), reporter=stages)
    if as_json:
        files = {"results": str(out / "results.json"), "report": str(result.report)}
        print_json({**files, **result.results.to_json()})
        return
    found = SCALING.of(result.results)
    for sentence in [] if found is None else scaling_sentences(found):
        show(sentence)
    show(f"\nResults: {out / 'results.json'}\nReport: {result.report}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers, separated by commas, as they were typed."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise DataError(f"{option} is {text!r}; give whole numbers separated by commas, for example 5,10,20.")
    return tuple(int(word) for word in words)


def _pools(text: str) -> tuple[Diversity, ...]:
    """``wide``, ``narrow`` or both, separated by commas, as they were typed."""
    known: dict[str, Diversity] = {"narrow": "narrow", "wide": "wide"}
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or any(word not in known for word in words):
        raise DataError(f"--drawn-from is {text!r}; give wide, narrow, or both separated by a comma.")
    return tuple(known[word] for word in words)
