"""The worlds of the panel: for each a suite, a backbone and the fine-tuning recipe, opened by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.pretrain import pretrain_small_cnn, retrain_neck
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.errors import DataError
from wildpdiff.run_folder import Tick
from wildpdiff.tasks.panel import class_subsets, handwriting, rotated_digits, scanners
from wildpdiff.tasks.task import Suite
from wildpdiff.zoo.steps import FinetuneConfig

__all__ = ["WORLDS", "OpenWorld", "PanelWorld", "find_world", "open_world"]

DEEP = FinetuneConfig(steps=200, batch=32, learning_rate=0.1, warmup=20, checkpoints=13, interval=2)


class OpenWorld(NamedTuple):
    """A world ready to run: its suite, its frozen backbone, and how its tasks are fine-tuned."""

    suite: Suite
    backbone: Backbone
    finetune: FinetuneConfig


Pretrain = Callable[[Suite, Path, int, Tick | None], Backbone]


@dataclass(frozen=True)
class PanelWorld:
    """A world of the panel.

    Attributes:
        name: of the world.
        suite: makes the suite from the data folder, the world's own folder and a seed.
        finetune: the recipe of fine-tuning, the one place where it is set.
        files: what the suite reads, relative to the data folder.
        pretrain: makes the backbone from the opened suite, the data folder and a seed.
    """

    name: str
    suite: Callable[[Path, Path, int], Suite]
    finetune: FinetuneConfig
    pretrain: Pretrain
    files: tuple[str, ...] = ()

    def missing(self, data: Path | None) -> str | None:
        """The first of the files that the data folder does not hold; None where all are there."""
        return next((name for name in self.files if data is None or not (data / name).exists()), None)


def _digits(data: Path, folder: Path, seed: int) -> Suite:
    return rotated_digits.rotated_digits(rotated_digits.RotatedDigitsConfig(seed))


def _ambiguous_digits(data: Path, folder: Path, seed: int) -> Suite:
    return rotated_digits.rotated_digits(rotated_digits.RotatedDigitsConfig(seed, ambiguous=True))


def _handwriting(data: Path, folder: Path, seed: int) -> Suite:
    return handwriting.handwriting(data / handwriting.FILE, handwriting.HandwritingConfig(seed))


def _subsets(data: Path, folder: Path, seed: int) -> Suite:
    return class_subsets.class_subsets(data / class_subsets.FILE, class_subsets.ClassSubsetsConfig(seed))


def _strict_subsets(data: Path, folder: Path, seed: int) -> Suite:
    return class_subsets.class_subsets(data / class_subsets.FILE, class_subsets.ClassSubsetsConfig(seed, strict=True))


def _scanners(data: Path, folder: Path, seed: int) -> Suite:
    return scanners.scanners(data / scanners.FILE, scanners.ScannersConfig(seed))


def _small_cnn(epochs: int, neck: int) -> Pretrain:
    """A small network trained on the suite's own pretraining tasks."""

    def pretrain(suite: Suite, data: Path, seed: int, progress: Tick | None) -> Backbone:
        return pretrain_small_cnn(
            suite.tasks("pretraining"),
            suite.classes,
            suite.image_size,
            epochs=epochs,
            neck=neck,
            seed=seed,
            name=f"small-cnn-{suite.name}",
            progress=progress,
        ).backbone

    return pretrain


def _subsets_backbone(suite: Suite, data: Path, seed: int, progress: Tick | None) -> Backbone:
    """A small network of ten classes whose embedding and classifier were then trained to tell vehicles from animals."""
    config = class_subsets.ClassSubsetsConfig(seed)
    task, names = class_subsets.ten_classes(data / class_subsets.FILE, config)
    made = pretrain_small_cnn(
        [task], names, suite.image_size, epochs=12, neck=32, mirror=True, batch=128, seed=seed, progress=progress
    )
    return retrain_neck(
        made.backbone,
        suite.tasks("pretraining"),
        suite.classes,
        neck=4,
        epochs=2,
        seed=seed,
        name=f"small-cnn-{suite.name}",
    ).backbone


WORLDS = (
    PanelWorld("rotated-digits", _digits, DEEP, _small_cnn(10, 12)),
    PanelWorld("rotated-digits-ambiguous", _ambiguous_digits, DEEP, _small_cnn(10, 12)),
    PanelWorld("handwriting", _handwriting, DEEP, _small_cnn(8, 12), (handwriting.FILE,)),
    PanelWorld("class-subsets", _subsets, DEEP, _subsets_backbone, (class_subsets.FILE,)),
    PanelWorld("class-subsets-strict", _strict_subsets, DEEP, _subsets_backbone, (class_subsets.FILE,)),
    PanelWorld("scanners", _scanners, DEEP, _small_cnn(20, 4), (scanners.FILE,)),
)


def find_world(name: str) -> PanelWorld:
    """A world by its name; raises :class:`DataError` where there is none."""
    for world in WORLDS:
        if world.name == name:
            return world
    raise DataError(f"There is no world {name!r}; there are {', '.join(world.name for world in WORLDS)}.")


def open_world(
    world: str | PanelWorld, data: Path | str | None, folder: Path | str, seed: int = 0, progress: Tick | None = None
) -> OpenWorld:
    """A world's suite, backbone and recipe; the backbone is pretrained where the folder does not have it yet.

    Args:
        world: of the panel, or its name.
        data: folder with the data sets; None where the world reads none.
        folder: of the world; the backbone goes to ``backbone`` in it.
        seed: of the suite and of the pretraining.
        progress: called with (pretraining steps done, in all).

    Raises:
        DataError: no such world, or its data are not there.
        ArtifactError: the backbone in the folder cannot be read.
    """
    world = find_world(world) if isinstance(world, str) else world
    folder, data = Path(folder), None if data is None else Path(data)
    missing = world.missing(data)
    if missing is not None:
        raise DataError(f"The world {world.name} reads {missing}, which the data folder {data} does not have.")
    suite = world.suite(data or Path("."), folder, seed)
    path = folder / "backbone"
    if not path.is_dir():
        save_backbone(world.pretrain(suite, data or Path("."), seed, progress), path)
    return OpenWorld(suite, load_backbone(path), world.finetune)
