from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import toys
from wildbench.observers.spread import SpreadObserver, relative_spread
from wildbench.sections import ParameterSpread
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.run import Method, evaluate
from wildpdiff.evaluate.score import TestSet, mean_scores, test_set
from wildpdiff.tasks.description import Description

TASKS = toys.ToySuite().tasks("unseen")[:2]


@dataclass(frozen=True)
class Varying:
    """Random adapters around one of its own."""

    backbone: Backbone
    number: int
    name: str = "varying"
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        draws = [toys.random_tensors(self.backbone, 1000 * self.number + seed % 997 + i) for i in range(n)]
        middle = toys.random_tensors(self.backbone, self.number)
        config = self.backbone.adapter_config
        return [Adapter({k: middle[k] + 0.3 * part[k] for k in middle}, config) for part in draws]


@pytest.fixture(scope="module")
def tests(toy_backbone: Backbone) -> list[TestSet]:
    return [test_set(toy_backbone, task) for task in TASKS]


def flat(adapter: Adapter) -> np.ndarray:
    return np.concatenate([adapter.tensors[name].double().numpy().ravel() for name in sorted(adapter.tensors)])


def slow_spread(vectors: Sequence[np.ndarray], origin: np.ndarray) -> float:
    mean = sum(vectors) / len(vectors)
    variance = sum(np.sum((vector - mean) ** 2) for vector in vectors) / (len(vectors) - 1)
    return float(np.sqrt(variance) / np.linalg.norm(mean - origin))


def watched(
    backbone: Backbone, tests: list[TestSet], methods: Sequence[Method], samples: int
) -> tuple[ParameterSpread, ...]:
    observer = SpreadObserver(toys.random_adapter(backbone, 0))
    evaluate("toy", {"unseen": tests}, backbone, methods, samples=samples, observers=[observer])
    return observer.result()


def test_every_number_is_that_of_a_slow_calculation(toy_backbone: Backbone, tests: list[TestSet]) -> None:
    methods = [Method(Varying(toy_backbone, seed), "own", seed) for seed in (1, 2, 3)]
    given: dict[tuple[str, int], list[Adapter]] = {}

    class Keeper:
        def observe(self, scored) -> None:  # type: ignore[no-untyped-def]
            given[scored.test.task, scored.method.generator_seed] = list(scored.adapters)

    observer = SpreadObserver(toys.random_adapter(toy_backbone, 0))
    evaluate("toy", {"unseen": tests}, toy_backbone, methods, samples=4, observers=[observer, Keeper()])
    (found,) = observer.result()
    origin = flat(toys.random_adapter(toy_backbone, 0))
    vectors = {key: [flat(adapter) for adapter in adapters] for key, adapters in given.items()}
    right = {key: mean_scores(toy_backbone, test, given[key]) for test in tests for key in given if key[0] == test.task}
    assert found.over_samples == pytest.approx(np.mean([slow_spread(v, origin) for v in vectors.values()]), rel=1e-5)
    over_seeds = [slow_spread([np.mean(vectors[test.task, s], axis=0) for s in (1, 2, 3)], origin) for test in tests]
    assert found.over_seeds == pytest.approx(np.mean(over_seeds), rel=1e-5)
    assert found.accuracy_over_samples == pytest.approx(np.mean([np.std(value, ddof=1) for value in right.values()]))
    assert found.accuracy_over_seeds == pytest.approx(
        np.mean([np.std([np.mean(right[test.task, s]) for s in (1, 2, 3)], ddof=1) for test in tests])
    )
    assert (found.split, found.source) == ("unseen", "varying")


def test_one_sample_and_one_seed_have_no_spread(toy_backbone: Backbone, tests: list[TestSet]) -> None:
    (found,) = watched(toy_backbone, tests, [Method(Varying(toy_backbone, 1))], samples=1)
    assert (found.over_samples, found.over_seeds) == (None, None)
    assert (found.accuracy_over_samples, found.accuracy_over_seeds) == (None, None)
    (several,) = watched(toy_backbone, tests, [Method(Varying(toy_backbone, 1))], samples=3)
    assert several.over_samples is not None
    assert several.over_seeds is None


def test_only_own_descriptions_of_sources_that_vary_are_watched(toy_backbone: Backbone, tests: list[TestSet]) -> None:
    fixed = Varying(toy_backbone, 1, name="fixed", stochastic=False)
    trained = [Method(Varying(toy_backbone, s, name="trained", stochastic=False), "own", s) for s in (1, 2)]
    methods = [Method(fixed), Method(Varying(toy_backbone, 1), "shuffled"), *trained]
    (found,) = watched(toy_backbone, tests, methods, samples=2)
    assert found.source == "trained"
    assert found.over_samples is None
    assert found.over_seeds is not None


def test_copies_do_not_spread_and_nothing_is_a_share_of_nothing() -> None:
    draws = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert relative_spread(draws, torch.zeros(2)) == 0.0
    assert relative_spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)) is None
    assert relative_spread(draws[:1], torch.zeros(2)) is None
    assert relative_spread(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.zeros(2)) == pytest.approx(2**0.5)
