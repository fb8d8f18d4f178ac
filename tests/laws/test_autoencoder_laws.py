from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildpdiff.autoencoder.pca import PCAAutoencoder


def low_rank(n: int, d: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, rank, generator=generator) @ torch.randn(rank, d, generator=generator) + 2.0


@pytest.mark.parametrize(("n", "d"), [(30, 50), (50, 30)])
@pytest.mark.parametrize("whiten", [True, False])
def test_rank_k_data_is_reconstructed_exactly_by_k_components(n: int, d: int, whiten: bool) -> None:
    vectors = low_rank(n, d, 5)
    model = PCAAutoencoder.fit(vectors, latent_size=20, whiten=whiten)
    assert model.latent_size == 5
    torch.testing.assert_close(model.decode(model.encode(vectors)), vectors, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(model.components @ model.components.T, torch.eye(5), atol=1e-6, rtol=0)


def test_whitened_latents_have_unit_covariance_and_others_mean_variance_one() -> None:
    vectors = low_rank(60, 30, 8)
    latents = PCAAutoencoder.fit(vectors, latent_size=6).encode(vectors)
    torch.testing.assert_close(latents.T @ latents / 60, torch.eye(6), atol=1e-4, rtol=0)
    plain = PCAAutoencoder.fit(vectors, latent_size=6, whiten=False).encode(vectors)
    variance = plain.var(0, correction=0)
    assert float(variance.mean()) == pytest.approx(1.0, abs=1e-4)
    assert bool((variance.diff() < 0).all())


def test_signs_do_not_depend_on_the_order_of_the_vectors() -> None:
    vectors = low_rank(20, 40, 4)
    one, other = PCAAutoencoder.fit(vectors), PCAAutoencoder.fit(vectors.flip(0))
    torch.testing.assert_close(one.components, other.components, atol=1e-4, rtol=0)
