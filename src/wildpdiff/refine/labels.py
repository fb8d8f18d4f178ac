"""A user's labels of one task: a folder with one subfolder a class, or a CSV table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path

from torch import Tensor

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.camera_traps.cameras import pictures_by_camera
from wildpdiff.camera_traps.crops import Cropping, box_of
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.joining import join
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.picture_files import read_most, some
from wildpdiff.camera_traps.placement import place
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.task_names import same_name
from wildpdiff.errors import DataError
from wildpdiff.tasks.framing import Framing, View
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.zoo.features import TaskFeatures


@dataclass(frozen=True)
class LabelledFiles:
    """Image files of one task.

    Attributes:
        files: labelled images.
        labels: name of the class of each.
        unlabelled: images of the task without a label.
        pictures: the labelled ones as their source has them.
        remarks: one sentence each on what was left out.
    """

    task: str
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    unlabelled: tuple[Path, ...]
    pictures: tuple[Picture, ...] = ()
    remarks: tuple[str, ...] = ()

    def views(self, framing: Framing) -> list[View]:
        """The part of each labelled image that a model of this framing gets."""
        pairs = zip_longest(self.files, self.pictures)
        return [View(file, None if picture is None else box_of(picture, framing)) for file, picture in pairs]


def labelled_files(
    path: Path | str,
    classes: Sequence[str],
    task: str | None = None,
    *,
    test: bool = False,
    boxes: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> LabelledFiles:
    """Find labelled images.

    A folder holds one subfolder a class, named as the class; images in ``_unlabelled`` have no label. A CSV table has
    columns ``path, label, task[, split]`` as for a suite of tasks; rows whose split is ``train``, ``validation``,
    ``unlabelled`` or left open are read.

    Args:
        task: of a table; may be left out where the table has one.
        test: read the rows whose split is ``test``, too.
        boxes: a detector's file on the images.
        columns: names of a table's columns in the place of the usual ones.

    Raises:
        DataError: there are no images, the class of a folder or every class of a table is unknown, or the table is at
            fault; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a folder with one subfolder a class, or a CSV table.")
    found = (
        _of_folder(path, task)
        if path.is_dir() and not (path / "datapackage.json").is_file()
        else _of_table(read_pictures(path, columns), task, classes, test)
    )
    if not found.files:
        raise DataError(
            f"{path} holds no labelled images ({', '.join(IMAGE_SUFFIXES)}). Put images into one subfolder a class, "
            "or list them in a CSV table with the columns path, label, task."
        )
    unknown = Counter(label for label in found.labels if label not in classes)
    if unknown and (path.is_dir() or len(unknown) == len(set(found.labels))):
        file, label = next(pair for pair in zip(found.files, found.labels, strict=True) if pair[1] in unknown)
        alike = get_close_matches(label, classes, 1)
        meant = f" Did you mean {alike[0]!r}?" if alike else ""
        raise DataError(
            f"{file} is labelled {label!r}, a class that the adapter does not know; its classes are "
            f"{', '.join(classes)}.{meant}"
        )
    found = _without(found, unknown) if unknown else found
    return found if boxes is None else _with_boxes(found, boxes)


def _without(found: LabelledFiles, unknown: Counter[str]) -> LabelledFiles:
    """The labelled images of a table without those of other species, which its other cameras may have."""
    kept = [number for number, label in enumerate(found.labels) if label not in unknown]
    names = some([f"{label} {count}" for label, count in unknown.most_common()])
    remark = f"{unknown.total()} pictures of species that the adapter does not know are left out: {names}."
    return LabelledFiles(
        found.task,
        tuple(found.files[number] for number in kept),
        tuple(found.labels[number] for number in kept),
        found.unlabelled,
        tuple(found.pictures[number] for number in kept),
        (remark,),
    )


def _with_boxes(found: LabelledFiles, boxes: Path) -> LabelledFiles:
    """The labelled images with a detector's boxes; raises :class:`DataError` where the file has none of them."""
    placed = [
        replace(entry, path=file.resolve().as_posix()) for entry, file in zip(found.pictures, found.files, strict=True)
    ]
    joined = join([PictureTable(boxes, "images", boxes.resolve().parent, tuple(placed)), read_pictures(boxes)])
    known = {picture.path: picture.boxes for picture in joined.pictures}
    both = zip(found.pictures, placed, strict=True)
    return replace(found, pictures=tuple(replace(entry, boxes=known[own.path]) for entry, own in both))


def _of_folder(folder: Path, task: str | None) -> LabelledFiles:
    files: list[Path] = []
    labels: list[str] = []
    unlabelled: list[Path] = []
    for file in sorted(folder.glob("*/*")):
        kind = file.parent.name
        if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith(".") or kind.startswith("."):
            continue
        if kind == "_unlabelled":
            unlabelled.append(file)
        elif kind != "_background":
            files.append(file)
            labels.append(kind)
    name = task or folder.resolve().name
    pictures = [
        Picture(str(file), number, name, (label,))
        for number, (file, label) in enumerate(zip(files, labels, strict=True), 1)
    ]
    return LabelledFiles(name, tuple(files), tuple(labels), tuple(unlabelled), tuple(pictures))


def _of_table(table: PictureTable, task: str | None, classes: Sequence[str], test: bool) -> LabelledFiles:
    path = table.source
    by_camera = pictures_by_camera(table)
    labels = joined_labels((label for picture in table.pictures for label in picture.labels), table.blanks, classes)
    if task is None and len(by_camera) > 1:
        raise DataError(f"{path} has {len(by_camera)} tasks, {', '.join(list(by_camera)[:3])}, …; name one of them.")
    name = next((camera for camera in by_camera if task is None or same_name(camera, task)), None)
    if name is None:
        raise DataError(f"{path} has no task {task!r}; its tasks are {', '.join(by_camera)}.")
    placed = sorted(place(name, by_camera[name], Cropping(labels), {}).pictures, key=lambda entry: entry.picture.line)
    # Where the user left the split open one was drawn; rows with a label count as labelled nevertheless.
    read = ("train", "validation", "test") if test else ("train", "validation")
    labelled = [entry for entry in placed if entry.drawn or entry.split in read]
    return LabelledFiles(
        name,
        tuple(table.root / entry.path for entry in labelled),
        tuple(entry.label for entry in labelled),
        tuple(table.root / entry.path for entry in placed if entry.split == "unlabelled"),
        tuple(entry.picture for entry in labelled),
    )


def _silent(sentence: str) -> None:
    """Nobody is told."""


def labelled_features(
    backbone: Backbone, found: LabelledFiles, notify: Callable[[str], None] = _silent
) -> TaskFeatures:
    """Labelled images as a task, both as training and as validation images.

    Args:
        backbone: the frozen model.
        found: the images.
        notify: called with a sentence on each image that cannot be read and is left out.

    Raises:
        DataError: too many images cannot be read.
    """
    images, kept = read_most(found.views(backbone.framing), backbone.image_size, backbone.framing, notify)
    targets = backbone.objective.targets([found.labels[number] for number in kept])
    return TaskFeatures.of_few(found.task, {**backbone.stem(images), TARGETS: targets})


def unlabelled_features(
    backbone: Backbone, files: Sequence[Path], notify: Callable[[str], None] = _silent
) -> dict[str, Tensor] | None:
    """The batch of unlabelled images; ``None`` where there are none. Raises as :func:`labelled_features`."""
    if not files:
        return None
    views = [View(Path(file)) for file in files]
    return backbone.stem(read_most(views, backbone.image_size, backbone.framing, notify)[0])
