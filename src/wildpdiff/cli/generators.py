"""Opening a zoo, and a fitted generator with a backbone of the user's own, and with CLIP where it reads by that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wildpdiff.backbones.backbone import Backbone
    from wildpdiff.conditions.base import Featuriser
    from wildpdiff.generator import Generator
    from wildpdiff.zoo.store import Zoo

ClipOption = Annotated[
    Path | None,
    typer.Option("--clip", help="Folder of a CLIP model that reads the descriptions' images, not the backbone."),
]


def image_reader(clip: Path | None) -> Featuriser | None:
    """CLIP from a local folder, or None: the backbone reads the images.

    Raises:
        ArtifactError: transformers is not installed, or the folder holds no CLIP model.
    """
    if clip is None:
        return None
    from wildpdiff.conditions.clip import ClipFeaturiser

    return ClipFeaturiser(clip)


def open_zoo(folder: Path) -> Zoo:
    """Read a zoo, with a remark where an earlier version built it; raises as :meth:`Zoo.open`."""
    from wildpdiff.cli.terminal import remark
    from wildpdiff.zoo.store import Zoo

    zoo = Zoo.open(folder)
    if not zoo.hashed:
        remark(
            f"The zoo in {folder} is of an earlier version, which kept no hashes: whether files were altered is not "
            "known."
        )
    return zoo


def open_generator(folder: Path, backbone: str | Backbone | None, clip: Path | None) -> Generator:
    """Read a generator.

    Args:
        folder: of the generator.
        backbone: that it is for, or its name or folder; None takes the one that it names.
        clip: folder of the CLIP model that it was fitted with.

    Raises:
        WildpdiffError: as :meth:`Generator.from_pretrained`, :func:`load_backbone` and :func:`image_reader`.
    """
    from wildpdiff.backbones.registry import load_backbone
    from wildpdiff.generator import Generator

    model = load_backbone(backbone) if isinstance(backbone, str) else backbone
    return Generator.from_pretrained(folder, model, image_reader(clip))
