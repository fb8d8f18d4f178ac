"""``wildpdiff evaluate``: generators beside everything simpler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from wildpdiff.cli.evaluation_inputs import inputs_of_parts, inputs_of_run
from wildpdiff.cli.folders import may_write_into
from wildpdiff.cli.generators import ClipOption
from wildpdiff.cli.options import (
    BackboneOption,
    JsonOption,
    OutOption,
    SeedOption,
    SuiteOption,
    SuiteSettings,
    ThreadsOption,
)
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show
from wildpdiff.errors import DataError


def evaluate(
    out: OutOption,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of a demo: its zoo, reference, generators, suite and seed are taken."),
    ] = None,
    zoo: Annotated[Path | None, typer.Option("--zoo", help="Zoo that the generators were fitted to.")] = None,
    generator: Annotated[
        list[Path] | None, typer.Option("--generator", help="Repeatable: one a training seed.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Zoo of the unseen tasks; without it only seen tasks are compared."),
    ] = None,
    baselines: Annotated[
        Literal["core", "all"],
        typer.Option("--baselines", help="all adds trained networks, few labels, CMA-ES and controls."),
    ] = "core",
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave a baseline out, by its name; repeatable.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--method-setting",
            metavar="KEY=VALUE",
            help="With all: pdiff=FOLDER adds unconditional p-diff, kept there; an hour to train. Repeatable.",
        ),
    ] = None,
    seen_tasks: Annotated[
        int | None,
        typer.Option("--seen-tasks", min=1, help="Score so many seen tasks, drawn by the seed; else all."),
    ] = None,
    suite: SuiteOption = "savanna",
    option: SuiteSettings = None,
    backbone: BackboneOption = "savanna-cnn",
    clip: ClipOption = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Adapters a task; all of them count.")] = 4,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare generated adapters with fine-tuning, baselines and controls; write results.json and a report."""
    settings = _settings(setting or ())
    may_write_into(out)
    prepare_torch(threads)
    from wildpdiff.evaluate.comparison import compare_sources
    from wildpdiff.evaluate.provenance import provenance
    from wildpdiff.evaluate.results import write_results
    from wildpdiff.evaluate.roster import check_method_settings
    from wildpdiff.report.html import write_report
    from wildpdiff.report.terminal import results_table

    check_method_settings(settings)
    if clip is not None and run is not None:
        raise DataError(
            "The generators of a run read images by the backbone. Give --clip with --zoo and --generator, not with "
            "--run."
        )
    if run is not None and (zoo or generator or reference or option):
        raise DataError(
            "A run brings its own zoo, reference, generators and suite. Leave out --zoo, --reference, --generator and "
            "-o, or leave out --run."
        )
    taken = (
        inputs_of_parts(zoo, reference, generator or (), suite, option, backbone, seed, clip)
        if run is None
        else inputs_of_run(run)
    )
    comparison = replace(
        taken.comparison,
        baselines=baselines,
        without=tuple(without or ()),
        seen_tasks=seen_tasks,
        method_settings=settings,
    )
    with Stages() as stages:
        made = provenance(recorded_command(), taken.seed)
        results = compare_sources(
            comparison, made=made, samples=samples, stages=taken.stages, progress=stages("evaluate")
        )
        write_results(out / "results.json", results)
        stages("draw the report")
        files = write_report(results, out)
    if as_json:
        print_json({"results": str(out / "results.json"), "report": str(files.page), **results.to_json()})
        return
    show(results_table(results))
    show(f"\nResults: {out / 'results.json'}\nReport: {files.page}")


def _settings(words: Sequence[str]) -> dict[str, str]:
    """Settings of added methods as they were typed."""
    pairs = [word.partition("=") for word in words]
    for key, _, value in pairs:
        if not key or not value:
            raise DataError(f"--method-setting is {key!r}; give KEY=VALUE, for example pdiff=runs/pdiff.")
    return {key: value for key, _, value in pairs}
