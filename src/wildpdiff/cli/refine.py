"""``wildpdiff refine``: from generated adapters and a few labels to a better adapter."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.folders import adapter_folders, may_write_adapters
from wildpdiff.cli.generators import ClipOption, open_generator
from wildpdiff.cli.options import JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.predict import backbone_of
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, remark, show
from wildpdiff.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.refine.refining import Refined
    from wildpdiff.refine.starts import StartingPoints


def refine(
    adapter: Annotated[
        list[Path],
        typer.Argument(
            metavar="ADAPTER...",
            help="Folders of generated adapters, or of several (generate -n); the labels choose where to start.",
        ),
    ],
    images: Annotated[
        Path, typer.Option("--images", help="Labelled images: a folder CLASS/IMAGE, or a CSV table (path,label,task).")
    ],
    out: OutOption,
    generator: Annotated[
        Path | None,
        typer.Option("--generator", help="Folder of the adapter's generator, which knows how far it may err."),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option("--unlabelled", help="More images of the place, or folders of them; they tell class frequencies."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Which task of the table.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Folder of the adapter's backbone, if it is not a bundled one.")
    ] = None,
    clip: ClipOption = None,
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength", min=1e-6, max=1e6, help="Of the generator's prior; above 1, its default, moves less."
        ),
    ] = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refine generated adapters to one on a few labelled images. Best with --generator and --unlabelled."""
    may_write_adapters(out, 1)
    if strength is not None and generator is None:
        raise DataError("--strength is that of a generator's prior, and no generator is given. Add --generator.")
    prepare_torch(threads)
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.posterior.most_probable import PosteriorConfig
    from wildpdiff.prediction import find_images
    from wildpdiff.refine.labels import labelled_features, labelled_files, unlabelled_features
    from wildpdiff.refine.refining import refine as refine_adapter
    from wildpdiff.refine.runs import RefineConfig
    from wildpdiff.refine.starts import StartingPoints

    started = time.perf_counter()
    loaded, *further = [Adapter.load(folder) for folder in adapter_folders(adapter)]
    model, known = _model(loaded, generator, backbone, clip)
    for candidate in (loaded, *further):
        model.check(candidate)
        candidate.check_finite()
    points = replace(known or StartingPoints.without_generator(model), candidates=tuple(further))
    found = labelled_files(images, model.classes, task)
    more = [*found.unlabelled, *(find_images(unlabelled) if unlabelled else [])]
    features = labelled_features(model, found)
    config = RefineConfig(posterior=PosteriorConfig() if strength is None else PosteriorConfig(strength=strength))
    with Stages() as stages:
        refined = refine_adapter(
            model,
            loaded,
            features,
            config,
            points=points,
            unlabelled=unlabelled_features(model, more),
            seed=seed,
            progress=stages(f"refine on {len(found.files)} labelled images"),
        )
    refined.adapter.save(out)
    seconds = round(time.perf_counter() - started, 3)
    _tell(refined, out, len(more), known is not None, seconds, as_json)


def _model(
    adapter: Adapter, generator: Path | None, backbone: str | None, clip: Path | None
) -> tuple[Backbone, StartingPoints | None]:
    if generator is None:
        return backbone_of(adapter, backbone), None
    from wildpdiff.refine.starts import StartingPoints

    made_by = open_generator(generator, backbone, clip)
    stated = adapter.provenance.get("generator")
    if stated and stated != made_by.fingerprint:
        raise ArtifactError(
            f"The adapter was made by generator {str(stated)[:12]}, and {generator} is {made_by.fingerprint[:12]}: how "
            "far its own generator errs is not known there. Give that one, or generate the adapter again by this one."
        )
    return made_by.backbone, StartingPoints.of_generator(made_by)


def _tell(refined: Refined, out: Path, unlabelled: int, prior: bool, seconds: float, as_json: bool) -> None:
    told = refined.adapter.provenance
    if as_json:
        print_json(
            {
                "adapter": str(out),
                "start": refined.start,
                "start_losses": refined.losses,
                "cross_validated_losses": refined.cross_validated,
                "labels": told["labels"],
                "unlabelled_images": unlabelled,
                "steps": told["steps"],
                "prior": told["prior"],
                "seconds": seconds,
            }
        )
        return
    show(f"Adapter in {out}: refined from the {_words(refined.start)} on {told['labels']} labels in {seconds:.1f} s.")
    if refined.cross_validated:
        ranked = sorted(refined.cross_validated.items(), key=lambda entry: entry[1])
        losses = ", ".join(f"{_words(name)} {loss:.3f}" for name, loss in ranked)
        remark(f"The start was chosen by cross-validation; mean loss of labels left out: {losses}.")
    if not prior:
        remark(
            "Without --generator nothing is known of how the adapter may err; with one of 40 or more seen tasks, fewer "
            "labels do as much."
        )
    if not unlabelled:
        remark(
            "Without unlabelled images the labels are taken as a random sample of the place. Where you labelled some "
            "of every class, give --unlabelled."
        )


def _words(start: str) -> str:
    from wildpdiff.refine.starts import FREE

    names = {
        "generated": "generated adapter",
        FREE: "generated adapter moving freely",
        "pretrained": "pretrained model",
    }
    return names.get(start, start)
