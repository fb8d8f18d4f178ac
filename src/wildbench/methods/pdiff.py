"""Unconditional p-diff (Wang et al. 2024, 2402.13144), from its published architecture and schedule.

Two trainings one after the other, an autoencoder of checkpoints and a diffusion over its latents, and ancestral
sampling. Nothing of the task is read: what it gives for one task it gives for all. Its own choices are kept where this
package's generator makes others: squared error without KL, latents as the encoder gives them, no averaged weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wildbench.methods.pdiff_networks import PDiffConfig, PDiffDenoiser, convolutional_autoencoder
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.layout import Layout
from wildpdiff.artifact import read_artifact, write_artifact
from wildpdiff.autoencoder.vae import VariationalAutoencoder
from wildpdiff.diffusion.samplers import SAMPLERS, standard_noise
from wildpdiff.diffusion.schedule import Schedule
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DescriptionError, TrainingError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.description import Description
from wildpdiff.training import flush_denormals, seeded, train, warmup_cosine
from wildpdiff.zoo.store import Zoo

KIND = "p-diff"
MULTIPLE = 64
"""Vectors are padded with zeros to a multiple of this."""

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, eq=False)
class PDiff:
    """A trained p-diff.

    Attributes:
        layout: of the adapter vectors.
        still: an adapter vector, for the values that the zoo's training left alone; p-diff generates the others.
        moving: which values are generated, ``m`` in number: all of every tensor that training changed.
        mean: one mean a tensor, repeated for its values.
        scale: one standard deviation a tensor, repeated for its values.
        autoencoder: normalised and padded vectors to latents, in evaluation mode.
        denoiser: in evaluation mode.
        config: of the training.
    """

    layout: Layout
    still: Float[Tensor, " d"]
    moving: Bool[Tensor, " d"]
    mean: Float[Tensor, " m"]
    scale: Float[Tensor, " m"]
    autoencoder: VariationalAutoencoder
    denoiser: PDiffDenoiser
    config: PDiffConfig

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n l"]:
        """Latents of adapter vectors."""
        inputs = _padded((vectors[:, self.moving] - self.mean) / self.scale)
        return torch.cat([self.autoencoder.encode(part) for part in torch.split(inputs, self.config.batch)])

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Adapter vectors of latents."""
        parts = [self.autoencoder.decode(part) for part in torch.split(latents, self.config.batch)]
        result = self.still.repeat(len(latents), 1)
        result[:, self.moving] = torch.cat(parts)[:, : len(self.mean)] * self.scale + self.mean
        return result

    def sample_latents(self, n: int, seed: int) -> Float[Tensor, "n l"]:
        """``n`` latents in one batch: Ho et al. 2020, algorithm 2, through every time."""
        draws = torch_generator(seed, "p-diff", "noise")
        noise = standard_noise(draws, n, self.config.latent_size)
        with flush_denormals():
            return SAMPLERS["ddpm"](
                self.denoiser, _schedule(self.config), noise, noise[:, :0], self.config.times, draws
            )

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Tensors by group, for :func:`wildpdiff.artifact.write_artifact`."""
        values = {"still": self.still, "moving": self.moving, "mean": self.mean, "scale": self.scale}
        networks = {"autoencoder": self.autoencoder.state_dict(), "denoiser": self.denoiser.state_dict()}
        return {"values": values, **{name: dict(group) for name, group in networks.items()}}


def _schedule(config: PDiffConfig) -> Schedule:
    return Schedule("linear", "epsilon", config.times)


def _padded(vectors: Float[Tensor, "n m"]) -> Float[Tensor, "n p"]:
    return nn.functional.pad(vectors, (0, -vectors.shape[1] % MULTIPLE))


def _networks(size: int, config: PDiffConfig) -> tuple[VariationalAutoencoder, PDiffDenoiser]:
    """Networks for ``size`` generated values."""
    padded = size + -size % MULTIPLE
    autoencoder = convolutional_autoencoder(padded, config.latent_size)
    return autoencoder, PDiffDenoiser(config.latent_size, config.channels)


def _statistics(vectors: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """For every coordinate: whether its tensor was trained, and its tensor's mean and standard deviation."""
    moving, means, scales = [], [], []
    for part in torch.split(vectors, list(layout.sizes), dim=1):
        variance, mean = torch.var_mean(part.double(), correction=0)
        moved = bool((part != part[:1]).any()) or len(vectors) == 1
        moving.append(torch.full(part.shape[1:], moved))
        means.append(mean.float().expand(part.shape[1]))
        scales.append(variance.sqrt().float().clamp_min(1e-8).expand(part.shape[1]))
    return torch.cat(moving), torch.cat(means), torch.cat(scales)


def fit_pdiff(
    vectors: Float[Tensor, "n d"],
    layout: Layout,
    config: PDiffConfig = PDiffConfig(),
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> PDiff:
    """Train the autoencoder, then the denoiser on its latents. About an hour of one core at the published settings.

    Tensors that are the same in all vectors, such as LoRA's A where it is left at the initialisation, are kept and
    not generated: p-diff generates what was trained. A single vector does not show that, and is generated whole.

    Args:
        vectors: raw adapter vectors, checkpoints of one task or of a whole zoo.
        layout: of the vectors.
        config: the published one, unless for tests.
        seed: of initial weights, batches and noise.
        progress: called with (``autoencoder`` or ``denoiser``, steps done, in all, loss).

    Raises:
        TrainingError: no vectors, all vectors alike, or a training that diverged.
        AdapterMismatchError: the vectors are not of this layout.
    """
    if vectors.shape[1] != layout.size:
        raise AdapterMismatchError(
            f"The vectors have {vectors.shape[1]} values, the layout {layout.size}. Flatten them with this layout."
        )
    if not len(vectors):
        raise TrainingError("There are no checkpoints to train p-diff on. Give at least one.")
    moving, mean, scale = _statistics(vectors, layout)
    if not bool(moving.any()):
        raise TrainingError(f"All {len(vectors)} checkpoints are the same; p-diff has nothing to learn from them.")
    mean, scale = mean[moving], scale[moving]
    with seeded(sub_seed(seed, "p-diff", "weights")):
        autoencoder, denoiser = _networks(len(mean), config)
    model = PDiff(layout, vectors[0].clone(), moving, mean, scale, autoencoder, denoiser, config)
    inputs = _padded((vectors[:, moving] - mean) / scale)
    draws = torch_generator(seed, "p-diff", "training")

    def reconstruction(rows: Tensor) -> Tensor:
        x = inputs[rows]
        on_input = config.input_noise * torch.randn(x.shape, generator=draws)
        on_latent = config.latent_noise * torch.randn(len(x), config.latent_size, generator=draws)
        return autoencoder.loss(x, on_input, on_latent, kl_weight=0.0)

    schedule = _schedule(config)

    def denoising(rows: Tensor) -> Tensor:
        z_0 = latents[rows]
        t = torch.randint(config.times, (len(z_0),), generator=draws).float()
        epsilon = torch.randn(z_0.shape, generator=draws)
        predicted = denoiser(schedule.q_sample(z_0, t, epsilon), t, z_0[:, :0])
        return nn.functional.mse_loss(predicted, epsilon)

    batches = _batches(len(vectors), config.batch, draws)
    with flush_denormals():
        _train(
            autoencoder,
            reconstruction,
            batches,
            config.autoencoder_steps,
            rate=config.autoencoder_rate,
            progress=progress,
        )
        latents = model.encode(vectors)
        _train(denoiser, denoising, batches, config.denoiser_steps, rate=config.denoiser_rate, progress=progress)
    return model


def _batches(rows: int, batch: int, draws: torch.Generator) -> Iterator[Int[Tensor, " b"]]:
    """Row numbers of batch after batch, without end; every row once before any comes again.

    Fewer rows than a batch come several times in it, so that batch norm always sees as many.
    """
    left = torch.zeros(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(rows, generator=draws)])
        yield left[:batch]
        left = left[batch:]


def _train(
    network: VariationalAutoencoder | PDiffDenoiser,
    loss_of: Callable[[Tensor], Tensor],
    batches: Iterator[Tensor],
    steps: int,
    *,
    rate: float,
    progress: Progress | None,
) -> None:
    """AdamW with a cosine schedule; leaves the network frozen and in evaluation mode."""
    what = "denoiser" if isinstance(network, PDiffDenoiser) else "autoencoder"
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=rate)
    losses: list[float] = []

    def objective() -> Tensor:
        loss = loss_of(next(batches))
        losses.append(float(loss.detach()))
        return loss

    train(
        optimizer,
        objective,
        steps,
        name=f"p-diff {what}",
        schedule=warmup_cosine(optimizer, steps, 0),
        progress=None if progress is None else lambda done, total: progress(what, done, total, losses[-1]),
    )
    network.eval().requires_grad_(False)


class UnconditionalPDiffSource:
    """Adapters of a trained p-diff, whatever the description.

    A thousand steps of sampling cost about as much for one latent as a tenth of them cost for many, and what is
    sampled does not depend on the task. So a pool of :attr:`PDiffConfig.pool` adapters is sampled in one batch when
    the first request, and each request draws from it by its seed, without repetition up to the pool's size. The
    pool itself belongs to the source's ``seed``.
    """

    name = "unconditional p-diff"
    stochastic = True

    def __init__(self, model: PDiff, adapter_config: AdapterConfig, seed: int = 0) -> None:
        """Take a trained model.

        Args:
            model: of :func:`fit_pdiff`.
            adapter_config: where its adapters attach.
            seed: of the pool.
        """
        self.model = model
        self._config = adapter_config
        self._seed = seed
        self._pool: Tensor | None = None

    @classmethod
    def fit(
        cls, zoo: Zoo, config: PDiffConfig = PDiffConfig(), seed: int = 0, progress: Progress | None = None
    ) -> UnconditionalPDiffSource:
        """Train on all checkpoints of a zoo (``zoo.only([task])`` for one task); raises as :func:`fit_pdiff`."""
        layout = Layout.of(zoo.initial.tensors)
        vectors = layout.flatten_many(zoo.tensors(range(len(zoo))))
        return cls(fit_pdiff(vectors, layout, config, seed=seed, progress=progress), zoo.plan.adapter, seed)

    @property
    def pool(self) -> Float[Tensor, "p d"]:
        """The adapter vectors that requests draw from, sampled at the first request."""
        if self._pool is None:
            latents = self.model.sample_latents(self.model.config.pool, sub_seed(self._seed, "p-diff pool"))
            self._pool = self.model.decode(latents)
        return self._pool

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` adapters of the pool, all different.

        Raises:
            DescriptionError: more are requested than the pool holds.
        """
        if n > self.model.config.pool:
            raise DescriptionError(
                f"{n} adapters of p-diff were requested; its pool holds "
                f"{self.model.config.pool}. Raise PDiffConfig.pool."
            )
        pool = self.pool
        rows = torch.randperm(len(pool), generator=torch_generator(seed, "p-diff", "draw"))[:n].tolist()
        provenance = {"source": self.name, "seed": seed, "task": description.task_id, "pool_seed": self._seed}
        return [
            Adapter(
                {name: value.clone() for name, value in self.model.layout.unflatten(pool[row]).items()},
                self._config,
                {**provenance, "pool_index": row},
            )
            for row in rows
        ]

    def save(self, folder: Path | str) -> Path:
        """Write the model and its pool, which is sampled for that if need be; atomic. Returns the folder."""
        folder = Path(folder)
        config = {
            "adapter": self._config.to_json(),
            "layout": self.model.layout.to_json(),
            "seed": self._seed,
            **self.model.config.to_json(),
        }
        write_artifact(folder, KIND, config, {**self.model.state(), "pool": {"vectors": self.pool}})
        return folder

    @classmethod
    def load(cls, folder: Path | str) -> UnconditionalPDiffSource:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: missing, truncated, altered, or of another kind.
            SchemaVersionError: written by a newer version of the package.
        """
        artifact = read_artifact(Path(folder), KIND)
        groups, settings = artifact.tensors, dict(artifact.config)
        try:
            adapter, seed = AdapterConfig.from_json(settings.pop("adapter")), int(settings.pop("seed"))
            layout, config = Layout.from_json(settings.pop("layout")), PDiffConfig.from_json(settings)
            values = groups["values"]
            autoencoder, denoiser = _networks(len(values["mean"]), config)
            autoencoder.load_state_dict(groups["autoencoder"])
            denoiser.load_state_dict(groups["denoiser"])
            networks = autoencoder.eval().requires_grad_(False), denoiser.eval().requires_grad_(False)
            source = cls(
                PDiff(layout, **values, autoencoder=networks[0], denoiser=networks[1], config=config), adapter, seed
            )
            source._pool = groups["pool"]["vectors"]
        except (KeyError, TypeError, RuntimeError) as error:
            raise ArtifactError(f"The p-diff in {folder} cannot be restored ({error}). Train it again.") from error
        return source
