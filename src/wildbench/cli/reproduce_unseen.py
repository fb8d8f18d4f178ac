"""``wildpdiff reproduce unseen``: unseen tasks in harder worlds, against what is asked of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wildpdiff.cli.folders import may_write_into
from wildpdiff.cli.options import BackboneOption, JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, recorded_command, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from wildbench.studies.world_bars import Bar
    from wildbench.studies.worlds import WorldsConfig

Size = Literal["default", "tiny"]

ALL = "both,metadata-only,backgrounds-only,nothing-told,extrapolation"


def unseen(
    seed: SeedOption = 0,
    out: OutOption = Path("runs/unseen"),
    worlds: Annotated[str, typer.Option("--worlds", help="Which, separated by commas; more may follow later.")] = ALL,
    size: Annotated[Size, typer.Option("--size", help="tiny takes a minute and shows nothing but that it runs.")] = (
        "default"
    ),
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Generators fitted in each world.")] = 3,
    group_seeds: Annotated[
        int | None, typer.Option("--group-seeds", min=1, help="Generators fitted without each group; else --seeds.")
    ] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", min=1, help="Groups of each kind that are held out; else each in turn.")
    ] = None,
    backbone: BackboneOption = "savanna-cnn",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take away piece by piece what descriptions tell; score generated adapters, opponents and trust in each world.

    The worlds: both, metadata-only, backgrounds-only, nothing-told, and extrapolation, which holds whole habitats,
    quarters of the map and camera models out of the first. Stopped and started again with the same options, it goes
    on where it was; the table judges all worlds that lie in the folder.
    """
    may_write_into(out)
    prepare_torch(threads)
    from wildbench.studies.world_page import run_worlds
    from wildpdiff.records import encode

    names = [name.strip().replace("-", " ") for name in worlds.split(",") if name.strip()]
    config = _config(size, seed, seeds, group_seeds, groups, backbone)
    with Stages() as stages:
        result = run_worlds(config, names, out, command=recorded_command(), reporter=stages)
    if as_json:
        files = {"results": str(out / "results.json"), "table": str(result.table), "report": str(result.report)}
        bars = [{**encode(bar), "verdict": bar.verdict} for bar in result.bars]
        print_json({**files, "bars": bars})
        return
    show(_table(result.bars))
    show(f"\nResults: {out / 'results.json'}\nTable: {result.table}\nReport: {result.report}")


def _table(bars: Sequence[Bar]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for name in ("what", "asked", "measured", ""):
        table.add_column(name)
    for bar in bars:
        style = {"met": "green", "missed": "red"}.get(bar.verdict, "dim")
        table.add_row(Text(bar.what), Text(bar.asked or "–"), Text(bar.measured), Text(bar.verdict, style))
    return table


def _config(
    size: Size, seed: int, seeds: int, group_seeds: int | None, groups: int | None, backbone: str
) -> WorldsConfig:
    from dataclasses import replace

    from wildbench.studies.worlds import WorldsConfig

    config = _tiny() if size == "tiny" else WorldsConfig()
    return replace(
        config,
        run=replace(config.run, seed=seed, generator_seeds=seeds, backbone=backbone),
        groups=replace(config.groups, generators=group_seeds, most_groups=groups),
    )


def _tiny() -> WorldsConfig:
    from wildbench.studies.world_groups import GroupsStudy
    from wildbench.studies.worlds import WorldsConfig
    from wildpdiff.autoencoder.fit import AutoencoderConfig
    from wildpdiff.conditional_mean.correction import TaskLossConfig
    from wildpdiff.diffusion.fit import DiffusionConfig
    from wildpdiff.fit import GeneratorConfig
    from wildpdiff.pipeline import PipelineConfig
    from wildpdiff.zoo.steps import FinetuneConfig

    run = PipelineConfig(
        suite_options={
            "pretraining": 40,
            "seen": 8,
            "unseen": 4,
            "train": 40,
            "validation": 10,
            "test": 20,
            "backgrounds": 4,
        },
        finetune=FinetuneConfig(steps=20, batch=16, checkpoints=3, interval=2, warmup=2),
        generator=GeneratorConfig(
            components=4,
            autoencoder_config=AutoencoderConfig(latent_size=8, steps=30),
            diffusion=DiffusionConfig(size="tiny", steps=40, batch=32),
            task_loss=TaskLossConfig(steps=10, tasks=4, images=8),
        ),
        samples=2,
        seen_tasks=2,
    )
    return WorldsConfig(run=run, labels=(2,), groups=GroupsStudy(("camera_model",), 2), epochs=1)
