from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refusals import refused
from wildpdiff.autoencoder.fit import AutoencoderConfig, fit_autoencoder, restore_autoencoder
from wildpdiff.errors import ArtifactError, TrainingError


def curved(n: int = 120, d: int = 70) -> Tensor:
    """Vectors on a curved surface of three dimensions, which no plane of three holds."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 3, generator=generator)
    features = torch.cat([hidden, 1.5 * torch.sin(2 * hidden)], 1)
    vectors = features @ torch.randn(6, d, generator=generator)
    return (vectors - vectors.mean(0)) / vectors.std(0)


SETTINGS = {
    "pca": ("pca", AutoencoderConfig(latent_size=3)),
    "linear": ("vae", AutoencoderConfig(latent_size=3, hidden=0, steps=60)),
    "flat": ("vae", AutoencoderConfig(latent_size=3, hidden=64, steps=400, learning_rate=3e-3, latent_noise=0.02)),
}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_latents_are_standardised_and_the_model_comes_back_from_storage(name: str) -> None:
    kind, config = SETTINGS[name]
    x = curved()
    fitted = fit_autoencoder(kind, x, config, seed=0)
    z = fitted.model.encode(x)
    assert z.shape == (120, fitted.model.latent_size)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    again = restore_autoencoder(fitted.model.config, fitted.model.state_dict())
    assert torch.equal(again.encode(x), z)
    assert torch.equal(again.decode(z), fitted.model.decode(z))
    # A row does not depend on its batch: no statistics of the batch are left in evaluation mode.
    torch.testing.assert_close(again.encode(x[:2]), z[:2], atol=1e-4, rtol=1e-4)


def test_a_linear_code_by_gradients_is_about_as_good_as_principal_components() -> None:
    x = curved()
    best = fit_autoencoder("pca", x, AutoencoderConfig(latent_size=3), 0).reconstruction_error
    linear = fit_autoencoder("vae", x, SETTINGS["linear"][1], 0).reconstruction_error
    assert best - 1e-6 <= linear < 1.1 * best


def test_the_residual_code_beats_principal_components_on_curved_data() -> None:
    x = curved()
    best = fit_autoencoder("pca", x, AutoencoderConfig(latent_size=3), 0).reconstruction_error
    fitted = fit_autoencoder("vae", x, SETTINGS["flat"][1], 0)
    assert fitted.reconstruction_error < 0.7 * best
    assert fitted.losses[-20:].mean() < fitted.losses[:20].mean()


def test_fit_is_a_function_of_its_arguments() -> None:
    x, config = curved(), AutoencoderConfig(latent_size=3, hidden=8, steps=10)
    state = torch.random.get_rng_state()
    one, same, other = (fit_autoencoder("vae", x, config, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.losses, same.losses)
    assert not torch.equal(one.losses, other.losses)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, same.model.state_dict()[name])


def test_a_diverging_loss_stops_the_training_and_names_the_step() -> None:
    # The noise overflows float32 when squared, so the first loss is infinite.
    config = AutoencoderConfig(latent_size=2, hidden=0, steps=5, input_noise=1e30)
    with refused(TrainingError, "autoencoder", "step 1"):
        fit_autoencoder("vae", curved(), config, 0)


@pytest.mark.parametrize(
    ("vectors", "config", "value"),
    [
        (torch.ones(5, 4), AutoencoderConfig(), 5),
        (torch.ones(1, 4), AutoencoderConfig(), 1),
        (torch.full((3, 4), float("nan")), AutoencoderConfig(), "NaN"),
        (torch.eye(4), AutoencoderConfig(latent_size=0), 0),
    ],
)
def test_unusable_input_is_refused(vectors: Tensor, config: AutoencoderConfig, value: object) -> None:
    with refused(TrainingError, value):
        fit_autoencoder("pca", vectors, config, 0)


def test_an_unreadable_stored_model_is_refused() -> None:
    fitted = fit_autoencoder("pca", curved(), AutoencoderConfig(latent_size=3), 0)
    with refused(ArtifactError, "cube"):
        restore_autoencoder({"kind": "cube"}, {})
    with refused(ArtifactError, "pca"):
        restore_autoencoder(fitted.model.config | {"latent_size": 4}, fitted.model.state_dict())
