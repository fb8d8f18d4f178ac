"""Candidates of a recipe, run on a few seen tasks; what is finished is kept for a search that goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.artifact import tensors_hash
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.disk import content_hash, json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError, TrainingError
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.rng import sub_seed
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

SEARCH_TASKS = 8
"""Seen tasks that whole runs are tried on."""

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
class Scores:
    """Losses and accuracies of one candidate, one a task; losses are infinite where it diverged."""

    config: FinetuneConfig
    losses: Float[Tensor, " t"]
    accuracies: Float[Tensor, " t"]

    @property
    def loss(self) -> float:
        """Mean over the tasks."""
        return float(self.losses.mean())

    def within_noise_of(self, best: Scores) -> bool:
        """Whether it is worse than the best by no more than one standard error of their differences over tasks."""
        if self is best:
            return True
        difference = self.losses - best.losses
        if len(difference) < 2 or not bool(torch.isfinite(difference).all()):
            return False
        return float(difference.mean()) <= float(difference.std()) / math.sqrt(len(difference))


def of_length(config: FinetuneConfig, steps: int) -> FinetuneConfig:
    """The same with about so many steps: enough for its checkpoints, and a warm-up in proportion."""
    steps = max(steps, (config.checkpoints - 1) * config.interval + 1)
    return replace(config, steps=steps, warmup=round(config.warmup * steps / config.steps))


def rounded(values: Float[Tensor, " t"]) -> float:
    """Their mean, without the digits that differ between machines."""
    return round(float(values.mean()), 4)


class TrialMemory:
    """Scores of finished candidates in a file, so that a search that is stopped loses the one in training alone."""

    def __init__(self, path: Path | None, context: Sequence[Any]) -> None:
        """What an earlier call has kept; a file that is not readable is begun anew.

        Args:
            path: of the file; None keeps nothing.
            context: plain JSON values that decide the scores beside the candidate.
        """
        self._path, self._context = path, list(context)
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            try:
                found = read_json(path)
            except ArtifactError:
                found = None
            self._known = found if isinstance(found, dict) else {}

    def _key(self, config: FinetuneConfig, tasks: int) -> str:
        return content_hash(json_bytes([*self._context, config.to_json(), tasks]))

    def get(self, config: FinetuneConfig, tasks: int) -> Scores | None:
        """The scores of a candidate on so many tasks; None where they are not there, or not as they were written."""
        entry = self._known.get(self._key(config, tasks))
        if not isinstance(entry, dict) or entry.get("hash") != content_hash(json_bytes(entry.get("scores"))):
            return None
        losses, accuracies = entry["scores"]
        kept = [math.inf if loss is None else loss for loss in losses]
        return Scores(config, torch.tensor(kept), torch.tensor(accuracies))

    def put(self, config: FinetuneConfig, scores: Scores) -> None:
        """Keep the scores of a candidate; raises :class:`ArtifactError` where the disk refuses."""
        if self._path is None:
            return
        losses = [loss if math.isfinite(loss) else None for loss in scores.losses.tolist()]
        kept = [losses, scores.accuracies.tolist()]
        key = self._key(config, len(losses))
        self._known[key] = {"scores": kept, "hash": content_hash(json_bytes(kept))}
        write_file(self._path, json_bytes(self._known))


def _data(tasks: Sequence[TaskFeatures]) -> list[str]:
    """A hash of the images and labels of each task."""
    parts = ("train", "train_labels", "validation", "validation_labels")
    return [tensors_hash({part: getattr(task, part) for part in parts}) for task in tasks]


class RecipeSearch:
    """Candidates run on the searched tasks, independent ones side by side, and a record of them."""

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[TaskFeatures],
        initial: Mapping[str, Tensor],
        seed: int,
        together: int,
        memory: Path | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._backbone, self._tasks, self._initial = backbone, tasks, initial
        self._seed, self._together, self._progress = sub_seed(seed, "recipe"), together, progress
        self._done = 0
        context = [] if memory is None else [backbone.backbone_hash, seed, together, _data(tasks)]
        self._memory = TrialMemory(memory, context)
        self.trials: list[RecipeTrial] = []

    def run(self, configs: Sequence[FinetuneConfig], most: int = SEARCH_TASKS) -> list[Scores]:
        """Fine-tune the first tasks by each configuration; a divergence is a result and no error."""
        tasks = self._tasks[:most]
        work = [config.steps * len(tasks) for config in configs]
        known = [self._memory.get(config, len(tasks)) for config in configs]
        missing = [config for config, scores in zip(configs, known, strict=True) if scores is None]
        done, ahead = self._done, sum(work) - sum(config.steps * len(tasks) for config in missing)

        def measure(config: FinetuneConfig, tick: Tick) -> Scores:
            try:
                return self.scores(config, self._finetuned(config, tasks, tick))
            except TrainingError:
                return Scores(config, torch.full((len(tasks),), math.inf), torch.zeros(len(tasks)))

        def advance(share: float) -> None:
            self._advance(done + ahead + round(share * (sum(work) - ahead)))

        measured = iter(in_parallel(measure, missing, advance))
        found = []
        for config, scores in zip(configs, known, strict=True):
            if scores is None:
                scores = next(measured)
                self._memory.put(config, scores)
            found.append(scores)
            finite = math.isfinite(scores.loss)
            self.trials.append(
                RecipeTrial(
                    config.learning_rate,
                    config.steps,
                    config.shrinkage,
                    len(tasks),
                    rounded(scores.losses) if finite else None,
                    rounded(scores.accuracies) if finite else None,
                )
            )
        self._advance(done + sum(work))
        return found

    def scores(self, config: FinetuneConfig, adapters: Sequence[Mapping[str, Tensor]]) -> Scores:
        """Adapters on the validation images of the first tasks, one each."""
        losses, accuracies = [], []
        for task, tensors in zip(self._tasks, adapters, strict=False):
            logits = self._backbone.predict(task.validation, tensors)
            loss = float(cross_entropy(logits, task.validation_labels))
            losses.append(loss if math.isfinite(loss) else math.inf)
            accuracies.append(float((logits.argmax(1) == task.validation_labels).float().mean()))
        return Scores(config, torch.tensor(losses), torch.tensor(accuracies))

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
        longer = replace(of_length(config, 2 * config.steps), batch=POOLED_BATCH * config.batch)
        try:
            (tensors,) = self._finetuned(longer, [pooled])
        except TrainingError:
            return None
        self._advance(self._done + POOLED_BATCH * longer.steps)
        return rounded(self.scores(longer, [tensors] * len(self._tasks)).accuracies)

    def _finetuned(
        self, config: FinetuneConfig, tasks: Sequence[TaskFeatures], tick: Tick = lambda share: None
    ) -> list[dict[str, Tensor]]:
        """For each task the mean of its run's checkpoints."""
        found: list[dict[str, Tensor]] = []
        for first in range(0, len(tasks), self._together):
            group = tasks[first : first + self._together]
            begun, part = first / len(tasks), len(group) / len(tasks)

            def advance(step: int, steps: int, begun: float = begun, part: float = part) -> None:
                tick(begun + part * step / steps)

            run = finetune(self._backbone, group, self._initial, config, self._seed, advance)
            means = {name: value.mean(1) for name, value in run.tensors.items()}
            found += [{name: value[row] for name, value in means.items()} for row in range(len(group))]
        return found

    def _advance(self, done: int) -> None:
        self._done = done
        if self._progress is not None:
            self._progress(done)
