"""Adapters made of checkpoints without any learning: the controls of the memorisation study.

Zeng et al. ("Generative Modeling of Weights: Generalization or Memorization?", 2506.07998) found that weight
generators lose to checkpoints with noise, to averages of a few checkpoints and to a Gaussian fit of the weights. These
are those controls. None of them reads the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.errors import DataError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.store import Zoo

CHUNK = 512
"""Checkpoints that are in memory at once."""


@dataclass(frozen=True, eq=False)
class PoolStatistics:
    """Moments of all checkpoints of a zoo.

    Attributes:
        mean: over the checkpoints, by tensor, in that tensor's shape.
        std: over the checkpoints, by tensor, in that tensor's shape; exactly 0 where they are all alike.
        spread: standard deviation of all values of a tensor in all checkpoints, one number a tensor.
        trained: tensors that differ from the shared initialisation in any checkpoint.
    """

    mean: Mapping[str, Tensor]
    std: Mapping[str, Tensor]
    spread: Mapping[str, float]
    trained: frozenset[str]


def pool_statistics(zoo: Zoo) -> PoolStatistics:
    """Read the pool once, some hundred checkpoints at a time, and sum up in float64."""
    initial = {name: value.double() for name, value in zoo.initial.tensors.items()}
    # Sums of differences from one checkpoint: what never changes has a variance of exactly zero.
    origin = {name: value[0].double() for name, value in zoo.tensors([0]).items()}
    first = {name: torch.zeros_like(value) for name, value in origin.items()}
    second = {name: torch.zeros_like(value) for name, value in origin.items()}
    trained: set[str] = set()
    for start in range(0, len(zoo), CHUNK):
        for name, values in zoo.tensors(range(start, min(start + CHUNK, len(zoo)))).items():
            differences = values.double() - origin[name]
            first[name] += differences.sum(0)
            second[name] += differences.square().sum(0)
            if not bool((values.double() == initial[name]).all()):
                trained.add(name)
    mean, std, spread = {}, {}, {}
    for name in origin:
        shift = first[name] / len(zoo)
        variance = (second[name] / len(zoo) - shift.square()).clamp_min(0.0)
        centre = origin[name] + shift
        # Variance of all values of a tensor: within each coordinate, and between the coordinates' means.
        spread[name] = float((variance.mean() + centre.var(correction=0)).sqrt())
        mean[name], std[name] = centre.float(), variance.sqrt().float()
    return PoolStatistics(mean, std, spread, frozenset(trained))


class CheckpointNoiseSource:
    """A random checkpoint of the seen tasks plus Gaussian noise.

    The study adds noise to checkpoints of the very task that is generated. So for a seen task, which the description's
    ``task_id`` names, the checkpoint is one of that task's own; this is not reading the description but knowing the
    answer, and only fair next to generators that were trained on the task. Where no seen task is named (the name of an
    unseen task is not in the zoo), any checkpoint of the pool is as likely as any other: the control that an unseen
    task allows. Noise goes into the tensors that fine-tuning changed; what all adapters share stays as it is, as it
    does in a generated adapter, so that the control is not weakened where nothing is generated.
    """

    stochastic = True

    def __init__(self, zoo: Zoo, scale: float, relative: bool, statistics: PoolStatistics | None = None) -> None:
        """Keep the pool.

        Args:
            zoo: of the seen tasks.
            scale: the noise's standard deviation; .06 and .12 in the study.
            relative: ``scale`` is a share of each tensor's spread over the pool; .05 and .15 in the study.
            statistics: of the pool, where they are already known.

        Raises:
            DataError: the scale is negative or not finite.
        """
        if not 0.0 <= scale < float("inf"):
            raise DataError(f"The noise's scale is {scale:g}; give a finite number that is not negative.")
        known = statistics or pool_statistics(zoo)
        number = f"{scale:g}".removeprefix("0") or "0"
        self.name = f"checkpoint + {'relative noise' if relative else 'noise'} {number}"
        self._zoo = zoo
        self._tasks, self._steps = zoo.column("task"), zoo.column("step")
        self._scales = {name: scale * (known.spread[name] if relative else 1.0) for name in sorted(known.trained)}

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` checkpoints with noise, each drawn anew; the k-th sample does not depend on ``n``."""
        own = self._zoo.rows_of(description.task_id) if description.task_id in self._zoo.tasks else []
        rows = own or list(range(len(self._zoo)))
        result = []
        for number in range(n):
            draws = torch_generator(seed, "checkpoint noise", number)
            row = rows[int(torch.randint(len(rows), (1,), generator=draws))]
            tensors = {name: value[0] for name, value in self._zoo.tensors([row]).items()}
            for name, scale in self._scales.items():
                tensors[name] = tensors[name] + scale * torch.randn(tensors[name].shape, generator=draws)
            adapter = Adapter(tensors, self._zoo.plan.adapter)
            origin = {"checkpoint_task": self._tasks[row], "checkpoint_step": self._steps[row]}
            result += repeat_adapter(adapter, self.name, description, n=1, seed=seed, sample=number, **origin)
        return result


class CheckpointAverageSource:
    """The mean of some random checkpoints of the whole pool, of whatever task.

    They are drawn with replacement, so that small pools serve too.
    """

    stochastic = True

    def __init__(self, zoo: Zoo, count: int = 16) -> None:
        """Keep the pool; raises :class:`DataError` where ``count``, how many are averaged, is below 1."""
        if count < 1:
            raise DataError(f"An average of {count} checkpoints is none; give a count of 1 or more.")
        self.name = f"average of {count} checkpoints"
        self._zoo = zoo
        self._count = count

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` averages, each of checkpoints drawn anew; the k-th sample does not depend on ``n``."""
        result = []
        for number in range(n):
            draws = torch_generator(seed, "checkpoint average", number)
            rows = torch.randint(len(self._zoo), (self._count,), generator=draws).tolist()
            # Read from disk for this mean alone: adding to it cannot overwrite the pool.
            stacked = self._zoo.tensors(rows)
            tensors = {name: value.double().mean(0).float() for name, value in stacked.items()}
            adapter = Adapter(tensors, self._zoo.plan.adapter)
            result += repeat_adapter(adapter, self.name, description, n=1, seed=seed, sample=number)
        return result


class GaussianSource:
    """Every coordinate drawn independently from a normal distribution with the pool's mean and standard deviation."""

    name = "Gaussian per coordinate"
    stochastic = True

    def __init__(self, zoo: Zoo, statistics: PoolStatistics | None = None) -> None:
        """Fit on the zoo of the seen tasks; ``statistics`` are the pool's, where they are already known."""
        self._statistics = statistics or pool_statistics(zoo)
        self._config = zoo.plan.adapter

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` draws; the k-th sample does not depend on ``n``."""
        mean, std = self._statistics.mean, self._statistics.std
        result = []
        for number in range(n):
            draws = torch_generator(seed, "Gaussian per coordinate", number)
            tensors = {
                name: mean[name] + std[name] * torch.randn(mean[name].shape, generator=draws) for name in sorted(mean)
            }
            result += repeat_adapter(
                Adapter(tensors, self._config), self.name, description, n=1, seed=seed, sample=number
            )
        return result
