"""The training loop: schedules, divergence, averages, and settings that are restored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from refusals import refused
from wildpdiff.errors import TrainingError
from wildpdiff.training import (
    ParameterAverage,
    flush_denormals,
    is_over,
    seeded,
    train,
    warmup_constant,
    warmup_cosine,
)


def optimizer(rate: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)


def rates(schedule: torch.optim.lr_scheduler.LambdaLR, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def test_warmup_cosine_rises_and_falls() -> None:
    found = rates(warmup_cosine(optimizer(), 100, 10), 100)
    assert found[:11] == sorted(found[:11])
    assert max(found) == found[10] == 1.0
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] < 0.001


def test_warmup_constant_stays_at_its_peak() -> None:
    assert rates(warmup_constant(optimizer(2.0), 4), 6) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def quadratic(parameter: nn.Parameter) -> Tensor:
    return (parameter - 1.0).square().sum()


def test_losses_progress_and_an_early_end() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    calls: list[tuple[int, int]] = []
    losses = train(
        torch.optim.SGD([parameter], lr=0.25),
        lambda: quadratic(parameter),
        10,
        name="test",
        after=lambda step: step == 3,
        progress=lambda *counts: calls.append(counts),
    )
    assert calls == [(1, 10), (2, 10), (3, 10)]
    assert losses.tolist() == [1.0, 0.25, 0.0625]
    assert float(parameter.detach()) == pytest.approx(1 - 0.125)


def test_gradients_are_clipped() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    train(torch.optim.SGD([parameter], lr=1.0), lambda: 100 * quadratic(parameter), 1, name="test", clip=0.5)
    assert float(parameter.detach()) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_training_names_network_step_and_loss(loss: float) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    values = iter([1.0, loss])
    with refused(TrainingError, "test network", "step 2", loss):
        train(torch.optim.SGD([parameter], lr=0.1), lambda: parameter.sum() + next(values), 5, name="test network")


def test_a_young_average_follows_and_an_old_one_decays() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = ParameterAverage(network, 0.5)
    nn.init.ones_(network.weight)
    average.update(1)
    assert float(average.module.weight) == pytest.approx(0.9)
    average.update(100)
    assert float(average.module.weight) == pytest.approx(0.95)
    assert not average.module.training
    assert not average.module.weight.requires_grad


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([1.0, 0.5, 0.6, 0.7, 0.8], True),
        ([1.0, 0.5, 0.51, 0.52, 0.53], False),  # higher each time, but hardly
        ([1.0, 0.5, 0.8, 0.7, 0.8], False),  # up and down
        ([1.0, 0.5, 0.51, 0.5, 0.52, 0.51, 0.52], True),  # nothing lower for five evaluations
        ([0.5], False),
        ([0.5, 0.6, 0.7], False),
        ([0.0, 1.0, 2.0, 3.0], True),
        ([3.0, 2.0, 1.0, -1.0], False),
    ],
)
def test_a_training_ends_where_the_held_out_loss_has_turned_or_falls_no_more(losses: list[float], over: bool) -> None:
    assert is_over(losses, patience=5) is over


def test_denormals_are_flushed_inside_the_block_only() -> None:
    def survives() -> bool:
        return float(torch.full((1,), 1e-40).mul(1.0).mul(1e20)) > 0.0

    assert survives()
    with flush_denormals():
        flushed = not survives()
        with flush_denormals():
            pass
        still = not survives()
    assert survives()
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    assert flushed
    assert still


def test_seeded_gives_the_global_generator_back() -> None:
    before = torch.random.get_rng_state()
    with seeded(5):
        one = torch.rand(3)
    with seeded(5):
        assert torch.equal(torch.rand(3), one)
    assert torch.equal(torch.random.get_rng_state(), before)
