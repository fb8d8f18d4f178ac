"""The recipe of a zoo: fine-tuning chosen on a few seen tasks, from coarse to fine.

Suites differ by orders of magnitude in the learning rate that fine-tuning takes, and one too high makes adapters
oscillate around their optimum. The search takes a few tasks, drawn by the hash of their names: first short runs
over learning rates from 1e-4 to .3, then whole runs at the best of them and below, with shrinkage towards the shared
start, and of half the length. A candidate is judged by the validation loss of a task's adapter as everything downstream
reads it, the mean of the kept checkpoints. Unseen tasks have no part in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.rng import sub_seed
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

__all__ = ["SEARCH_TASKS", "ChosenRecipe", "RecipeTrial", "choose_recipe", "drawn_tasks", "search_work"]

SEARCH_TASKS = 8
"""Seen tasks that whole runs are tried on."""

COARSE_TASKS = 4
"""Of these, the tasks that short runs are tried on."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
"""Learning rates of the short runs."""

SHORT = 4
"""Short runs have one step of so many."""

SHRINKAGES = (0.3, 1.0, 3.0)
"""Tried one after another, as long as each is better than the one before."""

POOLED_BATCH = 4
"""The multi-task adapter is trained on so many times the images a step, for twice the steps."""


@dataclass(frozen=True)
class RecipeTrial:
    """One candidate, as measured on the validation images of the searched tasks.

    Attributes:
        learning_rate, steps, shrinkage: what distinguishes it; all else is as in the default.
        tasks: how many tasks it was tried on.
        loss: mean cross-entropy of the tasks' adapters; None where the fine-tuning diverged.
        accuracy: their mean accuracy; None where it diverged.
    """

    learning_rate: float
    steps: int
    shrinkage: float
    tasks: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class ChosenRecipe:
    """The fine-tuning that was chosen, and the evidence.

    Attributes:
        config: the chosen fine-tuning.
        tasks: names of the seen tasks it was chosen on.
        trials: everything that was tried, in order.
        accuracy: mean validation accuracy of the chosen fine-tuning on these tasks.
        pretrained: that of the pretrained model.
        multi_task: that of one adapter fine-tuned on the pooled training images of these tasks, without the images that
            it is judged by; None where its training diverged, or there is one task alone.
    """

    config: FinetuneConfig
    tasks: tuple[str, ...]
    trials: tuple[RecipeTrial, ...]
    accuracy: float
    pretrained: float
    multi_task: float | None

    @property
    def remarks(self) -> tuple[str, ...]:
        """One sentence for each model without an adapter per task that beats the fine-tuned adapters."""
        rivals = (
            ("the pretrained model", self.pretrained, "fine-tuning on the labels of one task does harm here"),
            ("one adapter for all of them", self.multi_task, "the labels of one task teach less than those of all"),
        )
        return tuple(
            f"On the validation images of {len(self.tasks)} seen tasks, fine-tuned adapters reach "
            f"{100 * self.accuracy:.1f} % accuracy and {name} {100 * accuracy:.1f} %: {reason}, and a generator "
            "learns from these adapters."
            for name, accuracy, reason in rivals
            if accuracy is not None and accuracy > self.accuracy
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the configuration, which the zoo's plan holds for itself, as plain JSON values."""
        return {
            "tasks": list(self.tasks),
            "trials": [asdict(trial) for trial in self.trials],
            "accuracy": self.accuracy,
            "pretrained": self.pretrained,
            "multi_task": self.multi_task,
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_json(cls, finetuning: Mapping[str, Any], recipe: Mapping[str, Any], path: object) -> ChosenRecipe:
        """The inverse of :meth:`to_json`; ``path`` is named in errors.

        Raises:
            ArtifactError: a key is missing, or a value of another kind.
        """
        try:
            return cls(
                FinetuneConfig(**{name: finetuning[name] for name in FinetuneConfig.__dataclass_fields__}),
                tuple(map(str, recipe["tasks"])),
                tuple(RecipeTrial(**trial) for trial in recipe["trials"]),
                float(recipe["accuracy"]),
                float(recipe["pretrained"]),
                None if recipe["multi_task"] is None else float(recipe["multi_task"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, TrainingError) as error:
            raise ArtifactError(
                f"The recipe in {path} is damaged ({type(error).__name__}: {error}). Remove the folder and build anew."
            ) from error


@dataclass(frozen=True)
class _Scores:
    """Losses and accuracies of one candidate, one a task; losses are infinite where it diverged."""

    config: FinetuneConfig
    losses: Float[Tensor, " t"]
    accuracies: Float[Tensor, " t"]

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    def within_noise_of(self, best: _Scores) -> bool:
        """Whether it is worse than the best by no more than one standard error of their differences over tasks."""
        if self is best:
            return True
        difference = self.losses - best.losses
        if len(difference) < 2 or not bool(torch.isfinite(difference).all()):
            return False
        return float(difference.mean()) <= float(difference.std()) / math.sqrt(len(difference))


def drawn_tasks(names: Iterable[str]) -> tuple[str, ...]:
    """The tasks that a recipe is searched on: up to :data:`SEARCH_TASKS`, by the hash of their names."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return tuple(ordered[:SEARCH_TASKS])


def search_work(config: FinetuneConfig, tasks: int) -> int:
    """Optimiser steps × tasks that a search takes at most, to tell progress by."""
    coarse = len(RATES) * _of_length(config, config.steps // SHORT).steps * min(tasks, COARSE_TASKS)
    whole = (3 + len(SHRINKAGES)) * config.steps + _of_length(config, config.steps // 2).steps
    return coarse + whole * tasks + 2 * POOLED_BATCH * config.steps


def choose_recipe(
    backbone: Backbone,
    tasks: Sequence[TaskFeatures],
    initial: Mapping[str, Tensor],
    default: FinetuneConfig,
    seed: int,
    *,
    together: int = 20,
    progress: Callable[[int], None] | None = None,
) -> ChosenRecipe:
    """Choose learning rate, steps and shrinkage on a few seen tasks.

    The default stays where it is within one standard error (over tasks, paired) of the best candidate's validation
    loss; otherwise the shortest of the candidates within it is taken, and of these the one with the smallest loss.

    Args:
        backbone: the frozen model.
        tasks: features of the tasks to search on, see :func:`drawn_tasks`.
        initial: the shared starting tensors.
        default: everything that is not searched, and the candidate that is preferred.
        seed: decides the order of images.
        together: tasks in one vectorised pass.
        progress: called with the optimiser steps × tasks done, never more than :func:`search_work`.

    Raises:
        DataError: there are no tasks.
        TrainingError: every candidate diverged.
    """
    if not tasks:
        raise DataError("There are no seen tasks to choose a recipe on. Give some, or give the fine-tuning's settings.")
    search = _Search(backbone, tasks, initial, seed, together, progress)
    coarse = [search.run(_coarse(default, rate), COARSE_TASKS) for rate in RATES]
    rate = min(coarse, key=lambda scores: scores.loss).config.learning_rate
    whole = [search.run(default)]
    lower = RATES[max(0, RATES.index(rate) - 1)]
    for other in {rate: None, lower: None}:
        if other != default.learning_rate or default.shrinkage:
            whole.append(search.run(replace(default, learning_rate=other, shrinkage=0.0)))
    plain = min(whole, key=lambda scores: scores.loss).config
    before = math.inf
    for shrinkage in SHRINKAGES:
        whole.append(search.run(replace(default, learning_rate=rate, shrinkage=shrinkage)))
        if whole[-1].loss >= before:
            break
        before = whole[-1].loss
    best = min(whole, key=lambda scores: scores.loss)
    shorter = _of_length(best.config, default.steps // 2)
    if shorter.steps < default.steps:
        whole.append(search.run(shorter))
    chosen = _preferred(whole)
    return ChosenRecipe(
        chosen.config,
        tuple(task.name for task in tasks),
        tuple(search.trials),
        _rounded(chosen.accuracies),
        _rounded(search.scores(default, [initial] * len(tasks)).accuracies),
        search.multi_task(plain),
    )


def _of_length(config: FinetuneConfig, steps: int) -> FinetuneConfig:
    """The same with about so many steps: enough for its checkpoints, and a warm-up in proportion."""
    steps = max(steps, (config.checkpoints - 1) * config.interval + 1)
    return replace(config, steps=steps, warmup=round(config.warmup * steps / config.steps))


def _coarse(default: FinetuneConfig, rate: float) -> FinetuneConfig:
    return replace(_of_length(default, default.steps // SHORT), learning_rate=rate, shrinkage=0.0)


def _preferred(whole: Sequence[_Scores]) -> _Scores:
    """The default, which comes first, where it is as good as any; otherwise the cheapest that is."""
    best = min(whole, key=lambda scores: scores.loss)
    if not math.isfinite(best.loss):
        raise TrainingError(
            "Fine-tuning diverged at every learning rate that was tried. Check the tasks' images, or give a learning "
            f"rate below {min(RATES):g}."
        )
    good = [scores for scores in whole if scores.within_noise_of(best)]
    return good[0] if good[0] is whole[0] else min(good, key=lambda scores: (scores.config.steps, scores.loss))


def _rounded(values: Float[Tensor, " t"]) -> float:
    """Their mean, without the digits that differ between machines."""
    return round(float(values.mean()), 4)


class _Search:
    """Candidates run on the searched tasks, and a record of them."""

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[TaskFeatures],
        initial: Mapping[str, Tensor],
        seed: int,
        together: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._backbone, self._tasks, self._initial = backbone, tasks, initial
        self._seed, self._together, self._progress = sub_seed(seed, "recipe"), together, progress
        self._done = 0
        self.trials: list[RecipeTrial] = []

    def run(self, config: FinetuneConfig, most: int = SEARCH_TASKS) -> _Scores:
        """Fine-tune the first tasks so; a divergence is a result and no error."""
        tasks = self._tasks[:most]
        try:
            scores = self.scores(config, self._finetuned(config, tasks))
        except TrainingError:
            scores = _Scores(config, torch.full((len(tasks),), math.inf), torch.zeros(len(tasks)))
        finite = math.isfinite(scores.loss)
        self.trials.append(
            RecipeTrial(
                config.learning_rate,
                config.steps,
                config.shrinkage,
                len(tasks),
                _rounded(scores.losses) if finite else None,
                _rounded(scores.accuracies) if finite else None,
            )
        )
        self._advance(config.steps * len(tasks))
        return scores

    def scores(self, config: FinetuneConfig, adapters: Sequence[Mapping[str, Tensor]]) -> _Scores:
        """Adapters on the validation images of the first tasks, one each."""
        losses, accuracies = [], []
        for task, tensors in zip(self._tasks, adapters, strict=False):
            logits = self._backbone.predict(task.validation, tensors)
            loss = float(cross_entropy(logits, task.validation_labels))
            losses.append(loss if math.isfinite(loss) else math.inf)
            accuracies.append(float((logits.argmax(1) == task.validation_labels).float().mean()))
        return _Scores(config, torch.tensor(losses), torch.tensor(accuracies))

    def multi_task(self, config: FinetuneConfig) -> float | None:
        """Mean accuracy of one adapter fine-tuned on the pooled training images of all tasks, without shrinkage."""
        if len(self._tasks) < 2:
            return None
        judged = {key for task in self._tasks for key in task.keys[len(task.train_labels) :]}
        kept = [
            torch.tensor([not task.keys or task.keys[row] not in judged for row in range(len(task.train_labels))])
            for task in self._tasks
        ]
        images = torch.cat([task.train[rows] for task, rows in zip(self._tasks, kept, strict=True)])
        labels = torch.cat([task.train_labels[rows] for task, rows in zip(self._tasks, kept, strict=True)])
        if not len(labels):
            return None
        pooled = TaskFeatures("pooled", images, labels, images[:1], labels[:1])
        longer = replace(_of_length(config, 2 * config.steps), batch=POOLED_BATCH * config.batch)
        try:
            (tensors,) = self._finetuned(longer, [pooled])
        except TrainingError:
            return None
        self._advance(POOLED_BATCH * longer.steps)
        return _rounded(self.scores(longer, [tensors] * len(self._tasks)).accuracies)

    def _finetuned(self, config: FinetuneConfig, tasks: Sequence[TaskFeatures]) -> list[dict[str, Tensor]]:
        """For each task the mean of its run's checkpoints."""
        found = []
        for first in range(0, len(tasks), self._together):
            group = tasks[first : first + self._together]
            run = finetune(self._backbone, group, self._initial, config, self._seed)
            means = {name: value.mean(1) for name, value in run.tensors.items()}
            found += [{name: value[row] for name, value in means.items()} for row in range(len(group))]
        return found

    def _advance(self, work: int) -> None:
        self._done += work
        if self._progress is not None:
            self._progress(self._done)
