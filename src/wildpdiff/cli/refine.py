"""``wildpdiff refine``: from generated adapters and a few labels to a better adapter."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli import options
from wildpdiff.cli.delivery import backbone_of
from wildpdiff.cli.folders import adapter_folders, check_output_adapters
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, remark
from wildpdiff.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.refine.refining import Refined
    from wildpdiff.refine.starts import Starts


def refine(
    adapter: Annotated[
        list[Path],
        typer.Argument(
            metavar="ADAPTER...",
            help="Folders of generated adapters, or of several (generate -n); the labels choose the start.",
        ),
    ],
    images: Annotated[
        Path, typer.Option(help="Labelled images: a folder CLASS/IMAGE, or a CSV table (path,label,task).")
    ],
    out: options.OutOption,
    generator: Annotated[
        Path | None, typer.Option(help="Folder of the adapter's generator: its errors are the refinement's prior.")
    ] = None,
    unlabelled: Annotated[
        list[Path] | None, typer.Option(help="More images of the task, or folders of them, for the class frequencies.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Task of the table.")] = None,
    boxes: options.BoxesOption = None,
    columns: options.ColumnsOption = None,
    backbone: options.AdapterBackboneOption = None,
    clip: options.ClipOption = None,
    strength: Annotated[
        float | None, typer.Option(min=1e-6, max=1e6, help="Strength of the prior; above 1, its default, changes less.")
    ] = None,
    seed: options.SeedOption = 0,
    threads: options.ThreadsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Refine generated adapters to one on a few labelled images. Best with --generator and --unlabelled."""
    check_output_adapters(out, 1)
    if strength is not None and generator is None:
        raise DataError("--strength is that of a generator's prior, and no generator is given. Add --generator.")
    prepare_torch(threads)
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.posterior.maximum_a_posteriori import MapConfig
    from wildpdiff.prediction import find_images
    from wildpdiff.refine.labels import labelled_features, labelled_files, unlabelled_features
    from wildpdiff.refine.refining import refine as refine_adapter
    from wildpdiff.refine.runs import RefineConfig
    from wildpdiff.refine.starts import Starts
    from wildpdiff.texts import is_text_table

    started = time.perf_counter()
    loaded, *further = [Adapter.load(folder) for folder in adapter_folders(adapter)]
    model, known = _model(loaded, generator, backbone, clip)
    for candidate in (loaded, *further):
        model.check(candidate)
        candidate.check_finite()
    named = options.named_columns(columns)
    if not model.image_size or is_text_table(images, named):
        raise DataError("Adapters are refined on labelled pictures alone. Texts can be added to the tasks of a zoo.")
    points = replace(known or Starts.without_generator(model), candidates=tuple(further))
    given = find_images(unlabelled) if unlabelled else ()
    found = labelled_files(images, model.classes, task, boxes=boxes, columns=named, more=given)
    for sentence in found.remarks:
        remark(sentence)
    features = labelled_features(model, found, remark)
    config = RefineConfig(posterior=MapConfig() if strength is None else MapConfig(strength=strength))
    with Stages() as stages:
        refined = refine_adapter(
            model,
            loaded,
            features,
            config,
            points=points,
            unlabelled=unlabelled_features(model, found, remark),
            seed=seed,
            progress=stages(f"refine on {len(found.files)} labelled images"),
        )
    refined.adapter.save(out)
    seconds = round(time.perf_counter() - started, 3)
    values = {
        "adapter": str(out),
        "start": refined.start,
        "start_losses": refined.losses,
        "cross_validated_losses": refined.cross_validated,
        "unlabelled_images": len(found.unlabelled),
        **{key: refined.adapter.provenance[key] for key in ("labels", "steps", "prior")},
        "seconds": seconds,
    }
    start, labels = _words(refined.start), values["labels"]
    answer(as_json, values, f"Adapter in {out}: refined from the {start} on {labels} labels in {seconds:.1f} s.")
    if not as_json:
        _remarks(refined, known is not None, bool(found.unlabelled))


def _model(
    adapter: Adapter, generator: Path | None, backbone: str | None, clip: Path | None
) -> tuple[Backbone, Starts | None]:
    if generator is None:
        return backbone_of(adapter, backbone), None
    from wildpdiff.refine.starts import Starts

    opened = options.open_generator(generator, backbone, clip)
    stated = adapter.provenance.get("generator")
    if stated and stated != opened.fingerprint:
        raise ArtifactError(
            f"The adapter was made by generator {str(stated)[:12]}, and {generator} is {opened.fingerprint[:12]}, "
            "whose errors are not those of this adapter. Give the former, or generate the adapter again by the latter."
        )
    return opened.backbone, Starts.of_generator(opened)


def _remarks(refined: Refined, prior: bool, unlabelled: bool) -> None:
    """Remarks on the choice of the start, and on missing inputs that would help."""
    if refined.cross_validated:
        ranked = sorted(refined.cross_validated.items(), key=lambda entry: entry[1])
        losses = ", ".join(f"{_words(name)} {loss:.3f}" for name, loss in ranked)
        own = _words(refined.start)
        kept = "" if ranked[0][0] == refined.start else f" None is ahead of the {own} beyond chance, which is kept."
        remark(f"The start was chosen by cross-validation; mean loss of labels left out: {losses}.{kept}")
    if not prior:
        remark(
            "Without --generator the adapter's held-out errors are unknown; with a generator of 40 or more seen tasks, "
            "fewer labels have the same effect."
        )
    if not unlabelled:
        remark(
            "Without --unlabelled the labelled images count as a random sample of the task. Where they have some "
            "images of every class instead, give --unlabelled."
        )


def _words(start: str) -> str:
    from wildpdiff.refine.starts import FREE

    names = {
        "generated": "generated adapter",
        FREE: "generated adapter moving freely",
        "pretrained": "pretrained model",
    }
    return names.get(start, start)
