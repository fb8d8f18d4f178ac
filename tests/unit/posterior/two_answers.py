"""A world whose tasks are described alike and yet are of two kinds: in one, dark and bright are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

import toys
from wildpdiff.fit import GeneratorConfig
from wildpdiff.posterior.decoder import CodeConfig
from wildpdiff.posterior.fit import PosteriorFitConfig
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import LabelledImages, SplitName

COUNT = 24
KINDS = tuple(bool(kind) for kind in numpy_generator(0, "kinds").permutation(np.arange(COUNT) % 2))
"""Of each seen task; nothing in a description tells it."""


@dataclass(frozen=True)
class TwoAnswers:
    """A toy task whose first two classes are exchanged where it is of the second kind."""

    name: str
    level: float
    second: bool
    sizes: Mapping[str, int] = field(default_factory=lambda: {"train": 48, "validation": 24, "test": 24})

    @property
    def description(self) -> Description:
        return Description(metadata={"level": self.level}, task_id=self.name)

    def data(self, split: SplitName) -> LabelledImages:
        own = toys.ToyTask(self.name, self.level, sizes=self.sizes).data(split)
        exchanged = np.where(own.labels == 2, 2, 1 - own.labels)
        return LabelledImages(own.images, exchanged if self.second else own.labels)


TASKS = tuple(TwoAnswers(f"seen-{number:02d}", 90.0 + 3 * number, second) for number, second in enumerate(KINDS))


def config() -> GeneratorConfig:
    posterior = PosteriorFitConfig(
        directions=6,
        scales=(0.25, 0.5, 1.0),
        search=MapConfig(steps=20, batch=16, learning_rate=0.25),
        codes=CodeConfig(steps=120, directions=6),
    )
    return replace(toys.posterior_config(), parts=("metadata",), posterior=posterior)
