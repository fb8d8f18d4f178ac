"""Predictions for the pictures of cameras, before they are written in a format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from wildpdiff.camera_traps.labels import BLANKS, spelling_key
from wildpdiff.camera_traps.records import Picture

Kind = Literal["animal", "human", "vehicle", "blank", "unknown"]
Source = Literal["generated", "pretrained", "adapter"]

UNKNOWN = "unknown"
"""The label of a picture where no class and no taxon is probable enough."""

ANIMAL = "animal"
"""The taxon of all classes but blanks, people and vehicles."""

_WORDS: Mapping[Kind, Collection[str]] = {
    "blank": BLANKS,
    "human": ("human", "humans", "person", "persons", "people", "homo sapiens"),
    "vehicle": ("vehicle", "vehicles", "car"),
    "unknown": (UNKNOWN, "unidentified", "unclassified"),
}
_KINDS: Mapping[str, Kind] = {word: kind for kind, words in _WORDS.items() for word in words}


@cache  # called for every class of every picture
def kind_of(label: str) -> Kind:
    """The kind of a class; every name that is no known word for a blank, people, vehicles or unknown is an animal."""
    return _KINDS.get(spelling_key(label), "animal")


@lru_cache(16)
def _of_kind(classes: tuple[str, ...], kind: Kind) -> Bool[np.ndarray, " c"]:
    return np.array([kind_of(name) == kind for name in classes], dtype=bool)


@dataclass(frozen=True)
class Classifier:
    """The program behind the predictions of one run.

    Attributes:
        classes: names, in the order of probabilities.
        version: of wildpdiff.
        hash: of the generator, or of the adapter's weights.
        time: of the run, with its zone.
        taxa: names above classes that a label may be.
        scientific: scientific names by label, where they are known.
    """

    classes: tuple[str, ...]
    version: str
    hash: str
    time: datetime
    taxa: tuple[str, ...] = ()
    scientific: Mapping[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> str:
        """For columns that name a classifier: program, version, and the hash's beginning."""
        return f"wildpdiff {self.version} {self.hash[:12]}".rstrip()


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The prediction for one picture.

    Attributes:
        probabilities: of the classes; none where the picture could not be read.
        label: a class, a taxon above several, :data:`ANIMAL` or :data:`UNKNOWN`; empty where there are none.
        probability: of the label, 0 to 1.
        source: whose adapter classified it; ``pretrained`` where the generated one is not trusted.
        trust: in the generated adapter, 0 to 1; None where it is not known.
        failure: why the picture could not be read; empty where it could.
    """

    picture: Picture
    probabilities: Float[np.ndarray, " c"]
    label: str
    probability: float
    source: Source
    trust: float | None = None
    failure: str = ""

    def ranked(self, classifier: Classifier, most: int) -> list[tuple[str, float]]:
        """At most so many names with their probabilities, descending; the label first where it is a taxon."""
        order = np.argsort(-self.probabilities, kind="stable")[:most]
        found = [(classifier.classes[index], float(self.probabilities[index])) for index in order]
        taxon = self.label in classifier.taxa and self.label not in classifier.classes
        return [(self.label, self.probability), *found][:most] if taxon else found

    def of_kind(self, classifier: Classifier, kind: Kind) -> float:
        """The probability of all classes of a kind."""
        return min(float(self.probabilities[_of_kind(classifier.classes, kind)].sum()), 1.0)
