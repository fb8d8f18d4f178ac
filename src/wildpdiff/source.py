"""The seam of everything that gives an adapter for a description: the generator and every baseline."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.tasks.description import Description


@runtime_checkable
class Source(Protocol):
    """Anything that gives adapters for a description."""

    @property
    def name(self) -> str:
        """A short name for tables, for example ``nearest task``."""

    @property
    def stochastic(self) -> bool:
        """Whether samples of one description differ; where false, one sample stands for all."""

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` adapters for the description; the same seed gives the same bytes.

        Raises:
            DescriptionError: the description lacks what this source needs.
        """


class RenamedSource:
    """A source under another name, so that two of a kind can stand in one table."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self.name = name

    @property
    def stochastic(self) -> bool:
        """As the source's."""
        return self._source.stochastic

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """The source's adapters, whose provenance names the new name."""
        adapters = self._source.sample(description, n, seed)
        return [
            Adapter(adapter.tensors, adapter.config, {**adapter.provenance, "source": self.name})
            for adapter in adapters
        ]
