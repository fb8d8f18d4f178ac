"""Fitting a generator to a zoo and the descriptions of its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wildpdiff.autoencoder.base import Autoencoder
from wildpdiff.autoencoder.fit import AutoencoderConfig, AutoencoderKind, fit_autoencoder
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.codec.layout import Layout
from wildpdiff.codec.normalize import NormalizationMode
from wildpdiff.conditional_mean.correction import TaskLossConfig, fit_correction
from wildpdiff.conditional_mean.kernel_fit import fit_kernel_mean
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.network import moved_values
from wildpdiff.conditions.base import Featuriser
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.diffusion.fit import Center, DiffusionConfig, fit_diffusion
from wildpdiff.errors import AdapterMismatchError, DescriptionError
from wildpdiff.generator import Generator, Sampling
from wildpdiff.tasks.description import Description, MetadataSchema
from wildpdiff.zoo.finetune import TaskFeatures
from wildpdiff.zoo.store import Zoo

__all__ = [
    "PAPER_METHOD",
    "PAPER_METHOD_ONE_TASK",
    "PAPER_METHOD_SEVERAL_TASKS",
    "FittedGenerator",
    "GeneratorConfig",
    "fit_generator",
]


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is made of. Defaults are those that measurement chose (``docs/log.md``).

    Attributes:
        parts: parts of the description that are read.
        components: principal components kept of each part that is images.
        whiten: give them unit variance each, instead of in their mean; it lifts components that are mostly noise.
        drop_part: probability of hiding a part in training, so that any may be missing later.
        drop_all: probability of hiding all, needed for classifier-free guidance with a scale other than 1.
        normalization: ``coordinate`` (the paper's z-score) or ``tensor`` (one scale a tensor).
        autoencoder: ``pca`` or ``vae`` (the paper's).
        autoencoder_config: its sizes and training.
        diffusion: network, schedule and training by reconstruction.
        kernel_mean: sample around a conditional mean by additive kernel regression
            (:mod:`wildpdiff.conditional_mean`); without it the denoiser alone carries the condition, as in
            the paper.
        task_loss: networks on top of the regression, trained with the task loss; ``steps=0`` leaves it alone.
        sampling: sampler, steps, guidance.
    """

    parts: tuple[str, ...] = ("metadata", "backgrounds", "examples")
    components: int = 8
    whiten: bool = False
    drop_part: float = 0.15
    drop_all: float = 0.0
    normalization: NormalizationMode = "tensor"
    autoencoder: AutoencoderKind = "pca"
    autoencoder_config: AutoencoderConfig = field(default_factory=lambda: AutoencoderConfig(latent_size=160))
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(size="tiny", steps=1500))
    kernel_mean: bool = True
    task_loss: TaskLossConfig = field(default_factory=TaskLossConfig)
    sampling: Sampling = field(default_factory=Sampling)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**asdict(self), "parts": list(self.parts)}


PAPER_METHOD = GeneratorConfig(
    parts=("backgrounds",),
    components=16,
    drop_part=0.0,
    normalization="coordinate",
    autoencoder="vae",
    autoencoder_config=AutoencoderConfig(latent_size=64, steps=600),
    diffusion=DiffusionConfig(network="unet", size="tiny", steps=2500, batch=64, dropout=0.0),
    kernel_mean=False,
    task_loss=TaskLossConfig(steps=0),
    sampling=Sampling(sampler="ddim", steps=50),
)
"""The method of the paper: z-scored vectors, a variational autoencoder with noise on input and latent, a 1-D U-Net on
the latents conditioned on features of background images, and DDIM. Sizes, schedule and prediction are ours, as the
paper gives none; features are those of the frozen backbone, where the paper takes CLIP's."""

PAPER_METHOD_SEVERAL_TASKS = replace(
    PAPER_METHOD,
    autoencoder_config=replace(PAPER_METHOD.autoencoder_config, steps=300),
    diffusion=replace(PAPER_METHOD.diffusion, steps=1000),
)
"""The same with shorter trainings, for a handful of tasks."""

PAPER_METHOD_ONE_TASK = replace(
    PAPER_METHOD,
    parts=("task_id",),
    autoencoder_config=AutoencoderConfig(latent_size=32, steps=200),
    diffusion=replace(PAPER_METHOD.diffusion, steps=400),
)
"""The same for the checkpoints of a single task, whose condition never changes."""


@dataclass(frozen=True)
class FittedGenerator:
    """A generator with what its fit measured.

    Attributes:
        generator: ready to sample.
        reconstruction_error: of the autoencoder, mean squared, in normalised units.
        losses: of the diffusion, one a step.
        task_losses: of the training with the task loss, one a step; empty where it was left out.
        seconds: wall-clock time of the whole fit.
    """

    generator: Generator
    reconstruction_error: float
    losses: Tensor = field(repr=False)
    task_losses: Tensor = field(repr=False)
    seconds: float


def fit_generator(
    zoo: Zoo,
    descriptions: Mapping[str, Description],
    schema: MetadataSchema,
    backbone: Backbone,
    config: GeneratorConfig = GeneratorConfig(),
    *,
    features: Callable[[str], TaskFeatures] | None = None,
    featurise: Featuriser | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FittedGenerator:
    """Learn the distribution of a zoo's adapters given the descriptions of its tasks (paper, section on training).

    Checkpoints of a task and views of its description (subsets of its images, missing parts) are paired anew at
    every step.

    Args:
        zoo: adapters of the seen tasks.
        descriptions: by task name, one for every task of the zoo.
        schema: of the metadata.
        backbone: that the zoo was built on.
        config: what to fit.
        features: gives the images of a seen task, by its name, for the training with the task loss; without them
            (adapters of which no data is at hand) that training is left out.
        featurise: what images of descriptions are read by; the backbone's features by default.
        seed: decides everything random.
        progress: called with (training steps done, in all).

    Raises:
        AdapterMismatchError: the zoo is of another backbone.
        DescriptionError: a task of the zoo has no description, or no part can be read.
        TrainingError: a training diverged.
    """
    started = time.perf_counter()
    if zoo.plan.adapter.backbone_hash != backbone.backbone_hash:
        raise AdapterMismatchError(
            f"The zoo in {zoo.folder} was built on {zoo.plan.adapter.backbone!r} with weights "
            f"{zoo.plan.adapter.backbone_hash[:12]}; the backbone given has {backbone.backbone_hash[:12]}."
        )
    missing = [task for task in zoo.tasks if task not in descriptions]
    if missing:
        raise DescriptionError(f"Task {missing[0]!r} of the zoo has no description. Give one for every task.")
    told = [descriptions[task] for task in zoo.tasks]
    fusion = fit_fusion(
        told,
        schema,
        featurise or backbone.image_features,
        config.parts,
        components=config.components,
        whiten=config.whiten,
    )
    stacked = zoo.tensors(range(len(zoo)))
    layout = Layout.of({name: value[0] for name, value in stacked.items()})
    vectors = layout.flatten_many(stacked)
    codec = Codec.fit(layout, vectors, config.normalization)
    normalized = codec.encode(vectors)
    autoencoder = fit_autoencoder(config.autoencoder, normalized, config.autoencoder_config, seed)
    latents = autoencoder.model.encode(normalized).clone()
    place = {task: number for number, task in enumerate(zoo.tasks)}
    task_of = torch.tensor([place[task] for task in zoo.column("task")])
    sampler = fusion.sampler(told, drop_part=config.drop_part, drop_all=config.drop_all)
    task_steps = config.task_loss.steps * config.task_loss.members if features is not None and config.kernel_mean else 0
    total = config.diffusion.steps + task_steps

    def tick(base: int) -> Callable[[int, int], None]:
        return lambda done, _: progress(base + done, total) if progress is not None else None

    around = _Around(None, None, 1.0, torch.zeros(0))
    if config.kernel_mean:
        embeddings = torch.stack([fusion.encode(entry).values for entry in told])
        kernel = fit_kernel_mean(fusion, embeddings, *_of_tasks(normalized, task_of, codec))
        trained = moved_values(vectors, layout.flatten(zoo.initial.tensors), layout.sizes)
        images = [features(task) for task in zoo.tasks] if features is not None and task_steps else None
        correction = fit_correction(
            kernel, fusion, sampler, backbone, codec, trained, images, config.task_loss, seed, tick(0)
        )
        mean = ConditionalMean.of(kernel, correction)
        around = _around(mean, autoencoder.model, latents, task_of, correction.losses)
    diffusion = fit_diffusion(
        latents / around.scale,
        lambda rows, draws: sampler(task_of[rows], draws),
        config.diffusion,
        seed,
        tick(task_steps),
        around.center,
    )
    training = {"config": config.to_json(), "seed": seed, "zoo": zoo.plan.fingerprint, "tasks": len(zoo.tasks)}
    generator = Generator(
        backbone=backbone,
        codec=codec,
        autoencoder=autoencoder.model,
        conditions=fusion,
        denoiser=diffusion.model.requires_grad_(False),
        schedule=diffusion.schedule,
        mean=around.mean,
        spread=around.scale,
        sampling=config.sampling,
        training=training,
    )
    seconds = time.perf_counter() - started
    return FittedGenerator(generator, autoencoder.reconstruction_error, diffusion.losses, around.task_losses, seconds)


@dataclass(frozen=True)
class _Around:
    """What the diffusion is centred on: the conditional mean, and the scale of what is left around it."""

    mean: ConditionalMean | None
    center: Center | None
    scale: float
    task_losses: Tensor


class _OfTasks(NamedTuple):
    """The mean adapter of each task's checkpoints: normalised, and raw, where errors are measured."""

    normalized: Tensor
    raw: Tensor


def _of_tasks(normalized: Tensor, task_of: Tensor, codec: Codec) -> _OfTasks:
    count = int(task_of.max()) + 1
    sums = torch.zeros(count, normalized.shape[1]).index_add_(0, task_of, normalized)
    means = sums / torch.bincount(task_of, minlength=count)[:, None]
    return _OfTasks(means, codec.decode(means))


def _around(
    mean: ConditionalMean, autoencoder: Autoencoder, latents: Tensor, task_of: Tensor, losses: Tensor
) -> _Around:
    """The latents of the mean for every seen task and every subset of its parts, and the scale of the rest."""
    with torch.no_grad():
        table = torch.stack([autoencoder.encode(vectors) for vectors in mean.table()])
    # The scale is that of the full description, where sampling usually happens; never so small that noise is all.
    rest = latents - table[-1][task_of]
    scale = max(float(rest.square().mean().sqrt()), 1e-3)
    scaled = table / scale
    return _Around(mean, lambda rows, cond: scaled[mean.kernel.code(cond), task_of[rows]], scale, losses)
