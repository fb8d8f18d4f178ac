"""No adaptation: the pretrained model for every task. The floor that everything else must beat."""

from __future__ import annotations

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.tasks.description import Description


class PretrainedSource:
    """Gives the initial adapter, which leaves the pretrained model as it is, whatever the description."""

    name = "pretrained"
    stochastic = False

    def __init__(self, initial: Adapter) -> None:
        """Keep the adapter that every fine-tuning starts from (``Backbone.initial_adapter``)."""
        self._initial = initial

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the initial adapter."""
        return repeat_adapter(self._initial, self.name, description, n, seed)
