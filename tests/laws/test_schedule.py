from __future__ import annotations

from itertools import product

import pytest
import torch

from refusals import refused
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.errors import TrainingError

KINDS = ["linear", "cosine"]
PREDICTIONS = ["epsilon", "sample", "velocity"]


@pytest.mark.parametrize("kind", KINDS)
def test_log_snr_has_an_inverse(kind: str) -> None:
    schedule = Schedule(kind)
    t = torch.linspace(0, 999, 4001, dtype=torch.float64)
    torch.testing.assert_close(schedule.time_of_log_snr(schedule.log_snr(t)), t, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_variance_preserving_and_equal_the_table(kind: str) -> None:
    schedule = Schedule(kind)
    t = torch.arange(1000, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(alpha.square(), schedule.alphas_cumprod, rtol=1e-9, atol=0)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t))
    assert bool((schedule.log_snr(t).diff() < 0).all())


def test_the_clean_time_has_no_noise() -> None:
    clean = torch.tensor([-1.0])
    assert Schedule().alpha(clean).item() == 1.0
    assert Schedule().sigma(clean).item() == 0.0


def test_the_linear_schedule_is_that_of_ddpm() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(Schedule("linear").alphas_cumprod, torch.cumprod(1 - betas, 0))


def test_the_cosine_schedule_is_the_squared_cosine() -> None:
    t = torch.arange(1, 990, dtype=torch.float64) / 1000
    square = torch.cos((t + 0.008) / 1.008 * torch.pi / 2).square()
    start = torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2, dtype=torch.float64)).square()
    torch.testing.assert_close(Schedule("cosine").alphas_cumprod[:989], square / start)


@pytest.mark.parametrize(("kind", "prediction"), product(KINDS, PREDICTIONS))
def test_predictions_convert_back_to_sample_and_noise(kind: str, prediction: str) -> None:
    schedule = Schedule(kind, prediction)
    generator = torch.Generator().manual_seed(0)
    z_0, epsilon = torch.randn(2, 50, 8, generator=generator, dtype=torch.float64)
    t = torch.linspace(0, 900, 50, dtype=torch.float64)
    z_t = schedule.q_sample(z_0, t, epsilon)
    target = schedule.target(z_0, t, epsilon)
    torch.testing.assert_close(schedule.sample_of(target, z_t, t), z_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.epsilon_of(target, z_t, t), epsilon, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("spacing", "steps"), product(["trailing", "log_snr"], [1, 7, 50, 1000]))
def test_times_fall_from_the_noisiest_to_the_clean_one(spacing: str, steps: int) -> None:
    times = Schedule("linear", spacing=spacing).times(steps)
    assert times.shape == (steps + 1,)
    assert times[0].item() == pytest.approx(999.0)
    assert times[-1].item() == -1.0
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("steps", [0, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with refused(TrainingError, steps):
        Schedule().times(steps)


def test_configuration_gives_the_same_schedule() -> None:
    schedule = Schedule("linear", "velocity", 500, "log_snr")
    again = Schedule(**schedule.config)
    assert again == schedule
    assert torch.equal(again.alphas_cumprod, schedule.alphas_cumprod)
