"""The structured zoo: all tasks fine-tuned together in one learned basis of few directions.

Tasks that are fine-tuned each for itself move along their own noise as much as along what tasks have in common. Here
the adapters of all tasks are ``θ_t = shared + C_t D`` with coordinates C "t k" and directions D "k d" that are learned
together. Not C and D are trained, whose scales could be traded for one another, but their product: every optimiser
step is the one of independent fine-tuning, after which the matrix of all tasks' adapters, less its mean row, is
replaced by the nearest one of rank k (projected gradient; Jain et al. 2010, "Guaranteed rank minimization via singular
value projection"). Low rank as what tasks share is the multi-task learning of Argyriou et al. 2008, "Convex multi-task
feature learning".

The adapters of such a zoo know of each other: a task that is to be held out must be left out of the training, and not
only of what is read afterwards (``Zoo.only``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import FinetuneRun, validation_accuracies
from wildpdiff.zoo.steps import FinetuneConfig, adam_step, image_order, learning_rate

__all__ = ["StructuredConfig", "finetune_structured", "project_rows"]

Pull = Callable[[int, Tensor], Tensor]
"""From the step and the tasks' vectors "t d" less their mean: where each is drawn to, at the learning rate."""

TASKS_AT_ONCE = 20
"""Tasks in one vectorised pass: more at once leave the processor's cache and gain nothing."""


@dataclass(frozen=True)
class StructuredConfig:
    """How the tasks share a basis.

    Attributes:
        directions: rank k of the basis; the number of tasks less one, or more, is no constraint at all.
        decay: rate at which the coordinates shrink (decoupled weight decay); what is shared never does.
    """

    directions: int
    decay: float = 0.0

    def __post_init__(self) -> None:
        if self.directions < 1 or self.decay < 0:
            raise TrainingError(
                f"A structured zoo was asked for with {self.directions} directions and weight decay {self.decay:g}; "
                "give at least one direction and a decay of 0 or more."
            )

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dict(self.__dict__)


def project_rows(matrix: Float[Tensor, "t d"], directions: int) -> Float[Tensor, "t d"]:
    """The nearest matrix of rank ``directions`` in squared error (Eckart & Young 1936), by the rows' Gram matrix."""
    if directions >= min(matrix.shape):
        return matrix
    gram = (matrix @ matrix.T).double()
    basis = torch.linalg.eigh(gram).eigenvectors[:, -directions:].to(matrix.dtype)
    projected: Tensor = basis @ (basis.T @ matrix)
    return projected


class _Vectors:
    """The trained tensors of adapters as rows of one matrix, and back."""

    def __init__(self, initial: Mapping[str, Tensor], train_factor_a: bool) -> None:
        # Sorted: a file gives its tensors in any order, and the order decides the last bits of sums over a row.
        self.initial = {name: initial[name].detach() for name in sorted(initial)}
        self.names = [name for name in self.initial if train_factor_a or ".lora_A." not in name]
        self._sizes = [initial[name].numel() for name in self.names]
        self.start = torch.cat([self.initial[name].flatten() for name in self.names])

    def tensors(self, vectors: Float[Tensor, "*batch d"]) -> dict[str, Tensor]:
        """The trained tensors."""
        parts = zip(self.names, torch.split(vectors, self._sizes, dim=-1), strict=True)
        shapes = {name: (*vectors.shape[:-1], *self.initial[name].shape) for name in self.names}
        return {name: part.reshape(shapes[name]) for name, part in parts}

    def all_tensors(self, vectors: Float[Tensor, "*batch d"]) -> dict[str, Tensor]:
        """The trained tensors and those that stay as they were."""
        trained = self.tensors(vectors)
        return {
            name: trained[name] if name in trained else value.expand(*vectors.shape[:-1], *value.shape).clone()
            for name, value in self.initial.items()
        }


class _Gradients:
    """The loss of every task and its gradient, some tasks in one vectorised pass."""

    def __init__(
        self, backbone: Backbone, tasks: Sequence[TaskFeatures], vectors: _Vectors, rows: Int[Tensor, "t s b"]
    ) -> None:
        self._tasks, self._rows = tasks, rows

        def loss_of(vector: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(backbone.logits(inputs, vectors.initial | vectors.tensors(vector)), labels)

        self._gradient = torch.func.vmap(torch.func.grad_and_value(loss_of))

    def __call__(self, adapters: Float[Tensor, "t d"], step: int) -> tuple[Tensor, Tensor]:
        """Gradients "t d" and losses "t" on the images of a step."""
        grads, losses = [], []
        for low in range(0, len(self._tasks), TASKS_AT_ONCE):
            part = list(enumerate(self._tasks))[low : low + TASKS_AT_ONCE]
            inputs = torch.stack([task.train[self._rows[i, step]] for i, task in part])
            labels = torch.stack([task.train_labels[self._rows[i, step]] for i, task in part])
            gradient, loss = self._gradient(adapters[low : low + TASKS_AT_ONCE], inputs, labels)
            grads.append(gradient)
            losses.append(loss.detach())
        return torch.cat(grads), torch.cat(losses)


def _check(values: Float[Tensor, " t"], tasks: Sequence[TaskFeatures], step: int) -> None:
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise TrainingError(
            f"The fine-tuning of task {tasks[int((~finite).nonzero()[0])].name!r} diverged: its loss or its adapter is "
            f"not finite at step {step + 1}. Lower the learning rate, or look at the task's images."
        )


def finetune_structured(
    backbone: Backbone,
    tasks: Sequence[TaskFeatures],
    initial: Mapping[str, Tensor],
    config: FinetuneConfig,
    structured: StructuredConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    pull: Pull | None = None,
) -> FinetuneRun:
    """Fine-tune the adapters of all tasks in one shared basis, from one shared initialisation.

    Images come in the same order as in :func:`finetune`; with as many directions as tasks the result is the same.

    Args:
        backbone: the frozen model.
        tasks: features of all tasks that are to share the basis, and of no other.
        initial: the shared starting tensors under PEFT's names.
        config: steps, rates and checkpoints, as for independent fine-tuning.
        structured: the basis.
        seed: decides the order of images.
        progress: called with (steps done, steps in all).
        pull: a further penalty, as the place where it draws every task to.

    Raises:
        DataError: there are no tasks.
        TrainingError: the loss of a task is no longer finite.
    """
    if not tasks:
        raise DataError("A structured zoo needs tasks; there are none.")
    vectors = _Vectors(initial, config.train_factor_a)
    gradients = _Gradients(backbone, tasks, vectors, image_order(tasks, config, seed))
    shared, varied = vectors.start, torch.zeros(len(tasks), len(vectors.start))
    first, second = torch.zeros_like(varied), torch.zeros_like(varied)
    saved = set(config.saved_steps)
    kept: list[Tensor] = []
    losses: list[Tensor] = []
    running: list[Tensor] = []
    for step in range(config.steps):
        rate = learning_rate(config, step)
        adapters = shared + varied
        grads, loss = gradients(adapters, step)
        running.append(loss)
        _check(loss, tasks, step)
        if pull is not None:
            adapters = adapters + rate * (pull(step, varied) - varied)
        adapters = adapters.lerp(vectors.start, rate * config.shrinkage) - rate * structured.decay * varied
        if config.optimizer == "adam":
            adam_step(adapters, grads, first, second, step, rate)
        else:
            adapters.sub_(first.mul_(0.9).add_(grads), alpha=rate)
        # The projection would spread what diverged in one task to all of them.
        _check(adapters.square().sum(1), tasks, step)
        shared = adapters.mean(0)
        varied = project_rows(adapters - shared, structured.directions)
        if step + 1 in saved:
            kept.append(shared + varied)
            losses.append(torch.stack(running).mean(0))
            running = []
        if progress is not None:
            progress(step + 1, config.steps)
    tensors = vectors.all_tensors(torch.stack(kept, dim=1))
    accuracy = torch.stack(
        [validation_accuracies(backbone, task, {n: v[i] for n, v in tensors.items()}) for i, task in enumerate(tasks)]
    )
    names = tuple(task.name for task in tasks)
    return FinetuneRun(names, config.saved_steps, tensors, torch.stack(losses, dim=1), accuracy)
