from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildpdiff.conditional_mean.simple import (
    KERNEL_RIDGE,
    MEAN,
    NEAREST,
    PRETRAINED,
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
    again = SimpleEstimators.from_state(estimators.config, SIZES, estimators.start, seen, targets)
    assert all(torch.equal(again.predict(name, seen), estimators.predict(name, seen)) for name in SIMPLE)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_tasks_have_predictions_too(count: int) -> None:
    _, seen, targets = world()
    few = fit_simple_estimators(SIZES, torch.zeros(3), seen[:count], targets[:count])
    for name in SIMPLE:
        assert torch.isfinite(few.predict(name, seen)).all()
        assert few.leave_one_out()[name].shape == (count, 3)
