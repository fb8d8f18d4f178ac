"""One adapter trained on the images of all seen tasks: what an ordinary engineer would do with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wildbench.methods.classifier import classifier_of
from wildbench.methods.network_fit import fit_network
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import FittedNetwork, NetworkTraining
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.tasks.batch import Batch, merge
from wildpdiff.tasks.description import Description


@dataclass(frozen=True)
class MultiTaskConfig:
    """Training of the shared adapter. The defaults were chosen on held-out seen tasks (``docs/log.md``).

    Attributes:
        training: updates and how many of them.
        images: labelled images a task and update.
        evaluation_images: images of every held-out task on which the number of updates is chosen.
        learning_rate: of the adapter, for AdamW.
        train_factor_a: train LoRA's A too. One model has no neighbours that it must stay comparable with.
        hidden: units between the description and the offset of the logits; 0 is a linear map.
        offset_rate: learning rate of that map.
        offset_decay: its weight decay.
        dropout: of the hidden units.
        noise: standard deviation of what is added to the embedding, in its own units of about one.
        drop_part: probability of hiding a part of the description, so that any may be missing later.
        smallest: the smallest subset of a description's images that is drawn.
    """

    training: NetworkTraining = field(
        default_factory=lambda: NetworkTraining(steps=1200, tasks=32, evaluate_every=50, averaging=0.98)
    )
    images: int = 8
    evaluation_images: int = 32
    learning_rate: float = 1e-3
    train_factor_a: bool = True
    hidden: int = 64
    offset_rate: float = 2e-3
    offset_decay: float = 0.1
    dropout: float = 0.0
    noise: float = 0.1
    drop_part: float = 0.05
    smallest: int = 8

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)


class MultiTaskNetwork(nn.Module):
    """The shared adapter as one vector and, where descriptions are read, a map from their embedding to the logits."""

    def __init__(
        self, start: Float[Tensor, " d"], frozen: Tensor, embedding: int, *, classes: int, config: MultiTaskConfig
    ) -> None:
        """Start from an adapter.

        Args:
            start: the flat adapter.
            frozen: boolean ``[d]``, which of its values are not trained.
            embedding: length of the description's embedding; 0 where none is read.
            classes: number of logits.
            config: sizes.
        """
        super().__init__()
        self.adapter = nn.Parameter(start.clone())
        self.register_buffer("frozen", frozen)
        self.register_buffer("start", start.clone())
        self.offset: nn.Module | None = None
        if embedding:
            last = nn.Linear(config.hidden or embedding, classes, bias=False)
            nn.init.zeros_(last.weight)
            layers: list[nn.Module] = [last]
            if config.hidden:
                layers = [nn.Linear(embedding, config.hidden), nn.SiLU(), nn.Dropout(config.dropout), last]
            self.offset = nn.Sequential(*layers)

    def vector(self) -> Float[Tensor, " d"]:
        """The flat adapter, with what is not trained as it was."""
        result: Tensor = torch.where(self.frozen, self.start, self.adapter)  # type: ignore[arg-type]
        return result

    def forward(self, cond: Float[Tensor, "b e"]) -> Float[Tensor, "b c"]:
        """The logits added by the description; ``ValueError`` in a network that reads none."""
        if self.offset is None:
            raise ValueError("This network reads no description.")
        result: Tensor = self.offset(cond)
        return result


@dataclass(frozen=True)
class _Problem:
    """Cross-entropy of the shared adapter on the pooled images of the tasks: a ``TaskProblem``."""

    backbone: Backbone
    layout: Layout
    initial: Tensor
    images: TaskExamples
    embeddings: Tensor | None
    sampler: ConditionSampler | None
    config: MultiTaskConfig

    def network(self, tasks: Sequence[int]) -> MultiTaskNetwork:
        fixed = [".lora_A." in name and not self.config.train_factor_a for name in self.layout.names]
        frozen = torch.cat([torch.full((size,), value) for value, size in zip(fixed, self.layout.sizes, strict=True)])
        width = 0 if self.embeddings is None else self.embeddings.shape[1]
        return MultiTaskNetwork(self.initial, frozen, width, classes=len(self.backbone.classes), config=self.config)

    def groups(self, network: MultiTaskNetwork) -> list[dict[str, Any]]:
        config = self.config
        groups: list[dict[str, Any]] = [{"params": [network.adapter], "lr": config.learning_rate, "weight_decay": 0.0}]
        if network.offset is not None:
            parameters = list(network.offset.parameters())
            groups.append({"params": parameters, "lr": config.offset_rate, "weight_decay": config.offset_decay})
        return groups

    def loss(self, network: MultiTaskNetwork, tasks: Int[Tensor, " b"], draws: torch.Generator) -> Tensor:
        cond = None
        if self.sampler is not None:
            cond = self.sampler(tasks, draws)
            cond = cond + self.config.noise * torch.randn(cond.shape, generator=draws)
        batch = self.images.draw(tasks, self.config.images, draws)
        return self._loss(network, batch, cond)

    def held_out_loss(self, network: MultiTaskNetwork, tasks: Int[Tensor, " b"]) -> Tensor:
        batch = self.images.fixed(tasks, self.config.evaluation_images)
        cond = None if self.embeddings is None else self.embeddings[tasks]
        return self._loss(network, batch, cond)

    def _loss(self, network: MultiTaskNetwork, batch: Batch, cond: Tensor | None) -> Tensor:
        pooled = merge(batch)
        outputs = self.backbone.outputs(pooled, self.layout.unflatten(network.vector()))
        if cond is not None:
            outputs = outputs + network(cond).repeat_interleave(len(outputs) // len(cond), dim=0)
        return self.backbone.objective.loss(outputs, pooled).mean()


class MultiTaskSource:
    """One adapter for all tasks, trained on the pooled labelled images of the seen ones.

    Without the description it is the same for every task. With it, the description's embedding is a further input of
    the classifier: it moves the logits, which is a bias of the classifier that depends on the description, so that
    what comes out is an ordinary adapter. How many updates are made is chosen on held-out seen tasks.
    """

    stochastic = False

    def __init__(self, seen: SeenTasks, with_description: bool = False, config: MultiTaskConfig | None = None) -> None:
        """Train.

        Args:
            seen: the seen tasks.
            with_description: whether the classifier reads the description.
            config: how; the defaults where left out.

        Raises:
            TrainingError: the training diverged.
            DataError: a task has no training images.
            DataError, AdapterMismatchError: as :func:`classifier_of`, where the classifier reads the description.
        """
        config = config or MultiTaskConfig()
        initial = seen.zoo.initial
        self.name = "multi-task adapter with description" if with_description else "multi-task adapter"
        self._config = initial.config
        self._layout = Layout.of(initial.tensors)
        self._encoder = seen.encoder if with_description else None
        self._bias = classifier_of(initial, self.name)[1] if with_description else ""
        images = TaskExamples(tuple(seen.data(name) for name in seen.zoo.tasks), seen.seed)
        sampler = None
        if with_description:
            sampler = seen.encoder.sampler(
                seen.descriptions, seen.features, drop_part=config.drop_part, drop_all=0.0, smallest=config.smallest
            )
        problem = _Problem(
            seen.backbone,
            self._layout,
            self._layout.flatten(initial.tensors),
            images,
            seen.embeddings if with_description else None,
            sampler,
            config,
        )
        self._fit = fit_network(problem, len(seen.zoo.tasks), config.training, seed=seen.seed, what=self.name)

    @property
    def fit(self) -> FittedNetwork[MultiTaskNetwork]:
        """The trained adapter and its losses."""
        return self._fit

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the adapter; with description raises :class:`DescriptionError` on an empty or bad one."""
        network = self._fit.network
        tensors = self._layout.unflatten(network.vector())
        if self._encoder is not None:
            with torch.no_grad():
                offset = network(self._encoder.encode(description).values[None])[0]
            tensors = {**tensors, self._bias: tensors[self._bias] + offset}
        adapter = Adapter(tensors, self._config)
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, updates=self._fit.steps)
