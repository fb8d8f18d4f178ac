"""The suite ``savanna``: a simulated network of camera traps, rendered on access."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.frames import Frames, draw_frames
from wildbench.datasets.savanna.locations import Location, ShiftStrengths, draw_location
from wildbench.datasets.savanna.render import render
from wildbench.datasets.savanna.scene import Scene, draw_scene
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, Images, MetadataSchema
from wildpdiff.tasks.task import Group, LabelledImages, SplitName

DESCRIPTIONS = ("own", "foreign")
"""Description of a task: of its own location, or of an independently drawn one, which is uninformative about it."""

MOST = 100_000
"""Tasks in a group, and images in a part of a task."""


@dataclass(frozen=True)
class SavannaConfig:
    """Size and shift of the simulated network.

    Attributes:
        seed: chooses locations and images, never the world (species, geography, habitats) nor the
            pretraining locations.
        seen, unseen, pretraining: numbers of locations.
        train, validation, test: images per seen and unseen location.
        pretraining_images: training images per pretraining location.
        image_size: pixels a side, 24 to 160.
        similarity: 0 to 1; at 1 all locations are alike (the paper's RQ2).
        metadata_shift, background_shift, hidden_shift: strengths of the parts of the shift that the metadata
            cover, that only backgrounds show, and that nothing covers; 0 to 1.
        backgrounds: unlabelled blank frames per description.
        description: one of :data:`DESCRIPTIONS`; images and labels are the same with either.
    """

    seed: int = 0
    seen: int = 240
    unseen: int = 30
    pretraining: int = 240
    train: int = 200
    validation: int = 50
    test: int = 200
    pretraining_images: int = 400
    image_size: int = 40
    similarity: float = 0.0
    metadata_shift: float = 1.0
    background_shift: float = 1.0
    hidden_shift: float = 1.0
    backgrounds: int = 8
    description: str = "own"

    def __post_init__(self) -> None:
        for name in (
            "seen",
            "unseen",
            "pretraining",
            "train",
            "validation",
            "test",
            "pretraining_images",
            "backgrounds",
        ):
            if not 0 <= getattr(self, name) <= MOST:
                raise DataError(f"savanna: {name} is {getattr(self, name)}; give 0 to {MOST}.")
        if not 24 <= self.image_size <= 160:
            raise DataError(f"savanna: image_size is {self.image_size}; give 24 to 160 pixels.")
        for name in ("similarity", "metadata_shift", "background_shift", "hidden_shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"savanna: {name} is {getattr(self, name)}; give a number from 0 to 1.")
        if self.description not in DESCRIPTIONS:
            raise DataError(f"savanna: description is {self.description!r}; give {' or '.join(DESCRIPTIONS)}.")

    @property
    def strengths(self) -> ShiftStrengths:
        """The strengths of the three parts of the shift, shrunk by the similarity."""
        rest = 1.0 - self.similarity
        return ShiftStrengths(rest * self.metadata_shift, rest * self.background_shift, rest * self.hidden_shift)


class SavannaTask:
    """One simulated camera. Images are rendered at each call and depend on nothing rendered before."""

    def __init__(self, config: SavannaConfig, group: Group, index: int) -> None:
        self.config = config
        self.group = group
        self.index = index

    @property
    def name(self) -> str:
        """For example ``seen-007``."""
        return f"{self.group}-{self.index:03d}"

    @cached_property
    def location(self) -> Location:
        """The camera's facts and the true parameters of its shift."""
        return draw_location(self.config.seed, self.group, self.index, self.config.strengths)

    @cached_property
    def scene(self) -> Scene:
        """The camera's fixed scene."""
        return draw_scene(self.location, self.config.image_size)

    @cached_property
    def described_location(self) -> Location:
        """The location that the description is of: the camera's own, or an independently drawn one."""
        if self.config.description == "own":
            return self.location
        return draw_location(self.config.seed, self.group, self.index, self.config.strengths, foreign=True)

    @cached_property
    def description(self) -> Description:
        """Metadata, unlabelled blank frames, the metadata in words; a task identity for seen locations only."""
        return Description(
            metadata=self.described_location.metadata,
            backgrounds=self._backgrounds() if self.config.backgrounds else None,
            text=self.described_location.text,
            task_id=self.name if self.group == "seen" else None,
        )

    def _rng(self, purpose: str) -> np.random.Generator:
        root = world.WORLD_SEED if self.group == "pretraining" else self.config.seed
        return numpy_generator(root, "savanna", self.group, self.index, purpose)

    def _backgrounds(self) -> Images:
        n, location, own = self.config.backgrounds, self.described_location, self.config.description == "own"
        night = np.arange(n) >= n - min(round(location.night_share * n), n // 2)
        labels = np.full(n, world.BLANK, dtype=np.int64)
        scene = self.scene if own else draw_scene(location, self.config.image_size)
        rng = self._rng("backgrounds" if own else "foreign backgrounds")
        return render(location, scene, draw_frames(location, rng, n, labels, night=night), self.config.image_size)

    def frames(self, split: SplitName) -> Frames:
        """Content of each picture of one split, before any pixel is drawn."""
        train = self.config.pretraining_images if self.group == "pretraining" else self.config.train
        n = {"train": train, "validation": self.config.validation, "test": self.config.test}[split]
        return draw_frames(self.location, self._rng(split), n)

    def data(self, split: SplitName) -> LabelledImages:
        """The labelled images of one split. The same call gives the same images."""
        frames = self.frames(split)
        return LabelledImages(render(self.location, self.scene, frames, self.config.image_size), frames.label)


class SavannaSuite:
    """Simulated camera traps: :class:`SavannaTask` in three disjoint groups, 16 species and ``blank``."""

    def __init__(self, config: SavannaConfig | None = None) -> None:
        self.config = config if config is not None else SavannaConfig()
        counts: dict[Group, int] = {
            "pretraining": self.config.pretraining,
            "seen": self.config.seen,
            "unseen": self.config.unseen,
        }
        self._tasks = {
            group: tuple(SavannaTask(self.config, group, index) for index in range(count))
            for group, count in counts.items()
        }

    @property
    def name(self) -> str:
        """``savanna``."""
        return "savanna"

    @property
    def classes(self) -> tuple[str, ...]:
        """The 16 species, and ``blank`` last."""
        return world.CLASSES

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.config.image_size

    @property
    def metadata_schema(self) -> MetadataSchema:
        """Coordinates, elevation, habitat, canopy cover, camera height and model, season."""
        return world.METADATA_SCHEMA

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and the world's version."""
        config = asdict(self.config)
        if self.config.description == "own":
            # Left out, so that zoos built before there was a choice keep their suite.
            del config["description"]
        content = {"suite": self.name, "world": world.WORLD_VERSION, "config": config}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def tasks(self, group: Group) -> tuple[SavannaTask, ...]:
        """The tasks of one group, in a fixed order."""
        return self._tasks[group]
