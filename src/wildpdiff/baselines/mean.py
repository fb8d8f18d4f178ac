"""The mean of all seen adapters for every task: what can be had without reading the description."""

from __future__ import annotations

from collections.abc import Sequence

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.tasks.description import Description


class MeanSource:
    """Gives the mean adapter (a uniform soup, Wortsman et al. 2022), whatever the description.

    The factors A and B are averaged each by itself. That is meaningful because all adapters of a zoo start from one
    initialisation and stay in its neighbourhood.
    """

    name = "mean adapter"
    stochastic = False

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        """Average one adapter a seen task; raises as :meth:`SeenAdapters.of`."""
        seen = SeenAdapters.of(adapters)
        self._mean = seen.adapter(seen.vectors.double().mean(0).float())

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the mean adapter."""
        return repeat_adapter(self._mean, self.name, description, n, seed)
