"""``wildpdiff evaluate``: generators next to everything simpler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, recorded_command
from wildpdiff.errors import DataError
from wildpdiff.registry import registered

if TYPE_CHECKING:
    from wildpdiff.evaluate.comparison import Comparison
    from wildpdiff.evaluate.results import Stage
    from wildpdiff.tasks.task import ImageTask, Suite
    from wildpdiff.trust.model import TrustModel


def evaluate(
    out: options.OutOption,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a demo, in place of zoo, reference, generators, suite and seed.")
    ] = None,
    zoo: Annotated[Path | None, typer.Option(help="Zoo that the generators were fitted to.")] = None,
    generator: Annotated[
        list[Path] | None, typer.Option(help="Folder of a generator; repeatable, one per training seed.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Zoo of the unseen tasks; without it only seen tasks are compared.")
    ] = None,
    baselines: Annotated[
        Literal["core", "all"], typer.Option(help="all adds trained networks, few labels, CMA-ES and controls.")
    ] = "core",
    without: Annotated[list[str] | None, typer.Option(help="Name of a baseline to leave out; repeatable.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--method-setting",
            metavar="KEY=VALUE",
            help="With all: pdiff=FOLDER adds unconditional p-diff, trained in FOLDER in an hour. Repeatable.",
        ),
    ] = None,
    seen_tasks: Annotated[
        int | None, typer.Option(min=1, help="Number of seen tasks to score, drawn by the seed; default: all.")
    ] = None,
    suite: options.SuitesOption = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    backbone: options.BackboneOption = "savanna-cnn",
    clip: options.ClipOption = None,
    samples: options.SamplesOption = 4,
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compare generated adapters with fine-tuning, baselines and controls; write results.json and a report."""
    settings, option = options.key_values("--method-setting", setting), options.with_columns(option, columns)
    check_output_folder(out)
    prepare_torch(threads)
    from wildpdiff.evaluate.comparison import Comparison, compare_sources
    from wildpdiff.evaluate.methods import check_method_settings
    from wildpdiff.evaluate.results import provenance, write_results
    from wildpdiff.report.page import write_report
    from wildpdiff.report.terminal import results_table
    from wildpdiff.tasks.task import titles_of

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
    if run is not None:
        readers = registered("runs")
        if not readers:
            raise DataError("No installed package reads the folder of a run. Give --zoo and --generator.")
        inputs = next(iter(readers.values()))(run)
    elif zoo is None or not generator:
        raise DataError("There is nothing to compare. Give --run, or --zoo and at least one --generator.")
    else:
        opened_zoo = options.open_zoo(zoo)
        loaded = options.backbone_of_zoo(backbone, opened_zoo)
        opened = options.open_suite(suite, option, loaded)
        generators = [options.open_generator(path, loaded, clip) for path in generator]
        zoos = (opened_zoo, None if reference is None else options.open_zoo(reference))
        parts = Comparison(opened, loaded, *zoos, generators, options.suite_settings(suite, option))
        parts = replace(parts, untuned=_untuned(opened) if reference or not opened.tasks("unseen") else ())
        inputs = EvaluationInputs(checked(parts, generator), seed, ())
    comparison = replace(
        inputs.comparison,
        baselines=baselines,
        without=tuple(without or ()),
        seen_tasks=seen_tasks,
        method_settings=settings,
    )
    every = len(comparison.zoo.tasks)
    scored = every if seen_tasks is None else min(seen_tasks, every)
    fewer = " (--seen-tasks N: fewer)" if scored == every else ""
    unseen = len(comparison.untuned) + len(comparison.suite.tasks("unseen") if comparison.reference else ())
    with Stages() as stages:
        made = provenance(recorded_command(), inputs.seed)
        results = compare_sources(
            comparison,
            made=made,
            samples=samples,
            stages=inputs.stages,
            progress=stages(f"score {scored} of {every} seen tasks{fewer} and {unseen} unseen ones"),
        )
        results = results.with_titles(titles_of(comparison.suite))
        write_results(out / "results.json", results)
        stages("draw the report")
        files = write_report(results, out)
    values = {"results": str(out / "results.json"), "report": str(files.page), **results.to_json()}
    written = f"\nResults: {out / 'results.json'}\nReport: {files.page}"
    answer(as_json, values, results_table(results), *results.notes, written)


def _untuned(suite: Suite) -> tuple[ImageTask, ...]:
    """A table's unseen cameras that can be measured on and not fine-tuned on."""
    from wildpdiff.camera_traps.table_suite import TableSuite

    return suite.untuned if isinstance(suite, TableSuite) else ()


@dataclass(frozen=True)
class EvaluationInputs:
    """A comparison, the seed of its run, and the seconds of the run's stages where they are known."""

    comparison: Comparison
    seed: int
    stages: tuple[Stage, ...]


def checked(comparison: Comparison, folders: Sequence[Path]) -> Comparison:
    """The comparison with the generators' models of trust, if all have one.

    Raises:
        ArtifactError: the parts do not belong together.
    """
    from wildpdiff.trust.model import FOLDER, TrustModel

    trust: tuple[TrustModel, ...] = ()
    if all((path / FOLDER).is_dir() for path in folders):
        trust = tuple(TrustModel.of_generator(path, comparison.backbone) for path in folders)
    comparison = replace(comparison, trust=trust)
    comparison.check()
    return comparison
