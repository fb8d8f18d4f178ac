"""What was measured on held-out seen tasks, in the few numbers that are kept and told of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from wildpdiff.trust.gain import GainPrediction, HeldOutGain
from wildpdiff.trust.report import HeldOutSummary

WIDEST = 100.0
"""Points on either side of the mean where one task alone was measured."""


def mean_over_tasks(by_task: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Mean of the tasks' means and its 95 % interval (Student's, over tasks), in points.

    Args:
        by_task: differences of accuracies, one or more a task.
    """
    points = 100 * np.array([np.mean(own) for own in by_task.values()])
    middle, reach = float(points.mean()), WIDEST
    if len(points) > 1:
        reach = float(stdtrit(len(points) - 1, 0.975) * points.std(ddof=1) / len(points) ** 0.5)
    return middle, middle - reach, middle + reach


def summarise(
    rows: Sequence[HeldOutGain],
    predictions: Sequence[GainPrediction],
    loss: float,
    over_shuffled: tuple[float, float, float],
) -> HeldOutSummary:
    """The summary of one basis.

    Args:
        rows: what was measured.
        predictions: what was predicted of each row without its fold.
        loss: a task is harmed where it loses more than this, in accuracy.
        over_shuffled: lead over adapters for other tasks' descriptions (:func:`mean_over_tasks`).
    """
    by_task: dict[str, list[float]] = {}
    for row in rows:
        if not row.extrapolation and not row.partial:
            by_task.setdefault(row.task, []).append(row.gain)
    near = np.array([np.mean(own) for own in by_task.values()])
    far = [row.gain for row in rows if row.extrapolation]
    covered = [entry.low <= row.gain <= entry.high for row, entry in zip(rows, predictions, strict=True)]
    return HeldOutSummary(
        tasks=len({row.task for row in rows}),
        images=int(np.median([row.images for row in rows])),
        random_gain=100 * float(np.mean(near)),
        group_gain=100 * float(np.mean(far)) if far else None,
        helped=float(np.mean(near > 0)),
        harmed=float(np.mean(near < -loss)),
        coverage=float(np.mean(covered)),
        over_shuffled=over_shuffled,
    )
