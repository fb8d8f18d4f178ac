"""``wildpdiff refine``: from a generated adapter and a few labels to a better adapter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.folders import may_write_adapters
from wildpdiff.cli.generators import ClipOption, open_generator
from wildpdiff.cli.options import JsonOption, OutOption, SeedOption, ThreadsOption
from wildpdiff.cli.predict import backbone_of
from wildpdiff.cli.terminal import Stages, prepare_torch, print_json, remark, show
from wildpdiff.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from wildpdiff.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.refine.refining import Refined
    from wildpdiff.refine.starts import StartingPoints

__all__ = ["refine"]


def refine(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a generated adapter.")],
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
    """Refine a generated adapter on a few labelled images. Best with --generator and --unlabelled."""
    may_write_adapters(out, 1)
    if strength is not None and generator is None:
        raise DataError("--strength is that of a generator's prior, and no generator is given. Add --generator.")
    prepare_torch(threads)
    from wildpdiff.adapter import Adapter
    from wildpdiff.prediction import find_images
    from wildpdiff.refine.labels import labelled_features, labelled_files, unlabelled_features
    from wildpdiff.refine.posterior import PosteriorConfig
    from wildpdiff.refine.refining import RefineConfig
    from wildpdiff.refine.refining import refine as refine_adapter

    started = time.perf_counter()
    loaded = Adapter.load(adapter)
    model, points = _model(loaded, generator, backbone, clip)
    model.check(loaded)
    loaded.check_finite()
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
    _tell(refined, out, len(more), points is not None, seconds, as_json)


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
                "labels": told["labels"],
                "unlabelled_images": unlabelled,
                "steps": told["steps"],
                "prior": told["prior"],
                "seconds": seconds,
            }
        )
        return
    show(f"Adapter in {out}: refined from the {_WORDS[refined.start]} on {told['labels']} labels in {seconds:.1f} s.")
    if refined.start != "generated":
        remark("The labels contradict the generated adapter, so it was not the start.")
    if not prior:
        remark("Without --generator nothing is known of how the adapter may err; with it, fewer labels do as much.")
    if not unlabelled:
        remark(
            "Without unlabelled images the labels are taken as a random sample of the place. Where you labelled some "
            "of every class, give --unlabelled."
        )


_WORDS = {"generated": "generated adapter", "mean adapter": "mean adapter", "pretrained": "pretrained model"}
