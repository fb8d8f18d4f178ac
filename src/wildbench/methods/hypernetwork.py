"""A hypernetwork: description to adapter by a small network, trained by reconstruction or by the task loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import mse_loss

from wildbench.methods.description_network import adapters_loss
from wildbench.methods.network_fit import fit_network
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.network import (
    DescriptionNetwork,
    factor_reads,
    moved_values,
    principal_directions,
)
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import FittedNetwork, NetworkTraining
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.description import Description

HypernetworkLoss = Literal["reconstruction", "task"]
NAMES = {"reconstruction": "hypernetwork, reconstruction", "task": "hypernetwork, task loss"}


@dataclass(frozen=True)
class HypernetworkConfig:
    """Architecture and training of a hypernetwork. The defaults were chosen on held-out seen tasks (``docs/log.md``).

    Attributes:
        training: updates and how many of them.
        directions: shared directions K, started at the principal ones of the seen adapters.
        hidden: units of the hidden layer.
        additive: each hidden unit reads one factor of the description alone (the coordinates, one field of the
            metadata, a group of columns of an image set): the network is a sum of functions of one factor each.
        dropout: of the hidden units.
        sharpness: of the hidden units at the start (:class:`DescriptionNetwork`); None leaves them almost linear.
        noise: standard deviation of what is added to the embedding, in its own units of about one.
        learning_rate: of the network, for AdamW.
        weight_decay: of the network.
        direction_rate: learning rate of the directions and the mean, in units of the adapters' normalised values; the
            task loss alone moves them, since principal directions are already the best for reconstruction.
        images: labelled images a task and update, for the task loss.
        evaluation_images: images of every held-out task on which the number of updates is chosen.
        drop_part: probability of hiding a part of the description, so that any may be missing later.
        smallest: the smallest subset of a description's images that is drawn.
    """

    training: NetworkTraining
    directions: int = 40
    hidden: int = 128
    additive: bool = True
    dropout: float = 0.0
    sharpness: float | None = None
    noise: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    direction_rate: float = 3e-3
    images: int = 32
    evaluation_images: int = 32
    drop_part: float = 0.05
    smallest: int = 8

    @classmethod
    def of(cls, loss: HypernetworkLoss) -> HypernetworkConfig:
        """The defaults for one loss."""
        if loss == "task":
            return cls(NetworkTraining(steps=400, tasks=16, evaluate_every=20), sharpness=2.0, noise=0.15)
        training = NetworkTraining(steps=1500, tasks=64, evaluate_every=100, averaging=0.99)
        return cls(training, noise=0.5, learning_rate=1e-3)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)


class Hypernetwork(DescriptionNetwork):
    """Embedding of a description to a raw adapter vector."""

    def __init__(
        self,
        codec: Codec,
        directions: Float[Tensor, "k d"],
        trained: Bool[Tensor, " d"],
        *,
        reads: Bool[Tensor, "h e"],
        config: HypernetworkConfig,
    ) -> None:
        """Start at the mean adapter.

        Args:
            codec: between raw and normalised vectors.
            directions: scaled so that coefficients are about one, in normalised units.
            trained: which values fine-tuning moves; the others stay at the mean, which is their shared initialisation.
            reads: which columns of the embedding each hidden unit reads.
            config: the dropout and how sharp the hidden units start.
        """
        super().__init__(directions, trained, reads, dropout=config.dropout, sharpness=config.sharpness)
        self.codec = codec

    def forward(self, cond: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        """Raw adapter vectors."""
        return self.codec.decode(self.normalized(cond))


@dataclass(frozen=True)
class _Conditions:
    """Descriptions of the seen tasks: whole, and as random views."""

    embeddings: Tensor
    sampler: ConditionSampler
    noise: float

    def draw(self, tasks: Tensor, draws: torch.Generator) -> Tensor:
        cond = self.sampler(tasks, draws)
        return cond + self.noise * torch.randn(cond.shape, generator=draws)


@dataclass(frozen=True)
class _Start:
    """Initialisation of a network: the adapters of the tasks that it is trained on."""

    seen: SeenAdapters
    trained: Tensor
    reads: Tensor
    config: HypernetworkConfig

    def network(self, tasks: Sequence[int]) -> Hypernetwork:
        vectors = self.seen.vectors[list(tasks)]
        codec = Codec.fit(self.seen.layout, vectors, "tensor")
        directions = principal_directions(codec.encode(vectors), self.config.directions)
        return Hypernetwork(codec, directions, self.trained, reads=self.reads, config=self.config)

    def groups(self, network: Hypernetwork, learn_directions: bool) -> list[dict[str, Any]]:
        config = self.config
        rate = config.direction_rate if learn_directions else None
        return network.parameter_groups(config.learning_rate, config.weight_decay, rate)


@dataclass(frozen=True)
class _Problem:
    """Training by either loss, evaluated by the task loss: a ``TaskProblem``.

    Parameter error on held-out tasks is lowest where all adapters are still near their mean, long before they are of
    most use, so the number of updates is chosen by the task loss for the reconstruction too.
    """

    start: _Start
    conditions: _Conditions
    backbone: Backbone
    images: TaskExamples
    checkpoints: tuple[Tensor, ...] | None

    def network(self, tasks: Sequence[int]) -> Hypernetwork:
        return self.start.network(tasks)

    def groups(self, network: Hypernetwork) -> list[dict[str, Any]]:
        return self.start.groups(network, learn_directions=self.checkpoints is None)

    def loss(self, network: Hypernetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Tensor:
        cond = self.conditions.draw(tasks, draws)
        if self.checkpoints is None:
            return self._task_loss(network(cond), self.images.draw(tasks, self.start.config.images, draws))
        luck = torch.rand(len(tasks), generator=draws).tolist()
        found = [self.checkpoints[task] for task in tasks.tolist()]
        targets = torch.stack([entry[int(share * len(entry))] for entry, share in zip(found, luck, strict=True)])
        return mse_loss(network.normalized(cond), network.codec.encode(targets))

    def held_out_loss(self, network: Hypernetwork, tasks: Int[Tensor, " b"]) -> Tensor:
        vectors = network(self.conditions.embeddings[tasks])
        return self._task_loss(vectors, self.images.fixed(tasks, self.start.config.evaluation_images))

    def _task_loss(self, vectors: Tensor, batch: Batch) -> Tensor:
        """Mean loss of one adapter a task."""
        return adapters_loss(self.backbone, batch, self.start.seen.layout.unflatten(vectors), {})


class HypernetworkSource:
    """A small network from a description to an adapter (Text-to-LoRA, Charakorn et al. 2025, arXiv 2506.06105).

    ``reconstruction`` trains it on the zoo's checkpoints (their section 3.2), ``task`` on the tasks' images through
    the frozen backbone (their section 3.3). How many updates are made is chosen by the task loss on
    held-out seen tasks.
    """

    stochastic = False

    def __init__(
        self, seen: SeenTasks, loss: HypernetworkLoss = "reconstruction", config: HypernetworkConfig | None = None
    ) -> None:
        """Train.

        Args:
            seen: the seen tasks.
            loss: what it is trained by.
            config: how; the defaults of that loss where left out.

        Raises:
            TrainingError: the training diverged.
            DataError: a task has no training images.
        """
        config = config or HypernetworkConfig.of(loss)
        self.name = NAMES[loss]
        self._encoder = seen.encoder
        self._seen = SeenAdapters.of(seen.adapters, len(seen.descriptions))
        layout = self._seen.layout
        moved = moved_values(self._seen.vectors, layout.flatten(seen.zoo.initial.tensors), layout.sizes)
        start = _Start(self._seen, moved, _reads(seen.encoder, config), config)
        sampler = seen.encoder.sampler(
            seen.descriptions, seen.features, drop_part=config.drop_part, drop_all=0.0, smallest=config.smallest
        )
        conditions = _Conditions(seen.embeddings, sampler, config.noise)
        images = TaskExamples(tuple(seen.data(name) for name in seen.zoo.tasks), seen.seed)
        checkpoints = None if loss == "task" else _checkpoints(seen, self._seen)
        problem = _Problem(start, conditions, seen.backbone, images, checkpoints)
        self._fit = fit_network(problem, len(seen.zoo.tasks), config.training, seed=seen.seed, what=self.name)

    @property
    def fit(self) -> FittedNetwork[Hypernetwork]:
        """The trained network and its losses."""
        return self._fit

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the adapter; raises :class:`DescriptionError` on an empty or bad description."""
        with torch.no_grad():
            vector = self._fit.network(self._encoder.encode(description).values[None])[0]
        return repeat_adapter(
            self._seen.adapter(vector), self.name, description, n=n, seed=seed, updates=self._fit.steps
        )


def _checkpoints(seen: SeenTasks, adapters: SeenAdapters) -> tuple[Tensor, ...]:
    """Flat checkpoints ``[k, d]`` of every task."""
    vectors = adapters.layout.flatten_many(seen.zoo.tensors(range(len(seen.zoo))))
    rows: dict[str, list[int]] = {name: [] for name in seen.zoo.tasks}
    for row, name in enumerate(seen.zoo.column("task")):
        rows[name].append(row)
    return tuple(vectors[rows[name]] for name in seen.zoo.tasks)


def _reads(encoder: FusionEncoder, config: HypernetworkConfig) -> Tensor:
    """Columns of the embedding that each hidden unit reads."""
    if not config.additive:
        return torch.ones(config.hidden, encoder.size, dtype=torch.bool)
    return factor_reads(encoder.groups, encoder.parts, encoder.size, config.hidden)
