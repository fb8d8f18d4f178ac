"""What regression on checkpoints leaves undone, learned with the task loss through the frozen backbone.

Regression of fine-tuned adapters learns the chance in them too. The loss of the task says what an adapter is for. A few
networks from descriptions to adapters are trained with it on the seen tasks' images, on top of the regression. What
they are put on is the *leave-one-out* regression of each seen task, known in closed form: so they learn to mend what
regression gets wrong at a task that it has not seen, and not what it gets wrong at tasks that it knows (stacking,
Wolpert 1992). Text-to-LoRA (2506.06105) trains a whole hypernetwork by the task loss; here it is half of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.autoencoder.training import Progress
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.network import DescriptionNetwork, factor_reads, principal_directions
from wildpdiff.conditional_mean.training import ImageBatch, NetworkTraining, TaskImages, fit_ensemble
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.zoo.finetune import TaskFeatures

__all__ = ["Correction", "CorrectionProblem", "TaskLossConfig", "fit_correction", "task_losses"]

FEWEST_TASKS = 10
"""With fewer seen tasks a held-out part says nothing, and regression is left as it is."""

WHAT = "conditional mean"


@dataclass(frozen=True)
class TaskLossConfig:
    """How the conditional mean is trained with the task loss. Defaults are those of held-out seen tasks.

    Attributes:
        steps: most updates of each network; 0 leaves the mean to regression alone.
        tasks: seen tasks an update.
        images: training images a task and update.
        members: networks; each is trained without another part of the seen tasks, which says when to stop.
        learning_rate: of the networks, for AdamW.
        direction_rate: learning rate of their directions, in units of the adapters' normalised values.
        weight_decay: of the networks.
        directions: shared directions K, started at the principal ones of the seen adapters.
        hidden: units of the hidden layer; each reads one factor of the description.
        noise: standard deviation of what is added to the embedding in training, in its own units of about one.
        averaging: decay of the moving average of the weights.
        look_every: updates between two looks at the held-out part.
        patience: looks without a lower loss after which a training ends.
        looked_at: training images of every held-out task that are looked at.
    """

    steps: int = 400
    tasks: int = 16
    images: int = 32
    members: int = 4
    learning_rate: float = 1e-3
    direction_rate: float = 1.5e-3
    weight_decay: float = 0.1
    directions: int = 40
    hidden: int = 128
    noise: float = 0.4
    averaging: float = 0.98
    look_every: int = 25
    patience: int = 5
    looked_at: int = 32

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of the attributes."""
        return asdict(self)

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
class Correction:
    """The trained networks.

    Attributes:
        members: their mean is added to the regression; empty where nothing was trained.
        held_out: for each seen task what the regression without it and the network without it say together, "t d": the
            mean as if the task were unseen.
        fold: for each seen task the network that was trained without it; -1 where there is none.
        losses: task loss of every update.
        steps: updates that each network has behind it.
    """

    members: tuple[DescriptionNetwork, ...]
    held_out: Float[Tensor, "t d"]
    fold: Int[Tensor, " t"]
    losses: Float[Tensor, " steps"] = field(repr=False)
    steps: tuple[int, ...]


def task_losses(
    backbone: Backbone, codec: Codec, normalized: Float[Tensor, "b d"], batch: ImageBatch
) -> Float[Tensor, " b"]:
    """Cross-entropy of normalised adapters on some labelled images of each one's task."""
    tensors = codec.layout.unflatten(codec.decode(normalized))
    return torch.func.vmap(lambda x, y, adapter: cross_entropy(backbone.logits(x, adapter), y))(
        batch.inputs, batch.labels, tensors
    )


@dataclass(frozen=True)
class CorrectionProblem:
    """A ``TaskProblem``: networks on top of the leave-one-out regression.

    Attributes:
        backbone: the frozen model.
        codec: adapter tensors to normalised vectors.
        kernel: the regression.
        trained: which values of an adapter fine-tuning moves.
        encoder: of the descriptions.
        sampler: random views of the seen tasks' descriptions.
        images: labelled images of the seen tasks.
        config: sizes and rates.
        left_out: the leave-one-out regression for every subset of parts, "s t d".
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

    def network(self, tasks: Sequence[int]) -> DescriptionNetwork:
        """An untrained network that knows the adapters of these tasks alone."""
        config, encoder = self.config, self.encoder
        reads = factor_reads(encoder.groups, encoder.parts, encoder.size, config.hidden)
        directions = principal_directions(self.kernel.targets[list(tasks)], config.directions)
        return DescriptionNetwork(directions, self.trained, reads)

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
        return task_losses(self.backbone, self.codec, below + network.normalized(noisy), batch).mean()

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
    networks: int | None = None,
    progress: Progress | None = None,
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
        networks: how many of the members are trained; all by default.
        progress: called with (updates done, most updates in all).

    Without images, without updates, or with fewer than ten tasks, nothing is trained.

    Raises:
        TrainingError: a loss is not finite.
        DataError: a task has no training images.
    """
    count = len(kernel.seen)
    if features is None or not config.steps or count < FEWEST_TASKS:
        left_out = kernel.leave_one_out()
        return Correction((), left_out, torch.full((count,), -1), torch.zeros(0), ())
    table = torch.stack([kernel.leave_one_out(code) for code in range(2 ** len(kernel.parts))])
    images = TaskImages(tuple(features), seed)
    problem = CorrectionProblem(backbone, codec, kernel, trained, encoder, sampler, images, config, table)
    fitted = fit_ensemble(problem, count, config.members, config.training, seed, WHAT, networks, progress)
    with torch.no_grad():
        said = torch.stack([network.normalized(kernel.seen) for network in fitted.networks])
    held_out = table[kernel.code(kernel.seen), torch.arange(count)]
    known = fitted.fold >= 0
    held_out[known] += said[fitted.fold[known], known.nonzero()[:, 0]]
    return Correction(fitted.networks, held_out, fitted.fold, fitted.losses, fitted.steps)
