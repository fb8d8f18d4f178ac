"""Sources under other names."""

from __future__ import annotations

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description


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
