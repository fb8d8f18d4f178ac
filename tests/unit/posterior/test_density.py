"""Distributions of codes given a description."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildpdiff.diffusion.fit import DiffusionConfig
from wildpdiff.posterior.density import DENSITIES, CodeDensity, DensityName, fit_density

CONFIG = DiffusionConfig(size="tiny", steps=150, batch=32, learning_rate=3e-3)
COUNT = 30
EMBEDDINGS = torch.cat([torch.linspace(-2, 2, COUNT)[:, None], torch.ones(COUNT, 1)], 1)
CODES = torch.cat([torch.sign(EMBEDDINGS[:, :1]) * 3 + 1, 0.1 * torch.arange(COUNT)[:, None].float()], 1)
"""The first follows the description's sign."""


def view(index: Tensor, draws: torch.Generator) -> Tensor:
    return EMBEDDINGS[index] + 0.01 * torch.randn(len(index), 2, generator=draws)


@pytest.fixture(scope="module")
def densities() -> dict[str, CodeDensity]:
    return {name: fit_density(name, EMBEDDINGS, CODES, sampler=view, config=CONFIG, seed=0) for name in DENSITIES}


def sampled(density: CodeDensity, at: float, count: int, seed: int = 0) -> Tensor:
    own = torch.tensor([[at, 1.0]]).expand(count, -1)
    return density.sample(own, torch.Generator().manual_seed(seed))


def test_seen_codes_are_those_of_seen_tasks_and_more_often_of_like_descriptions(
    densities: dict[str, CodeDensity],
) -> None:
    for at in (-1.5, 1.5):
        found = sampled(densities["seen codes"], at, 400)
        rows = (found[:, None] == CODES[None]).all(2)
        assert bool(rows.any(1).all())
        seen = EMBEDDINGS[rows.double().argmax(1), 0]
        assert float((seen - at).abs().mean()) < 0.8 * float((EMBEDDINGS[:, 0] - at).abs().mean())
        assert float((torch.sign(found[:, 0] - 1) == torch.sign(torch.tensor(at))).double().mean()) > 0.85
        assert len(torch.unique(found, dim=0)) > 5


def test_the_normal_density_has_the_codes_mean_and_spread_whatever_the_description(
    densities: dict[str, CodeDensity],
) -> None:
    found = sampled(densities["normal"], 1.5, 4000)
    assert torch.allclose(found.mean(0), CODES.mean(0), atol=0.15)
    assert torch.allclose(found.std(0), CODES.std(0, correction=0), atol=0.15)
    assert torch.equal(found, sampled(densities["normal"], -1.5, 4000))


def test_the_diffusion_follows_the_description(densities: dict[str, CodeDensity]) -> None:
    low, high = (sampled(densities["diffusion"], at, 200)[:, 0].mean() for at in (-1.5, 1.5))
    assert float(high - low) > 3


@pytest.mark.parametrize("name", DENSITIES)
def test_the_first_codes_do_not_depend_on_how_many_follow(densities: dict[str, CodeDensity], name: DensityName) -> None:
    few, many = sampled(densities[name], 0.7, 3), sampled(densities[name], 0.7, 50)
    assert torch.allclose(few, many[:3], atol=1e-5)


@pytest.mark.parametrize("name", DENSITIES)
def test_it_is_restored_to_the_same_bytes(densities: dict[str, CodeDensity], name: DensityName) -> None:
    density = densities[name]
    again = CodeDensity.from_state(density.config, {key: value.clone() for key, value in density.tensors.items()})
    assert again.config == density.config
    assert torch.equal(sampled(again, 0.7, 9), sampled(density, 0.7, 9))
    assert not torch.equal(sampled(again, 0.7, 9), sampled(density, 0.7, 9, seed=1))


def test_without_some_tasks_their_codes_are_never_drawn(densities: dict[str, CodeDensity]) -> None:
    kept = EMBEDDINGS[:, 0] < 0
    found = sampled(densities["seen codes"].only(kept), 1.5, 200)
    assert bool((found[:, 0] < 0).all())
