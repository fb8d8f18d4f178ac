"""``wildpdiff evaluate``: generators beside everything simpler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    from wildpdiff.evaluate.comparison import Comparison
    from wildpdiff.evaluate.results import Results

__all__ = ["evaluate"]


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
    pdiff: Annotated[
        Path | None,
        typer.Option("--pdiff", help="With all: also unconditional p-diff, kept in this folder; an hour to train."),
    ] = None,
    seen_tasks: Annotated[
        int | None,
        typer.Option("--seen-tasks", min=1, help="Score so many seen tasks, drawn by the seed; else all."),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option("--hold-out", help="Also fit without each group of this kind, for example habitat or region."),
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
    for folder in (out, *([] if pdiff is None else [pdiff])):
        may_write_into(folder)
    prepare_torch(threads)
    from wildpdiff.evaluate.comparison import compare_sources
    from wildpdiff.evaluate.provenance import provenance
    from wildpdiff.evaluate.results import write_results
    from wildpdiff.report.html import write_report
    from wildpdiff.report.terminal import results_table

    if clip is not None and (hold_out or run is not None):
        raise DataError(
            "The generators of a run, and those fitted anew without a group, read images by the backbone. Give --clip "
            "without --run and --hold-out, with --zoo and --generator."
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
        taken.comparison, baselines=baselines, without=tuple(without or ()), seen_tasks=seen_tasks, pdiff=pdiff
    )
    with Stages() as stages:
        made = provenance(recorded_command(), taken.seed)
        results = compare_sources(
            comparison, made=made, samples=samples, stages=taken.stages, progress=stages("evaluate")
        )
        write_results(out / "results.json", results)
        for kind in hold_out or ():
            results = _with_groups(comparison, results, kind, samples, stages(f"hold out each {kind}"))
            write_results(out / "results.json", results)
        stages("draw the report")
        files = write_report(results, out)
    if as_json:
        print_json({"results": str(out / "results.json"), "report": str(files.page), **results.to_json()})
        return
    show(results_table(results))
    show(f"\nResults: {out / 'results.json'}\nReport: {files.page}")


def _with_groups(
    comparison: Comparison, results: Results, kind: str, samples: int, tick: Callable[[int, int], None]
) -> Results:
    """The results with the table of one kind of held-out groups."""
    from wildpdiff.evaluate.decoding import decode
    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.studies.grid import StudyInputs
    from wildpdiff.studies.groups import add_groups, held_out_groups
    from wildpdiff.zoo.features import FeatureCache

    generators, suite, zoo = comparison.generators, comparison.suite, comparison.zoo
    features = comparison.features or FeatureCache(comparison.backbone, suite.tasks("seen"))
    config: GeneratorConfig = decode(GeneratorConfig, dict(generators[0].training["config"]), "generator")
    inputs = StudyInputs(suite, comparison.backbone, zoo, features, config)
    seeds = [int(generator.training["seed"]) for generator in generators]
    seed = results.provenance.seed
    found = held_out_groups(inputs, kind, generator_seeds=seeds, samples=samples, seed=seed, progress=tick)
    return add_groups(results, found, seed=seed)
