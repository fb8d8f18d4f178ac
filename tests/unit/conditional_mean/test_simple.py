from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from wildpdiff.conditional_mean.simple import (
    KERNEL_RIDGE,
    LENGTH_SCALES,
    MEAN,
    NEAREST,
    PART_STEPS,
    PRETRAINED,
    RIDGES,
    SIMPLE,
    SimpleEstimators,
    fit_simple_estimators,
)

SIZES = (2, 3)
TASKS = 12


def world(hidden: bool = False) -> tuple[SimpleEstimators, Tensor, Tensor]:
    """Twelve tasks whose adapters are a smooth function of the first part; some lack the second part if wanted."""
    draws = torch.Generator().manual_seed(0)
    values, flags = torch.randn(TASKS, 5, generator=draws), torch.ones(TASKS, 2)
    if hidden:
        values[::3, 2:], flags[::3, 1] = 0.0, 0.0
    seen = torch.cat([values, flags], 1)
    targets = torch.stack([values[:, 0].sin(), values[:, 1], values[:, 0] * values[:, 1]], 1)
    return fit_simple_estimators(SIZES, torch.full((3,), 9.0), seen, targets), seen, targets


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", SIMPLE)
def test_leaving_a_task_out_is_predicting_it_from_the_others(name: str, hidden: bool) -> None:
    estimators, seen, _ = world(hidden)
    left_out = estimators.leave_one_out()[name]
    for task in range(TASKS):
        rest = estimators.without(torch.arange(TASKS) == task)
        assert torch.allclose(rest.predict(name, seen[task : task + 1])[0], left_out[task], atol=1e-4)


def test_each_is_what_it_is_called() -> None:
    estimators, seen, targets = world()
    assert torch.equal(estimators.predict(PRETRAINED, seen), torch.full((TASKS, 3), 9.0))
    assert torch.allclose(estimators.predict(MEAN, seen)[3], targets.mean(0))
    assert torch.equal(estimators.predict(NEAREST, seen), targets)
    error = (estimators.leave_one_out()[KERNEL_RIDGE] - targets).square().sum()
    assert error < (estimators.leave_one_out()[MEAN] - targets).square().sum()
    with pytest.raises(KeyError):
        estimators.predict("oracle", seen)


def test_it_is_restored_to_the_same_predictions() -> None:
    estimators, seen, targets = world()
    again = SimpleEstimators.from_state(estimators.config, SIZES, estimators.start, seen=seen, targets=targets)
    assert all(torch.equal(again.predict(name, seen), estimators.predict(name, seen)) for name in SIMPLE)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_tasks_have_predictions_too(count: int) -> None:
    _, seen, targets = world()
    few = fit_simple_estimators(SIZES, torch.zeros(3), seen[:count], targets[:count])
    for name in SIMPLE:
        assert torch.isfinite(few.predict(name, seen)).all()
        assert few.leave_one_out()[name].shape == (count, 3)


@pytest.mark.parametrize(("share", "seed"), [(1.0, 0), (0.6, 2)])
def test_the_kernel_is_the_one_of_those_tried_with_the_lowest_leave_one_out_error(share: float, seed: int) -> None:
    # With many parts missing, distances are of different parts and the kernel has negative eigenvalues.
    draws = torch.Generator().manual_seed(seed)
    values, flags = torch.randn(TASKS, 6, generator=draws), (torch.rand(TASKS, 3, generator=draws) < share).float()
    flags[flags.sum(1) == 0, 0] = 1.0
    values *= flags.repeat_interleave(2, 1)
    targets = torch.stack([values[:, 0].sin() + values[:, 2], values[:, 1], values[:, 4]], 1)
    estimators = fit_simple_estimators((2, 2, 2), torch.zeros(3), torch.cat([values, flags], 1), targets)

    def error(weights: tuple[float, ...], scale: float, ridge: float) -> float:
        tried = replace(estimators, part_weights=weights, length_scale=scale, ridge=ridge)
        return float((tried.leave_one_out()[KERNEL_RIDGE] - targets).square().sum())

    steps = range(PART_STEPS + 1)
    weights = [
        (a / PART_STEPS, b / PART_STEPS, 1 - (a + b) / PART_STEPS) for a in steps for b in range(PART_STEPS + 1 - a)
    ]
    lowest = min(error(*choice) for choice in product(weights, LENGTH_SCALES, RIDGES))
    chosen = error(estimators.part_weights, estimators.length_scale, estimators.ridge)
    assert chosen == pytest.approx(lowest, rel=1e-3)


def test_the_nearest_task_is_another_one_also_where_descriptions_are_equal() -> None:
    _, seen, targets = world()
    seen[5] = seen[2]
    estimators = fit_simple_estimators(SIZES, torch.zeros(3), seen, targets)
    nearest = estimators.leave_one_out()[NEAREST]
    assert torch.equal(nearest[[5, 2]], targets[[2, 5]])
    assert not (nearest == targets).all(1).any()
    assert torch.equal(estimators.leave_one_out()[PRETRAINED], torch.zeros(TASKS, 3))


@pytest.mark.parametrize("lonely", [0, 7])
def test_a_task_that_shares_no_part_with_others_is_the_mean_of_them(lonely: int) -> None:
    _, seen, targets = world()
    seen[:, 2:5], seen[:, 6] = 0.0, 0.0
    seen[lonely] = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0])
    estimators = fit_simple_estimators(SIZES, torch.zeros(3), seen, targets)
    left_out = estimators.leave_one_out()
    others = targets[torch.arange(TASKS) != lonely]
    for name in (MEAN, NEAREST):
        torch.testing.assert_close(left_out[name][lonely], others.mean(0))
    assert float((left_out[KERNEL_RIDGE][lonely] - targets[lonely]).norm()) > 0.1
    nothing = estimators.predict(NEAREST, torch.zeros(1, 7))[0]
    torch.testing.assert_close(nothing, targets.mean(0))


def test_a_task_without_the_parts_that_count_does_not_become_the_constant() -> None:
    estimators, seen, targets = world()
    seen[4] = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 1.0])
    targets[4] = 100.0
    first = replace(estimators, part_weights=(1.0, 0.0), ridge=1e-6, seen=seen, targets=targets)
    far = torch.tensor([[50.0, 50.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
    assert first.predict(KERNEL_RIDGE, far).abs().max() < 90
