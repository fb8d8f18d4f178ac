"""``wildpdiff backbone``: pretrain the model that adapters attach to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wildpdiff.cli import options
from wildpdiff.cli.folders import check_output_artifact
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, remark
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import Framing

if TYPE_CHECKING:
    from wildpdiff.tasks.task import ClassSuite, Task

app = typer.Typer(help="Backbones: pretrain.", rich_markup_mode=None)

Architecture = Literal["savanna-cnn", "efficientnet-lite0"]


@app.callback()
def _group() -> None:
    """Backbones: pretrain."""


@app.command("pretrain", short_help="Train a backbone, or fit a classifier to a model of transformers.")
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
    model: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            help="Folder or name of a model of transformers, of pictures or texts, in place of an architecture; a new "
            "classifier is fitted to it.",
        ),
    ] = None,
    lora: options.LoraOption = None,
    rank: options.RankOption = None,
    alpha: options.AlphaOption = None,
    targets: options.TargetsOption = None,
    layers: options.LayersOption = None,
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
    from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head
    from wildpdiff.backbones.pretrain import PretrainConfig, pretrain_savanna_cnn
    from wildpdiff.backbones.registry import save_backbone
    from wildpdiff.camera_traps.registry import suite_providers
    from wildpdiff.tasks.task import ImageSuite

    simulated = options.suite_inputs(suite)[0] in suite_providers()
    option = options.with_columns(option, columns)
    settings = options.lora_settings(lora, rank, alpha, targets, layers=layers)
    if (settings and model is None) or (architecture and model is not None):
        raise DataError(
            "--lora, --rank, --alpha, --targets and --layers are of a model. Give --backbone, no architecture."
        )
    texts = options.is_texts(suite, option)
    if texts and model is None:
        raise DataError("The suite is a table of texts. Give a model that reads them by --backbone.")
    tables = not simulated and not texts
    pairs = [*(["trained=true"] if tables else []), *option]
    opened = options.open_suite(suite, pairs, framing=framing, remarks="all")
    if not opened.tasks("pretraining"):
        remark(
            "No task is of the group pretraining, so the model learns from the seen ones: scores on them are too good, "
            "that of the pretrained model most of all. Unseen tasks show how good they are (wildpdiff evaluate)."
        )
    chosen: Architecture = architecture or ("savanna-cnn" if simulated else "efficientnet-lite0")
    measured: dict[str, Any] = {}
    with Stages() as stages:
        if model is not None:
            stages(f"fit the classifier of {model}")
            empty = options.open_model(model, settings, lambda: opened)
            if isinstance(opened, ImageSuite):
                empty = empty.with_framing(getattr(opened, "framing", "square"))
                opened = options.open_suite(suite, pairs, empty, remarks="none")
            backbone = fit_head(empty, _tasks(opened), seed)
        elif chosen == "savanna-cnn":
            images, _ = options.images_of(opened), _tasks(opened)  # refused where there are none
            config = PretrainConfig(seed=seed) if epochs is None else PretrainConfig(epochs, seed=seed)
            tick, of = stages("train the backbone"), images.tasks("pretraining") or images.tasks("seen")
            done = pretrain_savanna_cnn(of, images.classes, images.image_size, config, progress=tick)
            backbone, measured = done.backbone, {"losses": list(done.losses), "steps": done.steps}
        else:
            images = options.images_of(opened)
            stages("fit the classifier of EfficientNet-Lite0")
            empty = efficientnet_lite0(images.classes, cut, image_size=images.image_size)
            backbone = fit_head(empty, _tasks(opened), seed)
        if backbone.image_size:
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


def _tasks(suite: ClassSuite) -> Sequence[Task]:
    """The pretraining tasks, or the seen ones where there are none."""
    return suite.tasks("pretraining") or options.tasks_of(suite, "seen")
