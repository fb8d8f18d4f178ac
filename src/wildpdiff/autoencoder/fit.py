"""Fitting an autoencoder to the normalised vectors of a zoo, and restoring a stored one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.pca import PCAAutoencoder
from wildpdiff.autoencoder.vae import VariationalAutoencoder
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread
from wildpdiff.training import flush_denormals, seeded, train, warmup_cosine

AutoencoderKind = Literal["pca", "vae"]

AUTOENCODERS: dict[str, type[Autoencoder]] = {"pca": PCAAutoencoder, "vae": VariationalAutoencoder}


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes and training of an autoencoder; ``pca`` reads the first two, ``vae`` all but the second.

    Attributes:
        latent_size: length of a latent; ``pca`` keeps fewer when the vectors have a smaller rank.
        whiten: unit variance in every latent coordinate, instead of in their mean.
        hidden: width of the residual correction; 0 for a linear code.
        input_noise: standard deviation of the noise on the vectors, which are of unit variance.
        latent_noise: standard deviation of the noise on the encodings.
        kl_weight: weight of the KL term. Small: it has only to keep the scale of the encodings near that of the
            noise, and everything it takes is lost to reconstruction.
        learning_rate: peak of warm-up and cosine, for AdamW.
    """

    latent_size: int = 64
    whiten: bool = True
    hidden: int = 256
    input_noise: float = 0.001
    latent_noise: float = 0.1
    kl_weight: float = 1e-4
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class FittedAutoencoder:
    """A fitted autoencoder.

    Attributes:
        losses: of every update; empty for ``pca``, which is solved at once.
        reconstruction_error: mean squared error over the training vectors, in normalised units.
    """

    model: Autoencoder
    losses: Float[Tensor, " steps"] = field(repr=False)
    reconstruction_error: float


def fit_autoencoder(
    kind: AutoencoderKind, vectors: Float[Tensor, "n d"], config: AutoencoderConfig, seed: int
) -> FittedAutoencoder:
    """Autoencoder of normalised training vectors, a function of the arguments alone.

    Raises:
        TrainingError: vectors that cannot be fitted (too few, equal, not finite), or a loss that diverged.
    """
    model: Autoencoder
    if kind == "pca":
        model, losses = PCAAutoencoder.fit(vectors, config.latent_size, config.whiten), torch.zeros(0)
    else:
        if vectors.shape[0] < 2:
            raise TrainingError(f"An autoencoder needs at least 2 vectors, found {vectors.shape[0]}.")
        with flush_denormals(), one_thread(), seeded(sub_seed(seed, "autoencoder", "weights")):
            model = VariationalAutoencoder(vectors.shape[1], config.latent_size, config.hidden)
            model.start_from_principal_components(vectors)
            losses = _train(model, vectors, config, seed)
    model.eval().requires_grad_(False)
    error = float(torch.nn.functional.mse_loss(model.decode(model.encode(vectors)), vectors))
    return FittedAutoencoder(model, losses, error)


def restore_autoencoder(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Autoencoder:
    """The autoencoder of a stored ``config`` and ``state_dict``, in evaluation mode and frozen.

    Raises:
        ArtifactError: the kind is unknown, or the tensors do not belong to the configuration.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    arguments.pop("convolutional", None)  # False, in files of earlier versions
    if kind not in AUTOENCODERS:
        raise ArtifactError(f"The stored autoencoder is {kind!r}; known are {sorted(AUTOENCODERS)}.")
    try:
        model = AUTOENCODERS[kind](**arguments)
        model.load_state_dict(dict(state))
    except (TypeError, RuntimeError) as error:
        raise ArtifactError(f"The stored autoencoder {kind!r} is unreadable: {error}") from error
    return model.eval().requires_grad_(False)


def _train(model: VariationalAutoencoder, vectors: Tensor, config: AutoencoderConfig, seed: int) -> Tensor:
    draws = torch_generator(seed, "autoencoder", "batches")
    batch = min(config.batch, len(vectors))

    def objective() -> Tensor:
        x = vectors[torch.randint(len(vectors), (batch,), generator=draws)]
        input_noise = config.input_noise * torch.randn(x.shape, generator=draws)
        latent_noise = config.latent_noise * torch.randn(batch, model.latent_size, generator=draws)
        return model.loss(x, input_noise, latent_noise, config.kl_weight)

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = warmup_cosine(optimizer, config.steps, config.steps // 20)
    model.train()
    losses = train(optimizer, objective, config.steps, name="autoencoder", schedule=schedule, clip=1.0)
    model.eval().standardize(vectors)
    return losses
