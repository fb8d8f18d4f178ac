"""Chest X-rays as different scanners would take them: contrast, blur, noise, field of view and prevalence differ."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from wildbench.datasets.panel.suite import PanelSuite, PanelTask, Pool, draw, partition, read_arrays
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, Images, MetadataField, MetadataSchema, MetadataValue
from wildpdiff.tasks.task import Group, LabelledImages, SplitName

VERSION = 1
SIZE = 32
FILE = "pneumoniamnist.npz"
SCHEMA = MetadataSchema(
    (
        MetadataField("blur", "number", "pixels"),
        MetadataField("noise", "number", "of 255"),
        MetadataField("field_of_view", "number"),
        MetadataField("film", "category", categories=("positive", "negative")),
    )
)
POOLS = (0.45, 0.55)
"""Shares of the published training and validation images for pretraining and for the tasks."""


@dataclass(frozen=True)
class ScannersConfig:
    """Size of the suite.

    Attributes:
        seed: chooses scanners and images.
        seen, unseen, pretraining: numbers of scanners; those of pretraining are near the standard one.
        train, validation, test: images per seen and unseen scanner.
        pretraining_images: training images per pretraining scanner.
        examples: unlabelled training images per description.
    """

    seed: int = 0
    seen: int = 48
    unseen: int = 16
    pretraining: int = 8
    train: int = 120
    validation: int = 40
    test: int = 160
    pretraining_images: int = 280
    examples: int = 16


@dataclass(frozen=True)
class Scanner:
    """Effect of a scanner on an image, and the share of its patients who are ill.

    Attributes:
        gamma: exponent of the intensity, 1 for none; shown by images alone.
        contrast: factor around the middle intensity; shown by images alone.
        blur: standard deviation of the blur in pixels.
        noise: standard deviation of the noise, of 255.
        field_of_view: side of the frame against the standard one; below 1 cuts borders off.
        film: ``negative`` where dark and bright are exchanged.
        prevalence: share of images with pneumonia; shown by images alone.
    """

    gamma: float
    contrast: float
    blur: float
    noise: float
    field_of_view: float
    film: str
    prevalence: float


@dataclass(frozen=True)
class _Xrays:
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    pools: dict[str, Pool]


def scanners(path: Path | str, config: ScannersConfig = ScannersConfig()) -> PanelSuite:
    """The suite. Tests use the published test images; pretraining and tasks use disjoint parts of the others.

    Args:
        path: ``.npz`` with ``{train,val,test}_images`` uint8 ``[n, 28, 28]`` and ``{train,val,test}_labels``.
        config: sizes.

    Raises:
        DataError: the file cannot be read or has too few images of a class.
    """
    names = [f"{split}_{kind}" for kind in ("images", "labels") for split in ("train", "val", "test")]
    arrays = read_arrays(path, names)
    images = np.concatenate([arrays[name] for name in names[:3]])
    labels = np.concatenate([arrays[name].ravel() for name in names[3:]]).astype(np.int64)
    first = len(labels) - len(arrays["test_labels"])
    pools = _pools(labels, first, config.seed)
    xrays = _Xrays(images, labels, pools)
    sizes: dict[Group, int] = {"pretraining": config.pretraining, "seen": config.seen, "unseen": config.unseen}
    groups = [group for group, number in sizes.items() for _ in range(number)]
    counts: dict[Group, int] = {"pretraining": 0, "seen": 0, "unseen": 0}
    tasks = []
    for group in groups:
        name = f"{group}-{counts[group]:03d}"
        counts[group] += 1
        scanner = draw_scanner(config.seed, name, group)
        make = partial(_data, config=config, xrays=xrays, name=name, group=group, scanner=scanner)
        tasks.append(PanelTask(name, group, partial(_describe, config, scanner, make), make))
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    content = {"version": VERSION, "config": asdict(config), "data": digest}
    return PanelSuite("scanners", ("normal", "pneumonia"), SIZE, schema=SCHEMA, tasks=tasks, content=content)


def _pools(labels: npt.NDArray[np.generic], first: int, seed: int) -> dict[str, Pool]:
    """Indices by use, classes in equal shares; those from ``first`` on are test images."""
    found: dict[str, list[Pool]] = {"pretraining": [], "train": []}
    for label in (0, 1):
        rng = numpy_generator(seed, "scanners", "pools", label)
        parts = partition(np.flatnonzero(labels[:first] == label), POOLS, rng)
        for name, part in zip(found, parts, strict=True):
            found[name].append(part)
    pools = {name: np.concatenate(parts) for name, parts in found.items()}
    return {**pools, "test": np.arange(first, len(labels))}


def draw_scanner(seed: int, name: str, group: Group) -> Scanner:
    """One scanner; those of pretraining differ little from each other and have no negative film."""
    rng = numpy_generator(seed, "scanners", name, "parameters")
    spread = 0.2 if group == "pretraining" else 1.0
    gamma, contrast, blur, noise, view, film, ill = rng.uniform(0, 1, 7)
    return Scanner(
        gamma=round(float(np.exp(spread * (2 * gamma - 1) * np.log(2.2))), 3),
        contrast=round(float(np.exp(spread * (2 * contrast - 1) * np.log(2.0))), 3),
        blur=round(float(spread * 1.4 * blur), 3),
        noise=round(float(4 + spread * 26 * noise), 2),
        field_of_view=round(float(1 + spread * (view - 0.5) * 0.7), 3),
        film="negative" if group != "pretraining" and film < 1 / 3 else "positive",
        prevalence=0.5 if group == "pretraining" else round(float(0.25 + 0.5 * ill), 3),
    )


def _describe(config: ScannersConfig, scanner: Scanner, make: partial[LabelledImages]) -> Description:
    metadata: dict[str, MetadataValue] = {
        "blur": scanner.blur,
        "noise": scanner.noise,
        "field_of_view": scanner.field_of_view,
        "film": scanner.film,
    }
    return Description(metadata=metadata, examples=make("train").images[: config.examples])


def _data(
    split: SplitName, *, config: ScannersConfig, xrays: _Xrays, name: str, group: Group, scanner: Scanner
) -> LabelledImages:
    rng = numpy_generator(config.seed, "scanners", name, "test" if split == "test" else "training")
    train = config.pretraining_images if group == "pretraining" else config.train
    count = config.test if split == "test" else train + config.validation
    pool = xrays.pools["test" if split == "test" else "pretraining" if group == "pretraining" else "train"]
    ill = round(scanner.prevalence * count)
    halves = []
    for label, number in ((0, count - ill), (1, ill)):
        halves.append(draw(pool[xrays.labels[pool] == label], number, rng, f"{split} of {name}"))
    mixed = rng.permutation(np.concatenate(halves))
    chosen = {"train": mixed[:train], "validation": mixed[train:], "test": mixed}[split]
    noise = numpy_generator(config.seed, "scanners", name, split, "noise")
    frames = [_frame(xrays.images[index], scanner) for index in chosen]
    grey = np.array(frames, dtype=np.float64).reshape(-1, SIZE, SIZE)
    grey += noise.normal(0.0, scanner.noise, grey.shape)
    images: Images = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=3)
    return LabelledImages(images, xrays.labels[chosen])


def _frame(image: npt.NDArray[np.uint8], scanner: Scanner) -> npt.NDArray[np.float64]:
    """One X-ray as the scanner shows it, before noise: ``float64 [32, 32]`` in 0 to 255."""
    side = image.shape[0]
    if image.ndim != 2 or image.shape[1] != side:
        raise DataError(f"An X-ray has shape {image.shape}; square grey images are needed.")
    border = (1 - scanner.field_of_view) / 2 * side
    box = (border, border, side - border, side - border)
    if border < 0:
        padding = int(np.ceil(-border))
        image = np.pad(image, padding, mode="edge")
        box = tuple(value + padding for value in box)
    picture = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    if scanner.blur > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(scanner.blur))
    value = (np.asarray(picture, dtype=np.float64) / 255) ** scanner.gamma
    value = np.clip(0.5 + scanner.contrast * (value - 0.5), 0, 1)
    return 255 * (1 - value if scanner.film == "negative" else value)
