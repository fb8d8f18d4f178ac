"""Interface of every source of adapters for a description: the generator and all baselines."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.tasks.description import Description


@runtime_checkable
class Source(Protocol):
    """A source of adapters for a description."""

    @property
    def name(self) -> str:
        """A short name for tables, for example ``nearest task``."""

    @property
    def stochastic(self) -> bool:
        """Whether samples of one description differ; where false, one sample stands for all."""

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` adapters for the description; the same seed gives the same bytes.

        Raises:
            DescriptionError: the description lacks a part that the source needs.
        """
