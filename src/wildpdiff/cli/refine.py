"""``wildpdiff refine``: from generated adapters and a few labels to a better adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli import options
from wildpdiff.cli.delivery import backbone_of, labelled_texts
from wildpdiff.cli.folders import adapter_folders, check_output_adapters
from wildpdiff.cli.terminal import Stages, answer, prepare_torch, remark
from wildpdiff.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.refine.refining import Refined
    from wildpdiff.refine.starts import Starts
    from wildpdiff.tasks.batch import Batch
    from wildpdiff.zoo.features import TaskFeatures


def refine(
    adapter: Annotated[
        list[Path],
        typer.Argument(
            metavar="ADAPTER",
            help="Folders of generated adapters, or of several (generate -n); the labels choose the start.",
        ),
    ],
    images: options.LabelledOption,
    out: options.OutOption,
    generator: Annotated[
        Path | None, typer.Option(help="Folder of the adapter's generator: its errors are the refinement's prior.")
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(help="More images of the task (or folders) or files of texts, for the class frequencies."),
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
    """Refine generated adapters to one on a few labelled images or texts. Best with --generator and --unlabelled."""
    check_output_adapters(out, 1)
    if strength is not None and generator is None:
        raise DataError("--strength is that of a generator's prior, and no generator is given. Add --generator.")
    prepare_torch(threads)
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.posterior.maximum_a_posteriori import MapConfig
    from wildpdiff.refine.refining import refine as refine_adapter
    from wildpdiff.refine.runs import RefineConfig
    from wildpdiff.refine.starts import Starts

    started = time.perf_counter()
    loaded, *further = [Adapter.load(folder) for folder in adapter_folders(adapter)]
    model, known = _model(loaded, generator, backbone, clip)
    for candidate in (loaded, *further):
        model.check(candidate)
        candidate.check_finite()
    points = replace(known or Starts.without_generator(model), candidates=tuple(further))
    features, others, what = _examples(
        model, images, task, unlabelled or (), columns=options.named_columns(columns), boxes=boxes
    )
    config = RefineConfig(posterior=MapConfig() if strength is None else MapConfig(strength=strength))
    with Stages() as stages:
        refined = refine_adapter(
            model,
            loaded,
            features,
            config,
            points=points,
            unlabelled=others,
            seed=seed,
            progress=stages(f"refine on {features.train_size} labelled {what}"),
        )
    refined.adapter.save(out)
    seconds = round(time.perf_counter() - started, 3)
    values = {
        "adapter": str(out),
        "start": refined.start,
        "start_losses": refined.losses,
        "cross_validated_losses": refined.cross_validated,
        **{key: refined.adapter.provenance[key] for key in ("unlabelled", "labels", "steps", "prior")},
        "seconds": seconds,
    }
    start, labels = _words(refined.start), values["labels"]
    answer(as_json, values, f"Adapter in {out}: refined from the {start} on {labels} labels in {seconds:.1f} s.")
    if not as_json:
        _remarks(refined, known is not None, others is not None)


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


def _examples(
    model: Backbone,
    labels: Path,
    task: str | None,
    unlabelled: Sequence[Path],
    *,
    columns: Mapping[str, str] | None,
    boxes: Path | None,
) -> tuple[TaskFeatures, Batch | None, str]:
    """Labelled examples, those without a label, and the word for them."""
    from wildpdiff.prediction import find_images
    from wildpdiff.refine.labels import labelled_features, labelled_files, text_features, unlabelled_features
    from wildpdiff.texts import read_texts

    texts = labelled_texts(labels, model, task, columns, boxed=boxes is not None)
    if texts is not None:
        return *text_features(model, texts, read_texts(unlabelled, columns) if unlabelled else ()), "texts"
    given = find_images(unlabelled) if unlabelled else ()
    found = labelled_files(labels, model.classes, task, boxes=boxes, columns=columns, more=given)
    for sentence in found.remarks:
        remark(sentence)
    return labelled_features(model, found, remark), unlabelled_features(model, found, remark), "images"


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
            "Without --unlabelled the labels count as a random sample of the task. Where there are some of every class "
            "instead, give --unlabelled."
        )


def _words(start: str) -> str:
    from wildpdiff.refine.starts import FREE

    names = {
        "generated": "generated adapter",
        FREE: "generated adapter moving freely",
        "pretrained": "pretrained model",
    }
    return names.get(start, start)
