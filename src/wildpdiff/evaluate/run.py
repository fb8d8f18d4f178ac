"""Evaluation of methods on tasks: every sample is scored on every task, with own, shuffled or random descriptions."""

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
from wildpdiff.evaluate.score import TestSet, outputs_by
from wildpdiff.generator import Generator
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description, Inputs, MetadataValue
from wildpdiff.tasks.metric import Metric
from wildpdiff.tasks.objective import of_many
from wildpdiff.threads import one_thread


@dataclass(frozen=True)
class Method:
    """A method of an evaluation.

    Attributes:
        source: of the adapters.
        condition: ``own`` description, another task's (``shuffled``), one made of parts of many (``random``), or
            ``none`` where the source reads none.
        generator_seed: the seed of its training, for trained sources.
        unlabelled: a task's unlabelled images by its name, where they are added to the description as ``examples``.
    """

    source: Source
    condition: Condition = "own"
    generator_seed: int | None = None
    unlabelled: Callable[[str], Inputs] | None = None


@dataclass(frozen=True)
class Scored:
    """Adapters of one method on one task.

    Attributes:
        method: the method.
        adapters: one a sample.
        rows: their scores.
    """

    split: Split
    method: Method
    test: TestSet
    adapters: Sequence[Adapter]
    outputs: Float[Tensor, "a n ..."]
    rows: Sequence[ResultRow] = ()


@runtime_checkable
class Scorer(Protocol):
    """Scores that do not follow from outputs on test examples, for example returns of a policy's episodes."""

    @property
    def metric(self) -> Metric:
        """The metric of the scores."""

    def __call__(self, task: str, adapters: Sequence[Adapter]) -> Float[Tensor, "a e"]:
        """Scores of each adapter on a task by its name, one an episode; the same call gives the same scores."""


@runtime_checkable
class Observer(Protocol):
    """Measurement besides accuracy during an evaluation, so that no adapter is made or run twice."""

    def observe(self, scored: Scored) -> None:
        """Update with one method on one task."""


@runtime_checkable
class SectionObserver(Observer, Protocol):
    """An observer whose result is a section of the results."""

    @property
    def section(self) -> str:
        """The section's name, see :class:`wildpdiff.evaluate.results.SectionKind`."""

    def result(self) -> Any:
        """The section, after the evaluation; empty or None where it is undefined."""


@dataclass(frozen=True)
class Evaluation:
    """Scores, and the seconds of sampling one adapter, by source."""

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
    """A permutation without fixed points, one cycle through all indices; for one element, the identity."""
    order = numpy_generator(seed, "shuffled conditions").permutation(count)
    target = np.empty(count, dtype=int)
    target[order] = np.roll(order, 1)
    return tuple(int(value) for value in target)


def mixed_description(descriptions: Sequence[Description], seed: int) -> Description:
    """A random combination: every metadata value and every set of images is that of another, random task."""
    rng = numpy_generator(seed, "random conditions")

    def pick() -> Description:
        return descriptions[int(rng.integers(len(descriptions)))]

    keys = list(dict.fromkeys(key for entry in descriptions for key in entry.metadata or ()))
    metadata: dict[str, MetadataValue] = {}
    for key in keys:
        value = (pick().metadata or {}).get(key)
        if value is not None:
            metadata[key] = value
    backgrounds, examples, text = pick().backgrounds, pick().examples, pick().text
    return Description(metadata=metadata or None, backgrounds=backgrounds, examples=examples, text=text)


@one_thread()
def evaluate(
    suite: str,
    tests: Mapping[Split, Sequence[TestSet]],
    backbone: Backbone,
    methods: Sequence[Method],
    *,
    samples: int = 4,
    seed: int = 0,
    observers: Sequence[Observer] = (),
    scorer: Scorer | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every method on every task. A source without randomness is sampled once.

    Args:
        suite: name written into the rows.
        samples: adapters a task of a stochastic source; all of them count, never the best.
        seed: of the samples and of the shuffling.
        scorer: of the adapters, in place of the objective's score of their outputs.
        progress: called with (tasks done, in all).
    """
    jobs = [
        _Job(split, method, part, index, other)
        for split, part in tests.items()
        for method in methods
        for index, other in enumerate(derangement(len(part), sub_seed(seed, split)))
    ]

    def score(job: _Job, _: Tick) -> tuple[list[Adapter], float, Tensor, Tensor]:
        source, test = job.method.source, job.test
        description = job.description(seed)
        if job.method.unlabelled is not None:
            description = replace(description, examples=job.method.unlabelled(test.task))
        count = samples if source.stochastic else 1
        started = time.perf_counter()
        adapters = source.sample(description, count, sub_seed(seed, job.split, test.task))
        seconds = (time.perf_counter() - started) / count
        outputs = outputs_by(source, backbone, test, adapters)
        if scorer is not None:
            return adapters, seconds, outputs, scorer(test.task, adapters)
        return adapters, seconds, outputs, of_many(backbone.objective.score, outputs, test.batch)

    advance = None if progress is None else lambda share: progress(round(share * len(jobs)), len(jobs))
    rows: list[ResultRow] = []
    costs: dict[str, list[float]] = {}
    for job, (adapters, seconds, outputs, scores) in zip(jobs, in_parallel(score, jobs, advance), strict=True):
        method, test = job.method, job.test
        costs.setdefault(method.source.name, []).append(seconds)
        key = (suite, job.split, method.source.name, method.condition, method.generator_seed)
        found = scores.double().mean(1).tolist()
        own = [ResultRow(*key, i, test.task, value, scores.shape[1]) for i, value in enumerate(found)]
        rows += own
        for observer in observers:
            observer.observe(Scored(job.split, method, test, adapters, outputs, own))
    return Evaluation(tuple(rows), {name: float(np.mean(values)) for name, values in costs.items()})


@dataclass(frozen=True)
class _Job:
    """One method on the task ``tests[index]`` of a split, whose shuffled description is that of ``tests[other]``."""

    split: Split
    method: Method
    tests: Sequence[TestSet]
    index: int
    other: int

    @property
    def test(self) -> TestSet:
        return self.tests[self.index]

    def description(self, seed: int) -> Description:
        """The task's own description, another task's, or one made of parts of many."""
        if self.method.condition == "shuffled":
            return replace(self.tests[self.other].description, task_id=None)
        if self.method.condition == "random":
            descriptions = [entry.description for entry in self.tests]
            return mixed_description(descriptions, sub_seed(seed, self.split, self.test.task))
        return self.test.description
