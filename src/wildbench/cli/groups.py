"""``wildbench groups``: whole groups of seen tasks held out, as a further split of the results of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildbench.cli.finished_run import inputs_of_run
from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import JsonOption, OutOption, ThreadsOption
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, show

if TYPE_CHECKING:
    from wildpdiff.evaluate.comparison import Comparison
    from wildpdiff.evaluate.results import Results


def groups(
    kinds: Annotated[list[str], typer.Argument(metavar="KIND", help="Kind of group, for example habitat.")],
    run: Annotated[Path, typer.Option("--run", help="Folder of a demo.")],
    results: Annotated[
        Path | None, typer.Option("--results", help="Results to add to; default: those of the run.")
    ] = None,
    out: OutOption = Path("runs/groups"),
    samples: Annotated[int, typer.Option("--samples", min=1, help="Adapters per task; all of them count.")] = 4,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit without each group of a kind and score its tasks; write results.json with these splits, and a report."""
    check_output_folder(out)
    prepare_torch(threads)
    from wildpdiff.evaluate.results import read_results, write_results
    from wildpdiff.report.page import write_report
    from wildpdiff.report.terminal import results_table

    measured = read_results(run / "results.json" if results is None else results)
    comparison = inputs_of_run(run).comparison
    with Stages() as stages:
        for kind in kinds:
            measured = _with_groups(comparison, measured, kind, samples, tick=stages(f"hold out each {kind}"))
            write_results(out / "results.json", measured)
        stages("draw the report")
        files = write_report(measured, out)
    if as_json:
        print_json({"results": str(out / "results.json"), "report": str(files.page), **measured.to_json()})
        return
    show(results_table(measured))
    show(f"\nResults: {out / 'results.json'}\nReport: {files.page}")


def _with_groups(
    comparison: Comparison, results: Results, kind: str, samples: int, *, tick: Callable[[int, int], None]
) -> Results:
    """The results with the table of one kind of held-out groups."""
    from wildbench.studies.grid import StudyInputs
    from wildbench.studies.groups import add_groups, held_out_groups
    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.records import decode
    from wildpdiff.zoo.features import FeatureCache

    generators, suite, zoo = comparison.generators, comparison.suite, comparison.zoo
    features = comparison.features or FeatureCache(comparison.backbone, suite.tasks("seen"))
    config: GeneratorConfig = decode(GeneratorConfig, dict(generators[0].training["config"]), "generator")
    inputs = StudyInputs(suite, comparison.backbone, zoo, features, config)
    seeds = [int(generator.training["seed"]) for generator in generators]
    seed = results.provenance.seed
    found = held_out_groups(inputs, kind, generator_seeds=seeds, samples=samples, seed=seed, progress=tick)
    return add_groups(results, found, seed=seed)
