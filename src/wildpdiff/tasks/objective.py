"""Objectives: the loss that trains an adapter, the score that evaluates it, and the metric's name and unit.

The core calls ``loss`` and ``score`` and never reads targets itself, so a new kind of task is one small class. Both
return one value an example, so that means and intervals are formed by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from wildpdiff.errors import DataError
from wildpdiff.tasks.batch import Batch

TARGETS = "targets"
"""The name of the targets in a batch."""
IGNORED = -100
"""Target of a token that takes no part in the loss."""


@dataclass(frozen=True)
class Metric:
    """The metric of a table.

    Attributes:
        name: for example ``accuracy``.
        unit: of what is shown, for example ``%``.
        scale: factor from a score to the unit, 100 for percent.
        higher_is_better: its direction.
        low, high: bounds of a score; infinite where there are none.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    higher_is_better: bool = True
    low: float = -math.inf
    high: float = math.inf


@runtime_checkable
class Objective(Protocol):
    """The objective of all tasks of one suite."""

    @property
    def kind(self) -> str:
        """A short name, written into artifacts: ``classification``, ``regression``, ``tokens``."""

    @property
    def metric(self) -> Metric:
        """The metric that :meth:`score` is in."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; none where outputs are no classes."""

    def targets(self, values: Sequence[Any]) -> Tensor:
        """Targets of some examples as one tensor ``[n, …]``; raises :class:`DataError` on a bad value."""

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Differentiable loss of each example."""

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Metric of each example; the mean over examples is the task's."""


@dataclass(frozen=True)
class Classification:
    """Cross-entropy and accuracy of class indices.

    Attributes:
        labels: class names in the order of the logits.
    """

    labels: tuple[str, ...]
    kind: Literal["classification"] = "classification"

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise DataError(f"Classification needs two or more different class names; found {list(self.labels)}.")

    @property
    def metric(self) -> Metric:
        """Accuracy in percent."""
        return Metric("accuracy", "%", 100.0, low=0.0, high=1.0)

    def targets(self, values: Sequence[Any]) -> Tensor:
        """Class indices ``int64 [n]`` of indices or class names."""
        known = {name: index for index, name in enumerate(self.labels)}
        found = [known.get(value, -1) if isinstance(value, str) else int(value) for value in values]
        for value, index in zip(values, found, strict=True):
            if not 0 <= index < len(self.labels):
                raise DataError(f"There is no class {value!r}; classes are {', '.join(self.labels)}.")
        return torch.tensor(found, dtype=torch.int64)

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Cross-entropy in nats."""
        return cross_entropy(outputs, batch[TARGETS], reduction="none")

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """1 where the class of the largest logit is the target, else 0."""
        return (outputs.argmax(-1) == batch[TARGETS]).to(torch.float32)


@dataclass(frozen=True)
class Regression:
    """Squared error of real vectors.

    Attributes:
        size: length of a target vector.
        unit: of the targets, for tables.
    """

    size: int
    unit: str = ""
    kind: Literal["regression"] = "regression"

    @property
    def metric(self) -> Metric:
        """Root of the mean squared error of an example, in the targets' unit; lower is better."""
        return Metric("root mean squared error", self.unit, higher_is_better=False, low=0.0)

    @property
    def labels(self) -> tuple[str, ...]:
        """No classes."""
        return ()

    def targets(self, values: Sequence[Any]) -> Tensor:
        """Targets ``float32 [n, size]``."""
        try:
            found = torch.as_tensor([torch.as_tensor(value).reshape(-1).tolist() for value in values])
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"Targets are no vectors of {self.size} numbers ({error}).") from None
        if found.ndim != 2 or found.shape[1] != self.size or not bool(torch.isfinite(found).all()):
            raise DataError(f"Targets have shape {tuple(found.shape)}; finite numbers [n, {self.size}] are needed.")
        return found.to(torch.float32)

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Mean squared error over the vector."""
        return mse_loss(outputs, batch[TARGETS], reduction="none").mean(-1)

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Root of the mean squared error over the vector."""
        return self.loss(outputs, batch).sqrt()


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of the next token, of causal language models; targets are token indices, -100 where ignored."""

    kind: Literal["tokens"] = "tokens"

    @property
    def metric(self) -> Metric:
        """Cross-entropy in nats a token; lower is better."""
        return Metric("cross-entropy", "nats", higher_is_better=False, low=0.0)

    @property
    def labels(self) -> tuple[str, ...]:
        """No classes."""
        return ()

    def targets(self, values: Sequence[Any]) -> Tensor:
        """Token indices ``int64 [n, t]``; shorter sequences are filled up with -100."""
        rows = [torch.as_tensor(value, dtype=torch.int64).reshape(-1) for value in values]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Mean over the tokens of each example of the cross-entropy of the token that follows."""
        targets = batch[TARGETS][:, 1:]
        losses = cross_entropy(outputs[:, :-1].transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
        return losses.sum(1) / (targets != IGNORED).sum(1).clamp_min(1)

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """The loss."""
        return self.loss(outputs, batch)
