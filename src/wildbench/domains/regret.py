"""Regret of three policies: never adapting a model, always adapting it, and adapting it where trust is high enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wildpdiff.evaluate.statistics import Estimate, mean_interval


@dataclass(frozen=True)
class Regret:
    """Mean loss of a policy against the better of both models at each task, in the score's unit.

    Attributes:
        trusted: None where there is no calibrated trust.
    """

    never: Estimate
    always: Estimate
    trusted: Estimate | None


def regret(
    tasks: Sequence[str],
    pretrained: Mapping[str, float],
    generated: Mapping[str, float],
    delivered: Mapping[str, float] | None,
    *,
    sign: float = 1.0,
    seed: int = 0,
) -> Regret:
    """The regrets on some tasks, with 95 % bootstrap intervals over them.

    Args:
        tasks: at least one.
        pretrained, generated, delivered: mean scores by task; ``delivered`` by trust.
        sign: 1 where higher scores are better, else −1.
    """

    def against_best(scores: Mapping[str, float]) -> Estimate:
        values = [sign * scores[task] for task in tasks]
        best = [max(sign * pretrained[task], sign * generated[task]) for task in tasks]
        return mean_interval(np.array(best) - np.array(values), seed=seed)

    trusted = None if delivered is None else against_best(delivered)
    return Regret(against_best(pretrained), against_best(generated), trusted)
