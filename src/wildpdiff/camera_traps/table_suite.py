"""Suites of cameras from tables, folders and camera-trap formats: one task a camera."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from wildpdiff.camera_traps.backgrounds import backgrounds_of
from wildpdiff.camera_traps.cameras import Camera, cameras_of, pictures_by_camera
from wildpdiff.camera_traps.crops import CONFIDENCE, Cropping, box_of, framing_for
from wildpdiff.camera_traps.joining import read_joined
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.picture_files import BROKEN, Unreadable, fault_words, look_at_all
from wildpdiff.camera_traps.placement import NO_LABELS, PictureSplit, PlacedPicture
from wildpdiff.camera_traps.records import PictureTable
from wildpdiff.camera_traps.sequences import bursts
from wildpdiff.camera_traps.site_metadata import site_metadata
from wildpdiff.camera_traps.splits import share_of
from wildpdiff.camera_traps.suite_options import TableOptions
from wildpdiff.camera_traps.task_names import same_name
from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Description, Images, MetadataValue
from wildpdiff.tasks.framing import Fractions, Framing, View
from wildpdiff.tasks.image_files import read_views
from wildpdiff.tasks.picture_cache import PictureCache
from wildpdiff.tasks.task import SPLITS, Group, LabelledImages, SplitName

VERSION = 2
"""Raised when the same table would give other data than before: splits, cropping, examples."""

MAX_EXAMPLES = 32
"""Training pictures that are a description's examples, where there are no unlabelled ones."""

MAX_UNLABELLED = 64
"""Unlabelled pictures that are a description's examples."""


class TableTask:
    """One camera of a suite.

    Attributes:
        name: safe in file names.
        title: the camera's own name, as written.
        group: None for a camera that is in no group, since nothing can be learned from it or measured on it.
        fault: why no adapter can be fine-tuned on it, as the end of a sentence; empty where one can.
        untuned: whether it is unseen and has test pictures all the same.
        placement: its pictures.
        metadata: its values by column.
    """

    def __init__(self, camera: Camera, metadata: Mapping[str, MetadataValue], suite: TableSuite) -> None:
        self.name, self.title, self.group, self.fault = camera.name, camera.title, camera.group, camera.fault
        self.placement, self.metadata, self._suite = camera.placement, metadata, suite
        self.untuned = camera.untuned
        self._kept: dict[SplitName, LabelledImages] = {}

    def rows(self, split: PictureSplit) -> tuple[PlacedPicture, ...]:
        """The pictures of one split, ``unlabelled`` and ``background`` included."""
        return self.placement.of(split)

    @cached_property
    def examples(self) -> tuple[PlacedPicture, ...]:
        """The pictures that are the description's examples: unlabelled ones, else training pictures without labels.

        They are the first by the hash of their path, so that no other picture changes which ones they are.
        """
        unlabelled = [entry for entry in self.rows("unlabelled") if not self._suite.cropping.is_blank(entry.picture)]
        if unlabelled:
            return _first(unlabelled, MAX_UNLABELLED)
        return _first(next(filter(None, map(self.rows, SPLITS)), ()), MAX_EXAMPLES)

    @cached_property
    def backgrounds(self) -> tuple[PlacedPicture, ...]:
        """The pictures that are the description's backgrounds: see :func:`backgrounds_of`."""
        return backgrounds_of(self.placement.pictures, self._suite.cropping.is_blank)

    @cached_property
    def description(self) -> Description:
        """Metadata, background images, unlabelled example images; a task identity for seen tasks only."""
        return Description(
            metadata=dict(self.metadata) or None,
            backgrounds=self._images(self.backgrounds),
            examples=self._images(self.examples),
            task_id=self.name if self.group == "seen" else None,
        )

    def data(self, split: SplitName) -> LabelledImages:
        """The labelled images of one split, without those that cannot be decoded.

        Raises:
            DataError: too many of the suite's pictures are damaged.
        """
        if split in self._kept:
            return self._kept[split]
        index = {label: position for position, label in enumerate(self._suite.classes)}
        rows = [row for row in self.rows(split) if row.label in index]
        images, whole = self._suite.read(rows)
        labels = [index[row.label] for row, read in zip(rows, whole, strict=True) if read]
        data = LabelledImages(images, np.array(labels, dtype=np.int64))
        if self._suite.options.keep:
            self._kept[split] = data
        return data

    def bursts(self, split: SplitName) -> tuple[str, ...]:
        """Name of the burst of each picture of :meth:`data`."""
        rows = self._read_rows(split)
        found = [""] * len(rows)
        for burst in bursts([row.picture for row in rows]):
            for member in burst.members:
                found[member] = burst.name
        return tuple(found)

    def crops(self, split: SplitName) -> LabelledImages | None:
        """The images of :meth:`data` as crops of the largest animal; None without boxes, or where they are so."""
        rows = self._read_rows(split)
        if self._suite.framing in ("box", "boxes") or all(row.picture.boxes is None for row in rows):
            return None
        views = [
            View(self._suite.root / row.path, box_of(row.picture, "box", self._suite.cropping.threshold))
            for row in rows
        ]
        return LabelledImages(read_views(views, self._suite.image_size, "box"), self.data(split).labels)

    def _read_rows(self, split: SplitName) -> list[PlacedPicture]:
        """The rows of the pictures of :meth:`data`."""
        self.data(split)  # finds the pictures that are damaged
        known, faults = set(self._suite.classes), self._suite.unreadable.faults
        return [row for row in self.rows(split) if row.label in known and row.path not in faults]

    def _images(self, rows: Sequence[PlacedPicture]) -> Images | None:
        images, _ = self._suite.read(rows)
        return images if len(images) else None


def _first(rows: Iterable[PlacedPicture], most: int) -> tuple[PlacedPicture, ...]:
    return tuple(sorted(rows, key=lambda row: (share_of(row.path), row.path))[:most])


class TableSuite:
    """Cameras as tasks, from tables, folders and camera-trap formats.

    Args:
        table: the pictures.
        options: of the suite.
        damaged: paths of pictures that are known to be so.

    Attributes:
        name: of the first file or folder.
        table: the pictures as read and joined.
        options: of the suite.
        root: folder of the images.
        files: of the pictures, by path.
        image_size: height and width of the images in pixels.
        framing: the part of a picture that is read.
        labels: one spelling for each label.
        cropping: the examples in a picture.
        cache: of decoded pictures.
        classes: the class names; a label is an index into them.
        metadata_schema: one field for each column that has any value at the cameras that are learned from.
        unreadable: pictures that are left out.
        left_out: remarks on pictures that are left out, because of their files or of the classes.
        remarks: these, and one sentence each on what else is left out, joined, or read in another way than written.
        notify: called with a sentence on each picture that turns out to be damaged when it is read.
    """

    def __init__(self, table: PictureTable, options: TableOptions, damaged: Collection[str] = ()) -> None:
        self.name = table.source.stem if table.source.is_file() else table.source.resolve().name
        self.table, self.options, self.image_size = table, options, options.image_size
        self.root = table.root if options.root is None else Path(options.root)
        by_camera = pictures_by_camera(table)
        if not by_camera:
            reasons = " ".join(table.remarks)
            raise DataError(f"{table.source} names no picture that can be used, and no camera. {reasons}".rstrip())
        written = (label for picture in table.pictures for label in picture.labels)
        self.labels = joined_labels(written, table.blanks, options.classes or ())
        self.files = look_at_all(self.root, (picture.path for picture in table.pictures))
        self.files |= {path: replace(self.files[path], fault=BROKEN) for path in damaged}
        self.unreadable = Unreadable(len(self.files), table.source, options.unreadable)
        self.unreadable.add({path: file.fault for path, file in self.files.items() if file.fault}, self.root)
        threshold = CONFIDENCE if table.threshold is None else table.threshold
        self.framing: Framing = options.framing or framing_for(table.pictures, threshold)
        self.cropping = Cropping(self.labels, self.framing, threshold)
        self.cache = PictureCache.of_user()
        found = cameras_of(table, by_camera, self.cropping, files=self.files, options=options)
        self.classes = found.classes
        learned = {camera.title for camera in found.cameras if camera.group == "seen"}
        metadata = site_metadata(table, by_camera, learned, options.ignore)
        self.metadata_schema = metadata.schema
        self.all_tasks = tuple(TableTask(camera, metadata.values[camera.title], self) for camera in found.cameras)
        self.left_out = (*self.unreadable.remarks, *found.strangers)
        parts = (table.remarks, self.left_out, self.labels.remarks, found.remarks, metadata.remarks)
        self.remarks = tuple(chain.from_iterable(parts))
        self.notify: Callable[[str], None] = lambda sentence: None

    @classmethod
    def of(cls, *inputs: Path | str, **options: Any) -> TableSuite:
        """The cameras of files and folders of any known format, joined where there are several.

        A table has one row per picture: columns ``path, label, task[, split][, group][, …]``. ``split`` is ``train``,
        ``validation``, ``test``, ``unlabelled`` (an example of the description; its label is not read) or
        ``background`` (an image of the empty site). Bursts without one are split 60 : 15 : 25 within their camera by
        their hash. ``group`` is ``pretraining``, ``seen`` or ``unseen``. Columns that have one value at each camera
        are its metadata: a number where nearly all values are numbers, else a category; ``latitude`` and ``longitude``
        are known by name.

        Args:
            *inputs: labels from one, boxes from another, metadata from a third.
            **options: those of :class:`TableOptions`.

        Raises:
            DataError: an input is at fault, or too many pictures cannot be read; the message names it.
        """
        chosen = TableOptions(**options)
        root = None if chosen.root is None else Path(chosen.root)
        return cls(read_joined([Path(entry) for entry in inputs], chosen.columns, root), chosen)

    @classmethod
    def from_csv(cls, path: Path | str, **options: Any) -> TableSuite:
        """:meth:`of` a table."""
        return cls.of(path, **options)

    @classmethod
    def from_folder(cls, folder: Path | str, **options: Any) -> TableSuite:
        """:meth:`of` folders ``TASK/CLASS/IMAGE``, ``TASK/_unlabelled/IMAGE`` and ``TASK/_background/IMAGE``."""
        return cls.of(folder, **options)

    @property
    def described(self) -> tuple[TableTask, ...]:
        """The cameras of no group: nothing is learned from them or measured on them, but they can get an adapter."""
        return tuple(task for task in self.all_tasks if task.group is None)

    @property
    def untuned(self) -> tuple[TableTask, ...]:
        """Unseen cameras with test pictures and too few others: adapters are scored on them, none is fine-tuned."""
        return tuple(task for task in self.all_tasks if task.untuned)

    def tasks(self, group: Group) -> tuple[TableTask, ...]:
        """The tasks of one group, in the order of the cameras' names."""
        return tuple(task for task in self.all_tasks if task.group == group)

    def why_none(self, group: Group) -> str:
        """Sentences on why a group has no tasks."""
        faults = {task.title: task.fault for task in self.all_tasks if task.fault}
        if group == "seen" or len(faults) == len(self.all_tasks):
            unlabelled = set(faults.values()) == {NO_LABELS}
            advice = "Name their column, --columns label=COLUMN, or join a file with labels." if unlabelled else ""
            fault = f"None of its {len(self.all_tasks)} cameras can teach: {fault_words(faults)}."
            return f"{fault} {advice or 'Label more pictures.'}"
        if self.untuned:
            words = fault_words({task.title: task.fault for task in self.untuned})
            return f"No adapter can be fine-tuned on its unseen cameras: {words}. Evaluate without --reference."
        return "Name some in a column group, or draw some with -o unseen=0.2."

    def find(self, name: str) -> TableTask | None:
        """The task of a camera by the user's name of it or the safe one; None where there is none."""
        titled = (task for task in self.all_tasks if same_name(task.title, name))
        named = (task for task in self.all_tasks if task.name == name)
        return next(chain(titled, named), None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that is learned from: settings, classes, and the seen cameras without their test pictures."""
        return self.learned_fingerprint("seen")

    def learned_fingerprint(self, group: Group) -> str:
        """The :attr:`fingerprint` of another group's cameras."""
        return self._hash(self.tasks(group), ("train", "validation"))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of all cameras and all their pictures."""
        return self._hash(self.all_tasks, ("train", "validation", "test"))

    def _hash(self, tasks: Iterable[TableTask], splits: Sequence[SplitName]) -> str:
        content = {
            "version": VERSION,
            "image_size": self.image_size,
            "framing": self.framing,
            "classes": self.classes,
            "schema": self.metadata_schema.to_json(),
            "tasks": {
                task.name: [
                    task.group,
                    dict(task.metadata),
                    *([self._entry(row) for row in task.rows(split)] for split in splits),
                    *([self._entry(row) for row in rows] for rows in (task.examples, task.backgrounds)),
                ]
                for task in tasks
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _entry(self, row: PlacedPicture) -> tuple[str, str, int, Fractions | None]:
        return row.path, row.label, self.files[row.path].size, row.box

    def read(self, rows: Sequence[PlacedPicture]) -> tuple[Images, list[bool]]:
        """The pictures of some rows, and of each whether it could be read.

        Raises:
            DataError: too many of the suite's pictures cannot.
        """
        faulty: set[int] = set()

        def skipped(number: int, fault: DataError) -> None:
            faulty.add(number)
            path = rows[number].path
            if path not in self.unreadable.faults:
                self.notify(f"Left out: {fault}")
                self.unreadable.add({path: BROKEN}, self.root)

        views = [self.view(row.path, row.box) for row in rows]
        images = read_views(views, self.image_size, self.framing, cache=self.cache, skipped=skipped)
        return images, [number not in faulty for number in range(len(rows))]

    def view(self, path: str, box: Fractions | None = None) -> View:
        """A picture's file, and the box in it."""
        return View(self.root / path, box)
