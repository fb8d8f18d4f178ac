"""Tasks of one model each, and suites of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from wildpdiff.tasks.description import Description, Images, MetadataSchema

Labels = npt.NDArray[np.int64]
SplitName = Literal["train", "validation", "test"]
Group = Literal["pretraining", "seen", "unseen"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
GROUPS: tuple[Group, ...] = ("pretraining", "seen", "unseen")


@runtime_checkable
class Examples(Protocol):
    """Examples of one task with their targets."""

    @property
    def inputs(self) -> Any:
        """As the backbone's collation takes them: an array, a list, or named arrays."""

    @property
    def targets(self) -> Any:
        """As the objective takes them; None where they follow from the inputs."""

    def __len__(self) -> int:
        """Number of examples."""


@dataclass(frozen=True)
class LabelledImages:
    """Images ``uint8 [n, h, w, 3]`` with their class indices ``int64 [n]``; they are :class:`Examples`."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> Images:
        """The images."""
        return self.images

    @property
    def targets(self) -> Labels:
        """The labels."""
        return self.labels


@runtime_checkable
class Task(Protocol):
    """One task: examples with targets in three splits, and a description without them."""

    @property
    def name(self) -> str:
        """Unique within its suite; used in file names, so letters, digits, ``-`` and ``_`` only."""

    @property
    def description(self) -> Description:
        """The task without labels."""

    def data(self, split: SplitName) -> Examples:
        """The examples of one split. The same call gives the same examples."""


@runtime_checkable
class PictureTask(Protocol):
    """A task of pictures of one camera, in addition to what every task has."""

    def bursts(self, split: SplitName) -> tuple[Hashable, ...]:
        """Name of the burst of each example of one split."""

    def crops(self, split: SplitName) -> Examples | None:
        """The examples of one split as crops of a detector; None without boxes, or where they are crops already."""


def title_of(task: Task) -> str:
    """The user's own name of a task, where it has one besides the name that is safe in file names."""
    return str(getattr(task, "title", task.name))


class ImageTask(Task, Protocol):
    """A task of image classification."""

    def data(self, split: SplitName) -> LabelledImages:
        """The labelled images of one split."""


@runtime_checkable
class Suite(Protocol):
    """Tasks of one objective: those that pretrain the backbone, those seen by the generator, and the unseen."""

    @property
    def name(self) -> str:
        """A short name, for example ``savanna``."""

    @property
    def metadata_schema(self) -> MetadataSchema:
        """The named values that the tasks' metadata may have."""

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the data that is learned from: configuration, seed and code version."""

    def tasks(self, group: Group) -> tuple[Task, ...]:
        """The tasks of one group, in a fixed order. Groups are disjoint."""


def titles_of(suite: Suite) -> dict[str, str]:
    """The user's own names of the tasks that may be scored, where they have other ones, by name."""
    tasks: tuple[Task, ...] = (*suite.tasks("seen"), *suite.tasks("unseen"), *getattr(suite, "untuned", ()))
    return {task.name: title_of(task) for task in tasks if title_of(task) != task.name}


@runtime_checkable
class GrowingSuite(Suite, Protocol):
    """A suite whose parts change apart: what is measured on may change without what was learned from."""

    @property
    def content_hash(self) -> str:
        """A hash of all data."""

    def learned_fingerprint(self, group: Group) -> str:
        """A hash of the data that adapters of one group's tasks are fine-tuned on; of seen tasks the fingerprint."""


def learned_fingerprint(suite: Suite, group: Group) -> str:
    """The fingerprint of one group's training data, where a suite has one; else that of all data."""
    return suite.learned_fingerprint(group) if isinstance(suite, GrowingSuite) else suite.fingerprint


def content_hash(suite: Suite) -> str:
    """A hash of all data of a suite."""
    return suite.content_hash if isinstance(suite, GrowingSuite) else suite.fingerprint


@runtime_checkable
class ClassSuite(Suite, Protocol):
    """Tasks of classification with one list of classes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label is an index into them."""


@runtime_checkable
class ImageSuite(ClassSuite, Protocol):
    """Tasks of image classification with one list of classes."""

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""

    def tasks(self, group: Group) -> tuple[ImageTask, ...]:
        """The tasks of one group, in a fixed order. Groups are disjoint."""
