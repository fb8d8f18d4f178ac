"""The parameter autoencoder of the paper: noise on the input and on the latent, squared error, a small KL term."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.pca import PCAAutoencoder


class VariationalAutoencoder(Autoencoder):
    """A code learned by gradient descent, whose posterior is a Gaussian of fixed variance around the encoding.

    A learned posterior variance has nothing to hold it once the KL weight is as small as reconstruction of weights
    needs, and shrinks to 0; with a fixed one (the paper's latent noise) the KL divergence to the standard normal is
    half the squared encoding plus a constant, which keeps encodings from outgrowing the noise.

    By default a linear code plus, if ``hidden`` is above 0, a residual correction by two layers that starts at zero; a
    shallow linear code fits weight vectors that a convolution does not.

    Args:
        hidden: width of the residual correction; 0 for none.
        networks: other encoder "n d" to "n l" and decoder back.
    """

    latent_mean: Tensor
    latent_scale: Tensor

    def __init__(
        self, size: int, latent_size: int, hidden: int = 256, networks: tuple[nn.Module, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self._config = {"kind": "vae", "size": size, "latent_size": latent_size, "hidden": hidden}
        self.encoder, self.decoder = networks or (
            _ResidualMap(size, latent_size, hidden),
            _ResidualMap(latent_size, size, hidden),
        )
        self.register_buffer("latent_mean", torch.zeros(latent_size))
        self.register_buffer("latent_scale", torch.ones(latent_size))

    @torch.no_grad()
    def start_from_principal_components(self, vectors: Float[Tensor, "n d"]) -> None:
        """Set the linear code to the best linear code of these vectors, from which training starts.

        Latents beyond the rank of the vectors keep their random start.
        """
        assert isinstance(self.encoder, _ResidualMap)
        assert isinstance(self.decoder, _ResidualMap)
        pca = PCAAutoencoder.fit(vectors, latent_size=self.latent_size, whiten=False)
        kept = pca.latent_size
        into = pca.components / pca.scale[:, None]
        self.encoder.linear.weight[:kept] = into
        self.encoder.linear.bias[:kept] = -(into @ pca.mean)
        self.decoder.linear.weight[:, :kept] = pca.components.T * pca.scale
        self.decoder.linear.bias.copy_(pca.mean)

    def loss(
        self,
        x: Float[Tensor, "n d"],
        input_noise: Float[Tensor, "n d"],
        latent_noise: Float[Tensor, "n l"],
        kl_weight: float,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the reconstruction from noisy input and noisy latent, plus weighted KL.

        The KL is that of N(μ, s² I) to N(0, I) without its constant, ``|μ|²/2`` (Kingma & Welling 2014, appendix B),
        averaged over latent coordinates, so that its weight does not depend on their number.
        """
        mean: Tensor = self.encoder(x + input_noise)
        reconstruction = self.decoder(mean + latent_noise)
        return functional.mse_loss(reconstruction, x) + kl_weight * 0.5 * mean.square().mean()

    @torch.no_grad()
    def standardize(self, x: Float[Tensor, "n d"]) -> None:
        """Give the latents of these vectors mean 0 and variance 1 in every coordinate that varies."""
        latent: Tensor = self.encoder(x)
        variance, mean = torch.var_mean(latent, dim=0, correction=0)
        deviation = variance.sqrt()
        unused = deviation < 1e-6 * deviation.max() + 1e-12
        self.latent_mean.copy_(mean)
        self.latent_scale.copy_(torch.where(unused, torch.ones_like(deviation), deviation))

    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n l"]:
        """Standardised encodings, without noise."""
        latent: Tensor = (self.encoder(x) - self.latent_mean) / self.latent_scale
        return latent

    def decode(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Reconstructions from standardised latents."""
        x: Tensor = self.decoder(z * self.latent_scale + self.latent_mean)
        return x

    @property
    def latent_size(self) -> int:
        """Length l of a latent."""
        return int(self.latent_mean.shape[0])

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the kind."""
        return dict(self._config)


class _ResidualMap(nn.Module):
    """``A x + b + W₂ silu(W₁ x)``, with W₂ = 0 at the start."""

    def __init__(self, before: int, after: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)
        self.first = nn.Linear(before, hidden) if hidden else None
        self.second = nn.Linear(hidden, after, bias=False) if hidden else None
        if self.second is not None:
            nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x)
        if self.first is not None and self.second is not None:
            result = result + self.second(functional.silu(self.first(x)))
        return result
