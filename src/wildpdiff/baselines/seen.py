"""Adapters of the seen tasks as rows of a matrix, and repeated adapters of a deterministic source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.layout import Layout
from wildpdiff.errors import AdapterMismatchError, DataError
from wildpdiff.tasks.description import Description


@dataclass(frozen=True)
class SeenAdapters:
    """One adapter a seen task, as flat vectors."""

    layout: Layout
    config: AdapterConfig
    vectors: Float[Tensor, "t d"]

    @classmethod
    def of(cls, adapters: Sequence[Adapter], tasks: int | None = None) -> SeenAdapters:
        """Flatten adapters of one backbone.

        Args:
            tasks: their number, where it is known.

        Raises:
            DataError: there are none, or not one a task.
            AdapterMismatchError: they are of different backbones, LoRA settings or layouts.
        """
        if not adapters:
            raise DataError("There are no adapters of seen tasks. Give at least one.")
        if tasks is not None and tasks != len(adapters):
            raise DataError(f"There are {len(adapters)} adapters and {tasks} descriptions. Give one of each a task.")
        config = adapters[0].config
        for index, adapter in enumerate(adapters):
            if adapter.config != config:
                raise AdapterMismatchError(
                    f"Adapter {index} is for {adapter.config.backbone!r} with rank {adapter.config.rank}, the first "
                    f"for {config.backbone!r} with rank {config.rank}, or their modules, classes or weights differ. "
                    "Use adapters of one zoo."
                )
        layout = Layout.of(adapters[0].tensors)
        return cls(layout, config, torch.stack([layout.flatten(adapter.tensors) for adapter in adapters]))

    def adapter(self, vector: Float[Tensor, " d"]) -> Adapter:
        """A flat vector as an adapter with the same configuration."""
        return Adapter(self.layout.unflatten(vector), self.config)


def repeat_adapter(
    adapter: Adapter, source: str, description: Description, *, n: int, seed: int, **details: Any
) -> list[Adapter]:
    """``n`` copies of the adapter of a deterministic source, with the provenance of this request.

    Args:
        adapter: its own provenance is replaced.
        seed: recorded, not used.
        **details: more plain JSON values for the provenance.
    """
    provenance = {"source": source, "seed": seed, "task": description.task_id, **details}
    return [
        Adapter({name: value.clone() for name, value in adapter.tensors.items()}, adapter.config, dict(provenance))
        for _ in range(n)
    ]
