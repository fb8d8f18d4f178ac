"""Principal components as an autoencoder: the best linear code in squared error, fitted exactly."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.errors import TrainingError

# Directions whose singular value is below this share of the largest are float32 rounding, not data.
_RANK_TOLERANCE = 1e-6


class PCAAutoencoder(Autoencoder):
    """Coordinates along principal components, divided by a scale.

    Buffers: ``mean`` "d", ``components`` "l d" with orthonormal rows, ``scale`` "l". Whitened, ``scale`` is the
    standard deviation along each component, so that every latent coordinate has unit variance over the training
    set; not whitened, it is one number, so that their mean variance is 1 and their proportions stay.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, size: int, latent_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("components", torch.zeros(latent_size, size))
        self.register_buffer("scale", torch.ones(latent_size))

    @classmethod
    def fit(
        cls,
        vectors: Float[Tensor, "n d"],
        latent_size: int | None = None,
        whiten: bool = True,
    ) -> PCAAutoencoder:
        """Components of the training vectors, in float64, with signs that depend on the data alone.

        Args:
            latent_size: number of components; fewer are kept when the data has a smaller rank, all by default.
            whiten: unit variance in every latent coordinate, instead of in their mean.

        Raises:
            TrainingError: no variance in the vectors, values that are not finite, or arguments out of range.
        """
        if latent_size is not None and latent_size < 1:
            raise TrainingError(f"A code of {latent_size} principal components was configured. Give at least 1.")
        if vectors.shape[0] < 2:
            raise TrainingError(f"Principal components need at least 2 vectors, found {vectors.shape[0]}.")
        if not bool(torch.isfinite(vectors).all()):
            raise TrainingError("The training vectors hold NaN or infinity; remove the adapters that diverged.")
        centred = vectors.double()
        mean = centred.mean(dim=0)
        centred -= mean
        components, deviation = _principal_components(centred, latent_size)
        if not whiten:
            deviation = deviation.square().mean().sqrt().expand(len(deviation))
        model = cls(vectors.shape[1], len(components))
        model.mean.copy_(mean)
        model.components.copy_(components)
        model.scale.copy_(deviation)
        return model

    def encode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n l"]:
        """Scaled coordinates of the projection on the components."""
        return (x - self.mean) @ self.components.T / self.scale

    def decode(self, z: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """The vector with these scaled coordinates."""
        return (z * self.scale) @ self.components + self.mean

    @property
    def latent_size(self) -> int:
        """Number l of components."""
        return int(self.components.shape[0])

    @property
    def config(self) -> dict[str, Any]:
        """JSON-able arguments of the constructor, with the kind."""
        return {"kind": "pca", "size": int(self.mean.shape[0]), "latent_size": self.latent_size}


def _principal_components(centred: Tensor, most: int | None) -> tuple[Tensor, Tensor]:
    """Orthonormal rows by falling standard deviation, at most ``most``, from the smaller of the two Gram matrices.

    With n vectors of d values, X Xᵀ = U S² Uᵀ (n n) and Xᵀ X = V S² Vᵀ (d d) share their eigenvalues, and
    Vᵀ = S⁻¹ Uᵀ X; so the cost is that of an eigenproblem of size min(n, d).
    """
    from scipy.linalg import eigh  # late: reading an autoencoder needs no scipy

    n, d = centred.shape
    gram = centred @ centred.T if n < d else centred.T @ centred
    wanted = len(gram) if most is None else min(most, len(gram))
    last = None if wanted == len(gram) else (len(gram) - wanted, len(gram) - 1)
    values, vectors = (torch.from_numpy(found) for found in eigh(gram.numpy(), subset_by_index=last))
    singular = values.clamp_min(0.0).sqrt().flip(0)
    vectors = vectors.flip(1)
    kept = int((singular > _RANK_TOLERANCE * singular[0]).sum())
    if kept == 0 or float(singular[0]) == 0.0:
        raise TrainingError(f"The {n} training vectors are all equal: no principal component. Use more checkpoints.")
    vectors, singular = vectors[:, :kept], singular[:kept]
    if n < d:
        # Dividing by a small singular value amplifies rounding; the QR step makes the rows orthonormal again.
        vectors = torch.linalg.qr((centred.T @ vectors) / singular).Q
    components = vectors.T
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return components * torch.where(largest < 0, -1.0, 1.0), singular / n**0.5
