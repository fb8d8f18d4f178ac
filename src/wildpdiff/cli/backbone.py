"""``wildpdiff backbone``: pretrain the model that adapters attach to."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_artifact
from wildpdiff.cli.terminal import Stages, answer, prepare_torch
from wildpdiff.tasks.framing import Framing

app = typer.Typer(help="Backbones: pretrain.", rich_markup_mode=None)

Architecture = Literal["savanna-cnn", "efficientnet-lite0"]


@app.callback()
def _group() -> None:
    """Backbones: pretrain."""


@app.command("pretrain")
def pretrain(
    out: options.OutOption,
    suite: options.SuitesOption = None,
    option: options.SuiteSettings = None,
    columns: options.ColumnsOption = None,
    architecture: Annotated[
        Architecture | None,
        typer.Option(
            "--architecture",
            help="savanna-cnn (trained from the start; default for savanna) or efficientnet-lite0 (ImageNet weights, "
            "a new classifier is fitted; default for photographs).",
        ),
    ] = None,
    framing: Annotated[
        Framing | None,
        typer.Option(
            "--framing",
            help="Part of a picture that the model gets: box (the largest animal and its surroundings; default where a "
            "table has boxes), boxes (every animal), whole (with grey bars; default without boxes) or square (the "
            "middle).",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of savanna-cnn.")] = None,
    cut: Annotated[int, typer.Option(help="Last blocks of efficientnet-lite0 that get adapters.")] = 1,
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train a backbone on the pretraining tasks of a suite, or on its seen tasks where it has none.

    Without options: the bundled backbone.
    """
    check_output_artifact(out, "backbone")
    prepare_torch(threads)
    from wildpdiff.backbones.registry import save_backbone
    from wildpdiff.camera_traps.registry import suite_providers

    simulated = options.suite_inputs(suite)[0] in suite_providers()
    pairs = [*([] if simulated else ["trained=true"]), *options.with_columns(option, columns)]
    opened = options.open_suite(suite, pairs, framing=framing, remarks="all")
    tasks = opened.tasks("pretraining") or options.tasks_of(opened, "seen")
    chosen: Architecture = architecture or ("savanna-cnn" if simulated else "efficientnet-lite0")
    with Stages() as stages:
        if chosen == "savanna-cnn":
            from wildpdiff.backbones.pretrain import PretrainConfig, pretrain_savanna_cnn

            config = PretrainConfig(seed=seed) if epochs is None else PretrainConfig(epochs, seed=seed)
            tick = stages("train the backbone")
            done = pretrain_savanna_cnn(tasks, opened.classes, opened.image_size, config, progress=tick)
            backbone, measured = done.backbone, {"losses": list(done.losses), "steps": done.steps}
        else:
            from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head

            stages("fit the classifier of EfficientNet-Lite0")
            empty = efficientnet_lite0(opened.classes, cut, image_size=opened.image_size)
            backbone, measured = fit_head(empty, tasks, seed), {}
        backbone = backbone.with_framing(getattr(opened, "framing", "square"))
        save_backbone(backbone, out)
    values = {
        "backbone": str(out),
        "name": backbone.name,
        "hash": backbone.backbone_hash,
        "classes": len(backbone.classes),
        "image_size": backbone.image_size,
        "framing": backbone.framing,
        "parameters": sum(value.numel() for value in backbone.module.parameters()),
        **measured,
    }
    what = f"{values['parameters']} parameters, {values['classes']} classes, weights {backbone.backbone_hash[:12]}"
    answer(as_json, values, f"Backbone {backbone.name} in {out}: {what}.")
