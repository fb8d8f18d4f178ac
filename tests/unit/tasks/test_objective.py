"""Objectives: losses and scores of single examples, and targets that are refused."""

from __future__ import annotations

import pytest
import torch

from refusals import refused
from wildpdiff.errors import DataError
from wildpdiff.tasks.batch import batch_size, concatenate, take
from wildpdiff.tasks.objective import IGNORED, TARGETS, Classification, NextToken, Objective, Regression

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
