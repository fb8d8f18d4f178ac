"""The Gram-matrix route to principal components against the plain singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.autoencoder.pca import PCAAutoencoder
from wildpdiff.codec.codec import Codec


def slow_principal_components(vectors: Tensor, count: int) -> Tensor:
    """Whitened latents by the definition: X - mean = U S Vᵀ, latent = U sqrt(n), signs by the largest entry of V."""
    centred = vectors.double() - vectors.double().mean(0)
    _, singular, v = torch.linalg.svd(centred, full_matrices=False)
    latents = []
    for k in range(count):
        sign = 1.0 if v[k][v[k].abs().argmax()] > 0 else -1.0
        latents.append(centred @ v[k] * sign / (singular[k] / len(vectors) ** 0.5))
    return torch.stack(latents, 1).float()


@pytest.mark.parametrize(("n", "d"), [(12, 40), (40, 12), (20, 20)])
def test_latents_equal_those_of_the_singular_value_decomposition(n: int, d: int) -> None:
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) + 3.0
    model = PCAAutoencoder.fit(vectors, latent_size=6)
    torch.testing.assert_close(model.encode(vectors), slow_principal_components(vectors, 6), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["coordinate", "tensor"])
def test_normaliser_equals_a_loop_over_coordinates(mode: str) -> None:
    layout = Layout((("a", (2,)), ("b", (3,))))
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2, 3, 4, 5])
    fitted = Codec.fit(layout, vectors, mode)
    mean = [sum(row[i].item() for row in vectors) / 7 for i in range(5)]
    variance = [sum((row[i].item() - mean[i]) ** 2 for row in vectors) / 7 for i in range(5)]
    if mode == "tensor":
        first, second = sum(variance[:2]) / 2, sum(variance[2:]) / 3
        variance = [first, first, second, second, second]
    torch.testing.assert_close(fitted.mean, torch.tensor(mean))
    torch.testing.assert_close(fitted.scale, torch.tensor(variance).sqrt())
