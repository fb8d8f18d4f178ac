"""``wildpdiff predict``: classification of images by an adapter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wildpdiff.cli.folders import check_output_file
from wildpdiff.cli.options import AdapterBackboneOption, JsonOption, open_base
from wildpdiff.cli.terminal import Stages, print_json, remark
from wildpdiff.disk import visible
from wildpdiff.errors import AdapterMismatchError, DataError

if TYPE_CHECKING:
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.prediction import Prediction

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Beginnings of cells that a spreadsheet would run."""


def predict(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of an adapter.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files, or folders of them.")],
    backbone: AdapterBackboneOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Output CSV file; default: stdout.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes per file, the most probable first.")] = 1,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Skip files that cannot be read, and list them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Classify images: CSV with file, class and probability.

    A file name that a spreadsheet would run as a formula gets ./ in front, a class name an apostrophe; --json has both
    as they are.
    """
    from wildpdiff.adapters.adapter import Adapter
    from wildpdiff.disk import write_file
    from wildpdiff.prediction import find_images
    from wildpdiff.prediction import predict as predict_images

    files = find_images(images)
    if out is not None:
        check_output_file(out, {file.resolve() for file in files})
    loaded = Adapter.load(adapter)
    model = backbone_of(loaded, backbone)
    unreadable: list[DataError] = []
    with Stages() as stages:
        rows = predict_images(
            loaded,
            model,
            files,
            top,
            skipped=unreadable.append if skip_unreadable else None,
            progress=stages(f"classify {len(files)} images"),
        )
    if out is not None:
        write_file(out, _csv(rows).encode(errors="surrogateescape"))
    for error in unreadable:
        remark(f"Skipped: {error}")
    if as_json:
        print_json([{"file": str(row.file), "class": row.species, "probability": row.probability} for row in rows])
    elif out is None:
        sys.stdout.write(visible(_csv(rows)))
    else:
        remark(f"{len(rows)} predictions in {out}")


def backbone_of(adapter: Adapter, given: str | None) -> Backbone:
    """The backbone that an adapter is for, with the adapter's LoRA setting.

    Args:
        given: a stored backbone, or a folder of ``transformers`` with the model.

    Raises:
        AdapterMismatchError: it is not bundled and none was given, or another was given.
    """
    from wildpdiff.backbones.backbone import LoraSpec
    from wildpdiff.backbones.registry import BUNDLED

    config = adapter.config
    if given is None and config.backbone not in BUNDLED:
        raise AdapterMismatchError(
            f"The adapter is for the backbone {config.backbone!r}, which is not bundled. Give its folder by --backbone."
        )
    backbone = open_base(given or config.backbone, config, config.classes)
    if config.backbone_hash and backbone.backbone_hash != config.backbone_hash:
        backbone.check(adapter)
    # A backbone is stored with its default LoRA setting; an adapter of another rank or other modules still fits.
    return backbone.with_lora(LoraSpec.of(config))


def _csv(rows: list[Prediction]) -> str:
    """A table that no spreadsheet takes for formulas: paths still lead to the file, spreadsheets show no apostrophe."""
    lines = [("file", "class", "probability")]
    for row in rows:
        file, species = str(row.file), row.species
        file = f"./{file}" if file.startswith(FORMULA) else file
        lines.append((file, f"'{species}" if species.startswith(FORMULA) else species, f"{row.probability:.6f}"))
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def _quoted(text: str) -> str:
    """A cell of a CSV table (RFC 4180); the standard library leaves a bare carriage return unquoted."""
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text
