from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refusals import refused
from wildpdiff.diffusion.fit import DiffusionConfig, FittedDiffusion, fit_diffusion
from wildpdiff.diffusion.samplers import ddim, dpm_solver_2m, standard_noise
from wildpdiff.errors import TrainingError

CENTRES = torch.tensor([[1.5, 0.0, -1.0, 0.5], [-1.0, 1.0, 0.0, -1.5], [0.0, -1.5, 1.2, 1.0]])
SPREAD = 0.2
CODES = torch.eye(3)
QUICK = DiffusionConfig(size="tiny", width=64, dropout=0.0, steps=12, batch=16)


def mixture(per: int = 200) -> Tensor:
    noise = torch.randn(3 * per, 4, generator=torch.Generator().manual_seed(0))
    return CENTRES.repeat(per, 1) + SPREAD * noise


def conditions(index: Tensor, generator: torch.Generator) -> Tensor:
    return CODES[index % 3]


@pytest.mark.parametrize(("prediction", "schedule"), [("velocity", "cosine"), ("velocity", "linear")])
def test_fit_recovers_a_conditional_mixture(prediction: str, schedule: str) -> None:
    config = DiffusionConfig(
        size="tiny",
        width=64,
        dropout=0.0,
        steps=500,
        batch=128,
        learning_rate=3e-3,
        prediction=prediction,
        schedule=schedule,
    )
    fitted = fit_diffusion(mixture(), conditions, config, seed=0)
    generator = torch.Generator().manual_seed(1)
    noise = standard_noise(generator, 300, 4)
    cond = CODES.repeat_interleave(100, 0)
    samples = dpm_solver_2m(fitted.model, fitted.schedule, noise, cond, 20, generator).reshape(3, 100, 4)
    torch.testing.assert_close(samples.mean(1), CENTRES, atol=0.15, rtol=0)
    assert 0.5 * SPREAD < float(samples.std(1).mean()) < 1.8 * SPREAD


@pytest.mark.parametrize(("network", "steps"), [("unet", 60), ("residual", 200)])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_other_networks_and_predictions_learn(network: str, steps: int, prediction: str) -> None:
    config = replace(
        QUICK, network=network, prediction=prediction, schedule="linear", steps=steps, batch=64, learning_rate=3e-3
    )
    fitted = fit_diffusion(mixture(), conditions, config, seed=0)
    assert fitted.losses[-30:].mean() < 0.9 * fitted.losses[:10].mean()


def same_weights(one: FittedDiffusion, other: FittedDiffusion) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("network", ["residual", "unet"])
def test_fit_is_a_function_of_its_arguments_to_the_byte(network: str) -> None:
    config = replace(QUICK, network=network, dropout=0.1)
    state = torch.random.get_rng_state()
    one, same, other = (fit_diffusion(mixture(), conditions, config, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.losses, same.losses)
    assert same_weights(one, same)
    assert not same_weights(one, other)


def test_a_condition_sampler_may_draw_without_moving_the_other_draws() -> None:
    def drawing(index: Tensor, generator: torch.Generator) -> Tensor:
        torch.rand(7, generator=generator)
        return conditions(index, generator)

    assert same_weights(
        fit_diffusion(mixture(), conditions, QUICK, seed=1), fit_diffusion(mixture(), drawing, QUICK, seed=1)
    )


def test_dropout_changes_the_training() -> None:
    plain = fit_diffusion(mixture(), conditions, QUICK, seed=0)
    changed = fit_diffusion(mixture(), conditions, replace(QUICK, dropout=0.3), seed=0)
    assert not torch.equal(plain.losses[2:], changed.losses[2:])


def test_a_loss_that_is_not_a_number_stops_the_training_and_names_the_step() -> None:
    calls = 0

    def failing(index: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        return CODES[index % 3] * (math.nan if calls > 5 else 1.0)

    # The first call is for the width, so the sixth is the fifth update.
    with refused(TrainingError, "denoiser", "step 5"):
        fit_diffusion(mixture(), failing, QUICK, seed=0)


@pytest.mark.parametrize("latents", [torch.zeros(0, 4), torch.full((3, 4), math.nan)])
def test_unusable_latents_are_refused(latents: Tensor) -> None:
    with refused(TrainingError, len(latents)):
        fit_diffusion(latents, conditions, QUICK, seed=0)


def test_progress_is_reported_and_the_model_is_ready_for_use() -> None:
    calls: list[tuple[int, int]] = []
    fitted = fit_diffusion(
        mixture(),
        conditions,
        replace(QUICK, dropout=0.5),
        seed=0,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(step, 12) for step in range(1, 13)]
    assert fitted.losses.shape == (12,)
    noise, cond = torch.ones(3, 4), CODES
    ends = [ddim(fitted.model, fitted.schedule, noise, cond, 5, torch.Generator()) for _ in range(2)]
    assert torch.equal(ends[0], ends[1])


def test_the_weights_returned_are_the_moving_average() -> None:
    last = fit_diffusion(mixture(), conditions, replace(QUICK, ema_decay=0.0), seed=0)
    averaged = fit_diffusion(mixture(), conditions, QUICK, seed=0)
    assert torch.equal(last.losses, averaged.losses)
    assert not same_weights(last, averaged)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"steps": -1}, {"batch": 0}, {"train_steps": 0}])
def test_numbers_below_one_are_refused(changes: dict[str, int]) -> None:
    with refused(TrainingError, next(iter(changes.values()))):
        DiffusionConfig(**changes)
