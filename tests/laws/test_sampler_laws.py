"""Samplers against the closed-form denoiser of Gaussian data, whose probability-flow ODE has an exact solution.

For z_0 ~ N(m, s² I): z_t ~ N(alpha m, v) with v = alpha² s² + sigma², E[z_0 | z_t] = m + alpha s² / v (z_t - alpha m),
and the ODE moves z_t along (z_t - alpha m) / sqrt(v) = constant.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wildpdiff.diffusion.denoiser import Denoiser, guided
from wildpdiff.diffusion.samplers import SAMPLERS, ddim, standard_noise
from wildpdiff.diffusion.schedule import Schedule

MEAN, DEVIATION = 1.5, 0.5


def gaussian_denoiser(schedule: Schedule, deviation: float = DEVIATION) -> Denoiser:
    """The exact denoiser of N(cond, deviation²), whatever the schedule's prediction type."""

    def denoise(z_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        variance = alpha**2 * deviation**2 + sigma**2
        z_0 = cond + alpha * deviation**2 / variance * (z_t - alpha * cond)
        return schedule.target(z_0.to(z_t), t, ((z_t - alpha * z_0) / sigma).to(z_t))

    return denoise


def exact_end(schedule: Schedule, z_T: Tensor, mean: float, last: float) -> Tensor:
    """The ODE's solution at the time ``last``, then the denoiser's answer there (the last step of every solver)."""
    ends = torch.tensor([schedule.train_steps - 1.0, last], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)
    deviation = (alpha**2 * DEVIATION**2 + sigma**2).sqrt()
    unit = (z_T - alpha[0] * mean) / deviation[0]
    return mean + alpha[1] * DEVIATION**2 / deviation[1] * unit


def slope(name: str, kind: str, spacing: str, steps: list[int]) -> float:
    schedule = Schedule(kind, "velocity", spacing=spacing)
    z_T = torch.linspace(-2, 2, 33, dtype=torch.float64)[:, None]
    cond = torch.full_like(z_T, MEAN)
    errors = []
    for count in steps:
        end = SAMPLERS[name](gaussian_denoiser(schedule), schedule, z_T, cond, count, torch.Generator())
        errors.append(float((end - exact_end(schedule, z_T, MEAN, 0.0)).abs().max()))
    x = torch.tensor([math.log(count) for count in steps], dtype=torch.float64)
    y = torch.tensor(errors, dtype=torch.float64).log()
    return -float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


@pytest.mark.parametrize(
    ("name", "spacing", "order"),
    [("ddim", "log_snr", 1.0), ("dpm_solver_2m", "log_snr", 2.0), ("heun", "log_snr", 2.0)],
)
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_convergence_order(name: str, spacing: str, order: float, kind: str) -> None:
    assert slope(name, kind, spacing, [30, 60, 120]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("name", "tolerance"), [("ddim", 0.08), ("dpm_solver_2m", 0.002), ("heun", 0.015)])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_few_even_steps_come_close(name: str, tolerance: float, prediction: str) -> None:
    schedule = Schedule("cosine", prediction)
    z_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    end = SAMPLERS[name](gaussian_denoiser(schedule), schedule, z_T, torch.full_like(z_T, MEAN), 25, torch.Generator())
    torch.testing.assert_close(end, MEAN + DEVIATION * z_T, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samples_have_mean_and_variance_of_the_data(name: str) -> None:
    schedule = Schedule("cosine", "sample")
    generator = torch.Generator().manual_seed(0)
    noise = standard_noise(generator, 200, 40)
    cond = torch.full_like(noise, MEAN)
    samples = SAMPLERS[name](
        gaussian_denoiser(schedule), schedule, noise, cond, 250 if name == "ddpm" else 50, generator
    )
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(samples.std()) == pytest.approx(DEVIATION, abs=0.025)


def test_ddim_without_eta_draws_nothing() -> None:
    schedule = Schedule("linear", "epsilon")
    noise = standard_noise(torch.Generator().manual_seed(0), 6, 4)
    denoise, cond = gaussian_denoiser(schedule), torch.zeros(6, 4)
    ends = [ddim(denoise, schedule, noise, cond, 10, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    assert torch.equal(ends[0], ends[1])
    noisy = ddim(denoise, schedule, noise, cond, 10, torch.Generator().manual_seed(1), eta=1.0)
    assert not torch.allclose(noisy, ends[0], atol=1e-2)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    schedule = Schedule("cosine", "velocity")
    denoise = gaussian_denoiser(schedule)

    def first_rows(n: int) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        noise, cond = standard_noise(torch.Generator().manual_seed(4), n, 20), torch.ones(n, 20)
        return SAMPLERS[name](denoise, schedule, noise, cond, 10, generator)[:3]

    torch.testing.assert_close(first_rows(3), first_rows(17), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "velocity"])
def test_guidance(prediction: str) -> None:
    schedule = Schedule("cosine", prediction)
    denoise = gaussian_denoiser(schedule)
    generator = torch.Generator().manual_seed(0)
    z_t, cond, null = torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator), torch.zeros(3)
    t = torch.linspace(10, 900, 5)
    conditional, unconditional = denoise(z_t, t, cond), denoise(z_t, t, null.expand(5, 3))
    assert torch.equal(guided(denoise, 1.0, null)(z_t, t, cond), conditional)
    torch.testing.assert_close(guided(denoise, 0.0, null)(z_t, t, cond), unconditional)
    twice = guided(denoise, 2.0, null)(z_t, t, cond)
    torch.testing.assert_close(twice, 2 * conditional - unconditional)
    # The guided clean latent is the extrapolation of the clean latents: the prediction type does not matter.
    of = [schedule.sample_of(p, z_t, t) for p in (twice, conditional, unconditional)]
    torch.testing.assert_close(of[0], 2 * of[1] - of[2], atol=1e-4, rtol=1e-3)


def test_ancestral_sampling_is_ddim_with_eta_one() -> None:
    schedule = replace(Schedule("linear", "epsilon"))
    noise, cond = standard_noise(torch.Generator().manual_seed(0), 5, 8), torch.zeros(5, 8)
    denoise = gaussian_denoiser(schedule)
    ancestral = SAMPLERS["ddpm"](denoise, schedule, noise, cond, 20, torch.Generator().manual_seed(1))
    implicit = ddim(denoise, schedule, noise, cond, 20, torch.Generator().manual_seed(1), eta=1.0)
    torch.testing.assert_close(ancestral, implicit, atol=1e-4, rtol=1e-4)
