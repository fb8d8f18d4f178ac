"""Fine-tuning on a few labels of the task itself: what a user gets who labels some images instead of describing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import LabelledData
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.rng import sub_seed, torch_generator
from wildpdiff.tasks.batch import take
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

FEW_LABELS_FINETUNING = FinetuneConfig(steps=100, learning_rate=0.01, checkpoints=1, interval=1)
"""Recipe of fine-tuning on few labels, chosen on seen tasks: half the steps and a fifth of the rate that all labels
take. With 5 labels a class the longer run loses 1.7 points of accuracy to overfitting."""

TOGETHER = 20
"""Tasks fine-tuned in one pass."""


def labelled_task(data: LabelledData, description: Description) -> TaskFeatures:
    """The labelled images of the task that a description names.

    Raises:
        DescriptionError: the description names no task, or one whose labels are not at hand.
    """
    description.require_any(["task_id"])
    name = str(description.task_id)
    try:
        return data(name)
    except KeyError:
        raise DescriptionError(
            f"There are no labelled images of task {name!r}. Give the name of a task whose labels are at hand, "
            "or use a source that needs none."
        ) from None


def few_labels(task: TaskFeatures, labels_per_class: int, seed: int) -> TaskFeatures:
    """A task with at most so many training images of each class, and with no other labels.

    The images are drawn by the seed and the task's name; more labels a class hold the fewer ones. The few stand in
    the validation images too, because no other labels are available. Targets that are no classes are of one.

    Raises:
        DataError: less than one label a class, or a task without training images.
    """
    if labels_per_class < 1:
        raise DataError(f"{labels_per_class} labels a class were requested; give at least 1.")
    if not task.train_size:
        raise DataError(f"Task {task.name!r} has no training examples. Label some, or leave the task out.")
    order = torch.randperm(task.train_size, generator=torch_generator(seed, "few labels", task.name))
    rows = order[_rank_in_class(task.train[TARGETS][order]) < labels_per_class]
    return TaskFeatures.of_few(task.name, take(task.train, rows))


def _rank_in_class(labels: Shaped[Tensor, "n ..."]) -> Int[Tensor, " n"]:
    """For each row, the number of earlier rows with its label."""
    if labels.ndim > 1 or labels.is_floating_point():
        return torch.arange(len(labels))
    same = labels[:, None] == labels[None]
    return same.tril(-1).sum(1)


class FewLabelsSource:
    """Gives the adapter fine-tuned on ``k`` labels a class of the task that the description names.

    It has seen labels of the task; sources that read the rest of the description have not. A task's adapter is
    trained at the first request, or together with others by :meth:`prepare`, and kept. Its image order and start
    depend on the seed and on the task's name, not on other tasks of the call, so that both give the same adapter up
    to float rounding. Where a task has fewer images than a batch, they come in it several times.
    """

    stochastic = False

    def __init__(
        self,
        data: LabelledData,
        backbone: Backbone,
        initial: Adapter,
        *,
        labels_per_class: int,
        config: FinetuneConfig = FEW_LABELS_FINETUNING,
        seed: int = 0,
    ) -> None:
        """Remember what fine-tuning needs; nothing is trained yet.

        Args:
            data: labelled images of the tasks by name; the training images alone are used.
            backbone: the frozen model.
            initial: the shared initialisation.
            labels_per_class: training images of each class, fewer where the task has fewer.
            config: of the fine-tuning; the end of the run is what counts.
            seed: of the choice of images and of their order.

        Raises:
            DataError: less than one label a class.
        """
        if labels_per_class < 1:
            raise DataError(
                f"{labels_per_class} labels a class were requested; give at least 1. Without labels the pretrained "
                "model is what there is."
            )
        self._data = data
        self._backbone = backbone
        self._initial = initial
        self._labels_per_class = labels_per_class
        self._config = replace(config, checkpoints=1, interval=1)
        self._seed = seed
        self._kept: dict[str, Adapter] = {}

    @property
    def name(self) -> str:
        """For example ``fine-tuned, 5 labels a class``."""
        plural = "" if self._labels_per_class == 1 else "s"
        return f"fine-tuned, {self._labels_per_class} label{plural} a class"

    def prepare(self, tasks: Sequence[str]) -> None:
        """Fine-tune several tasks in few passes, which is much faster than one after the other.

        Raises:
            DescriptionError: a task's labels are not at hand.
            TrainingError: a loss is not finite.
        """
        missing = [name for name in dict.fromkeys(tasks) if name not in self._kept]
        for start in range(0, len(missing), TOGETHER):
            group = [labelled_task(self._data, Description(task_id=name)) for name in missing[start : start + TOGETHER]]
            self._finetune([few_labels(task, self._labels_per_class, self._seed) for task in group])

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the task's adapter, fine-tuned now unless it was before.

        Raises:
            DescriptionError: the description names no task, or one whose labels are not at hand.
            TrainingError: the loss is not finite.
        """
        description.require_any(["task_id"])
        name = str(description.task_id)
        self.prepare([name])
        adapter = self._kept[name]
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, **dict(adapter.provenance))

    def _finetune(self, tasks: Sequence[TaskFeatures]) -> None:
        seed = sub_seed(self._seed, "few labels")
        run = finetune(self._backbone, tasks, self._initial.tensors, config=self._config, seed=seed)
        for row, task in enumerate(tasks):
            tensors = {name: value[row, -1].clone() for name, value in run.tensors.items()}
            provenance = {"labels": task.train_size, "labels_per_class": self._labels_per_class}
            self._kept[task.name] = Adapter(tensors, self._initial.config, provenance)
