"""Networks from descriptions to adapters, trained with the task loss through the frozen backbone.

Regression of fine-tuned adapters fits the noise in them too; the task loss measures what an adapter is for. Residual
networks predict a correction of the *leave-one-out* regression of each seen task, known in closed form: so they learn
the errors of regression at unseen tasks, and not those at tasks that it was fitted to (stacking, Wolpert 1992).
Text-to-LoRA (2506.06105) trains a whole hypernetwork by the task loss; here it is half of one.

As many networks are direct: they predict whole adapters. They are worse alone, and err in another way: the mean of both
kinds is better than that of either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import over_adapters
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.network import DescriptionNetwork, factor_reads, principal_directions
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import NetworkStore, NetworkTraining, fit_ensemble, folds
from wildpdiff.errors import TrainingError
from wildpdiff.records import encode
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import Batch
from wildpdiff.training import Progress

Basis = Literal["regression", "nothing"]
"""Whether a network predicts a residual of the regression or the whole adapter."""

FEWEST_TASKS = 10
"""Fewest tasks for early stopping on held-out ones; below, the regression is used unchanged."""

NAME = "conditional mean"

SAMPLER_DRAWS = 8
"""Random views of every description that go into the key of a stored network."""


@dataclass(frozen=True)
class TaskLossConfig:
    """Training of the networks with the task loss. Defaults were chosen on held-out seen tasks.

    Attributes:
        steps: most updates of each network; 0 for regression alone.
        folds: of the seen tasks; networks are trained without each of them, and its loss ends their training.
        direction_rate: learning rate of their directions, in units of the adapters' normalised values.
        directions: shared directions K, started at the principal ones of the seen adapters.
        hidden: units of the hidden layer; each reads one factor of the description.
        sharpness: of the hidden units at the start (:class:`DescriptionNetwork`).
        noise: standard deviation of the noise on embeddings in training, whose own is about one.
        evaluation_images: labelled images of every held-out task, of those that no other task is trained on.
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
    evaluate_every: int = 25
    patience: int = 5
    evaluation_images: int = 32

    def __post_init__(self) -> None:
        if self.folds < 2 or not self.bases:
            raise TrainingError(f"{self.folds} folds, {len(self.bases)} bases: give two folds and one basis at least.")

    @property
    def networks(self) -> int:
        """Number of networks."""
        return self.folds * len(self.bases)

    @property
    def training(self) -> NetworkTraining:
        """Training of each network."""
        return NetworkTraining(
            steps=self.steps,
            tasks=self.tasks,
            averaging=self.averaging,
            evaluate_every=self.evaluate_every,
            patience=self.patience,
        )


@dataclass(frozen=True)
class EnsembleMember:
    """One of the networks whose predictions are averaged.

    Attributes:
        fold: of the seen tasks, that it was trained without.
    """

    network: DescriptionNetwork
    basis: Basis
    fold: int

    def normalized(self, embeddings: Float[Tensor, "n e"], regressed: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Normalised adapters, given the regression's of the same descriptions."""
        with torch.no_grad():
            own = self.network.normalized(embeddings)
        return own + regressed if self.basis == "regression" else own


@dataclass(frozen=True)
class HypernetworkEnsemble:
    """The trained networks.

    Attributes:
        members: the networks; empty where nothing was trained.
        held_out: by basis, for each seen task the prediction of the networks that were trained without it, on the
            regression without it, "t d"; empty where nothing was trained.
        fold: for each seen task its fold; -1 where no network was trained without it.
    """

    members: tuple[EnsembleMember, ...]
    held_out: Mapping[Basis, Float[Tensor, "t d"]]
    fold: Int[Tensor, " t"]
    losses: Float[Tensor, " steps"] = field(repr=False)


def task_losses(
    backbone: Backbone,
    codec: Codec,
    normalized: Float[Tensor, "b d"],
    *,
    batch: Batch,
    constant: Collection[str] = (),
) -> Float[Tensor, " b"]:
    """Mean loss of normalised adapters, each on examples of its own task, "b m …".

    The gradient of the tensors in ``constant`` is not computed.
    """
    tensors = codec.layout.unflatten(codec.decode(normalized))
    tensors = {name: value.detach() if name in constant else value for name, value in tensors.items()}
    return over_adapters(lambda own, adapter: backbone.objective.loss(backbone.outputs(own, adapter), own).mean())(
        dict(batch), tensors
    )


@dataclass(frozen=True)
class CorrectionProblem:
    """A :class:`~wildpdiff.conditional_mean.training.TaskProblem`: networks of one basis.

    Attributes:
        left_out: the leave-one-out regression for every subset of parts, "s t d"; zero for direct networks.
    """

    encoded: EncodedTasks
    kernel: KernelMean
    images: TaskExamples
    config: TaskLossConfig
    left_out: Float[Tensor, "s t d"]

    @cached_property
    def constant(self) -> frozenset[str]:
        """Tensors of an adapter that fine-tuning does not move: the network masks whatever gradient they have."""
        layout = self.encoded.codec.layout
        moved = [bool(part.any()) for part in torch.split(self.encoded.moved, list(layout.sizes))]
        return frozenset(name for name, any_moved in zip(layout.names, moved, strict=True) if not any_moved)

    def network(self, tasks: Sequence[int]) -> DescriptionNetwork:
        """An untrained network whose directions are those of these tasks alone."""
        config, encoder = self.config, self.encoded.conditions
        reads = factor_reads(encoder.groups, encoder.parts, encoder.size, config.hidden)
        directions = principal_directions(self.kernel.targets[list(tasks)], config.directions)
        return DescriptionNetwork(directions, self.encoded.moved, reads, sharpness=config.sharpness)

    def groups(self, network: DescriptionNetwork) -> list[dict[str, Any]]:
        """All parameters, the directions at their own rate."""
        config = self.config
        return network.parameter_groups(config.learning_rate, config.weight_decay, config.direction_rate)

    def loss(self, network: DescriptionNetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, ""]:
        """Mean task loss on a random view of each description and random images."""
        cond = self.encoded.sampler(tasks, draws)
        base = self.left_out[self.kernel.presence_masks(cond), tasks]
        noisy = cond + self.config.noise * torch.randn(cond.shape, generator=draws)
        batch = self.images.draw(tasks, self.config.images, draws)
        return self._losses(base + network.normalized(noisy), batch, self.constant).mean()

    def held_out_loss(self, network: DescriptionNetwork, tasks: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        """Mean task loss on whole descriptions and the same images every time."""
        seen = self.kernel.seen[tasks]
        vectors = self.left_out[self.kernel.presence_masks(seen), tasks] + network.normalized(seen)
        return self._losses(vectors, self.images.fixed(tasks, self.config.evaluation_images)).mean()

    def _losses(self, vectors: Tensor, batch: Batch, constant: Collection[str] = ()) -> Tensor:
        return task_losses(self.encoded.backbone, self.encoded.codec, vectors, batch=batch, constant=constant)


def fit_hypernetworks(
    encoded: EncodedTasks,
    kernel: KernelMean,
    config: TaskLossConfig,
    *,
    seed: int,
    trained_folds: int | None = None,
    progress: Progress | None = None,
    store: Path | None = None,
    start: HypernetworkEnsemble | None = None,
) -> HypernetworkEnsemble:
    """Networks on top of a regression of normalised adapters.

    Without labelled images, without updates, or with fewer than ten tasks, nothing is trained.

    Args:
        trained_folds: number of folds without which networks are trained; all by default.
        store: folder of finished networks, under a hash of everything that decides them; those that are there are not
            trained again.
        start: networks of the first of these tasks, which are trained further.

    Raises:
        TrainingError: a loss is not finite.
        DataError: a task has no training images.
    """
    count, unlabelled = len(encoded.labelled), len(kernel.seen) - len(encoded.labelled)
    if not config.steps or count < FEWEST_TASKS:
        return HypernetworkEnsemble((), {}, torch.full((len(kernel.seen),), -1), torch.zeros(0))
    table = torch.stack([kernel.leave_one_out(mask) for mask in range(2 ** len(kernel.parts))])
    images = encoded.images(seed)
    problems = [
        CorrectionProblem(encoded, kernel, images, config, base)
        for base in (table if basis == "regression" else torch.zeros_like(table) for basis in config.bases)
    ]
    fold = folds(images.names, min(config.folds, count), seed, NAME)
    if start is not None:  # no network has seen a task of its own fold, and none may now
        fold[: len(start.fold)] = start.fold
    fitted = fit_ensemble(
        problems,
        fold if trained_folds is None else torch.where(fold < trained_folds, fold, -1),
        config.training,
        seed=seed,
        what=NAME,
        progress=progress,
        store=None if store is None else _store(store, problems[0], table, seed, start=start),
        starts=() if start is None else tuple(member.network for member in start.members),
    )
    kinds = len(config.bases)
    members = tuple(
        EnsembleMember(network, config.bases[index % kinds], index // kinds)
        for index, network in enumerate(fitted.networks)
    )
    left_out, fold = kernel.held_out(), pad(fitted.fold, (0, unlabelled), value=-1)
    held_out = {basis: left_out.clone() for basis in config.bases}
    for member in members:
        rows = fold == member.fold
        held_out[member.basis][rows] = member.normalized(kernel.seen[rows], left_out[rows])
    for basis in config.bases if unlabelled else ():  # no network has learned from these tasks
        own = [member.normalized(kernel.seen[count:], left_out[count:]) for member in members if member.basis == basis]
        held_out[basis][count:] = torch.stack(own).mean(0)
    return HypernetworkEnsemble(members, held_out, fold, fitted.losses)


def _store(
    folder: Path, problem: CorrectionProblem, table: Tensor, seed: int, *, start: HypernetworkEnsemble | None
) -> NetworkStore:
    """Stored networks of a fit, under a hash of everything that :func:`fit_hypernetworks` reads."""
    encoded, kernel, images = problem.encoded, problem.kernel, problem.images
    # Draws of the sampler depend on its descriptions and on the probability of hidden parts.
    draws = torch_generator(0, "stored networks")
    drawn = torch.stack([encoded.sampler(torch.arange(len(kernel.seen)), draws) for _ in range(SAMPLER_DRAWS)])
    tensors = {
        "seen": kernel.seen,
        "targets": kernel.targets,
        "left out": table,
        "moved": encoded.moved,
        "drawn": drawn,
    }
    tensors |= {f"codec.{name}": value for name, value in encoded.codec.state().items()}
    for number, (task, rows) in enumerate(zip(images.tasks, images.rows, strict=True)):
        tensors |= {f"{number}.train.{name}": value for name, value in task.train.items()}
        tensors |= {f"{number}.validation.{name}": value for name, value in task.validation.items()}
        tensors |= {f"{number}.trained": rows.trained, f"{number}.leak_free": rows.leak_free}
    if start is not None:
        tensors["start.fold"] = start.fold
        for number, member in enumerate(start.members):
            tensors |= {f"start.{number}.{name}": value for name, value in member.network.state_dict().items()}
    settings = {
        "config": encode(problem.config),
        "seed": seed,
        "codec": encoded.codec.config,
        "adapter": encoded.backbone.adapter_config.to_json(),
        "objective": encode(encoded.backbone.objective),
        "groups": encode(encoded.conditions.groups),
        "parts": encode(encoded.conditions.parts),
        "tasks": encode(images.names),
    }
    return NetworkStore.of(folder, tensors, settings)
