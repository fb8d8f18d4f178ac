"""Running sources on tasks: every sample scored on every task, with the control of shuffled descriptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.results import Condition, ResultRow, Split
from wildpdiff.evaluate.score import TestSet, logits_of
from wildpdiff.generator import Generator
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, Images, MetadataValue
from wildpdiff.threads import one_thread


@dataclass(frozen=True)
class Entrant:
    """A source in an evaluation.

    Attributes:
        source: gives the adapters.
        condition: ``own`` description, another task's (``shuffled``), one made of parts of many (``random``), or
            ``none`` where the source reads none.
        generator_seed: the seed of its training, for trained sources.
        unlabelled: whether the source is given the task's unlabelled images as ``examples`` beside the description.
    """

    source: Source
    condition: Condition = "own"
    generator_seed: int | None = None
    unlabelled: bool = False


@dataclass(frozen=True)
class Scored:
    """What an observer of an evaluation is shown: one entrant's adapters on one task.

    Attributes:
        split: of the task.
        entrant: who gave the adapters.
        test: the task's test images and labels.
        adapters: one a sample.
        logits: of every adapter on every test image.
    """

    split: Split
    entrant: Entrant
    test: TestSet
    adapters: Sequence[Adapter]
    logits: Float[Tensor, "a n c"]


@runtime_checkable
class Observer(Protocol):
    """Measures more than accuracy while an evaluation runs, so that no adapter is made or run twice."""

    def observe(self, scored: Scored) -> None:
        """Look at one entrant on one task."""


@runtime_checkable
class SectionObserver(Observer, Protocol):
    """An observer whose result is a section of the results."""

    @property
    def section(self) -> str:
        """The section's name, see :class:`wildpdiff.evaluate.sections.SectionKind`."""

    def result(self) -> Any:
        """The section, after the evaluation; empty or None where nothing can be said."""


@dataclass(frozen=True)
class Evaluation:
    """Scores and costs.

    Attributes:
        rows: one a source, condition, seed, sample and task.
        seconds: seconds for one adapter, by source: sampling alone, no scoring.
    """

    rows: tuple[ResultRow, ...]
    seconds: Mapping[str, float]


class RoundTripSource:
    """Another source's adapters after the generator's autoencoder: the ceiling of what can be generated."""

    name = "autoencoder round trip"

    def __init__(self, source: Source, generator: Generator) -> None:
        self._source = source
        self._generator = generator

    @property
    def stochastic(self) -> bool:
        """As the other source."""
        return self._source.stochastic

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` adapters of the other source, encoded and decoded."""
        generator = self._generator
        layout = generator.codec.layout
        adapters = self._source.sample(description, n, seed)
        vectors = torch.stack([layout.flatten(adapter.tensors) for adapter in adapters])
        with torch.no_grad():
            tensors = generator.decode(generator.autoencoder.encode(generator.codec.encode(vectors)))
        return [
            Adapter({name: value[i].clone() for name, value in tensors.items()}, adapter.config, {"source": self.name})
            for i, adapter in enumerate(adapters)
        ]


def derangement(count: int, seed: int) -> tuple[int, ...]:
    """A permutation in which nothing stays in its place (for one element there is none, and it stays)."""
    order = numpy_generator(seed, "shuffled conditions").permutation(count)
    # One cycle through all places moves each of them.
    target = np.empty(count, dtype=int)
    target[order] = np.roll(order, 1)
    return tuple(int(value) for value in target)


def mixed_description(descriptions: Sequence[Description], seed: int) -> Description:
    """A description of no place: every metadata value and every set of images is that of another, random task.

    Each value alone is an ordinary one; only their combination belongs to nobody.
    """
    rng = numpy_generator(seed, "random conditions")

    def pick() -> Description:
        return descriptions[int(rng.integers(len(descriptions)))]

    keys = list(dict.fromkeys(key for entry in descriptions for key in entry.metadata or ()))
    metadata: dict[str, MetadataValue] = {}
    for key in keys:
        value = (pick().metadata or {}).get(key)
        if value is not None:
            metadata[key] = value
    return Description(metadata=metadata or None, backgrounds=pick().backgrounds, examples=pick().examples)


def _sources_seconds(costs: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in costs.items()}


@one_thread()
def evaluate(
    suite: str,
    tests: Mapping[Split, Sequence[TestSet]],
    backbone: Backbone,
    entrants: Sequence[Entrant],
    *,
    samples: int = 4,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    unlabelled: Callable[[str], Images] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every entrant on every task. A source without randomness is sampled once.

    Args:
        suite: name written into the rows.
        tests: test sets by split.
        backbone: that all adapters belong to.
        entrants: sources and the descriptions that they are given.
        samples: adapters a task of a stochastic source; all of them count, never the best.
        seed: of the samples and of the shuffling.
        observers: are shown every entrant's adapters and logits on every task.
        unlabelled: gives a task's unlabelled images by its name; needed where an entrant asks for them.
        progress: called with (tasks done, in all).
    """
    parts = [(split, derangement(len(part), sub_seed(seed, split)), part) for split, part in tests.items()]
    jobs = [_Job(split, other, part, entrant, place)
            for split, other, part in parts for entrant in entrants for place in range(len(part))]  # fmt: skip

    def score(job: _Job, _: Tick) -> tuple[list[Adapter], float, Tensor]:
        source, test = job.entrant.source, job.test
        description = job.description(seed)
        if job.entrant.unlabelled and unlabelled is not None:
            description = replace(description, examples=unlabelled(test.task))
        count = samples if source.stochastic else 1
        started = time.perf_counter()
        adapters = source.sample(description, count, sub_seed(seed, job.split, test.task))
        seconds = (time.perf_counter() - started) / count
        return adapters, seconds, logits_of(backbone, test, adapters)

    advance = None if progress is None else lambda share: progress(round(share * len(jobs)), len(jobs))
    rows: list[ResultRow] = []
    costs: dict[str, list[float]] = {}
    for job, (adapters, seconds, logits) in zip(jobs, in_parallel(score, jobs, advance), strict=True):
        costs.setdefault(job.entrant.source.name, []).append(seconds)
        right = (logits.argmax(-1) == job.test.labels).double().mean(1)
        rows += _rows(suite, job.split, job.entrant, job.test, right.tolist())
        for observer in observers:
            observer.observe(Scored(job.split, job.entrant, job.test, adapters, logits))
    return Evaluation(tuple(rows), _sources_seconds(costs))


@dataclass(frozen=True)
class _Job:
    """One entrant on one task of a split: the task's place among them, and the other task that each is shuffled to."""

    split: Split
    other: tuple[int, ...]
    tests: Sequence[TestSet]
    entrant: Entrant
    place: int

    @property
    def test(self) -> TestSet:
        return self.tests[self.place]

    def description(self, seed: int) -> Description:
        """What the entrant is given: the task's own description, another task's, or one of parts of many."""
        if self.entrant.condition == "shuffled":
            return replace(self.tests[self.other[self.place]].description, task_id=None)
        if self.entrant.condition == "random":
            descriptions = [entry.description for entry in self.tests]
            return mixed_description(descriptions, sub_seed(seed, self.split, self.test.task))
        return self.test.description


def _rows(suite: str, split: Split, entrant: Entrant, test: TestSet, values: Sequence[float]) -> list[ResultRow]:
    return [
        ResultRow(
            suite,
            split,
            entrant.source.name,
            entrant.condition,
            entrant.generator_seed,
            number,
            test.task,
            value,
            len(test.labels),
        )
        for number, value in enumerate(values)
    ]
