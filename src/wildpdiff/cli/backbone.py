"""``wildpdiff backbone``: pretrain the model that adapters attach to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_artifact
from wildpdiff.cli.terminal import Stages, answer, prepare_torch

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.tasks.task import Suite

app = typer.Typer(help="Backbones: pretrain.", rich_markup_mode=None)

Architecture = Literal["savanna-cnn", "efficientnet-lite0"]


@app.callback()
def _group() -> None:
    """Backbones: pretrain."""


@app.command("pretrain")
def pretrain(
    out: options.OutOption,
    suite: options.SuiteOption = "savanna",
    option: options.SuiteSettings = None,
    architecture: Annotated[
        Architecture | None,
        typer.Option(
            "--architecture",
            help="savanna-cnn (trained from the start; default for savanna) or efficientnet-lite0 (ImageNet weights, "
            "a new classifier is fitted; default for photographs).",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs of savanna-cnn.")] = None,
    cut: Annotated[int, typer.Option("--cut", help="Last blocks of efficientnet-lite0 that get adapters.")] = 1,
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train a backbone on the pretraining tasks of a suite. Without options: the bundled backbone."""
    check_output_artifact(out, "backbone")
    prepare_torch(threads)
    from wildpdiff.backbones.registry import save_backbone
    from wildpdiff.tasks.registry import suite_providers

    opened = options.open_suite(suite, option)
    chosen: Architecture = architecture or ("savanna-cnn" if suite in suite_providers() else "efficientnet-lite0")
    with Stages() as stages:
        if chosen == "savanna-cnn":
            backbone, measured = _savanna_cnn(opened, epochs, seed, stages("train the backbone"))
        else:
            stages("fit the classifier of EfficientNet-Lite0")
            backbone, measured = _efficientnet(opened, cut, seed)
        save_backbone(backbone, out)
    values = {
        "backbone": str(out),
        "name": backbone.name,
        "hash": backbone.backbone_hash,
        "classes": len(backbone.classes),
        "image_size": backbone.image_size,
        "parameters": sum(value.numel() for value in backbone.module.parameters()),
        **measured,
    }
    what = f"{values['parameters']} parameters, {values['classes']} classes, weights {backbone.backbone_hash[:12]}"
    answer(as_json, values, f"Backbone {backbone.name} in {out}: {what}.")


def _savanna_cnn(
    suite: Suite, epochs: int | None, seed: int, tick: Callable[[int, int], None]
) -> tuple[Backbone, dict[str, Any]]:
    from wildpdiff.backbones.pretrain import pretrain_savanna_cnn

    length: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    tasks = suite.tasks("pretraining")
    done = pretrain_savanna_cnn(tasks, suite.classes, suite.image_size, seed=seed, progress=tick, **length)
    return done.backbone, {"losses": list(done.losses), "steps": done.steps}


def _efficientnet(suite: Suite, cut: int, seed: int) -> tuple[Backbone, dict[str, Any]]:
    from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head

    empty = efficientnet_lite0(suite.classes, cut, image_size=suite.image_size)
    return fit_head(empty, suite.tasks("pretraining"), seed), {}
