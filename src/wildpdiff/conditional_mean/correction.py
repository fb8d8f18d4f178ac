"""What regression on checkpoints leaves undone, learned with the task loss through the frozen backbone.

Regression of fine-tuned adapters learns the chance in them too. The loss of the task says what an adapter is for. A few
networks from descriptions to adapters are trained with it on the seen tasks' images, on top of the regression. What
they are put on is the *leave-one-out* regression of each seen task, known in closed form: so they learn to mend what
regression gets wrong at a task that it has not seen, and not what it gets wrong at tasks that it knows (stacking,
Wolpert 1992). Text-to-LoRA (2506.06105) trains a whole hypernetwork by the task loss; here it is half of one.

As many networks stand on no regression at all. They are worse alone, and err in another way: the mean of both kinds is
better than that of either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.autoencoder.training import Progress
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.network import DescriptionNetwork, factor_reads, principal_directions
from wildpdiff.conditional_mean.network_store import NetworkStore
from wildpdiff.conditional_mean.task_images import ImageBatch, TaskImages
from wildpdiff.conditional_mean.training import NetworkTraining, fit_ensemble
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.errors import TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.zoo.features import TaskFeatures

Basis = Literal["regression", "nothing"]
"""What a network stands on."""

FEWEST_TASKS = 10
"""With fewer seen tasks a held-out part says nothing, and regression is left as it is."""

WHAT = "conditional mean"

SAMPLER_DRAWS = 8
"""Views of every description that go into the name of a stored network."""


@dataclass(frozen=True)
class TaskLossConfig:
    """How the conditional mean is trained with the task loss. Defaults are those of held-out seen tasks.

    Attributes:
        steps: most updates of each network; 0 leaves the mean to regression alone.
        tasks: seen tasks an update.
        images: labelled images a task and update.
        folds: of the seen tasks; networks are trained without each of them, and it says when to stop.
        bases: what the networks of each fold stand on.
        learning_rate: of the networks, for AdamW.
        direction_rate: learning rate of their directions, in units of the adapters' normalised values.
        weight_decay: of the networks.
        directions: shared directions K, started at the principal ones of the seen adapters.
        hidden: units of the hidden layer; each reads one factor of the description.
        sharpness: of the hidden units at the start (:class:`DescriptionNetwork`).
        noise: standard deviation of what is added to the embedding in training, in its own units of about one.
        averaging: decay of the moving average of the weights.
        look_every: updates between two looks at the held-out part.
        patience: looks without a lower loss after which a training ends.
        looked_at: labelled images of every held-out task that are looked at, of those that no other task trains on.
    """

    steps: int = 800
    tasks: int = 16
    images: int = 16
    folds: int = 4
    bases: tuple[Basis, ...] = ("regression", "nothing")
    learning_rate: float = 1e-3
    direction_rate: float = 1.5e-3
    weight_decay: float = 0.1
    directions: int = 40
    hidden: int = 128
    sharpness: float = 2.0
    noise: float = 0.15
    averaging: float = 0.98
    look_every: int = 25
    patience: int = 5
    looked_at: int = 32

    def __post_init__(self) -> None:
        if self.folds < 2 or not self.bases:
            raise TrainingError(
                f"The networks were given {self.folds} folds of the seen tasks and {len(self.bases)} bases. Give at "
                "least two folds, since each network is trained without one, and one basis."
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of the attributes."""
        return {**asdict(self), "bases": list(self.bases)}

    @property
    def networks(self) -> int:
        """How many there are."""
        return self.folds * len(self.bases)

    @property
    def training(self) -> NetworkTraining:
        """The part that concerns every network by itself."""
        return NetworkTraining(
            steps=self.steps,
            tasks=self.tasks,
            averaging=self.averaging,
            look_every=self.look_every,
            patience=self.patience,
        )


@dataclass(frozen=True)
class Member:
    """One of the networks whose predictions are averaged.

    Attributes:
        network: trained, frozen.
        basis: what its values are added to.
        fold: of the seen tasks, that it was trained without.
    """

    network: DescriptionNetwork
    basis: Basis
    fold: int

    def normalized(self, embeddings: Float[Tensor, "n e"], regressed: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Normalised adapters, from what the regression says of the same descriptions."""
        with torch.no_grad():
            own = self.network.normalized(embeddings)
        return own + regressed if self.basis == "regression" else own


@dataclass(frozen=True)
class Correction:
    """The trained networks.

    Attributes:
        members: the networks; empty where nothing was trained.
        held_out: by basis, for each seen task the prediction of the networks that were trained without it, on the
            regression without it, "t d"; empty where nothing was trained.
        fold: for each seen task its fold; -1 where no network was trained without it.
        losses: task loss of every update.
        steps: updates that each network has behind it.
    """

    members: tuple[Member, ...]
    held_out: Mapping[Basis, Float[Tensor, "t d"]]
    fold: Int[Tensor, " t"]
    losses: Float[Tensor, " steps"] = field(repr=False)
    steps: tuple[int, ...]


def task_losses(
    backbone: Backbone,
    codec: Codec,
    normalized: Float[Tensor, "b d"],
    batch: ImageBatch,
    constant: Collection[str] = (),
) -> Float[Tensor, " b"]:
    """Cross-entropy of normalised adapters on some labelled images of each one's task.

    Args:
        backbone: the frozen model.
        codec: of the adapters.
        normalized: the adapters.
        batch: images of each adapter's task.
        constant: names of tensors whose gradient is not computed.
    """
    tensors = codec.layout.unflatten(codec.decode(normalized))
    tensors = {name: value.detach() if name in constant else value for name, value in tensors.items()}
    return torch.func.vmap(lambda x, y, adapter: cross_entropy(backbone.logits(x, adapter), y))(
        batch.inputs, batch.labels, tensors
    )


@dataclass(frozen=True)
class CorrectionProblem:
    """A ``TaskProblem``: networks on top of the leave-one-out regression, or of nothing.

    Attributes:
        backbone: the frozen model.
        codec: adapter tensors to normalised vectors.
        kernel: the regression.
        trained: which values of an adapter fine-tuning moves.
        encoder: of the descriptions.
        sampler: random views of the seen tasks' descriptions.
        images: labelled images of the seen tasks.
        config: sizes and rates.
        left_out: the leave-one-out regression for every subset of parts, "s t d"; zero where they stand on nothing.
    """

    backbone: Backbone
    codec: Codec
    kernel: KernelMean
    trained: Bool[Tensor, " d"]
    encoder: FusionEncoder
    sampler: ConditionSampler
    images: TaskImages
    config: TaskLossConfig
    left_out: Float[Tensor, "s t d"]

    @cached_property
    def constant(self) -> frozenset[str]:
        """Tensors of an adapter that fine-tuning does not move: the network masks whatever gradient they have."""
        layout = self.codec.layout
        moved = [bool(part.any()) for part in torch.split(self.trained, list(layout.sizes))]
        return frozenset(name for name, any_moved in zip(layout.names, moved, strict=True) if not any_moved)

    def network(self, tasks: Sequence[int]) -> DescriptionNetwork:
        """An untrained network that knows the adapters of these tasks alone."""
        config, encoder = self.config, self.encoder
        reads = factor_reads(encoder.groups, encoder.parts, encoder.size, config.hidden)
        directions = principal_directions(self.kernel.targets[list(tasks)], config.directions)
        return DescriptionNetwork(directions, self.trained, reads, sharpness=config.sharpness)

    def groups(self, network: DescriptionNetwork) -> list[dict[str, Any]]:
        """All parameters, the directions at their own rate."""
        config = self.config
        return network.parameter_groups(config.learning_rate, config.weight_decay, config.direction_rate)

    def loss(self, network: DescriptionNetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, ""]:
        """Mean task loss on a random view of each description and random images."""
        cond = self.sampler(tasks, draws)
        below = self.left_out[self.kernel.code(cond), tasks]
        noisy = cond + self.config.noise * torch.randn(cond.shape, generator=draws)
        batch = self.images.draw(tasks, self.config.images, draws)
        return task_losses(self.backbone, self.codec, below + network.normalized(noisy), batch, self.constant).mean()

    def held_out_loss(self, network: DescriptionNetwork, tasks: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean task loss on whole descriptions and the same images every time."""
        seen = self.kernel.seen[tasks]
        vectors = self.left_out[self.kernel.code(seen), tasks] + network.normalized(seen)
        batch = self.images.fixed(tasks, self.config.looked_at)
        return task_losses(self.backbone, self.codec, vectors, batch).mean()


def fit_correction(
    kernel: KernelMean,
    encoder: FusionEncoder,
    sampler: ConditionSampler,
    backbone: Backbone,
    codec: Codec,
    trained: Bool[Tensor, " d"],
    features: Sequence[TaskFeatures] | None,
    config: TaskLossConfig,
    seed: int,
    *,
    trained_folds: int | None = None,
    progress: Progress | None = None,
    store: Path | None = None,
) -> Correction:
    """Train the networks on top of a regression of normalised adapters.

    Args:
        kernel: the regression on the seen tasks.
        encoder: of the descriptions.
        sampler: random views of the seen tasks' descriptions, by task index.
        backbone: the frozen model.
        codec: of the adapters.
        trained: which values of an adapter fine-tuning moves.
        features: labelled images of the seen tasks behind the stem, in the regression's order; ``None`` where no data
            is at hand.
        config: how.
        seed: of everything random.
        trained_folds: without how many of the folds networks are trained; each of them by default.
        progress: called with (updates done, most updates in all).
        store: folder in which every network is kept as it is finished, under a hash of all that decides it; networks
            that are there are not trained again.

    Without images, without updates, or with fewer than ten tasks, nothing is trained.

    Raises:
        TrainingError: a loss is not finite.
        DataError: a task has no training images.
    """
    count = len(kernel.seen)
    if features is None or not config.steps or count < FEWEST_TASKS:
        return Correction((), {}, torch.full((count,), -1), torch.zeros(0), ())
    table = torch.stack([kernel.leave_one_out(code) for code in range(2 ** len(kernel.parts))])
    images = TaskImages(tuple(features), seed)
    problems = [
        CorrectionProblem(backbone, codec, kernel, trained, encoder, sampler, images, config, below)
        for below in (table if basis == "regression" else torch.zeros_like(table) for basis in config.bases)
    ]
    kept = None if store is None else _store(store, problems[0], table, seed)
    fitted = fit_ensemble(
        problems, images.names, min(config.folds, count), config.training, seed, WHAT, trained_folds, progress, kept
    )
    kinds = len(config.bases)
    members = tuple(
        Member(network, config.bases[place % kinds], place // kinds) for place, network in enumerate(fitted.networks)
    )
    left_out = kernel.held_out()
    held_out = {basis: left_out.clone() for basis in config.bases}
    for member in members:
        rows = fitted.fold == member.fold
        held_out[member.basis][rows] = member.normalized(kernel.seen[rows], left_out[rows])
    return Correction(members, held_out, fitted.fold, fitted.losses, fitted.steps)


def _store(folder: Path, problem: CorrectionProblem, table: Tensor, seed: int) -> NetworkStore:
    """Where the networks are kept: under a hash of what :func:`fit_correction` reads of its arguments."""
    kernel, codec, images = problem.kernel, problem.codec, problem.images
    # The sampler has no tensors to read: some draws of it tell its descriptions and how often it hides a part.
    draws = torch_generator(0, "stored networks")
    drawn = torch.stack([problem.sampler(torch.arange(len(kernel.seen)), draws) for _ in range(SAMPLER_DRAWS)])
    tensors = {
        "seen": kernel.seen,
        "targets": kernel.targets,
        "left out": table,
        "trained": problem.trained,
        "drawn": drawn,
        **{f"codec.{name}": value for name, value in codec.state().items()},
    }
    for number, (task, rows) in enumerate(zip(images.tasks, images.rows, strict=True)):
        own = {"train": task.train, "train labels": task.train_labels, "trained rows": rows.trained}
        own |= {"validation": task.validation, "validation labels": task.validation_labels, "unshared": rows.unshared}
        tensors |= {f"{number}.{name}": value for name, value in own.items()}
    settings = {
        "config": problem.config.to_json(),
        "seed": seed,
        "codec": codec.config,
        "adapter": problem.backbone.adapter_config.to_json(),
        "groups": [[part, list(columns)] for part, columns in problem.encoder.groups],
        "parts": list(problem.encoder.parts),
        "tasks": list(images.names),
    }
    return NetworkStore.of(folder, tensors, settings)
