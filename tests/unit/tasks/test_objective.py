"""Objectives: losses and scores of single examples, and targets that are refused."""

from __future__ import annotations

import json
import math

import pytest
import torch

from refusals import refused
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.records import encode
from wildpdiff.tasks.batch import batch_size, concatenate, take
from wildpdiff.tasks.objective import (
    IGNORED,
    TARGETS,
    VARIANCES,
    Classification,
    NextToken,
    Objective,
    Regression,
    Unknown,
    objective_of,
)

CASES = {
    "classification": (Classification(("cat", "dog", "owl")), torch.randn(4, 3), ["cat", 2, "owl", 0]),
    "regression": (Regression(2), torch.randn(4, 2), [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]),
    "tokens": (NextToken(), torch.randn(4, 3, 5), [[1, 2, 3], [4, 0], [2, 2, 2], [1, 1, 4]]),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_scores_are_those_of_each_example_alone(name: str) -> None:
    objective, outputs, values = CASES[name]
    assert isinstance(objective, Objective)
    batch = {TARGETS: objective.targets(values)}
    losses, scores = objective.loss(outputs, batch), objective.score(outputs, batch)
    assert losses.shape == scores.shape == (batch_size(batch),)
    for row in range(4):
        alone = take(batch, slice(row, row + 1))
        torch.testing.assert_close(objective.loss(outputs[row : row + 1], alone)[0], losses[row])
    assert bool((losses > 0).all())
    assert all(objective.metric.contains(float(score)) for score in scores)


def test_ignored_tokens_count_nothing() -> None:
    objective, outputs = NextToken(), torch.randn(1, 4, 5)
    short, padded = objective.targets([[1, 2]]), objective.targets([[1, 2], [1, 2, 3, 4]])[:1]
    assert padded[0, 2:].tolist() == [IGNORED, IGNORED]
    expected = objective.loss(outputs[:, :2], {TARGETS: short})
    torch.testing.assert_close(objective.loss(outputs, {TARGETS: padded}), expected)


def test_bad_targets_and_batches_are_named() -> None:
    with refused(DataError, "fox", "cat"):
        Classification(("cat", "dog")).targets(["fox"])
    with refused(DataError, 2):
        Regression(2).targets([[1.0, 2.0, 3.0]])
    with refused(DataError, "inputs"):
        batch_size({"inputs": torch.zeros(2), "other": torch.zeros(3)})
    with refused(DataError, "inputs"):
        concatenate([{"inputs": torch.zeros(2, 3)}, {"inputs": torch.zeros(2, 4)}])


def test_likelihoods_are_compared_at_the_best_temperature_or_variance() -> None:
    outputs, batch = torch.tensor([[2.0, 0.0]]), {TARGETS: torch.tensor([0])}
    table = Classification(("a", "b")).likelihood_losses(outputs, batch)
    assert table[:, 0].tolist() == sorted(table[:, 0].tolist()), "a right answer is most probable when it is confident"
    exact = -torch.distributions.Normal(0.0, 2.0).log_prob(torch.tensor(3.0)) - 0.5 * math.log(2 * math.pi)
    found = Regression(1).likelihood_losses(torch.tensor([[3.0]]), {TARGETS: torch.zeros(1, 1)})
    assert found[VARIANCES.index(4.0), 0] == pytest.approx(float(exact))


def test_an_objective_is_restored_from_json_and_an_unknown_one_trains_nothing() -> None:
    for objective in (Classification(("a", "b")), Regression(3, "m"), NextToken(), Unknown(("a",))):
        assert objective_of(json.loads(json.dumps(encode(objective))), "x") == objective
    with refused(ArtifactError, "'policy'"):
        objective_of({"kind": "policy"}, "x")
    for use in (Unknown().loss, Unknown().score, Unknown().likelihood_losses):
        with refused(DataError, "objective"):
            use(torch.zeros(1), {})


@pytest.mark.parametrize("value", [0.7, math.nan, math.inf, None, [0, 1], b"a"])
def test_a_class_is_a_name_or_a_whole_number(value: object) -> None:
    objective = Classification(("a", "b"))
    assert objective.targets([1.0, True, "a", torch.tensor(1)]).tolist() == [1, 1, 0, 1]
    with refused(DataError, value):
        objective.targets([0, value])


@pytest.mark.parametrize("value", [[1.7], ["a"], None, [-5], [math.nan]])
def test_tokens_are_whole_numbers_from_0(value: object) -> None:
    with refused(DataError):
        NextToken().targets([[1, IGNORED], value])


def test_a_vector_of_no_numbers_is_refused() -> None:
    with refused(DataError, 0):
        Regression(0)
