"""The least trust at which few tasks are harmed, chosen on held-out seen tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def safe_threshold(trust: Numbers, harmed: Numbers, tasks: Sequence[str], risk: float) -> float:
    """Smallest threshold at which at most a share ``risk`` of all tasks is used and harmed, in expectation.

    Conformal risk control (Angelopoulos et al. 2022, theorem 1): a task's loss, the share of its rows that are used and
    harmed, never rises with the threshold, so ``(sum of losses + 1) / (n + 1) <= risk`` on n exchangeable tasks bounds
    its expectation.

    Args:
        trust: of every row.
        harmed: probability, by row, that the gain was below what is tolerated; 0 or 1 where that is known.
        tasks: that the rows are of.
        risk: that is tolerated.

    Returns:
        The threshold; 1, which nothing reaches, where the tasks are too few to promise anything.
    """
    names, places, counts = np.unique(np.array(tasks), return_inverse=True, return_counts=True)
    weights = harmed / counts[places]
    for threshold in (0.0, *np.sort(trust)):
        if (float(weights[trust >= threshold].sum()) + 1) / (len(names) + 1) <= risk:
            return float(threshold)
    return float(np.nextafter(trust.max(), 1.0)) if 1 / (len(names) + 1) <= risk else 1.0
