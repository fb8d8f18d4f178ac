"""Samplers, each named by its paper and written in its letters. One signature; the registry is ``SAMPLERS``.

Every sampler takes ``(denoise, schedule, noise, cond, steps, generator)``: the denoiser, its schedule, the start
noise z_T "n d", condition embeddings "n e", the number of steps and the generator of further noise (unused by the
deterministic ones), and returns latents "n d". Row i depends on row i of the arguments and on its index i alone, not
on how many rows are sampled with it, up to float rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.diffusion.denoiser import Denoiser
from wildpdiff.diffusion.schedule import Schedule


@runtime_checkable
class Sampler(Protocol):
    """Latents from noise."""

    def __call__(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        noise: Float[Tensor, "n d"],
        cond: Float[Tensor, "n e"],
        steps: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "n d"]:
        """Latents "n d" from the start noise z_T "n d"."""
        ...


def standard_noise(generator: torch.Generator, n: int, d: int) -> Float[Tensor, "n d"]:
    """Standard normal rows, float32: the first rows are the same whatever ``n`` is."""
    noise: Tensor = _noise_source(generator, n, d)()
    return noise


@torch.no_grad()
def ddpm(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "n d"],
    cond: Float[Tensor, "n e"],
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2, with the posterior of equations 6 and 7) on a strided chain."""
    x, times, draw = noise, schedule.times(steps), _noise_source(generator, *noise.shape)
    abar = schedule.alpha(times).square().tolist()
    for i in range(steps):
        x_0 = _x_0(denoise, schedule, x, times[i], cond)
        alpha_t = abar[i] / abar[i + 1]
        beta_t = 1.0 - alpha_t
        mean_0 = abar[i + 1] ** 0.5 * beta_t / (1.0 - abar[i])
        mean_t = alpha_t**0.5 * (1.0 - abar[i + 1]) / (1.0 - abar[i])
        x = mean_0 * x_0 + mean_t * x
        if i + 1 < steps:
            beta_tilde = (1.0 - abar[i + 1]) / (1.0 - abar[i]) * beta_t
            x = x + beta_tilde**0.5 * draw().to(x)
    return x


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "n d"],
    cond: Float[Tensor, "n e"],
    steps: int,
    generator: torch.Generator,
    eta: float = 0.0,
) -> Float[Tensor, "n d"]:
    """Song et al. 2021, equations 12 and 16. ``eta`` 0 is deterministic, 1 has the variance of DDPM."""
    x, times, draw = noise, schedule.times(steps), _noise_source(generator, *noise.shape)
    abar = schedule.alpha(times).square().tolist()
    for i in range(steps):
        prediction = _predict(denoise, x, times[i], cond)
        t = times[i].expand(x.shape[0])
        x_0, epsilon = schedule.sample_of(prediction, x, t), schedule.epsilon_of(prediction, x, t)
        variance = (1.0 - abar[i + 1]) / (1.0 - abar[i]) * (1.0 - abar[i] / abar[i + 1])
        sigma = eta * variance**0.5
        x = abar[i + 1] ** 0.5 * x_0 + max(0.0, 1.0 - abar[i + 1] - sigma**2) ** 0.5 * epsilon
        if sigma > 0.0:
            x = x + sigma * draw().to(x)
    return x


@torch.no_grad()
def dpm_solver_2m(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "n d"],
    cond: Float[Tensor, "n e"],
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): second order with one evaluation a step; deterministic.

    The first step, and the last one to the clean latent where h is infinite, are of first order.
    """
    x, times = noise, schedule.times(steps)
    alpha, sigma = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    lambda_ = (schedule.log_snr(times) / 2.0).tolist()
    x_0_before = x
    for i in range(steps):
        x_0 = _x_0(denoise, schedule, x, times[i], cond)
        direction = x_0
        if 0 < i < steps - 1:
            r = (lambda_[i] - lambda_[i - 1]) / (lambda_[i + 1] - lambda_[i])
            direction = x_0 + (x_0 - x_0_before) / (2.0 * r)
        ratio = sigma[i + 1] / sigma[i]
        # alpha' (1 - e^-h) with h = lambda' - lambda, written so that the last step has no infinity in it.
        x = ratio * x + (alpha[i + 1] - alpha[i] * ratio) * direction
        x_0_before = x_0
    return x


@torch.no_grad()
def heun(
    denoise: Denoiser,
    schedule: Schedule,
    noise: Float[Tensor, "n d"],
    cond: Float[Tensor, "n e"],
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Heun's method on the probability-flow ODE, as Karras et al. 2022 (algorithm 1); two evaluations a step.

    In the angle phi = arctan(sigma/alpha) the variance-preserving ODE is dz/dphi = v with the velocity
    v = alpha epsilon - sigma z_0 (Salimans & Ho 2022, appendix D). Unlike in sigma/alpha, which falls from
    thousands to nothing, both ends are finite and few evenly spaced steps are stable. The last step, to the clean
    latent, is of first order: the denoiser's own answer.
    """
    x, times = noise, schedule.times(steps)
    phi = torch.atan2(schedule.sigma(times), schedule.alpha(times)).tolist()
    for i in range(steps - 1):
        h = phi[i + 1] - phi[i]
        v_i = _velocity(denoise, schedule, x, times[i], cond)
        v_next = _velocity(denoise, schedule, x + h * v_i, times[i + 1], cond)
        x = x + h * 0.5 * (v_i + v_next)
    return _x_0(denoise, schedule, x, times[steps - 1], cond)


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm_solver_2m": dpm_solver_2m, "heun": heun}
"""Every sampler by name."""


def _predict(denoise: Denoiser, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    prediction: Tensor = denoise(x, t.to(x).expand(x.shape[0]), cond)
    return prediction


def _x_0(denoise: Denoiser, schedule: Schedule, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    prediction = _predict(denoise, x, t, cond)
    x_0: Tensor = schedule.sample_of(prediction, x, t.expand(x.shape[0]))
    return x_0


def _velocity(denoise: Denoiser, schedule: Schedule, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    prediction = _predict(denoise, x, t, cond)
    rows = t.expand(x.shape[0])
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    return alpha * schedule.epsilon_of(prediction, x, rows) - sigma * schedule.sample_of(prediction, x, rows)


def _noise_source(generator: torch.Generator, n: int, d: int) -> Callable[[], Tensor]:
    """A function that draws standard normal rows "n d", each row from a generator of its own."""
    seeds = [int(torch.randint(2**62, (), generator=generator)) for _ in range(n)]
    rows = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw() -> Tensor:
        return torch.stack([torch.randn(d, generator=row) for row in rows]) if rows else torch.zeros(0, d)

    return draw
