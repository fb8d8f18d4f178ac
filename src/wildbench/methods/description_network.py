"""Networks from a description to a few numbers, as opponents of the generator are made of: their input and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.many import over_adapters
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.tasks.batch import Batch


@runtime_checkable
class ViewConfig(Protocol):
    """The settings of :meth:`DescriptionViews.of`, which the configuration of each opponent has."""

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on the embedding, in its own units of about one."""

    @property
    def drop_part(self) -> float:
        """Probability of hiding a part of the description, so that any may be missing later."""

    @property
    def smallest(self) -> int:
        """The smallest subset of a description's images that is drawn."""


@dataclass(frozen=True)
class DescriptionViews:
    """Embeddings of the seen tasks' descriptions: whole, and as random noisy views for training.

    Attributes:
        embeddings: of the whole descriptions.
        sampler: random subsets of images and of parts.
        noise: standard deviation of the noise on a view.
    """

    embeddings: Float[Tensor, "t e"]
    sampler: ConditionSampler
    noise: float

    @classmethod
    def of(cls, seen: SeenTasks, config: ViewConfig) -> DescriptionViews:
        """The views of the seen tasks; raises :class:`DescriptionError` as the encoder does."""
        sampler = seen.encoder.sampler(
            seen.descriptions, seen.features, drop_part=config.drop_part, drop_all=0.0, smallest=config.smallest
        )
        return cls(seen.embeddings, sampler, config.noise)

    def draw(self, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, "b e"]:
        """Another random view of each of these tasks."""
        cond = self.sampler(tasks, draws)
        return cond + self.noise * torch.randn(cond.shape, generator=draws)


class NumbersNetwork(nn.Module):
    """Embedding of a description to ``n`` numbers: a linear map plus a network of one hidden layer, both zero at first.

    The hidden units start with weights of standard deviation ``sharpness`` over the columns that they read, as those of
    the hypernetwork do: torch's own start leaves them almost linear for a few hundred updates.
    """

    reads: Tensor

    def __init__(self, reads: Bool[Tensor, "h e"], outputs: int, sharpness: float) -> None:
        """Start at zero.

        Args:
            reads: columns of the embedding that each hidden unit reads; the linear map reads those that any unit does.
            outputs: n.
            sharpness: of the hidden units at the start.
        """
        super().__init__()
        hidden, size = reads.shape
        self.register_buffer("reads", reads.float())
        self.first = nn.Linear(size, hidden)
        self.last = nn.Linear(hidden, outputs)
        self.linear = nn.Linear(size, outputs, bias=False)
        nn.init.normal_(self.first.weight)
        nn.init.uniform_(self.first.bias, -sharpness, sharpness)
        with torch.no_grad():
            self.first.weight.mul_(sharpness / self.reads.sum(1).clamp_min(1.0).sqrt()[:, None])
        for parameter in (self.last.weight, self.last.bias, self.linear.weight):
            nn.init.zeros_(parameter)

    def forward(self, cond: Float[Tensor, "b e"]) -> Float[Tensor, "b n"]:
        """The numbers."""
        hidden = silu(linear(cond, self.first.weight * self.reads, self.first.bias))
        result: Tensor = self.linear(cond * self.reads.amax(0)) + self.last(hidden)
        return result

    def parameter_group(self, learning_rate: float, weight_decay: float) -> dict[str, Any]:
        """All parameters as ``torch.optim.AdamW`` takes them."""
        return {"params": list(self.parameters()), "lr": learning_rate, "weight_decay": weight_decay}


def adapters_loss(
    backbone: Backbone, batch: Batch, own: dict[str, Tensor], shared: dict[str, Tensor]
) -> Float[Tensor, ""]:
    """Mean loss of one adapter a task.

    Args:
        backbone: the frozen model.
        batch: examples of b tasks.
        own: tensors of the adapters that differ from task to task, each with a leading axis of length b.
        shared: those that all b adapters have in common.
    """

    def one(examples: dict[str, Tensor], tensors: dict[str, Tensor]) -> Tensor:
        return backbone.objective.loss(backbone.outputs(examples, {**shared, **tensors}), examples).mean()

    losses: Tensor = over_adapters(one)(dict(batch), own)
    return losses.mean()
