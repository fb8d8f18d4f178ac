"""Objectives: the loss that trains an adapter, the score that evaluates it, and the metric's name and unit.

The core calls ``loss`` and ``score`` and never reads targets itself, so a new kind of task is one small class. Both
return one value an example, so that means and intervals are formed by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.records import decode
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.metric import ACCURACY, Metric

TARGETS = "targets"
"""The name of the targets in a batch."""
IGNORED = -100
"""Target of a token that takes no part in the loss."""
TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Divisors of logits at which likelihoods are compared."""
VARIANCES = tuple(4.0**power for power in range(-8, 9))
"""Of the errors of real targets, at which likelihoods are compared."""


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

    def targets(self, values: Collection[Any]) -> Tensor:
        """Targets of some examples as one tensor ``[n, …]``; raises :class:`DataError` on a bad value."""

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Differentiable loss of each example."""

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Metric of each example; the mean over examples is the task's."""

    def likelihood_losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, "k n"]:
        """Negative log-likelihood of each example, up to a constant, at several temperatures.

        Models are compared at the temperature that is best for each, so that none is preferred for lower confidence.
        """


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
        return ACCURACY

    def targets(self, values: Collection[Any]) -> Tensor:
        """Class indices ``int64 [n]`` of indices or class names."""
        known = {name: index for index, name in enumerate(self.labels)}
        found = [known.get(value) if isinstance(value, str) else _whole(value) for value in values]
        for value, index in zip(values, found, strict=True):
            if index is None or not 0 <= index < len(self.labels):
                shown = repr(value) if isinstance(value, str) else f"of index {value}"
                raise DataError(f"There is no class {shown}; the {len(self.labels)} are {', '.join(self.labels)}.")
        return torch.tensor(found, dtype=torch.int64)

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Cross-entropy in nats."""
        return cross_entropy(outputs, batch[TARGETS], reduction="none")

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """1 where the class of the largest logit is the target, else 0."""
        return (outputs.argmax(-1) == batch[TARGETS]).to(torch.float32)

    def likelihood_losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, "k n"]:
        """Cross-entropy with the logits divided by each of :data:`TEMPERATURES`."""
        return torch.stack([self.loss(outputs / value, batch) for value in TEMPERATURES])


def _whole(value: Any) -> int | None:
    """A whole number, of any type; None for anything else."""
    try:
        found = int(value)
        return found if found == value else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


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

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"Regression needs vectors of at least 1 number; the size is {self.size}.")

    @property
    def metric(self) -> Metric:
        """Root of the mean squared error of an example, in the targets' unit; lower is better."""
        return Metric("root mean squared error", self.unit, higher_is_better=False, low=0.0)

    @property
    def labels(self) -> tuple[str, ...]:
        """No classes."""
        return ()

    def targets(self, values: Collection[Any]) -> Tensor:
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
        targets = batch[TARGETS]
        return mse_loss(outputs.reshape(targets.shape), targets, reduction="none").mean(-1)

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Root of the mean squared error over the vector."""
        return self.loss(outputs, batch).sqrt()

    def likelihood_losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, "k n"]:
        """Of normal errors with each of :data:`VARIANCES`."""
        loss = self.loss(outputs, batch)
        return torch.stack([0.5 * self.size * (loss / value + math.log(value)) for value in VARIANCES])


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

    def targets(self, values: Collection[Any]) -> Tensor:
        """Token indices ``int64 [n, t]``; shorter sequences are filled up with -100."""
        try:
            rows = [torch.as_tensor(value).reshape(-1) for value in values]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"Targets are no sequences of token indices ({error}).") from None
        for row in rows:
            if row.is_floating_point() or not bool(((row >= 0) | (row == IGNORED)).all()):
                raise DataError(f"Targets {row.tolist()} are no token indices. Give whole numbers from 0, or -100.")
        return torch.nn.utils.rnn.pad_sequence([row.long() for row in rows], batch_first=True, padding_value=IGNORED)

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Mean over the tokens of each example of the cross-entropy of the token that follows."""
        targets = batch[TARGETS][:, 1:]
        losses = cross_entropy(outputs[:, :-1].transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
        return losses.sum(1) / (targets != IGNORED).sum(1).clamp_min(1)

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """The loss."""
        return self.loss(outputs, batch)

    def likelihood_losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, "k n"]:
        """Loss with the logits divided by each of :data:`TEMPERATURES`."""
        return torch.stack([self.loss(outputs / value, batch) for value in TEMPERATURES])


@dataclass(frozen=True)
class Unknown:
    """The objective of a model of which the name alone is known; nothing can be trained or scored with it.

    Attributes:
        labels: class names, where they are known.
    """

    labels: tuple[str, ...] = ()
    kind: Literal["unknown"] = "unknown"

    @property
    def metric(self) -> Metric:
        """None that is known."""
        return Metric("unknown")

    def targets(self, values: Collection[Any]) -> Tensor:
        """Refused, as are all numbers of this objective."""
        raise DataError("The objective of this model is not known. Give a backbone with its objective.")

    def loss(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Refused."""
        return self.targets(())

    def score(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " n"]:
        """Refused."""
        return self.targets(())

    def likelihood_losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, "k n"]:
        """Refused."""
        return self.targets(())


def of_many(
    values: Callable[[Tensor, Batch], Tensor], outputs: Float[Tensor, "a n ..."], batch: Batch
) -> Float[Tensor, "a ... n"]:
    """Losses or scores of several models' outputs on the same examples."""
    return torch.stack([values(own, batch) for own in outputs])


OBJECTIVES: dict[str, type[Classification | Regression | NextToken | Unknown]] = {
    "classification": Classification,
    "regression": Regression,
    "tokens": NextToken,
    "unknown": Unknown,
}
"""Objectives by the kind that is written into artifacts."""


def objective_of(values: Mapping[str, Any], path: object) -> Objective:
    """The objective of plain JSON values; raises :class:`ArtifactError`, which names ``path``."""
    kind = OBJECTIVES.get(str(values.get("kind")))
    if kind is None:
        raise ArtifactError(f"{path} has the objective {values.get('kind')!r}; known are {', '.join(OBJECTIVES)}.")
    found: Objective = decode(kind, values, f"{path}: objective")
    return found
