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


class RenamedSource:
    """A source under another name, for two of a kind in one table."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self.name = name
        self.stochastic = source.stochastic

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """The source's adapters with the new name in their provenance."""
        return [
            Adapter(adapter.tensors, adapter.config, {**adapter.provenance, "source": self.name})
            for adapter in self._source.sample(description, n, seed)
        ]
