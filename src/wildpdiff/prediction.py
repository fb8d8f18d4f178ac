"""Predictions of an adapter on image files: classes and their probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone, finite_outputs
from wildpdiff.backbones.image_features import BATCH
from wildpdiff.errors import DataError
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES, read_images


@dataclass(frozen=True)
class Prediction:
    """One class of one image.

    Attributes:
        probability: of the class, 0 to 1, by the softmax of the logits.
    """

    file: Path
    species: str
    probability: float


def find_images(paths: Iterable[Path | str]) -> list[Path]:
    """Files as they are, folders as the image files below them in the order of their names.

    Links are followed; hidden files and folders are skipped.

    Raises:
        DataError: a path does not exist, or a folder holds no image or cannot be read.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = _images_below(path)
            if not inside:
                raise DataError(f"Folder {path} holds no images ({', '.join(IMAGE_SUFFIXES)}). Check the path.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"Image {path} does not exist; correct the path.")
    return found


def _images_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    visited: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(
            f"Folder {error.filename} cannot be read ({error.strerror}). Change its permissions, or leave it out."
        )

    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


def predict(
    adapter: Adapter,
    backbone: Backbone,
    paths: Sequence[Path | str],
    top: int = 1,
    *,
    skipped: Callable[[DataError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """The most probable classes of image files, ``top`` entries a file, most probable first, in the order of files.

    The largest centred square of each image is resized to the backbone's input.

    Args:
        skipped: called with the error of each file that cannot be read, which is then left out; by default the
            first such file ends everything.
        progress: called with (files read, in all).

    Raises:
        AdapterMismatchError: the adapter belongs to another backbone.
        ArtifactError: a value of the adapter, or a logit, is not finite.
        DataError: a file cannot be read, or there is none that can.
    """
    backbone.check(adapter)
    adapter.check_finite()
    if not backbone.classes:
        raise DataError(
            f"The outputs of {backbone.name!r} are no classes, and images are only classified. Run the model itself."
        )
    if not 1 <= top <= len(backbone.classes):
        raise DataError(f"The {top} most probable classes are not among {len(backbone.classes)}. Give 1 to that many.")
    files = find_images(paths)
    result: list[Prediction] = []
    for start in range(0, len(files), BATCH):
        kept, images = [], []
        for file in files[start : start + BATCH]:
            try:
                images.append(read_images([file], backbone.image_size))
                kept.append(file)
            except DataError as error:
                if skipped is None:
                    raise
                skipped(error)
        if kept:
            logits = backbone.predict(backbone.stem(np.concatenate(images)), adapter.tensors)
            best = finite_outputs(logits, backbone.name).double().softmax(1).topk(top, dim=1)
            for file, values, labels in zip(kept, best.values.tolist(), best.indices.tolist(), strict=True):
                pairs = zip(labels, values, strict=True)
                result += [Prediction(file, backbone.classes[label], value) for label, value in pairs]
        if progress is not None:
            progress(min(start + BATCH, len(files)), len(files))
    if not result:
        raise DataError(f"None of the {len(files)} images could be read. Give at least one readable image.")
    return result
