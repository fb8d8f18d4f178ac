"""Distance of each scored task's description to the nearest other seen one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from wildbench.sections import ConditionDistance
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.regression import SeenDistances
from wildpdiff.errors import DescriptionError
from wildpdiff.evaluate.results import Split
from wildpdiff.evaluate.run import Scored
from wildpdiff.evaluate.score import TestSet
from wildpdiff.tasks.description import Description


def condition_distances(seen: SeenTasks, tests: Mapping[Split, Sequence[TestSet]]) -> tuple[ConditionDistance, ...]:
    """The distance behind the source ``nearest task``, to the nearest seen task that is not the task itself.

    Root of the mean, over the parts that both descriptions have, of the squared distance in that part divided by its
    mean over pairs of seen tasks; so 1 is about the distance of two seen tasks drawn at random.

    Args:
        seen: the tasks that the sources were fitted to.
        tests: test sets by split, as evaluated.

    Raises:
        DescriptionError: a description shares no part with any other seen task.
    """
    distances = SeenDistances.of(seen.encoder, seen.descriptions, seen.features)
    rows = {task: row for row, task in enumerate(seen.zoo.tasks)}
    return tuple(
        ConditionDistance(split, test.task, _nearest(seen, distances, test, rows.get(test.task)))
        for split, part in tests.items()
        for test in part
    )


def _nearest(seen: SeenTasks, distances: SeenDistances, test: TestSet, own: int | None) -> float:
    described: Description = test.description if own is not None else replace(test.description, task_id=None)
    squared = distances.overall(seen.encoder.encode_parts(described))
    if own is not None:
        squared[own] = torch.inf
    if not bool(squared.isfinite().any()):
        raise DescriptionError(
            f"The description of {test.task!r} shares no part with another seen task, so there is no distance. "
            "Describe it by the same parts as the seen tasks."
        )
    return math.sqrt(float(squared.min()))


class ConditionDistances:
    """The distances as a section; they depend on descriptions alone."""

    section = "distances"

    def __init__(self, seen: SeenTasks, tests: Mapping[Split, Sequence[TestSet]]) -> None:
        self._seen = seen
        self._tests = tests

    def observe(self, scored: Scored) -> None:
        """No update: the distances depend on descriptions alone."""

    def result(self) -> tuple[ConditionDistance, ...]:
        """See :func:`condition_distances`."""
        return condition_distances(self._seen, self._tests)
