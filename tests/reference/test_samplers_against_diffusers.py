"""Our samplers against diffusers' schedulers, step for step, on the same denoiser, times and noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from wildpdiff.diffusion.samplers import SAMPLERS, ddim, standard_noise
from wildpdiff.diffusion.schedule import Schedule

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (pip install wildpdiff[dev])")

N, D, STEPS = 4, 20, 20
NAMES = {"epsilon": "epsilon", "sample": "sample", "velocity": "v_prediction"}


def arguments(kind: str, prediction: str) -> dict[str, Any]:
    betas = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[kind]
    return {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": betas,
        "prediction_type": NAMES[prediction],
        "timestep_spacing": "trailing",
    }


class Recorder:
    """A smooth made-up network that keeps every latent it was shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.times: list[float] = []

    def __call__(self, z_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.seen.append(z_t.clone())
        self.times.append(float(t[0]))
        return torch.sin(z_t + 0.001 * t[:, None]) * 0.5 + 0.1 * cond


def run_theirs(scheduler: Any, noise: Tensor, cond: Tensor, rows: list[torch.Generator] | None, **kw: Any) -> Recorder:
    scheduler.set_timesteps(STEPS)
    denoise, z = Recorder(), noise
    for t in scheduler.timesteps:
        prediction = denoise(z, t.float().expand(N), cond)
        extra = {} if rows is None else {"generator": rows}
        z = scheduler.step(prediction, t, z, **extra, **kw).prev_sample
    denoise.seen.append(z)
    return denoise


def row_generators(seed: int) -> list[torch.Generator]:
    """The generator of every row, derived as in the samplers' documentation: one seed a row, in order."""
    parent = torch.Generator().manual_seed(seed)
    seeds = [int(torch.randint(2**62, (), generator=parent)) for _ in range(N)]
    return [torch.Generator().manual_seed(s) for s in seeds]


def compare(ours: Recorder, end: Tensor, theirs: Recorder, steps: int = STEPS + 1) -> None:
    assert ours.times == theirs.times
    for mine, other in zip([*ours.seen, end][:steps], theirs.seen[:steps], strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=2e-3)


@pytest.fixture
def noise() -> Tensor:
    return standard_noise(torch.Generator().manual_seed(0), N, D)


@pytest.fixture
def cond() -> Tensor:
    return standard_noise(torch.Generator().manual_seed(1), N, D)


# cosine with epsilon divides by an alpha of 5e-5 at the start: float32 leaves nothing to compare there.
CASES = [
    ("linear", "epsilon"),
    ("linear", "sample"),
    ("linear", "velocity"),
    ("cosine", "sample"),
    ("cosine", "velocity"),
]


@pytest.mark.parametrize(("kind", "prediction"), CASES)
def test_ddpm(kind: str, prediction: str, noise: Tensor, cond: Tensor) -> None:
    ours = Recorder()
    end = SAMPLERS["ddpm"](ours, Schedule(kind, prediction), noise, cond, STEPS, torch.Generator().manual_seed(7))
    scheduler = diffusers.DDPMScheduler(**arguments(kind, prediction), clip_sample=False, variance_type="fixed_small")
    compare(ours, end, run_theirs(scheduler, noise, cond, row_generators(7)))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("kind", "prediction"), CASES)
def test_ddim(kind: str, prediction: str, eta: float, noise: Tensor, cond: Tensor) -> None:
    ours = Recorder()
    end = ddim(ours, Schedule(kind, prediction), noise, cond, STEPS, torch.Generator().manual_seed(7), eta=eta)
    scheduler = diffusers.DDIMScheduler(**arguments(kind, prediction), clip_sample=False, set_alpha_to_one=True)
    compare(ours, end, run_theirs(scheduler, noise, cond, row_generators(7), eta=eta))


@pytest.mark.parametrize(("kind", "prediction"), CASES)
def test_dpm_solver_2m(kind: str, prediction: str, noise: Tensor, cond: Tensor) -> None:
    ours = Recorder()
    end = SAMPLERS["dpm_solver_2m"](ours, Schedule(kind, prediction), noise, cond, STEPS, torch.Generator())
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **arguments(kind, prediction), algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    compare(ours, end, run_theirs(scheduler, noise, cond, None))


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_tables_of_alphas_are_the_same(kind: str) -> None:
    theirs = diffusers.DDPMScheduler(**arguments(kind, "epsilon")).alphas_cumprod
    torch.testing.assert_close(Schedule(kind).alphas_cumprod.float(), theirs, rtol=2e-4, atol=1e-8)
