"""Predictions of an adapter on image files: classes and their probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone, finite_outputs
from wildpdiff.backbones.image_features import BATCH
from wildpdiff.camera_traps.answers import Answer, Source
from wildpdiff.camera_traps.crops import CONFIDENCE, box_of
from wildpdiff.camera_traps.records import Picture
from wildpdiff.camera_traps.sequences import bursts
from wildpdiff.camera_traps.smoothing import smoothed
from wildpdiff.camera_traps.species_lists import SpeciesLists, masked
from wildpdiff.camera_traps.taxonomy import Taxonomy
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import View
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES, read_views
from wildpdiff.tasks.picture_cache import PictureCache


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
        raise DataError(f"Folder {error.filename} cannot be read ({error.strerror}). Change its permissions.")

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


def class_probabilities(
    models: Sequence[Adapter | None],
    backbone: Backbone,
    views: Sequence[View],
    *,
    cache: PictureCache | None = None,
    skipped: Callable[[int, DataError], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "a n c"]:
    """Probabilities of the classes of some views, by the softmax of the logits; nan where a file cannot be read.

    Args:
        models: adapters of the backbone; None is the pretrained model.
        cache: of decoded pictures, on disk.
        skipped: called with the index and the error of each view that cannot be read; by default the first such ends
            everything.
        progress: called with (views read, in all).

    Raises:
        AdapterMismatchError: an adapter belongs to another backbone.
        ArtifactError: a value of an adapter, or a logit, is not finite.
        DataError: a file cannot be read, or the backbone's outputs are no classes.
    """
    _check_models(models, backbone)
    result = np.full((len(models), len(views), len(backbone.classes)), np.nan)
    for start in range(0, len(views), BATCH):
        part = views[start : start + BATCH]
        faulty: list[int] = []

        def fault(number: int, error: DataError, start: int = start, faulty: list[int] = faulty) -> None:
            if skipped is None:
                raise error
            faulty.append(number)
            skipped(start + number, error)

        images = read_views(part, backbone.image_size, backbone.framing, cache=cache, skipped=fault)
        if len(images):
            kept = [start + number for number in range(len(part)) if number not in faulty]
            result[:, kept] = _probabilities(models, backbone, images)
        if progress is not None:
            progress(start + len(part), len(views))
    return result


def text_probabilities(
    models: Sequence[Adapter | None], backbone: Backbone, texts: Sequence[str]
) -> Float[np.ndarray, "a n c"]:
    """Probabilities of the classes of some texts, as :func:`class_probabilities` has those of pictures.

    Raises:
        AdapterMismatchError, ArtifactError, DataError: as there; also where the backbone reads pictures.
    """
    _check_models(models, backbone)
    if backbone.image_size:
        raise DataError(f"{backbone.name} reads pictures, and {len(texts)} texts are given. Give files of pictures.")
    result = np.zeros((len(models), len(texts), len(backbone.classes)))
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        result[:, start : start + len(part)] = _probabilities(models, backbone, part)
    return result


def _check_models(models: Sequence[Adapter | None], backbone: Backbone) -> None:
    for adapter in filter(None, models):
        backbone.check(adapter)
        adapter.check_finite()
    if not backbone.classes:
        raise DataError(f"The outputs of {backbone.name!r} are no classes. Run the model itself.")


def _probabilities(models: Sequence[Adapter | None], backbone: Backbone, examples: Any) -> Float[np.ndarray, "a n c"]:
    batch = backbone.stem(examples)
    logits = [backbone.predict(batch, None if model is None else model.tensors) for model in models]
    return np.stack([finite_outputs(found, backbone.name).double().softmax(1).numpy() for found in logits])


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

    Args:
        skipped: called with the error of each file that cannot be read, which is then left out; by default the
            first such file ends everything.
        progress: called with (files read, in all).

    Raises:
        AdapterMismatchError, ArtifactError, DataError: as :func:`class_probabilities`; or no file can be read.
    """
    if backbone.classes and not 1 <= top <= len(backbone.classes):
        raise DataError(f"The {top} most probable classes are not among {len(backbone.classes)}. Give 1 to that many.")
    files = find_images(paths)
    report = None if skipped is None else lambda _, error: skipped(error)
    views = [View(file) for file in files]
    (found,) = class_probabilities([adapter], backbone, views, skipped=report, progress=progress)
    result = [
        Prediction(file, backbone.classes[label], float(row[label]))
        for file, row in zip(files, found, strict=True)
        if not np.isnan(row[0])
        for label in np.argsort(-row, kind="stable")[:top]
    ]
    if not result:
        raise _none_readable(len(files))
    return result


def _none_readable(files: int) -> DataError:
    return DataError(f"None of the {files} images could be read. Give at least one readable image.")


# Cameras -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivered:
    """The adapter that classifies a camera's pictures.

    Attributes:
        adapter: None is the pretrained model.
        source: whose it is; see :class:`wildpdiff.camera_traps.answers.Answer`.
        trust: in the generated one; None where it is not known.
    """

    adapter: Adapter | None
    source: Source
    trust: float | None = None


@dataclass(frozen=True)
class Rules:
    """Rules between a classifier's probabilities and an answer, in the order of the attributes.

    Attributes:
        lists: of the species that occur at each camera.
        smooth: one answer for all frames of a burst.
        taxonomy: of the classes.
        threshold: least probability of an answer that is no taxon.
    """

    taxonomy: Taxonomy
    lists: SpeciesLists | None = None
    smooth: bool = False
    threshold: float = 0.0


def camera_answers(
    delivered: Delivered,
    backbone: Backbone,
    pictures: Sequence[Picture],
    root: Path,
    *,
    rules: Rules,
    shown: Iterable[str] = (),
    threshold: float | None = None,
    most: int | None = None,
    cache: PictureCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """The answer for each picture of one camera.

    Args:
        root: folder that the pictures' paths are relative to.
        shown: labels of the camera's pictures, which no list of species excludes.
        threshold: confidence below which a detector's box counts as none, where its file states one.
        most: the most pictures that cannot be read and have a failure in their answer's place, one more ends
            everything; None is any number.
        cache: of decoded pictures, on disk: of a run that was stopped, and for another one.
        progress: called with (pictures read, in all).

    Raises:
        AdapterMismatchError, ArtifactError, DataError: as :func:`class_probabilities`.
    """
    faults: dict[int, str] = {}

    def fault(number: int, error: DataError) -> None:
        faults[number] = str(error)
        if most is not None and len(faults) > most:
            raise error

    least = CONFIDENCE if threshold is None else threshold
    (found,) = class_probabilities(
        [delivered.adapter],
        backbone,
        [View(root / picture.path, box_of(picture, backbone.framing, least)) for picture in pictures],
        cache=cache,
        skipped=fault,
        progress=progress,
    )
    readable = [number for number in range(len(pictures)) if number not in faults]
    values = found[readable]
    if rules.lists is not None and pictures:
        values = masked(values, rules.lists.allowed(pictures[0].camera, backbone.classes, shown))
    if rules.smooth:
        values = smoothed(values, burst_numbers([pictures[number] for number in readable]))
    decided = dict(zip(readable, zip(values, rules.taxonomy.decide(values, rules.threshold), strict=True), strict=True))
    nothing = (np.zeros(0), ("", 0.0))
    result = []
    for number, picture in enumerate(pictures):
        probabilities, (label, probability) = decided.get(number, nothing)
        by = (delivered.source, delivered.trust, faults.get(number, ""))
        result.append(Answer(picture, probabilities, label, probability, *by))
    return result


def burst_numbers(pictures: Sequence[Picture]) -> list[int]:
    """The number of the burst of each of a camera's pictures."""
    numbers = [0] * len(pictures)
    for number, burst in enumerate(bursts(pictures)):
        for member in burst.members:
            numbers[member] = number
    return numbers
