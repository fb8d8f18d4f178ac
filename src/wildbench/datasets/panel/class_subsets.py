"""Binary tasks on CIFAR-10: some of ten classes are positive, described by ten numbers (RPG, Wang et al. 2025)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wildbench.datasets.panel.suite import PanelSuite, PanelTask, Pool, draw, partition, read_arrays
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.task import Group, LabelledImages, SplitName

VERSION = 2
SIZE = 32
FILE = "cifar10_subset.npz"
BITS = 10
ALL = (1 << BITS) - 1
PRETRAINING_POSITIVE = ("airplane", "automobile", "ship", "truck")
"""Vehicles: the one binary task that the pretrained classifier solves."""
POOLS = (0.6, 0.28, 0.12)
"""Shares of the training file for pretraining, training and validation: tasks have images in common, but none validates
on what another trains on, so that a task that is held out can be scored."""


@dataclass(frozen=True)
class ClassSubsetsConfig:
    """Size of the suite.

    Attributes:
        seed: chooses vectors and images.
        strict: no seen vector is the complement or a one-bit neighbour of an unseen one.
        seen, unseen: numbers of vectors.
        train, validation, test: images per task, half of them of positive classes.
    """

    seed: int = 0
    strict: bool = False
    seen: int = 120
    unseen: int = 40
    train: int = 200
    validation: int = 60
    test: int = 240


@dataclass(frozen=True)
class _Source:
    """Images in pools by use and class."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: list[str]
    pools: dict[str, Pool]


def class_subsets(path: Path | str, config: ClassSubsetsConfig = ClassSubsetsConfig()) -> PanelSuite:
    """The suite. Tasks train on a third of the training file and are tested on the test file; the rest pretrains.

    Args:
        path: ``.npz`` with ``train_images`` uint8 ``[n, 32, 32, 3]``, ``train_labels``, ``test_images``,
            ``test_labels`` and ten ``classes``.
        config: sizes, and which split.

    Raises:
        DataError: the file cannot be read or has too few images, or there are too few vectors.
    """
    source = _read(path, config.seed)
    names = source.names
    vehicles = sum(1 << names.index(name) for name in PRETRAINING_POSITIVE if name in names)
    seen, unseen = draw_vectors(config)
    groups: list[tuple[Group, int]] = [("pretraining", vehicles)]
    groups += [("seen", vector) for vector in seen] + [("unseen", vector) for vector in unseen]
    tasks = []
    for group, vector in groups:
        name = f"{group}-{vector:010b}"
        metadata = {label: float(vector >> bit & 1) for bit, label in enumerate(names)}
        make = partial(_data, config=config, source=source, name=name, vector=vector, group=group)
        tasks.append(PanelTask(name, group, partial(Description, metadata), make))
    digest = hashlib.sha256(source.images.tobytes() + source.labels.tobytes()).hexdigest()
    content = {"version": VERSION, "config": asdict(config), "data": digest}
    schema = MetadataSchema(tuple(MetadataField(label, "number") for label in names))
    suite = "class-subsets-strict" if config.strict else "class-subsets"
    return PanelSuite(suite, ("negative", "positive"), SIZE, schema=schema, tasks=tasks, content=content)


def ten_classes(path: Path | str, config: ClassSubsetsConfig = ClassSubsetsConfig()) -> tuple[PanelTask, list[str]]:
    """The pretraining images with all ten classes as one task, and the names of the classes.

    Raises:
        DataError: as :func:`class_subsets`.
    """
    source = _read(path, config.seed)
    none = Description()
    return PanelTask("ten-classes", "pretraining", lambda: none, partial(_pretraining, source)), source.names


def _read(path: Path | str, seed: int) -> _Source:
    keys = ("train_images", "train_labels", "test_images", "test_labels", "classes")
    arrays = read_arrays(path, keys)
    names = [str(name) for name in arrays["classes"]]
    if len(names) != BITS:
        raise DataError(f"{path} has {len(names)} classes; {BITS} are needed.")
    first = len(arrays["train_labels"])
    parts = partition(np.arange(first), POOLS, numpy_generator(seed, "class subsets", "pools"))
    return _Source(
        np.concatenate([arrays["train_images"], arrays["test_images"]]),
        np.concatenate([arrays["train_labels"], arrays["test_labels"]]).astype(np.int64),
        names,
        {
            "pretraining": parts[0],
            "train": parts[1],
            "validation": parts[2],
            "test": np.arange(first, first + len(arrays["test_labels"])),
        },
    )


def draw_vectors(config: ClassSubsetsConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Seen and unseen vectors as bit patterns, neither empty nor full, all different.

    Raises:
        DataError: too few vectors are left for the seen tasks.
    """
    order = [int(value) for value in numpy_generator(config.seed, "class subsets", "vectors").permutation(ALL + 1)]
    usable = [vector for vector in order if vector not in (0, ALL)]
    unseen = tuple(usable[: config.unseen])
    barred = set(unseen)
    if config.strict:
        barred |= {ALL ^ vector for vector in unseen}
        barred |= {vector ^ (1 << bit) for vector in unseen for bit in range(BITS)}
    left = [vector for vector in usable if vector not in barred]
    if len(left) < config.seen:
        raise DataError(
            f"{len(left)} vectors are left for {config.seen} seen tasks next to {config.unseen} unseen ones. "
            "Request fewer."
        )
    return tuple(left[: config.seen]), unseen


def _data(
    split: SplitName, *, config: ClassSubsetsConfig, source: _Source, name: str, vector: int, group: Group
) -> LabelledImages:
    """Half of the images of positive classes; the splits of all tasks together share no image."""
    positive = (vector >> source.labels) & 1
    if group == "pretraining":
        data = _pretraining(source, split)
        return LabelledImages(data.images, (vector >> data.labels) & 1)
    rng = numpy_generator(config.seed, "class subsets", name, split)
    pool = source.pools[split]
    count = {"train": config.train, "validation": config.validation, "test": config.test}[split]
    halves = []
    for value, number in ((0, count // 2), (1, count - count // 2)):
        halves.append(draw(pool[positive[pool] == value], number, rng, f"{split} of {name}"))
    chosen = rng.permutation(np.concatenate(halves))
    return LabelledImages(source.images[chosen], positive[chosen])


def _pretraining(source: _Source, split: SplitName) -> LabelledImages:
    """Images of the pretraining pool with their ten classes."""
    train, validation = np.split(source.pools["pretraining"], [int(0.9 * len(source.pools["pretraining"]))])
    chosen = {"train": train, "validation": validation, "test": source.pools["test"]}[split]
    return LabelledImages(source.images[chosen], source.labels[chosen])
