from __future__ import annotations

import pytest
import torch

from refusals import refused
from wildpdiff.diffusion.denoiser import Denoiser
from wildpdiff.diffusion.networks import NETWORKS, build_denoiser, restore_denoiser
from wildpdiff.errors import ArtifactError


def config(network: str, latent_size: int = 13, **more: object) -> dict[str, object]:
    return {"network": network, "latent_size": latent_size, "condition_size": 3, "size": "tiny", **more}


def woken(network: str, latent_size: int = 13) -> torch.nn.Module:
    """A network whose zero-initialised parts are not zero any more, so that every input matters."""
    model = build_denoiser(config(network, latent_size)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.mark.parametrize("network", sorted(NETWORKS))
@pytest.mark.parametrize("latent_size", [1, 13, 64])
def test_any_latent_size_fits_and_the_output_starts_at_zero(network: str, latent_size: int) -> None:
    model = build_denoiser(config(network, latent_size))
    assert isinstance(model, Denoiser)
    prediction = model(torch.ones(5, latent_size), torch.full((5,), 10.5), torch.ones(5, 3))
    assert torch.equal(prediction, torch.zeros(5, latent_size))


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_rows_are_independent_and_every_argument_matters(network: str) -> None:
    model = woken(network)
    generator = torch.Generator().manual_seed(1)
    z, cond = torch.randn(6, 13, generator=generator), torch.randn(6, 3, generator=generator)
    t = torch.linspace(0, 999, 6)
    whole = model(z, t, cond)
    torch.testing.assert_close(model(z[2:3], t[2:3], cond[2:3]), whole[2:3], atol=1e-4, rtol=1e-4)
    for changed in (model(z + 0.5, t, cond), model(z, t.flip(0), cond), model(z, t, cond + 0.5)):
        assert (changed - whole).abs().max() > 1e-3


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_network_comes_back_from_storage(network: str) -> None:
    model = woken(network)
    again = restore_denoiser(model.config, model.state_dict())
    arguments = torch.ones(2, 13), torch.zeros(2), torch.ones(2, 3)
    assert torch.equal(again(*arguments), model(*arguments))
    assert not again.training


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_sizes_grow(network: str) -> None:
    counts = [
        sum(p.numel() for p in build_denoiser(config(network) | {"size": size}).parameters())
        for size in ("tiny", "small", "base")
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2]


def test_width_and_depth_override_the_size() -> None:
    model = build_denoiser(config("residual", width=16, depth=1))
    assert model.enter.weight.shape == (16, 13)
    assert len(model.first) == 1


def test_unreadable_configurations_are_refused() -> None:
    with refused(ArtifactError, "transformer"):
        build_denoiser(config("transformer"))
    with refused(ArtifactError, "colour"):
        build_denoiser(config("unet", colour=3))
    with refused(ArtifactError, "weights"):
        restore_denoiser(config("residual"), woken("unet").state_dict())
