"""Column-wise merging: a network from the description to merging factors of seen adapters, one for every column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wildbench.methods.description_network import DescriptionViews, NumbersNetwork, adapters_loss
from wildbench.methods.network_fit import fit_network
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditional_mean.network import factor_reads
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import FittedNetwork, NetworkTraining
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.tasks.description import Description

FACTOR_B = ".lora_B."
SWEEPS = 20
"""Most sweeps of the search for cluster centres."""


@dataclass(frozen=True)
class ColumnMergeConfig:
    """Settings of column-wise merging. Defaults are those that held-out seen tasks chose.

    Attributes:
        training: updates and their number.
        bank: most seen adapters that are merged.
        factors: ``affine`` gives factors of any sign, ``softmax`` only positive ones. Both sum to one over the bank.
        hidden: units of the hidden layer.
        sharpness: of the hidden units at the start (:class:`NumbersNetwork`).
        noise: standard deviation of the noise on the embedding, in its own units of about one.
        learning_rate: for AdamW.
        weight_decay: for AdamW.
        images: labelled images a task and update.
        held_out_images: images of every held-out task on which the number of updates is chosen.
        drop_part: probability of hiding a part of the description, so that any may be missing later.
        smallest: the smallest subset of a description's images that is drawn.
    """

    training: NetworkTraining = field(default_factory=lambda: NetworkTraining(steps=400, tasks=16, evaluate_every=20))
    bank: int = 16
    factors: Literal["softmax", "affine"] = "affine"
    hidden: int = 128
    sharpness: float = 2.0
    noise: float = 0.15
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    images: int = 32
    held_out_images: int = 32
    drop_part: float = 0.05
    smallest: int = 8

    def __post_init__(self) -> None:
        if self.bank < 2:
            raise TrainingError(f"Column-wise merging was given a bank of {self.bank} adapters. Give 2 or more.")

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Columns:
    """The columns of an adapter: its values in groups that are merged with one factor each.

    A column of a LoRA layer is one rank-one component: a row of A with the column of B that multiplies it, since
    neither does anything alone. A column of a module that is saved whole, a classifier, is one of its outputs: a row of
    the weight with its value of the bias. Factors of A and B mean the same in all adapters of a zoo, which start from
    one initialisation.

    Attributes:
        layout: of the adapters.
        offsets: for each tensor of the layout, the axis along which its columns lie and the number of its first one.
        count: number of columns c.
    """

    layout: Layout
    offsets: tuple[tuple[int, int], ...]
    count: int

    @classmethod
    def of(cls, layout: Layout) -> Columns:
        """The columns of all adapters with this layout."""
        firsts: dict[tuple[str, int], int] = {}
        offsets, count = [], 0
        for name, shape in layout.entries:
            axis = 1 if FACTOR_B in name else 0
            key = (name.split(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0], shape[axis])
            if key not in firsts:
                firsts[key] = count
                count += shape[axis]
            offsets.append((axis, firsts[key]))
        return cls(layout, tuple(offsets), count)

    def merge(self, factors: Float[Tensor, "b k c"], bank: Float[Tensor, "k d"]) -> dict[str, Tensor]:
        """Merged tensors with a leading axis b: every column is the sum of the bank's columns times their factors."""
        merged = {}
        for (name, value), (axis, first) in zip(self.layout.unflatten(bank).items(), self.offsets, strict=True):
            columns = value.movedim(axis + 1, 1)
            own = factors[:, :, first : first + columns.shape[1]]
            merged[name] = torch.einsum("bkc,kc...->bc...", own, columns).movedim(1, axis + 1)
        return merged


class ColumnMergeNetwork(nn.Module):
    """Embedding of a description to merged adapters; at first all members of the bank have the same factor."""

    bank: Tensor
    members: Tensor

    def __init__(
        self,
        columns: Columns,
        bank: Float[Tensor, "k d"],
        members: Int[Tensor, " k"],
        *,
        reads: Bool[Tensor, "h e"],
        config: ColumnMergeConfig,
    ) -> None:
        """Start at the mean of the bank.

        Args:
            columns: of the adapters.
            bank: adapters that are merged; they are not trained.
            members: index of the seen task of each.
            reads: columns of the embedding that each hidden unit reads.
            config: the kind of the factors and the start of the hidden units.
        """
        super().__init__()
        self.columns = columns
        self.register_buffer("bank", bank)
        self.register_buffer("members", members)
        self.numbers = NumbersNetwork(reads, len(bank) * columns.count, config.sharpness)
        self.softmax = config.factors == "softmax"

    def factors(self, cond: Float[Tensor, "b e"], excluded: Bool[Tensor, "b k"]) -> Float[Tensor, "b k c"]:
        """Merging factors, which sum to one over the bank; those of excluded members are zero."""
        raw = self.numbers(cond).unflatten(1, (len(self.bank), self.columns.count))
        kept = ~excluded[:, :, None]
        if self.softmax:
            positive: Tensor = raw.masked_fill(~kept, -torch.inf).softmax(1)
            return positive
        number = kept.sum(1, keepdim=True)
        mean = (raw * kept).sum(1, keepdim=True) / number
        result: Tensor = (raw - mean + 1.0 / number) * kept
        return result

    def forward(self, cond: Float[Tensor, "b e"], tasks: Int[Tensor, " b"] | None = None) -> dict[str, Tensor]:
        """Tensors of merged adapters with a leading axis b.

        Args:
            cond: embeddings of descriptions.
            tasks: seen tasks that are described, whose own adapters take no part: a network that may copy the answer
                learns to. None for descriptions of other tasks.
        """
        numbers = torch.full((len(cond),), -1) if tasks is None else tasks
        excluded = numbers[:, None] == self.members[None]
        return self.columns.merge(self.factors(cond, excluded), self.bank)


def bank_of(embeddings: Float[Tensor, "t e"], most: int) -> Int[Tensor, " k"]:
    """Indices of at most so many tasks that represent all: centres of clusters of their embeddings (k-medoids).

    The start is the farthest-first traversal (Gonzalez 1985) from the medoid of all; nothing is random. Ascending.
    """
    values = embeddings.double()
    distance = (values[:, None] - values[None]).square().sum(2)
    if len(values) <= most:
        return torch.arange(len(values))
    chosen = [int(distance.sum(1).argmin())]
    while len(chosen) < most:
        nearest = distance[:, chosen].amin(1)
        nearest[chosen] = -1.0  # equal descriptions must not make one task a member twice
        chosen.append(int(nearest.argmax()))
    members = torch.tensor(chosen)
    for _ in range(SWEEPS):
        cluster = distance[:, members].argmin(1)
        cluster[members] = torch.arange(most)
        moved = members.clone()
        for number in range(most):
            rows = (cluster == number).nonzero()[:, 0]
            moved[number] = rows[distance[rows][:, rows].sum(1).argmin()]
        if torch.equal(moved, members):
            break
        members = moved
    return members.sort().values


@dataclass(frozen=True)
class _Problem:
    """The task loss of merged adapters: a ``TaskProblem``."""

    backbone: Backbone
    seen: SeenAdapters
    columns: Columns
    reads: Tensor
    views: DescriptionViews
    images: TaskExamples
    config: ColumnMergeConfig

    def network(self, tasks: Sequence[int]) -> ColumnMergeNetwork:
        members = torch.tensor(tasks)[bank_of(self.views.embeddings[list(tasks)], self.config.bank)]
        return ColumnMergeNetwork(
            self.columns, self.seen.vectors[members], members, reads=self.reads, config=self.config
        )

    def groups(self, network: ColumnMergeNetwork) -> list[dict[str, Any]]:
        return [network.numbers.parameter_group(self.config.learning_rate, self.config.weight_decay)]

    def loss(self, network: ColumnMergeNetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Tensor:
        merged = network(self.views.draw(tasks, draws), tasks)
        return adapters_loss(self.backbone, self.images.draw(tasks, self.config.images, draws), merged, {})

    def held_out_loss(self, network: ColumnMergeNetwork, tasks: Int[Tensor, " b"]) -> Tensor:
        merged = network(self.views.embeddings[tasks], tasks)
        return adapters_loss(self.backbone, self.images.fixed(tasks, self.config.held_out_images), merged, {})


class ColumnMergeSource:
    """Merges a bank of seen adapters column by column, with factors that a network gives for the description.

    The idea is that of merging domain experts by a hypernetwork (OpenReview ACWBlCfcVY), which reads a small batch of
    the target domain; here it reads the embedding of the description, as every baseline does. The bank is made of
    cluster centres of the seen descriptions. The network is trained with the task loss on seen tasks, each merged
    without its own adapter; the number of updates is chosen on held-out seen tasks.
    """

    name = "column-wise merge"
    stochastic = False

    def __init__(self, seen: SeenTasks, config: ColumnMergeConfig | None = None) -> None:
        """Train.

        Args:
            seen: the seen tasks.
            config: settings; the defaults where left out.

        Raises:
            DataError: fewer than two seen tasks, or one without training images.
            TrainingError: the training diverged.
        """
        config = config or ColumnMergeConfig()
        self._seen = SeenAdapters.of(seen.adapters, len(seen.descriptions))
        count = len(seen.zoo.tasks)
        if count < 2:
            raise DataError(f"Column-wise merging has {count} seen adapter to merge. Give the adapters of 2 or more.")
        self._encoder = seen.encoder
        self._task_ids = seen.zoo.tasks
        reads = factor_reads(seen.encoder.groups, seen.encoder.parts, seen.encoder.size, config.hidden)
        problem = _Problem(
            seen.backbone,
            self._seen,
            Columns.of(self._seen.layout),
            reads,
            DescriptionViews.of(seen, config),
            TaskExamples(tuple(seen.data(name) for name in seen.zoo.tasks), seen.seed),
            config,
        )
        self._fit = fit_network(problem, count, config.training, seed=seen.seed, what=self.name)

    @property
    def fit(self) -> FittedNetwork[ColumnMergeNetwork]:
        """The trained network and its losses."""
        return self._fit

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the merged adapter; raises :class:`DescriptionError` on an empty or bad description."""
        network = self._fit.network
        with torch.no_grad():
            merged = network(self._encoder.encode(description).values[None])
        adapter = Adapter({name: value[0].contiguous() for name, value in merged.items()}, self._seen.config)
        bank = [self._task_ids[index] for index in network.members.tolist()]
        return repeat_adapter(
            adapter, self.name, description, n=n, seed=seed, updates=self._fit.steps, merged_tasks=bank
        )
