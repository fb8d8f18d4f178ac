"""``wildpdiff zoo``: fine-tune many tasks and keep their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wildpdiff.cli.folders import may_write_into
from wildpdiff.cli.options import (
    BackboneOption,
    JsonOption,
    OutOption,
    SeedOption,
    SuiteOption,
    SuiteSettings,
    ThreadsOption,
    open_suite,
)
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, remark, show

__all__ = ["app"]

app = typer.Typer(help="Zoos of fine-tuned adapters: build.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Zoos of fine-tuned adapters: build."""


@app.command("build")
def build(
    out: OutOption,
    suite: SuiteOption = "savanna",
    option: SuiteSettings = None,
    backbone: BackboneOption = "savanna-cnn",
    group: Annotated[
        Literal["seen", "unseen"], typer.Option("--group", help="unseen is for comparison only.")
    ] = "seen",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps a task.")] = 200,
    checkpoints: Annotated[int, typer.Option("--checkpoints", min=1, help="Checkpoints kept a task.")] = 13,
    interval: Annotated[int, typer.Option("--interval", min=1, help="Steps between checkpoints.")] = 2,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Peak of the learning rate.")] = 0.05,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images a step and task.")] = 32,
    tasks_per_shard: Annotated[
        int, typer.Option("--tasks-per-shard", min=1, help="Tasks fine-tuned and stored together.")
    ] = 20,
    structured: Annotated[
        int | None,
        typer.Option(
            "--structured",
            min=1,
            metavar="K",
            help="Fine-tune all tasks together in K shared directions, instead of each task for itself.",
        ),
    ] = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune one adapter a task. Stopped or killed at any moment, the same command goes on.

    With --structured it starts its fine-tuning anew.
    """
    may_write_into(out)
    prepare_torch(threads)
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.zoo.build import build_zoo
    from wildpdiff.zoo.steps import FinetuneConfig
    from wildpdiff.zoo.structured import StructuredConfig

    config = FinetuneConfig(
        steps=steps, batch=batch, learning_rate=learning_rate, checkpoints=checkpoints, interval=interval
    )
    loaded = load_backbone(backbone)
    opened = open_suite(suite, option, loaded)
    tasks = opened.tasks(group)
    resumed = _finished_shards(out)
    if resumed is not None:
        remark(f"{out} holds a zoo of {resumed} finished shards: going on.")
    with Stages() as stages:
        zoo = build_zoo(
            out,
            loaded,
            tasks,
            opened.fingerprint,
            config,
            seed=seed,
            per_shard=tasks_per_shard,
            structured=None if structured is None else StructuredConfig(structured),
            progress=stages(f"fine-tune {len(tasks)} {group} tasks"),
        )
    accuracies = zoo.column("validation_accuracy")
    final = [accuracies[row] for row in zoo.final_rows().values()]
    mean = sum(final) / len(final)
    if as_json:
        print_json(
            {
                "zoo": str(out),
                "tasks": len(zoo.tasks),
                "checkpoints": len(zoo),
                "resumed_shards": resumed or 0,
                "validation_accuracy": mean,
                "fingerprint": zoo.plan.fingerprint,
            }
        )
        return
    show(
        f"Zoo in {out}: {len(zoo)} checkpoints of {len(zoo.tasks)} tasks, validation accuracy at the end "
        f"{100 * mean:.1f} % on average."
    )


def _finished_shards(folder: Path) -> int | None:
    """How many shards a former build left, or None where there was none."""
    if not (folder / "plan.json").is_file():
        return None
    return len(list((folder / "shards").glob("shard-*.safetensors")))
