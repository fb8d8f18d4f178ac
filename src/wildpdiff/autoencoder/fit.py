"""Fitting an autoencoder to the normalised vectors of a zoo, and getting one back from storage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.pca import PCAAutoencoder
from wildpdiff.autoencoder.training import Progress, check_finite, flush_denormals, seeded, warmup_cosine
from wildpdiff.autoencoder.vae import VariationalAutoencoder
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.threads import one_thread

AutoencoderKind = Literal["pca", "vae"]

AUTOENCODERS: dict[str, type[Autoencoder]] = {"pca": PCAAutoencoder, "vae": VariationalAutoencoder}
"""Every autoencoder by kind."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """What to fit and how; ``pca`` reads the first three, ``vae`` all but the second and third.

    Attributes:
        latent_size: length of a latent; ``pca`` keeps fewer when the vectors have a smaller rank.
        explained_variance: keep only as many components as explain this share of the variance.
        whiten: unit variance in every latent coordinate, instead of in their mean.
        hidden: width of the residual correction of the flat form; 0 for a linear code.
        convolutional: p-diff's convolutions instead of the flat form.
        input_noise: standard deviation of the noise on the vectors, which are of unit variance.
        latent_noise: standard deviation of the noise on the encodings.
        kl_weight: weight of the KL term. Small: it has only to keep the scale of the encodings near that of the
            noise, and everything it takes is lost to reconstruction.
        steps: updates.
        batch: vectors an update.
        learning_rate: peak of warm-up and cosine, for AdamW.
        weight_decay: decoupled weight decay.
    """

    latent_size: int = 64
    explained_variance: float | None = None
    whiten: bool = True
    hidden: int = 256
    convolutional: bool = False
    input_noise: float = 0.001
    latent_noise: float = 0.1
    kl_weight: float = 1e-4
    steps: int = 1000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of the attributes."""
        return asdict(self)


@dataclass(frozen=True)
class FittedAutoencoder:
    """A fitted autoencoder.

    Attributes:
        model: the autoencoder in evaluation mode.
        losses: loss of every update, "steps"; empty for ``pca``, which is solved at once.
        reconstruction_error: mean squared error over the training vectors, in their (normalised) units.
        seconds: wall-clock time of the fit.
    """

    model: Autoencoder
    losses: Float[Tensor, " steps"] = field(repr=False)
    reconstruction_error: float
    seconds: float


def fit_autoencoder(
    kind: AutoencoderKind,
    vectors: Float[Tensor, "n d"],
    config: AutoencoderConfig,
    seed: int,
    progress: Progress | None = None,
) -> FittedAutoencoder:
    """Fit an autoencoder to normalised training vectors "n d". The result is a function of the arguments alone.

    Args:
        kind: ``pca`` or ``vae``.
        vectors: normalised training vectors.
        config: sizes and training.
        seed: of initial weights, batches and noise; ``pca`` needs none.
        progress: called after every update.

    Raises:
        TrainingError: vectors that cannot be fitted (too few, equal, not finite), or a loss that diverged.
    """
    started = time.perf_counter()
    model: Autoencoder
    if kind == "pca":
        model = PCAAutoencoder.fit(vectors, config.latent_size, config.explained_variance, config.whiten)
        losses = torch.zeros(0)
        if progress is not None:
            progress(1, 1)
    else:
        if vectors.shape[0] < 2:
            raise TrainingError(f"An autoencoder needs at least 2 vectors, found {vectors.shape[0]}.")
        with flush_denormals(), one_thread(), seeded(sub_seed(seed, "autoencoder", "weights")):
            vae = VariationalAutoencoder(vectors.shape[1], config.latent_size, config.hidden, config.convolutional)
            vae.start_from_principal_components(vectors)
            losses = _train(vae, vectors, config, seed, progress)
        model = vae
    model.eval().requires_grad_(False)
    error = float(torch.nn.functional.mse_loss(model.decode(model.encode(vectors)), vectors))
    return FittedAutoencoder(model, losses, error, time.perf_counter() - started)


def restore_autoencoder(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Autoencoder:
    """The autoencoder whose ``config`` and ``state_dict`` these are, in evaluation mode and frozen.

    Raises:
        ArtifactError: the kind is unknown, or the tensors do not belong to the configuration.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in AUTOENCODERS:
        raise ArtifactError(f"The stored autoencoder is {kind!r}; known are {sorted(AUTOENCODERS)}.")
    try:
        model = AUTOENCODERS[kind](**arguments)
        model.load_state_dict(dict(state))
    except (TypeError, RuntimeError) as error:
        raise ArtifactError(f"The stored autoencoder {kind!r} is unreadable: {error}") from error
    return model.eval().requires_grad_(False)


def _train(
    model: VariationalAutoencoder, vectors: Tensor, config: AutoencoderConfig, seed: int, progress: Progress | None
) -> Tensor:
    draws = torch_generator(seed, "autoencoder", "batches")
    n, b = vectors.shape[0], min(config.batch, vectors.shape[0])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    losses = torch.zeros(config.steps)
    model.train()
    for step in range(config.steps):
        x = vectors[torch.randint(n, (b,), generator=draws)]
        input_noise = config.input_noise * torch.randn(x.shape, generator=draws)
        latent_noise = config.latent_noise * torch.randn(b, model.latent_size, generator=draws)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warmup_cosine(step, config.steps, config.steps // 20)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(x, input_noise, latent_noise, config.kl_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses[step] = loss.detach()
        check_finite(float(losses[step]), step, "autoencoder")
        if progress is not None:
            progress(step + 1, config.steps)
    model.eval().standardize(vectors)
    return losses
