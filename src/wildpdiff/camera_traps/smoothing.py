"""One answer for all frames of a burst."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

LEAST = 1e-6
"""Lower bound of a frame's probabilities, so that no frame alone excludes a class."""


def smoothed(probabilities: Float[np.ndarray, "n c"], bursts: Sequence[Hashable]) -> Float[np.ndarray, "n c"]:
    """Probabilities of pictures, the same for all frames of a burst: the geometric mean over its frames, normalised.

    The mean of log-probabilities is the decision that takes frames for independent views of one event, tempered by
    their number. A class that is impossible in every frame (masked) stays impossible.

    Args:
        bursts: name of each picture's burst.
    """
    logs = np.log(np.maximum(probabilities, LEAST))
    frames: dict[Hashable, list[int]] = {}
    for index, burst in enumerate(bursts):
        frames.setdefault(burst, []).append(index)
    result = np.array(probabilities, dtype=np.float64)
    for rows in frames.values():
        if len(rows) > 1:
            mean = np.exp(logs[rows].mean(0)) * (probabilities[rows] > 0).any(0)
            result[rows] = mean / mean.sum()
    return result
