"""Kernel regression against a twin that refits without each task in turn and predicts one value at a time."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.baselines.regression import KernelRegressionSource
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.metadata import MetadataEncoder
from wildpdiff.conditions.task_id import TaskIdEncoder
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema((MetadataField("x", "number"), MetadataField("y", "number")))
CONFIG = AdapterConfig("toy", "0" * 64, ("a", "b"), 1, 1.0, (), ())

Numbers = npt.NDArray[np.float64]


def squared_distance(first: Numbers, second: Numbers) -> float:
    return sum((float(a) - float(b)) ** 2 for a, b in zip(first, second, strict=True))


def mean_pair_distance(rows: Numbers) -> float:
    pairs = [squared_distance(rows[i], rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j]
    return sum(pairs) / len(pairs)


def task_weights(
    parts: list[Numbers], query: list[Numbers], units: list[float], weights: list[float], scale: float, ridge: float
) -> Numbers:
    """Weight of every row's target in the prediction, from the bordered linear system."""
    count = len(parts[0])

    def kernel(first: list[Numbers], second: list[Numbers]) -> float:
        total = 0.0
        for one, other, unit, weight in zip(first, second, units, weights, strict=True):
            total += weight * squared_distance(one, other) / unit
        return math.exp(-total / (2 * scale**2))

    rows = [[part[i] for part in parts] for i in range(count)]
    system = np.zeros((count + 1, count + 1))
    for i in range(count):
        system[i, count] = system[count, i] = 1.0
        for j in range(count):
            system[i, j] = kernel(rows[i], rows[j]) + (ridge if i == j else 0.0)
    right = np.array([kernel(row, query) for row in rows] + [1.0])
    return np.asarray(np.linalg.solve(system, right)[:count])


def toy(count: int = 9) -> tuple[list[Description], list[Adapter]]:
    rng = numpy_generator(0, "toy")
    points = rng.normal(size=(count, 2))
    values = np.stack([np.sin(points[:, 0]), points[:, 1], points.sum(1) ** 2], 1) + 0.05 * rng.normal(size=(count, 3))
    descriptions = [Description(metadata={"x": x, "y": y}, task_id=f"t{i % 3}") for i, (x, y) in enumerate(points)]
    return descriptions, [Adapter({"w": torch.tensor(row, dtype=torch.float32)}, CONFIG) for row in values]


def fitted(both: bool) -> tuple[KernelRegressionSource, FusionEncoder]:
    descriptions, adapters = toy()
    metadata = MetadataEncoder.fit(descriptions, SCHEMA)
    encoder = FusionEncoder((metadata, TaskIdEncoder.fit(descriptions)) if both else (metadata,))
    source = KernelRegressionSource(encoder, descriptions, adapters, length_scales=(0.5, 2.0), ridges=(1e-3, 0.1))
    return source, encoder


@pytest.mark.parametrize("both", [False, True])
def test_choice_and_error_equal_refitting_without_each_task(both: bool) -> None:
    descriptions, adapters = toy()
    source, encoder = fitted(both)
    choice = next(entry for entry in source.choices if len(entry.parts) == (2 if both else 1))
    parts = [np.stack([encoder.encode_parts(d)[part].double().numpy() for d in descriptions]) for part in choice.parts]
    targets = np.stack([adapter.tensors["w"].double().numpy() for adapter in adapters])
    units = [mean_pair_distance(part) for part in parts]
    others = [[j for j in range(len(targets)) if j != i] for i in range(len(targets))]
    baseline = sum(squared_distance(targets[i], targets[others[i]].mean(0)) for i in range(len(targets)))

    def relative_error(weights: list[float], scale: float, ridge: float) -> float:
        total = 0.0
        for i, rest in enumerate(others):
            found = task_weights(
                [part[rest] for part in parts], [part[i] for part in parts], units, weights, scale, ridge
            )
            total += squared_distance(targets[i], found @ targets[rest])
        return total / baseline

    grid = [[step / 6, 1 - step / 6] for step in range(1, 6)] if both else [[1.0]]
    errors = {
        (*weights, scale, ridge): relative_error(weights, scale, ridge)
        for weights in grid
        for scale in (0.5, 2.0)
        for ridge in (1e-3, 0.1)
    }
    best = min(errors, key=lambda key: errors[key])
    assert (*choice.weights, choice.length_scale, choice.ridge) == pytest.approx(best)
    assert choice.relative_error == pytest.approx(errors[best], rel=1e-6)


def test_prediction_equals_the_bordered_system() -> None:
    descriptions, adapters = toy()
    source, encoder = fitted(both=False)
    choice = source.choices[0]
    part = np.stack([encoder.encode_parts(d)["metadata"].double().numpy() for d in descriptions])
    query = Description(metadata={"x": 0.3, "y": -0.4})
    values = encoder.encode_parts(query)["metadata"].double().numpy()
    units = [mean_pair_distance(part)]
    expected = task_weights([part], [values], units, [1.0], choice.length_scale, choice.ridge)
    assert source.weights(query).numpy() == pytest.approx(expected, abs=1e-8)
    targets = np.stack([adapter.tensors["w"].double().numpy() for adapter in adapters])
    found = source.sample(query, 1, 0)[0].tensors["w"].double().numpy()
    assert found == pytest.approx(expected @ targets, abs=1e-6)
