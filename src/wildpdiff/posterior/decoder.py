"""Codes to adapters: shifts of the estimate along fixed directions, or a network of description and code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from wildpdiff.conditional_mean.correction import task_losses
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.network import principal_directions, sharpen
from wildpdiff.conditional_mean.task_images import TaskExamples

SHARPNESS = 2.0
"""Initial standard deviation of the hidden units."""


@dataclass(frozen=True, eq=False)
class ShiftDecoder:
    """The estimate plus a code's multiples of fixed directions, those of held-out errors.

    Attributes:
        directions: normalised, each as long as the standard deviation of the errors along it.
    """

    directions: Float[Tensor, "k d"]
    scale: float

    def __call__(self, estimates: Float[Tensor, "n d"], codes: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """Normalised adapters."""
        return estimates + self.scale * codes @ self.directions


class CodeNetwork(nn.Module):
    """Embedding of a description and a code to a normalised adapter: ``(K₀(c) + Σ_q u_q K_q(c)) D``.

    The coefficients ``K`` of the shared directions ``D`` are a linear map of the embedding plus a network of one hidden
    layer whose units read one factor of the description each. The codes of the seen tasks are trained with it (an
    auto-decoder; Park et al. 2019, "DeepSDF", section 4).
    """

    reads: Tensor
    base: Tensor
    trained: Tensor

    def __init__(
        self,
        directions: Float[Tensor, "k d"],
        trained: Bool[Tensor, " d"],
        reads: Bool[Tensor, "h e"],
        codes: Float[Tensor, "t q"],
    ) -> None:
        """A network that maps codes to the first directions, whatever the description.

        Args:
            directions: the first are those of the codes, in their order.
            trained: mask of the values of an adapter that fine-tuning moves.
            reads: columns of the embedding that each hidden unit reads.
        """
        super().__init__()
        (hidden, size), dimensions, count = reads.shape, codes.shape[1], len(directions)
        self.directions = nn.Parameter(directions.clone(memory_format=torch.contiguous_format))
        self.codes = nn.Parameter(codes.clone())
        self.register_buffer("trained", trained.float())
        self.register_buffer("reads", reads.float())
        base = torch.zeros(dimensions + 1, count)
        base[range(1, dimensions + 1), range(dimensions)] = 1.0
        self.register_buffer("base", base)
        self.first = nn.Linear(size, hidden)
        self.last = nn.Linear(hidden, base.numel())
        self.linear = nn.Linear(size, base.numel(), bias=False)
        sharpen(self.first, self.reads, SHARPNESS)
        for parameter in (self.last.weight, self.last.bias, self.linear.weight):
            nn.init.zeros_(parameter)

    @classmethod
    def restore(cls, state: dict[str, Tensor]) -> CodeNetwork:
        """The network of a ``state_dict``, in evaluation mode and frozen."""
        network = cls(state["directions"], state["trained"] > 0.5, state["reads"] > 0.5, state["codes"])
        network.load_state_dict(state)
        return network.eval().requires_grad_(False)

    def forward(self, embeddings: Float[Tensor, "n e"], codes: Float[Tensor, "n q"]) -> Float[Tensor, "n d"]:
        """Normalised adapters."""
        hidden = silu(linear(embeddings, self.first.weight * self.reads, self.first.bias))
        coefficients = (self.linear(embeddings) + self.last(hidden)).view(-1, *self.base.shape) + self.base
        padded = torch.cat([torch.ones(len(codes), 1), codes], 1)
        result: Tensor = (torch.einsum("nq,nqk->nk", padded, coefficients) @ self.directions) * self.trained
        return result

    def __call__(self, embeddings: Tensor, codes: Tensor) -> Tensor:
        """Normalised adapters."""
        result: Tensor = super().__call__(embeddings, codes)
        return result


Decoder = ShiftDecoder | CodeNetwork


@dataclass(frozen=True)
class CodeConfig:
    """Training of a network of description and code with the task loss.

    Attributes:
        code_decay: weight of half the squared length of a code in the loss.
        directions: principal directions of the seen adapters, in addition to those of the codes.
    """

    steps: int = 300
    images: int = 16
    learning_rate: float = 2e-3
    direction_rate: float = 1.5e-3
    code_rate: float = 0.05
    weight_decay: float = 0.1
    code_decay: float = 0.05
    directions: int = 40
    noise: float = 0.15


@dataclass(frozen=True)
class CodeProblem:
    """A :class:`~wildpdiff.conditional_mean.training.TrainingProblem`: adapters from descriptions and codes.

    Attributes:
        images: of the tasks of the codes.
        tasks: their indices among the seen tasks.
        adapters: their normalised adapters.
        reads: columns of the embedding that each hidden unit reads.
        codes: initial ones; rows of tasks that are not trained on are not read.
    """

    encoded: EncodedTasks
    images: TaskExamples
    tasks: Int[Tensor, " t"]
    adapters: Float[Tensor, "t d"]
    reads: Bool[Tensor, "h e"]
    codes: Float[Tensor, "t q"]
    config: CodeConfig

    def network(self, tasks: Sequence[int]) -> CodeNetwork:
        """An untrained network with the adapters and codes of these tasks alone."""
        rows = list(tasks)
        own = torch.linalg.pinv(self.codes[rows]) @ self.adapters[rows]
        directions = torch.cat([own, principal_directions(self.adapters[rows], self.config.directions)])
        codes = torch.zeros_like(self.codes)
        codes[rows] = self.codes[rows]
        return CodeNetwork(directions, self.encoded.moved, self.reads, codes)

    def groups(self, network: CodeNetwork) -> list[dict[str, Any]]:
        """All parameters, codes and directions at their own rates."""
        config = self.config
        shared = {id(network.codes), id(network.directions)}
        own = [parameter for parameter in network.parameters() if id(parameter) not in shared]
        return [
            {"params": own, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": [network.directions], "lr": config.direction_rate, "weight_decay": 0.0},
            {"params": [network.codes], "lr": config.code_rate, "weight_decay": 0.0},
        ]

    def loss(self, network: CodeNetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, ""]:
        """Mean task loss on a random view of each description and random images, plus the codes' decay."""
        cond = self.encoded.sampler(self.tasks[tasks], draws)
        cond = cond + self.config.noise * torch.randn(cond.shape, generator=draws)
        batch = self.images.draw(tasks, self.config.images, draws)
        codes = network.codes[tasks]
        losses = task_losses(self.encoded.backbone, self.encoded.codec, network(cond, codes), batch=batch)
        return losses.mean() + 0.5 * self.config.code_decay * codes.square().sum(1).mean()
