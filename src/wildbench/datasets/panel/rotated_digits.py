"""Handwritten digits of scikit-learn seen by turned cameras, optionally with two conventions for the labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from wildbench.datasets.panel.suite import PanelSuite, PanelTask, Pool, draw, partition
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, Images, MetadataField, MetadataSchema
from wildpdiff.tasks.task import Group, LabelledImages, SplitName

VERSION = 1
SIZE = 32
SCHEMA = MetadataSchema((MetadataField("angle", "number", "degrees"), MetadataField("gain", "number")))
POOLS = (0.25, 0.47, 0.28)
"""Shares of the digits for pretraining, for training and validation, and for tests."""


@dataclass(frozen=True)
class RotatedDigitsConfig:
    """Size and kind of the suite.

    Attributes:
        seed: chooses digits, gains, noise and conventions.
        ambiguous: each task follows one of two label conventions by a coin; in the second 0 and 1 are exchanged, 2
            and 3, and so on. Neither description nor images show which.
        seen, unseen: numbers of tasks; their angles are spread evenly from -60 to 60 and from -57 to 57 degrees.
        pretraining: tasks with upright digits and gains of their own.
        train, validation, test: images per task.
        pretraining_images: training images per pretraining task.
        examples: unlabelled images per description.
        noise: standard deviation of the pixel noise, of 255.
    """

    seed: int = 0
    ambiguous: bool = False
    seen: int = 40
    unseen: int = 14
    pretraining: int = 6
    train: int = 160
    validation: int = 40
    test: int = 160
    pretraining_images: int = 380
    examples: int = 16
    noise: float = 20.0


@dataclass(frozen=True)
class _Camera:
    """A task before any image is drawn."""

    name: str
    group: Group
    angle: float
    gain: float
    exchanged: bool


@dataclass(frozen=True)
class _Digits:
    """The data set in disjoint pools."""

    images: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    pools: Mapping[str, Pool]


def rotated_digits(config: RotatedDigitsConfig = RotatedDigitsConfig()) -> PanelSuite:
    """The suite. Pretraining, training and test images come from disjoint thirds of the digits.

    Raises:
        DataError: more images are requested than a pool has.
    """
    digits = _load(config.seed)
    tasks = []
    for camera in _cameras(config):
        make = partial(_data, config, digits, camera)
        tasks.append(PanelTask(camera.name, camera.group, partial(_describe, config, camera, make), make))
    name = "rotated-digits-ambiguous" if config.ambiguous else "rotated-digits"
    content = {"version": VERSION, "config": asdict(config)}
    return PanelSuite(name, [str(digit) for digit in range(10)], SIZE, schema=SCHEMA, tasks=tasks, content=content)


def _load(seed: int) -> _Digits:
    from sklearn.datasets import load_digits

    found = load_digits()
    parts = partition(np.arange(len(found.target)), POOLS, numpy_generator(seed, "rotated digits", "pools"))
    pools = dict(zip(("pretraining", "train", "test"), parts, strict=True))
    return _Digits(found.images, found.target.astype(np.int64), pools)


def _cameras(config: RotatedDigitsConfig) -> list[_Camera]:
    angles: list[tuple[Group, float]] = [("pretraining", 0.0)] * config.pretraining
    angles += [("seen", float(angle)) for angle in np.linspace(-60, 60, config.seen)]
    angles += [("unseen", float(angle)) for angle in np.linspace(-57, 57, config.unseen)]
    counts: dict[Group, int] = {"pretraining": 0, "seen": 0, "unseen": 0}
    cameras = []
    for group, angle in angles:
        name = f"{group}-{counts[group]:03d}"
        counts[group] += 1
        gain = float(numpy_generator(config.seed, "rotated digits", name, "gain").uniform(0.4, 1.0))
        coin = bool(numpy_generator(config.seed, "rotated digits", name, "convention").random() < 0.5)
        exchanged = config.ambiguous and group != "pretraining" and coin
        cameras.append(_Camera(name, group, round(angle, 2), round(gain, 3), exchanged))
    return cameras


def _describe(config: RotatedDigitsConfig, camera: _Camera, make: Callable[[SplitName], LabelledImages]) -> Description:
    """Angle, gain and some training images without their labels."""
    examples = make("train").images[: config.examples] if config.examples else None
    return Description(metadata={"angle": camera.angle, "gain": camera.gain}, examples=examples)


def _data(config: RotatedDigitsConfig, digits: _Digits, camera: _Camera, split: SplitName) -> LabelledImages:
    rng = numpy_generator(config.seed, "rotated digits", camera.name, "test" if split == "test" else "training")
    if camera.group == "pretraining":
        pool, counts = digits.pools["pretraining"], (config.pretraining_images, config.validation, config.test)
        if config.pretraining_images + config.validation > len(pool):
            raise DataError(f"The pretraining pool has {len(pool)} digits; request fewer pretraining images.")
    else:
        pool, counts = digits.pools["train"], (config.train, config.validation, config.test)
    if split == "test":
        test_pool = digits.pools["test"]
        return _render(config, digits, camera, draw(test_pool, counts[2], rng, f"test of {camera.name}"), split=split)
    both = draw(pool, counts[0] + counts[1], rng, f"training of {camera.name}")
    chosen = both[: counts[0]] if split == "train" else both[counts[0] :]
    return _render(config, digits, camera, chosen, split=split)


def _render(
    config: RotatedDigitsConfig, digits: _Digits, camera: _Camera, chosen: Pool, *, split: SplitName
) -> LabelledImages:
    rng = numpy_generator(config.seed, "rotated digits", camera.name, split, "noise")
    turned = [_picture(digits.images[index], camera) for index in chosen]
    noise = rng.normal(0.0, config.noise, (len(chosen), SIZE, SIZE))
    grey = np.clip(np.array(turned, dtype=np.float64).reshape(-1, SIZE, SIZE) + noise, 0, 255).astype(np.uint8)
    images: Images = np.repeat(grey[..., None], 3, axis=3)
    return LabelledImages(images, digits.labels[chosen] ^ int(camera.exchanged))


def _picture(image: npt.NDArray[np.float64], camera: _Camera) -> npt.NDArray[np.uint8]:
    """One digit of 8×8 values up to 16, enlarged, turned and darkened."""
    bicubic = Image.Resampling.BICUBIC
    enlarged = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((SIZE, SIZE), bicubic)
    turned = enlarged.rotate(camera.angle, resample=bicubic)
    return np.asarray(ImageEnhance.Brightness(turned).enhance(camera.gain))
