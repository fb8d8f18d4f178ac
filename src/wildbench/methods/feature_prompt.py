"""A prompt from unlabelled images: scale and bias of the features that the classifier reads, folded into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wildbench.methods.classifier import classifier_of
from wildbench.methods.description_network import DescriptionViews, NumbersNetwork, adapters_loss
from wildbench.methods.network_fit import fit_network
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditional_mean.network import moved_values
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import FittedNetwork, NetworkTraining
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.tasks.description import Description

IMAGE_PARTS = ("backgrounds", "examples")


@dataclass(frozen=True)
class FeaturePromptConfig:
    """Settings of the feature prompt. Defaults are those that held-out seen tasks chose.

    Attributes:
        training: updates and their number.
        base: adapter whose features the prompt scales and shifts: the ``mean`` of the seen ones, or the ``pretrained``
            model.
        base_rate: learning rate of that adapter, which is trained along with the network and shared by all tasks, in
            units of the spread of the seen adapters; 0 leaves it as it is. Tensors that fine-tuning does not move stay.
        hidden: units of the hidden layer.
        sharpness: of the hidden units at the start (:class:`NumbersNetwork`).
        noise: standard deviation of the noise on the embedding, in its own units of about one.
        learning_rate: of the network, for AdamW.
        weight_decay: of the network.
        images: labelled images a task and update.
        held_out_images: images of every held-out task on which the number of updates is chosen.
        drop_part: probability of hiding a part of the description, so that any may be missing later.
        smallest: the smallest subset of a description's images that is drawn.
    """

    training: NetworkTraining = field(default_factory=lambda: NetworkTraining(steps=400, tasks=16, evaluate_every=20))
    base: Literal["mean", "pretrained"] = "mean"
    base_rate: float = 0.1
    hidden: int = 128
    sharpness: float = 1.0
    noise: float = 0.15
    learning_rate: float = 5e-3
    weight_decay: float = 0.1
    images: int = 32
    held_out_images: int = 32
    drop_part: float = 0.05
    smallest: int = 8

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)


class FeaturePromptNetwork(nn.Module):
    """Embedding of a description to scale and bias of the features, folded into the classifier of a base adapter.

    With scale 1 + s and bias t of the features h the logits are ``W ((1 + s) h + t) + b``: an ordinary classifier with
    weight ``W (1 + s)`` and bias ``b + W t``. Both s and t are zero at first. t is in units in which a vector of length
    one moves a logit by about one, whatever the scale of the features.
    """

    base: Tensor
    spread: Tensor

    def __init__(
        self,
        layout: Layout,
        base: Float[Tensor, " d"],
        spread: Float[Tensor, " d"],
        *,
        classifier: tuple[str, str],
        reads: Bool[Tensor, "h e"],
        sharpness: float,
    ) -> None:
        """Start at the base.

        Args:
            layout: of the adapters.
            base: the shared adapter.
            spread: unit in which each of its values is trained along; 0 leaves it as it is.
            classifier: names of the weight "classes f" and of the bias "classes" of the classifier.
            reads: columns of the embedding that each hidden unit reads.
            sharpness: of the hidden units at the start.
        """
        super().__init__()
        self.layout, self.classifier = layout, classifier
        self.offset = nn.Parameter(torch.zeros_like(base))
        self.register_buffer("base", base)
        self.register_buffer("spread", spread)
        weight = layout.unflatten(base)[classifier[0]]
        self.unit = float(len(weight) ** 0.5 / weight.norm().clamp_min(1e-12))
        self.numbers = NumbersNetwork(reads, 2 * weight.shape[1], sharpness)

    def forward(self, cond: Float[Tensor, "b e"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Classifiers ``{weight: b classes f, bias: b classes}``, and the other tensors, which all b share."""
        shared = self.layout.unflatten(self.base + self.spread * self.offset)
        weight, bias = (shared.pop(name) for name in self.classifier)
        scale, shift = self.numbers(cond).chunk(2, dim=1)
        own = {
            self.classifier[0]: weight * (1.0 + scale[:, None]),
            self.classifier[1]: bias + self.unit * shift @ weight.T,
        }
        return own, shared


@dataclass(frozen=True)
class _Problem:
    """The task loss of prompted adapters: a ``TaskProblem``."""

    backbone: Backbone
    seen: SeenAdapters
    initial: Tensor
    classifier: tuple[str, str]
    reads: Tensor
    views: DescriptionViews
    images: TaskExamples
    config: FeaturePromptConfig

    def network(self, tasks: Sequence[int]) -> FeaturePromptNetwork:
        vectors, layout = self.seen.vectors[list(tasks)], self.seen.layout
        base = vectors.double().mean(0).float() if self.config.base == "mean" else self.initial
        spread = _spread(layout, vectors) * moved_values(vectors, self.initial, layout.sizes)
        return FeaturePromptNetwork(
            layout, base, spread, classifier=self.classifier, reads=self.reads, sharpness=self.config.sharpness
        )

    def groups(self, network: FeaturePromptNetwork) -> list[dict[str, Any]]:
        groups = [network.numbers.parameter_group(self.config.learning_rate, self.config.weight_decay)]
        return [*groups, {"params": [network.offset], "lr": self.config.base_rate, "weight_decay": 0.0}]

    def loss(self, network: FeaturePromptNetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Tensor:
        own, shared = network(self.views.draw(tasks, draws))
        return adapters_loss(self.backbone, self.images.draw(tasks, self.config.images, draws), own, shared)

    def held_out_loss(self, network: FeaturePromptNetwork, tasks: Int[Tensor, " b"]) -> Tensor:
        own, shared = network(self.views.embeddings[tasks])
        return adapters_loss(self.backbone, self.images.fixed(tasks, self.config.held_out_images), own, shared)


class FeaturePromptSource:
    """Scales and shifts the features before the classifier, by a network that reads the description's images alone.

    The idea is that of a domain prompt from unlabelled images (VDPG, Chi et al. 2024), whose transformer reads the
    prompt next to the image's features; here it is folded into the classifier, so that an ordinary adapter comes out.
    The network reads the mean and the spread of features of the unlabelled images (the image parts of the embedding);
    where the encoder reads no images, it reads the whole embedding. It is trained with the task loss on seen tasks,
    with the shared adapter below it; the number of updates is chosen on held-out seen tasks.
    """

    name = "feature prompt"
    stochastic = False

    def __init__(self, seen: SeenTasks, config: FeaturePromptConfig | None = None) -> None:
        """Train.

        Args:
            seen: the seen tasks.
            config: settings; the defaults where left out.

        Raises:
            TrainingError: the training diverged.
            DataError: a task has no training images.
            DataError, AdapterMismatchError: as :func:`classifier_of`.
        """
        config = config or FeaturePromptConfig()
        self._seen = SeenAdapters.of(seen.adapters, len(seen.descriptions))
        self._encoder = seen.encoder
        layout = self._seen.layout
        classifier = classifier_of(seen.zoo.initial, self.name, with_weight=True)
        problem = _Problem(
            seen.backbone,
            self._seen,
            layout.flatten(seen.zoo.initial.tensors),
            classifier,
            image_columns(seen.encoder).expand(config.hidden, -1),
            DescriptionViews.of(seen, config),
            TaskExamples(tuple(seen.data(name) for name in seen.zoo.tasks), seen.seed),
            config,
        )
        self._fit = fit_network(problem, len(seen.zoo.tasks), config.training, seed=seen.seed, what=self.name)

    @property
    def fit(self) -> FittedNetwork[FeaturePromptNetwork]:
        """The trained network and its losses."""
        return self._fit

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the adapter; raises :class:`DescriptionError` on an empty or bad description.

        A description without images, where the encoder reads some, has the prompt of unknown images.
        """
        with torch.no_grad():
            own, shared = self._fit.network(self._encoder.encode(description).values[None])
        tensors = {**shared, **{name: value[0] for name, value in own.items()}}
        adapter = Adapter({name: tensors[name] for name in self._seen.layout.names}, self._seen.config)
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, updates=self._fit.steps)


def image_columns(encoder: FusionEncoder) -> Bool[Tensor, " e"]:
    """Columns of the embedding, flags included, that are made of images; all of them where none is."""
    images = torch.tensor([part in IMAGE_PARTS for part in encoder.parts])
    if not bool(images.any()):
        return torch.ones(encoder.size, dtype=torch.bool)
    return torch.cat([images.repeat_interleave(torch.tensor(encoder.sizes)), images])


def _spread(layout: Layout, vectors: Float[Tensor, "t d"]) -> Float[Tensor, " d"]:
    """Root mean square deviation of the adapters from their mean, one value a tensor."""
    squared = (vectors - vectors.mean(0)).square().mean(0)
    return torch.cat([part.mean().sqrt().expand(len(part)) for part in torch.split(squared, list(layout.sizes))])
