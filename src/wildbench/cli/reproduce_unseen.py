"""``wildpdiff reproduce unseen``: unseen tasks in harder variants, against targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli.folders import check_output_folder
from wildpdiff.cli.options import BackboneOption, JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from wildbench.studies.variant_targets import Target
    from wildbench.studies.variants import VariantsConfig

Size = Literal["default", "tiny"]

ALL = "both,metadata-only,backgrounds-only,no-information,extrapolation"


def unseen(
    seed: SeedOption = 0,
    out: OutOption = Path("runs/unseen"),
    variants: Annotated[
        str, typer.Option("--variants", "--worlds", help="Names, separated by commas; later calls may add more.")
    ] = ALL,
    size: Annotated[Size, typer.Option("--size", help="tiny: a minute, a smoke test.")] = "default",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of generators per variant.")] = 3,
    group_seeds: Annotated[
        int | None, typer.Option("--group-seeds", min=1, help="Generators per group; default: --seeds.")
    ] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", min=1, help="Held-out groups of each kind; default: all, in turn.")
    ] = None,
    backbone: BackboneOption = "savanna-cnn",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score generated adapters, baselines and trust in variants whose descriptions are less and less informative.

    The variants: both, metadata-only, backgrounds-only, no-information, and extrapolation, which holds whole habitats,
    quarters of the map and camera models out of the first. After an interruption, the same command resumes; the table
    has all variants in the folder.
    """
    check_output_folder(out)
    prepare_torch(threads)
    from wildbench.studies.variant_page import run_variants
    from wildpdiff.records import encode

    names = [name.strip().replace("-", " ") for name in variants.split(",") if name.strip()]
    config = _config(size, seed, seeds, group_seeds, groups=groups, backbone=backbone)
    with Stages() as stages:
        result = run_variants(config, names, out, command=recorded_command(), reporter=stages)
    if as_json:
        files = {"results": str(out / "results.json"), "table": str(result.table), "report": str(result.report)}
        targets = [{**encode(target), "verdict": target.verdict} for target in result.targets]
        print_json({**files, "targets": targets})
        return
    show(_table(result.targets))
    show(f"\nResults: {out / 'results.json'}\nTable: {result.table}\nReport: {result.report}")


def _table(targets: Sequence[Target]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for name in ("what", "required", "measured", ""):
        table.add_column(name)
    for target in targets:
        style = {"met": "green", "missed": "red"}.get(target.verdict, "dim")
        table.add_row(
            Text(target.what), Text(target.required or "–"), Text(target.measured), Text(target.verdict, style)
        )
    return table


def _config(
    size: Size, seed: int, seeds: int, group_seeds: int | None, *, groups: int | None, backbone: str
) -> VariantsConfig:
    from dataclasses import replace

    from wildbench.studies.variants import VariantsConfig

    config = _tiny() if size == "tiny" else VariantsConfig()
    return replace(
        config,
        run=replace(config.run, seed=seed, generator_seeds=seeds, backbone=backbone),
        groups=replace(config.groups, generators=group_seeds, most_groups=groups),
    )


def _tiny() -> VariantsConfig:
    from wildbench.presets import SUITE, tiny_finetune, tiny_generator, tiny_run
    from wildbench.studies.variant_groups import GroupsStudy
    from wildbench.studies.variants import VariantsConfig

    suite = {"pretraining": 40, **SUITE, "seen": 8, "unseen": 4}
    generator = tiny_generator(steps=40, task_steps=10)
    run = tiny_run(tiny_finetune(20, checkpoints=3), generator, suite_options=suite, seen_tasks=2)
    return VariantsConfig(run=run, labels=(2,), groups=GroupsStudy(("camera_model",), 2), epochs=1)
