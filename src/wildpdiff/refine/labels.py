"""A user's labels of one task: a folder with one subfolder a class, a CSV table, or a table of texts."""

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
from wildpdiff.camera_traps.crops import CONFIDENCE, Cropping, box_of
from wildpdiff.camera_traps.folder_levels import levels_of
from wildpdiff.camera_traps.folders import FOLDER_SPLITS, FolderReader, pictures_below
from wildpdiff.camera_traps.formats import find_reader, read_pictures
from wildpdiff.camera_traps.joining import join
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.paths import below_cameras, on_disk
from wildpdiff.camera_traps.picture_files import read_most, some
from wildpdiff.camera_traps.placement import place
from wildpdiff.camera_traps.records import Picture, PictureTable
from wildpdiff.camera_traps.task_names import same_name, task_names
from wildpdiff.errors import DataError
from wildpdiff.tables.remarks import Remarks
from wildpdiff.tasks.framing import Framing, View
from wildpdiff.tasks.image_files import IMAGE_SUFFIXES
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.texts import TextTask
from wildpdiff.zoo.features import TaskFeatures


@dataclass(frozen=True)
class LabelledFiles:
    """Image files of one task.

    Attributes:
        files: labelled images.
        labels: name of the class of each.
        unlabelled: images of the task without a label.
        pictures, unlabelled_pictures: both as their source has them; empty where it has no more than files.
        remarks: one sentence each on what was left out or read in another way than written.
        threshold: confidence below which a detector's box counts as none.
    """

    task: str
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    unlabelled: tuple[Path, ...]
    pictures: tuple[Picture, ...] = ()
    unlabelled_pictures: tuple[Picture, ...] = ()
    remarks: tuple[str, ...] = ()
    threshold: float = CONFIDENCE

    def views(self, framing: Framing) -> list[View]:
        """The part of each labelled image that a model of this framing gets."""
        return self._views(self.files, self.pictures, framing)

    def unlabelled_views(self, framing: Framing) -> list[View]:
        """The same of each unlabelled image."""
        return self._views(self.unlabelled, self.unlabelled_pictures, framing)

    def _views(self, files: Sequence[Path], pictures: Sequence[Picture], framing: Framing) -> list[View]:
        pairs = zip_longest(files, pictures)
        boxed = (None if picture is None else box_of(picture, framing, self.threshold) for _, picture in pairs)
        return [View(file, box) for file, box in zip(files, boxed, strict=True)]


def labelled_files(
    path: Path | str,
    classes: Sequence[str],
    task: str | None = None,
    *,
    test: bool = False,
    boxes: Path | None = None,
    columns: Mapping[str, str] | None = None,
    more: Sequence[Path] = (),
) -> LabelledFiles:
    """Find labelled images.

    A folder holds one subfolder a class, named as the class in any spelling; images in ``_unlabelled`` have no label. A
    CSV table has columns ``path, label, task[, split]`` as for a suite of tasks; rows whose split is ``train``,
    ``validation``, ``unlabelled`` or left open are read.

    Args:
        task: of a table; may be left out where the table has one.
        test: read the rows whose split is ``test``, too.
        boxes: a detector's file on the images; its own threshold counts where it states one.
        columns: names of a table's columns in the place of the usual ones.
        more: further unlabelled images of the task.

    Raises:
        DataError: there are no images, the class of a folder or every class of a table is unknown, or the table is at
            fault; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist. Give a folder with one subfolder a class, or a CSV table.")
    reader = find_reader(path)
    is_folder = isinstance(reader, FolderReader)
    if is_folder:
        found = _of_folder(path, task, classes)
    else:
        found = _of_table(on_disk(below_cameras(read_pictures(path, columns))), task, classes, test)
    found = replace(found, unlabelled=(*found.unlabelled, *more))
    if not found.files:
        known = reader.known_files(path) if isinstance(reader, FolderReader) else []
        raise DataError(
            f"{path} holds no labelled images ({', '.join(IMAGE_SUFFIXES)}). "
            + (
                f"Name one of its files instead: {', '.join(known)}."
                if known
                else "Put images into one subfolder a class, or list them in a CSV table with the columns path, label, "
                "task."
            )
        )
    unknown = Counter(label for label in found.labels if label not in classes)
    if unknown and (is_folder or len(unknown) == len(set(found.labels))):
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
    return replace(
        found,
        files=tuple(found.files[number] for number in kept),
        labels=tuple(found.labels[number] for number in kept),
        pictures=tuple(found.pictures[number] for number in kept),
        remarks=(*found.remarks, remark),
    )


def _with_boxes(found: LabelledFiles, boxes: Path) -> LabelledFiles:
    """The labelled images with a detector's boxes; raises :class:`DataError` where the file has none of them."""
    pairs = zip_longest((*found.files, *found.unlabelled), (*found.pictures, *found.unlabelled_pictures))
    images = [(file.resolve().as_posix(), entry or Picture("", 1, found.task)) for file, entry in pairs]
    placed = {path: replace(entry, path=path) for path, entry in images}
    own = PictureTable(boxes, "images", boxes.resolve().parent, tuple(placed.values()))
    joined = join([own, read_pictures(boxes)])
    known = {picture.path: picture.boxes for picture in joined.pictures}
    detected = tuple(replace(entry, boxes=known.get(path, entry.boxes)) for path, entry in images)
    count, threshold = len(found.files), joined.threshold
    found = replace(found, pictures=detected[:count], unlabelled_pictures=detected[count:])
    return found if threshold is None else replace(found, threshold=threshold)


def _of_folder(folder: Path, task: str | None, classes: Sequence[str]) -> LabelledFiles:
    name, remarks = task or folder.resolve().name, Remarks()
    files: list[tuple[str, Path]] = []
    unlabelled: list[Path] = []
    below = {file: (name, *file.split("/")[:-1]) for file in sorted(pictures_below(folder, remarks))}
    levels = levels_of(below.values())
    for file, folders in below.items():
        found = levels[folders]
        kind = found.species
        special = (word for word in (*found.between, kind) if word.lower() in FOLDER_SPLITS)
        split = FOLDER_SPLITS.get(next(special, "").lower())
        if not kind and split is None:
            remarks.add("Pictures in no folder of a class are left out", file)
        elif split == "unlabelled":
            unlabelled.append(folder / file)
        elif split is None:
            files.append((kind, folder / file))
    labels = joined_labels((kind for kind, _ in files), known=classes)
    named = tuple(labels.canonical[kind] for kind, _ in files)
    pictures = [Picture(str(file), number, name, (kind,)) for number, (kind, file) in enumerate(files, 1)]
    notes = (*remarks.sentences(), *labels.remarks)
    return LabelledFiles(
        name, tuple(file for _, file in files), named, tuple(unlabelled), tuple(pictures), remarks=notes
    )


def _of_table(table: PictureTable, task: str | None, classes: Sequence[str], test: bool) -> LabelledFiles:
    path = table.source
    by_camera = pictures_by_camera(table)
    labels = joined_labels((label for picture in table.pictures for label in picture.labels), table.blanks, classes)
    if task is None and len(by_camera) > 1:
        raise DataError(f"{path} has {len(by_camera)} tasks, {', '.join(list(by_camera)[:3])}, …; name one of them.")
    safe = task_names(by_camera)
    named = (camera for camera in by_camera if task is None or same_name(camera, task) or safe[camera] == task)
    name = next(named, None)
    if name is None:
        raise DataError(f"{path} has no task {task!r}; its tasks are {', '.join(by_camera)}.")
    threshold = CONFIDENCE if table.threshold is None else table.threshold
    cropping = Cropping(labels, threshold=threshold)
    placed = sorted(place(name, by_camera[name], cropping, {}).pictures, key=lambda entry: entry.picture.line)
    # Where the user left the split open one was drawn; rows with a label count as labelled nevertheless.
    read = ("train", "validation", "test") if test else ("train", "validation")
    labelled = [entry for entry in placed if entry.drawn or entry.split in read]
    unlabelled = [entry for entry in placed if entry.split == "unlabelled"]
    return LabelledFiles(
        name,
        tuple(table.root / entry.path for entry in labelled),
        tuple(entry.label for entry in labelled),
        tuple(table.root / entry.path for entry in unlabelled),
        tuple(entry.picture for entry in labelled),
        tuple(entry.picture for entry in unlabelled),
        labels.remarks,
        threshold,
    )


def _silent(sentence: str) -> None:
    """No report."""


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
    backbone: Backbone, found: LabelledFiles, notify: Callable[[str], None] = _silent
) -> dict[str, Tensor] | None:
    """The batch of unlabelled images; ``None`` where there are none. Raises as :func:`labelled_features`."""
    views = found.unlabelled_views(backbone.framing)
    if not views:
        return None
    return backbone.stem(read_most(views, backbone.image_size, backbone.framing, notify)[0])


def text_features(
    backbone: Backbone, task: TextTask, more: Sequence[str] = ()
) -> tuple[TaskFeatures, dict[str, Tensor] | None]:
    """Labelled texts as those of :func:`labelled_features`, without stated test texts; and the batch of all others.

    Args:
        backbone: the frozen model.
        task: of which each text counts once.
        more: further unlabelled texts of the task.

    Raises:
        DataError: no text has a label.
    """
    labels = {text: target for text, target in task.labels.items() if text not in task.tested}
    if not labels:
        raise DataError(f"Task {task.title!r} has no labelled texts outside of its test split. Label at least one.")
    given = {**backbone.stem(list(labels)), TARGETS: backbone.objective.targets(list(labels.values()))}
    unlabelled = list(dict.fromkeys([*task.unlabelled, *more]))
    return TaskFeatures.of_few(task.name, given), backbone.stem(unlabelled) if unlabelled else None
