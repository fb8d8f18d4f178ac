"""The network from a description to a normalised adapter: coefficients of a few directions that all tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import linear, silu


class DescriptionNetwork(nn.Module):
    """Embedding of a description to a normalised adapter vector: a mean plus coefficients of K shared directions.

    The coefficients are a linear map of the embedding plus a network of one hidden layer; both start at zero, so that
    every description has the same vector at first. The mean and the directions may be trained too.
    """

    trained: Tensor
    reads: Tensor

    def __init__(
        self,
        directions: Float[Tensor, "k d"],
        trained: Bool[Tensor, " d"],
        reads: Bool[Tensor, "h e"],
        dropout: float = 0.0,
        sharpness: float | None = None,
    ) -> None:
        """Start at zero.

        Args:
            directions: scaled so that coefficients are about one, in normalised units.
            trained: which values may be other than zero: those that fine-tuning moves.
            reads: which columns of the embedding each hidden unit reads.
            dropout: of the hidden units.
            sharpness: standard deviation of what a hidden unit starts with, on standardised columns; None leaves it to
                torch, whose units are close to linear at first and in a few hundred updates hardly bend.
        """
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(directions.shape[1]))
        self.directions = nn.Parameter(directions.clone())
        self.register_buffer("trained", trained.float())
        hidden, size = reads.shape
        self.register_buffer("reads", reads.float())
        self.first = nn.Linear(size, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, len(directions))
        self.linear = nn.Linear(size, len(directions), bias=False)
        if sharpness is not None:
            sharpen(self.first, self.reads, sharpness)
        for parameter in (self.last.weight, self.last.bias, self.linear.weight):
            nn.init.zeros_(parameter)

    @classmethod
    def restore(cls, state: dict[str, Tensor]) -> DescriptionNetwork:
        """From its ``state_dict``, in evaluation mode and frozen."""
        network = cls(state["directions"], state["trained"] > 0.5, state["reads"] > 0.5)
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def normalized(self, cond: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        """Normalised adapter vectors."""
        hidden = silu(linear(cond, self.first.weight * self.reads, self.first.bias))
        coefficients = self.linear(cond) + self.last(self.dropout(hidden))
        result: Tensor = (self.mean + coefficients @ self.directions) * self.trained
        return result

    def parameter_groups(
        self, learning_rate: float, weight_decay: float, direction_rate: float | None
    ) -> list[dict[str, Any]]:
        """The parameters as ``torch.optim.AdamW`` takes them; without a direction rate, mean and directions stay."""
        shared = {id(self.mean), id(self.directions)}
        own = [parameter for parameter in self.parameters() if id(parameter) not in shared]
        groups: list[dict[str, Any]] = [{"params": own, "lr": learning_rate, "weight_decay": weight_decay}]
        if direction_rate is not None:
            groups.append({"params": [self.mean, self.directions], "lr": direction_rate, "weight_decay": 0.0})
        return groups


def sharpen(first: nn.Linear, reads: Float[Tensor, "h e"], sharpness: float) -> None:
    """Start a layer so that the standard deviation of its hidden units is ``sharpness`` on standardised columns.

    Args:
        first: the layer; its weight and bias are drawn anew.
        reads: 1 where a unit reads a column; the last that it reads is the flag, which is the same for all.
        sharpness: the standard deviation, and the largest bias.
    """
    read = (reads.sum(1) - 1).clamp_min(1.0)
    nn.init.normal_(first.weight)
    nn.init.uniform_(first.bias, -sharpness, sharpness)
    with torch.no_grad():
        first.weight.mul_(sharpness / read.sqrt()[:, None])


def principal_directions(normalized: Float[Tensor, "t d"], count: int) -> Float[Tensor, "k d"]:
    """At most ``count`` principal directions of some adapters, each as long as the adapters' spread along it.

    They are directions of the raw second moment: what adapters differ from zero by, in normalised units.
    """
    _, singular, axes = torch.linalg.svd(normalized.double(), full_matrices=False)
    kept = min(count, len(singular))
    directions: Tensor = singular[:kept, None] / len(normalized) ** 0.5 * axes[:kept]
    return directions.float()


def moved_values(vectors: Float[Tensor, "t d"], start: Float[Tensor, " d"], sizes: Sequence[int]) -> Bool[Tensor, " d"]:
    """Which values of an adapter fine-tuning moves, whole tensors at a time: not LoRA's A where the zoo froze it.

    Args:
        vectors: raw adapters of the seen tasks.
        start: their shared initialisation.
        sizes: number of values of each tensor.
    """
    # The mean of equal checkpoints differs from them by rounding.
    moved = (vectors - start).abs().amax(0) > 1e-5 * start.abs() + 1e-12
    parts: list[Tensor] = list(torch.split(moved, list(sizes)))
    return torch.cat([part.any().expand_as(part) for part in parts])


def factor_reads(
    groups: Sequence[tuple[str, tuple[int, ...]]], parts: Sequence[str], size: int, hidden: int
) -> Bool[Tensor, "h e"]:
    """Hidden units that read one factor of the description each, with the flag that says whether its part is there.

    The network is then a sum of functions of one factor each, which is what some hundred tasks can teach.

    Args:
        groups: the factors: the part and the columns of each (``FusionEncoder.groups``).
        parts: in the order of the embedding's flags, which are its last columns.
        size: of the embedding.
        hidden: number of units; factors take turns.
    """
    flags = {part: size - len(parts) + place for place, part in enumerate(parts)}
    reads = torch.zeros(hidden, size, dtype=torch.bool)
    for unit in range(hidden):
        part, columns = groups[unit % len(groups)]
        reads[unit, [*columns, flags[part]]] = True
    return reads
