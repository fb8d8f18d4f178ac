"""Handwritten digits by writer (QMNIST, Yadav & Bottou 2019): a task is a writer, described by unlabelled digits."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wildbench.datasets.panel.suite import PanelSuite, PanelTask, Pool, read_arrays
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, Images, MetadataSchema
from wildpdiff.tasks.task import Group, LabelledImages, SplitName

VERSION = 1
SIZE = 32
FILE = "qmnist_writers.npz"


@dataclass(frozen=True)
class HandwritingConfig:
    """Size of the suite.

    Attributes:
        seed: chooses writers and the split of their digits.
        seen, unseen, pretraining: numbers of writers.
        train, validation: digits per seen and unseen writer; all others of the writer are test images.
        examples: unlabelled training digits per description.
    """

    seed: int = 0
    seen: int = 100
    unseen: int = 60
    pretraining: int = 80
    train: int = 40
    validation: int = 10
    examples: int = 32


@dataclass(frozen=True)
class _Writers:
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    rows: dict[int, Pool]


def handwriting(path: Path | str, config: HandwritingConfig = HandwritingConfig()) -> PanelSuite:
    """The suite. Every digit belongs to one writer, so tasks share no image.

    Args:
        path: ``.npz`` with ``images`` uint8 ``[n, 28, 28]``, ``labels`` and ``writers``, both ``[n]``.
        config: sizes.

    Raises:
        DataError: the file cannot be read, or has too few writers or digits of a writer.
    """
    arrays = read_arrays(path, ("images", "labels", "writers"))
    images, labels, owners = arrays["images"], arrays["labels"].astype(np.int64), arrays["writers"]
    names = np.unique(owners)
    wanted = config.seen + config.unseen + config.pretraining
    if wanted > len(names):
        raise DataError(f"{path} has {len(names)} writers; {wanted} are requested. Request fewer.")
    order = numpy_generator(config.seed, "handwriting", "writers").permutation(names)[:wanted]
    writers = _Writers(images, labels, {int(name): np.flatnonzero(owners == name) for name in order})
    sizes: dict[Group, int] = {"pretraining": config.pretraining, "seen": config.seen, "unseen": config.unseen}
    groups = [group for group, number in sizes.items() for _ in range(number)]
    tasks = []
    for writer, group in zip(order, groups, strict=True):
        made = partial(_data, config, writers, int(writer))
        tasks.append(PanelTask(f"writer-{int(writer):04d}", group, partial(_describe, config, made), made))
    content = {"version": VERSION, "config": asdict(config), "data": _hash(images, labels, owners)}
    return PanelSuite(
        "handwriting", [str(digit) for digit in range(10)], SIZE, schema=MetadataSchema(), tasks=tasks, content=content
    )


def _hash(*arrays: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _describe(config: HandwritingConfig, made: partial[LabelledImages]) -> Description:
    return Description(examples=made("train").images[: config.examples])


def _data(config: HandwritingConfig, writers: _Writers, writer: int, split: SplitName) -> LabelledImages:
    rows = numpy_generator(config.seed, "handwriting", writer).permutation(writers.rows[writer])
    ends = (config.train, config.train + config.validation)
    if len(rows) <= ends[1]:
        raise DataError(f"Writer {writer} has {len(rows)} digits; more than {ends[1]} are needed. Request fewer.")
    chosen = {"train": rows[: ends[0]], "validation": rows[ends[0] : ends[1]], "test": rows[ends[1] :]}[split]
    border = (SIZE - writers.images.shape[1]) // 2
    grey = np.pad(writers.images[chosen], ((0, 0), (border, border), (border, border)))
    images: Images = np.repeat(grey[..., None], 3, axis=3)
    return LabelledImages(images, writers.labels[chosen])
