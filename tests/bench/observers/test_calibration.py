from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import toys
from refusals import refused
from wildbench.observers.calibration import CalibrationObserver
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import PretrainedSource
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import CalibrationBin
from wildpdiff.evaluate.run import Method, Scored
from wildpdiff.evaluate.score import TestSet
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description


def scored(logits: Tensor, labels: Tensor, backbone: Backbone, split: str = "unseen") -> Scored:
    adapter = toys.random_adapter(backbone, 0)
    test = TestSet("somewhere", Description(), toys.batch(torch.zeros(len(labels), 1), labels))
    return Scored(split, Method(PretrainedSource(adapter), "none"), test, [adapter] * len(logits), logits)


def random_scored(backbone: Backbone, seed: int, scale: float, split: str = "unseen") -> Scored:
    draws = torch_generator(seed, "logits")
    logits = scale * torch.randn(2, 40, 3, generator=draws)
    return scored(logits, torch.randint(3, (40,), generator=draws), backbone, split)


def slow(parts: list[Scored], bins: int) -> tuple[list[CalibrationBin], float, float]:
    """Prediction by prediction."""
    held: dict[int, list[tuple[float, bool]]] = {}
    losses = []
    for part in parts:
        for sample in part.outputs.double().tolist():
            for row, label in zip(sample, part.test.labels.tolist(), strict=True):
                total = sum(math.exp(value) for value in row)
                probabilities = [math.exp(value) / total for value in row]
                losses.append(-math.log(probabilities[label]))
                confidence = max(probabilities)
                index = next(m for m in range(bins) if confidence <= (m + 1) / bins + 1e-15)
                held.setdefault(index, []).append((confidence, probabilities.index(confidence) == label))
    found = [
        CalibrationBin(
            len(held[index]), float(np.mean([c for c, _ in held[index]])), float(np.mean([r for _, r in held[index]]))
        )
        for index in sorted(held)
    ]
    error = sum(entry.count * abs(entry.accuracy - entry.confidence) for entry in found) / len(losses)
    return found, error, float(np.mean(losses))


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_bins_error_and_likelihood_are_those_of_a_slow_calculation(bins: int, toy_backbone: Backbone) -> None:
    parts = [random_scored(toy_backbone, seed, scale) for seed, scale in ((0, 0.5), (1, 3.0), (2, 1.0))]
    observer = CalibrationObserver(bins)
    for part in parts:
        observer.observe(part)
    (found,) = observer.result()
    entries, error, likelihood = slow(parts, bins)
    assert [entry.count for entry in found.bins] == [entry.count for entry in entries]
    for mine, theirs in zip(found.bins, entries, strict=True):
        assert (mine.confidence, mine.accuracy) == pytest.approx((theirs.confidence, theirs.accuracy))
    assert (found.error, found.negative_log_likelihood) == pytest.approx((error, likelihood))
    assert sum(entry.count for entry in found.bins) == 240
    assert (found.split, found.source, found.condition) == ("unseen", "pretrained", "none")


def test_a_model_that_says_what_it_knows_has_no_error(toy_backbone: Backbone) -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log().expand(1, 10, 3)
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    observer = CalibrationObserver()
    observer.observe(scored(logits, labels, toy_backbone))
    (found,) = observer.result()
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.negative_log_likelihood == pytest.approx(
        -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)), rel=1e-6
    )


def test_certainty_counts_in_the_last_bin_and_costs_what_it_should(toy_backbone: Backbone) -> None:
    logits = torch.tensor([[[100.0, 0, 0]] * 4])
    observer = CalibrationObserver()
    observer.observe(scored(logits, torch.tensor([0, 0, 0, 1]), toy_backbone))
    (found,) = observer.result()
    (entry,) = found.bins
    assert (entry.count, entry.confidence, entry.accuracy) == (4, pytest.approx(1.0), 0.75)
    assert found.error == pytest.approx(0.25)
    assert found.negative_log_likelihood == pytest.approx(25.0)


def test_splits_are_kept_apart_in_the_order_of_observation(toy_backbone: Backbone) -> None:
    observer = CalibrationObserver()
    for split in ("seen", "unseen", "seen"):
        observer.observe(random_scored(toy_backbone, 1, 1.0, split))
    assert [(entry.split, sum(b.count for b in entry.bins)) for entry in observer.result()] == [
        ("seen", 160),
        ("unseen", 80),
    ]


def test_there_must_be_a_bin() -> None:
    with refused(DataError, 0):
        CalibrationObserver(0)
