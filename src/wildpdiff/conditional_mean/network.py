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
        *,
        dropout: float = 0.0,
        sharpness: float | None = None,
    ) -> None:
        """A network whose coefficients are zero.

        Args:
            directions: scaled so that coefficients are about one, in normalised units.
            trained: mask of the values that may be other than zero: those that fine-tuning moves.
            reads: columns of the embedding that each hidden unit reads.
            sharpness: initial standard deviation of the hidden units, on standardised columns; None for torch's own
                initialisation, whose units are close to linear and in a few hundred updates hardly bend.
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
        """The network of a ``state_dict``, in evaluation mode and frozen."""
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
    """Initialise a layer so that the standard deviation of its units is ``sharpness`` on standardised columns.

    Of the columns that a unit reads (1 in ``reads``) the last is a flag, which is the same for all. Biases are uniform
    up to ``sharpness``.
    """
    read = (reads.sum(1) - 1).clamp_min(1.0)
    nn.init.normal_(first.weight)
    nn.init.uniform_(first.bias, -sharpness, sharpness)
    with torch.no_grad():
        first.weight.mul_(sharpness / read.sqrt()[:, None])


def principal_directions(normalized: Float[Tensor, "t d"], count: int) -> Float[Tensor, "k d"]:
    """At most ``count`` principal directions of some adapters, each as long as the adapters' spread along it.

    They are directions of the raw second moment, around zero, in normalised units.
    """
    _, singular, axes = torch.linalg.svd(normalized.double(), full_matrices=False)
    kept = min(count, len(singular))
    directions: Tensor = singular[:kept, None] / len(normalized) ** 0.5 * axes[:kept]
    return directions.float()


def moved_values(vectors: Float[Tensor, "t d"], start: Float[Tensor, " d"], sizes: Sequence[int]) -> Bool[Tensor, " d"]:
    """Mask of the values of an adapter that fine-tuning moves, whole tensors at a time: without LoRA's A if frozen.

    Args:
        vectors: raw adapters of the seen tasks.
    """
    # The mean of equal checkpoints differs from them by rounding.
    moved = (vectors - start).abs().amax(0) > 1e-5 * start.abs() + 1e-12
    parts: list[Tensor] = list(torch.split(moved, list(sizes)))
    return torch.cat([part.any().expand_as(part) for part in parts])


def factor_reads(
    groups: Sequence[tuple[str, tuple[int, ...]]], parts: Sequence[str], size: int, hidden: int
) -> Bool[Tensor, "h e"]:
    """Columns that each of ``hidden`` units reads: one factor of the description, in turn, and its presence flag.

    The network is then a sum of functions of one factor each, which some hundred tasks can determine.

    Args:
        groups: part and columns of each factor (``FusionEncoder.groups``).
        parts: in the order of the embedding's flags, which are its last columns.
    """
    flags = {part: size - len(parts) + index for index, part in enumerate(parts)}
    reads = torch.zeros(hidden, size, dtype=torch.bool)
    for unit in range(hidden):
        part, columns = groups[unit % len(groups)]
        reads[unit, [*columns, flags[part]]] = True
    return reads
