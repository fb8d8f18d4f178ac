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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.artifact import tensors_hash
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.disk import content_hash, json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.records import decode, encode
from wildpdiff.rng import sub_seed
from wildpdiff.tasks.batch import batch_size, concatenate, take
from wildpdiff.tasks.metric import ACCURACY, Metric
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.finetune import finetune
from wildpdiff.zoo.steps import FinetuneConfig

SEARCH_TASKS = 8
"""Seen tasks that whole runs are tried on, at most."""

FEWEST_TASKS, SEARCHED_SHARE = 4, 3
"""So many of a small zoo, or one of so many: a search must not take many times as long as the zoo."""

COARSE_TASKS = 4
"""Of these, the tasks that short runs are tried on: half, at most so many."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3)
"""Learning rates of the short runs; the lower half is tried where the lowest of the upper one is the best of these."""

SHORT = 4
"""Short runs have one step of so many."""

SHRINKAGES = (0.3, 1.0, 3.0)
"""The last is tried where the second is better than the first."""

POOLED_BATCH = 2
"""The multi-task adapter is trained for twice the steps on as many images in all as the adapters of so many tasks."""


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
        accuracy: mean validation score of the chosen fine-tuning on these tasks.
        pretrained: that of the pretrained model.
        multi_task: that of one adapter fine-tuned on the pooled training images of these tasks, without the images that
            it is judged by; None where its training diverged, or there is one task alone.
        metric: of the scores.
        written: the remarks of a stored plan, which is identified by them too; None where there is no plan yet.
    """

    config: FinetuneConfig
    tasks: tuple[str, ...]
    trials: tuple[RecipeTrial, ...]
    accuracy: float
    pretrained: float
    multi_task: float | None
    metric: Metric = ACCURACY
    written: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        """One sentence for each model without an adapter per task that beats the adapters, and for one as good."""
        if self.written is not None:
            return self.written
        rivals = (
            ("the pretrained model", self.pretrained, "fine-tuning on the labels of one task does harm here"),
            ("one adapter for all of them", self.multi_task, "the labels of one task teach less than those of all"),
        )
        found = [
            f"On the validation data of {len(self.tasks)} seen tasks, fine-tuned adapters reach "
            f"{self._shown(self.accuracy)} {self.metric.name} and {name} {self._shown(accuracy)}: {reason}, and a "
            "generator learns from these adapters."
            for name, accuracy, reason in rivals
            if accuracy is not None and self.metric.sign * (accuracy - self.accuracy) > 0
        ]
        if self.pretrained == self.accuracy:
            found.append(
                f"On the validation data of {len(self.tasks)} seen tasks, the pretrained model reaches "
                f"{self._shown(self.pretrained)} {self.metric.name}, as fine-tuned adapters do: they have nothing to "
                "gain there. A model that was pretrained on these tasks knows them; others in the group pretraining "
                "avoid that."
            )
        return tuple(found)

    def _shown(self, score: float) -> str:
        return f"{self.metric.scale * score:.{1 if self.metric == ACCURACY else 3}f} {self.metric.unit}".strip()

    def to_json(self) -> dict[str, Any]:
        """Everything but the configuration, which the zoo's plan holds as ``finetune``, as plain JSON values."""
        values = encode(self)
        del values["config"], values["written"]
        if self.metric == ACCURACY:  # as in zoos of before other metrics
            del values["metric"]
        return {**values, "remarks": list(self.remarks)}

    @classmethod
    def from_json(cls, finetuning: Mapping[str, Any], recipe: Mapping[str, Any], path: object) -> ChosenRecipe:
        """The inverse of :meth:`to_json`; raises :class:`ArtifactError`, which names ``path``."""
        values = {"metric": encode(ACCURACY), **recipe, "config": encode(finetune_config(finetuning, path))}
        values["written"] = values.pop("remarks", None)
        chosen: ChosenRecipe = decode(cls, values, f"{path}: recipe")
        return chosen


def finetune_config(values: Mapping[str, Any], path: object) -> FinetuneConfig:
    """The fine-tuning in a zoo's plan; raises :class:`ArtifactError`, which names ``path``, where it is damaged."""
    try:
        known = {name: values[name] for name in FinetuneConfig.__dataclass_fields__}
        config: FinetuneConfig = decode(FinetuneConfig, known, f"{path}: finetune")
    except (KeyError, TrainingError) as error:
        raise ArtifactError(f"The fine-tuning in {path} is damaged ({error}). Build the zoo again.") from error
    return config


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
    """Scores of what was trained, in a file, so that a search that is stopped loses what is in training alone."""

    def __init__(self, path: Path | None, context: Sequence[Any]) -> None:
        """Read the file, if there is one that is readable. ``context``: JSON values that decide the scores too."""
        self._path, self._context = path, list(context)
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            try:
                found = read_json(path)
            except ArtifactError:
                found = None
            self._known = found if isinstance(found, dict) else {}

    def _key(self, trained: Sequence[Any]) -> str:
        return content_hash(json_bytes([*self._context, *trained]))

    def get(self, *trained: Any) -> list[Any] | None:
        """What was kept; None where it is not there, or not as it was written. ``trained``: JSON values."""
        entry = self._known.get(self._key(trained))
        if not isinstance(entry, dict) or entry.get("hash") != content_hash(json_bytes(entry.get("scores"))):
            return None
        kept: list[Any] = entry["scores"]
        return kept

    def put(self, scores: list[Any], *trained: Any) -> None:
        """Keep scores, which are JSON values; raises :class:`ArtifactError` where the disk refuses."""
        if self._path is None:
            return
        self._known[self._key(trained)] = {"scores": scores, "hash": content_hash(json_bytes(scores))}
        write_file(self._path, json_bytes(self._known))

    def candidate(self, config: FinetuneConfig, tasks: int) -> Scores | None:
        """The scores of a candidate on so many tasks, if it is known."""
        found = self.get(config.to_json(), tasks)
        if found is None:
            return None
        losses, accuracies = found
        return Scores(
            config, torch.tensor([math.inf if loss is None else loss for loss in losses]), torch.tensor(accuracies)
        )

    def put_candidate(self, scores: Scores) -> None:
        """Keep the scores of a candidate, as :meth:`put`."""
        losses = [loss if math.isfinite(loss) else None for loss in scores.losses.tolist()]
        self.put([losses, scores.accuracies.tolist()], scores.config.to_json(), len(losses))


@dataclass
class RecipeSearch:
    """A search of the recipe on a few seen tasks: candidates, independent ones side by side, and a record of them.

    Attributes:
        backbone: the frozen model.
        tasks: features of the tasks to search on, see :func:`drawn_tasks`.
        initial: the shared starting tensors.
        seed: decides the order of examples.
        together: tasks in one vectorised pass.
        memory: file of finished candidates of these tasks and this backbone, for a search that resumes.
        progress: called with the optimiser steps × tasks done, never more than :func:`search_work`.
        trials: the candidates so far.
    """

    backbone: Backbone
    tasks: Sequence[TaskFeatures]
    initial: Mapping[str, Tensor]
    seed: int
    together: int = 20
    memory: Path | None = None
    progress: Callable[[int], None] | None = None
    trials: list[RecipeTrial] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        parts = ("train", "validation")
        data = [[tensors_hash(dict(getattr(task, part))) for part in parts] for task in self.tasks if self.memory]
        self._known = TrialMemory(self.memory, [self.backbone.backbone_hash, self.seed, self.together, data])
        self._done = 0
        self._multi_task: float | None = None

    def choose(self, default: FinetuneConfig) -> ChosenRecipe:
        """Choose learning rate, steps and shrinkage; all else is as in ``default``.

        The default stays where it is within one standard error (over tasks, paired) of the best candidate's validation
        loss; otherwise the shortest of the candidates within it is taken, and of these the one with the smallest loss.

        Raises:
            DataError: there are no tasks.
            TrainingError: every candidate diverged.
        """
        if not self.tasks:
            raise DataError(
                "There are no seen tasks to choose a recipe on. Give some, or give the fine-tuning's settings."
            )
        short = replace(of_length(default, default.steps // SHORT), shrinkage=0.0)
        upper, few = len(RATES) // 2, _coarse_tasks(len(self.tasks))
        lowest, *_ = coarse = self.run([replace(short, learning_rate=rate) for rate in RATES[upper:]], few)
        if _best(coarse) is lowest:
            coarse += self.run([replace(short, learning_rate=rate) for rate in RATES[:upper]], few)
        rate = _best(coarse).config.learning_rate
        lower = RATES[max(0, RATES.index(rate) - 1)]
        others = [other for other in {rate: None, lower: None} if other != default.learning_rate or default.shrinkage]
        unshrunk = [default, *(replace(default, learning_rate=other, shrinkage=0.0) for other in others)]
        *shrunk, last = (replace(default, learning_rate=rate, shrinkage=shrinkage) for shrinkage in SHRINKAGES)
        whole = self.run([*unshrunk, *shrunk])
        plain, further = _best(whole[: len(unshrunk)]).config, whole[-1].loss < whole[-2].loss
        if further:
            whole += self.run([last], pooled=plain)
        shorter = of_length(_best(whole).config, default.steps // 2)
        rest = [shorter] if shorter.steps < default.steps else []
        whole += self.run(rest, pooled=None if further else plain)
        chosen = _preferred(whole)
        return ChosenRecipe(
            chosen.config,
            tuple(task.name for task in self.tasks),
            tuple(self.trials),
            rounded(chosen.accuracies),
            rounded(self.scores(default, [self.initial] * len(self.tasks)).accuracies),
            self._multi_task,
            self.backbone.objective.metric,
        )

    def run(
        self, configs: Sequence[FinetuneConfig], most: int = SEARCH_TASKS, pooled: FinetuneConfig | None = None
    ) -> list[Scores]:
        """Fine-tune the first tasks by each configuration; a divergence is a result and no error.

        Args:
            pooled: configuration of :meth:`multi_task`, which is trained alongside.
        """
        tasks = self.tasks[:most]
        work = [config.steps * len(tasks) for config in configs]
        known = [self._known.candidate(config, len(tasks)) for config in configs]
        single = None if pooled is None else self._known.get("multi-task", pooled.to_json())
        missing = [config for config, scores in zip(configs, known, strict=True) if scores is None]
        extra = 0 if pooled is None else 2 * _pooled_batches(len(self.tasks)) * pooled.steps
        total, todo = sum(work) + extra, sum(config.steps * len(tasks) for config in missing)
        done, ahead = self._done, total - todo - (0 if single else extra)

        def measure(config: FinetuneConfig, tick: Tick) -> Scores:
            try:
                return self.scores(config, self._finetuned(config, tasks, tick))
            except TrainingError:
                return Scores(config, torch.full((len(tasks),), math.inf), torch.zeros(len(tasks)))

        def advance(share: float) -> None:
            self._advance(done + ahead + round(share * (total - ahead)))

        jobs: list[Callable[[Tick], Any]] = [partial(measure, config) for config in missing]
        jobs += [] if pooled is None or single else [partial(self.multi_task, pooled)]
        measured = iter(in_parallel(lambda job, tick: job(tick), jobs, advance))
        found = []
        for config, scores in zip(configs, known, strict=True):
            if scores is None:
                scores = next(measured)
                self._known.put_candidate(scores)
            found.append(scores)
            finite = math.isfinite(scores.loss)
            means = (rounded(scores.losses), rounded(scores.accuracies)) if finite else (None, None)
            self.trials.append(RecipeTrial(config.learning_rate, config.steps, config.shrinkage, len(tasks), *means))
        if pooled is not None:
            if single is None:
                single = [next(measured)]
                self._known.put(single, "multi-task", pooled.to_json())
            (self._multi_task,) = single
        self._advance(done + total)
        return found

    def scores(self, config: FinetuneConfig, adapters: Sequence[Mapping[str, Tensor]]) -> Scores:
        """Adapters on the validation examples of the first tasks, one each."""
        losses, accuracies, objective = [], [], self.backbone.objective
        for task, tensors in zip(self.tasks, adapters, strict=False):
            outputs = self.backbone.predict(task.validation, tensors)
            loss = float(objective.loss(outputs, task.validation).mean())
            losses.append(loss if math.isfinite(loss) else math.inf)
            accuracies.append(float(objective.score(outputs, task.validation).mean()))
        return Scores(config, torch.tensor(losses), torch.tensor(accuracies))

    def multi_task(self, config: FinetuneConfig, tick: Tick = lambda share: None) -> float | None:
        """Mean score of one adapter fine-tuned on the pooled training examples of all tasks, without shrinkage."""
        if len(self.tasks) < 2:
            return None
        judged = {key for task in self.tasks for key in task.keys[task.train_size :]}
        kept = [
            torch.tensor([not task.keys or task.keys[row] not in judged for row in range(task.train_size)])
            for task in self.tasks
        ]
        batch = concatenate([take(task.train, rows) for task, rows in zip(self.tasks, kept, strict=True)])
        if not batch_size(batch):
            return None
        pooled = TaskFeatures("pooled", batch, take(batch, slice(1)))
        longer = replace(of_length(config, 2 * config.steps), batch=_pooled_batches(len(self.tasks)) * config.batch)
        try:
            (tensors,) = self._finetuned(longer, [pooled], tick)
        except TrainingError:
            return None
        return rounded(self.scores(longer, [tensors] * len(self.tasks)).accuracies)

    def _finetuned(
        self, config: FinetuneConfig, tasks: Sequence[TaskFeatures], tick: Tick = lambda share: None
    ) -> list[dict[str, Tensor]]:
        """For each task the mean of its run's checkpoints."""
        found: list[dict[str, Tensor]] = []
        for first in range(0, len(tasks), self.together):
            group = tasks[first : first + self.together]
            begun, part = first / len(tasks), len(group) / len(tasks)

            def advance(step: int, steps: int, begun: float = begun, part: float = part) -> None:
                tick(begun + part * step / steps)

            run = finetune(
                self.backbone, group, self.initial, config=config, seed=sub_seed(self.seed, "recipe"), progress=advance
            )
            means = {name: value.mean(1) for name, value in run.tensors.items()}
            found += [{name: value[row] for name, value in means.items()} for row in range(len(group))]
        return found

    def _advance(self, done: int) -> None:
        self._done = done
        if self.progress is not None:
            self.progress(done)


def drawn_tasks(names: Iterable[str]) -> tuple[str, ...]:
    """The tasks that a recipe is searched on, by the hash of their names.

    Of 24 tasks and more :data:`SEARCH_TASKS`, of fewer a third, but no fewer than :data:`FEWEST_TASKS`.
    """
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return tuple(ordered[: min(SEARCH_TASKS, max(FEWEST_TASKS, len(ordered) // SEARCHED_SHARE))])


def _coarse_tasks(tasks: int) -> int:
    return min(COARSE_TASKS, -(-tasks // 2))


def _pooled_batches(tasks: int) -> int:
    """Batches of one task in a step of the multi-task adapter."""
    return -(-tasks // POOLED_BATCH)


def search_work(config: FinetuneConfig, tasks: int) -> int:
    """Optimiser steps × tasks that a search takes at most, as the total of its progress."""
    coarse = len(RATES) * of_length(config, config.steps // SHORT).steps * _coarse_tasks(tasks)
    whole = (3 + len(SHRINKAGES)) * config.steps + of_length(config, config.steps // 2).steps
    return coarse + whole * tasks + 2 * _pooled_batches(tasks) * config.steps


def _best(candidates: Sequence[Scores]) -> Scores:
    return min(candidates, key=lambda scores: scores.loss)


def _preferred(whole: Sequence[Scores]) -> Scores:
    """The first candidate, the default, where it is as good as any; otherwise the cheapest that is."""
    best = _best(whole)
    if not math.isfinite(best.loss):
        raise TrainingError(
            "Fine-tuning diverged at every learning rate that was tried. Check the tasks' examples, or give a learning "
            f"rate below {min(RATES):g}."
        )
    good = [scores for scores in whole if scores.within_noise_of(best)]
    return good[0] if good[0] is whole[0] else min(good, key=lambda scores: (scores.config.steps, scores.loss))
