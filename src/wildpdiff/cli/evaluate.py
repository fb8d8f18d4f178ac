"""``wildpdiff evaluate``: generators beside everything simpler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.options import (
    BackboneOption,
    JsonOption,
    OutOption,
    SeedOption,
    SuiteOption,
    SuiteSettings,
    ThreadsOption,
    open_suite,
    suite_settings,
)
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show
from wildpdiff.errors import ArtifactError

if TYPE_CHECKING:
    from wildpdiff.tasks.task import Group

__all__ = ["evaluate"]


def evaluate(
    zoo: Annotated[Path, typer.Option("--zoo", help="Zoo that the generators were fitted to.")],
    generator: Annotated[list[Path], typer.Option("--generator", help="Repeatable: one a training seed.")],
    out: OutOption,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Zoo of the unseen tasks; without it only seen tasks are compared."),
    ] = None,
    suite: SuiteOption = "savanna",
    option: SuiteSettings = None,
    backbone: BackboneOption = "savanna-cnn",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Adapters a task; all of them count.")] = 4,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare generated adapters with fine-tuning and with simple baselines; write results.json and a report."""
    prepare_torch(threads)
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.evaluate.comparison import Comparison, compare_sources, provenance
    from wildpdiff.evaluate.results import write_results
    from wildpdiff.generator import Generator
    from wildpdiff.report.html import write_report
    from wildpdiff.report.terminal import results_table
    from wildpdiff.zoo.store import Zoo

    loaded = load_backbone(backbone)
    opened = open_suite(suite, option, loaded)
    zoos = [Zoo.open(path) for path in (zoo, reference) if path is not None]
    groups: tuple[Group, ...] = ("seen", "unseen")
    for found, group in zip(zoos, groups, strict=False):
        names = {task.name for task in opened.tasks(group)}
        if found.plan.suite != opened.fingerprint or set(found.tasks) != names:
            raise ArtifactError(
                f"The zoo in {found.folder} was not built on the {group} tasks of this suite. Give the same --suite "
                "and -o options as for the zoo, and zoos of the right groups."
            )
    generators = [Generator.from_pretrained(path, loaded) for path in generator]
    comparison = Comparison(
        opened, loaded, zoos[0], zoos[1] if len(zoos) > 1 else None, generators, suite_settings(suite, option)
    )
    with Stages() as stages:
        made = provenance(recorded_command(), seed)
        results = compare_sources(comparison, made=made, samples=samples, progress=stages("evaluate"))
        write_results(out / "results.json", results)
        stages("draw the report")
        files = write_report(results, out)
    if as_json:
        print_json({"results": str(out / "results.json"), "report": str(files.page), **results.to_json()})
        return
    show(results_table(results))
    show(f"\nResults: {out / 'results.json'}\nReport: {files.page}")
