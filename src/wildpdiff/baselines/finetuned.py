"""The reference: the adapter that was fine-tuned on the task's own labels."""

from __future__ import annotations

from collections.abc import Mapping

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import repeat_adapter
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description


class FinetunedSource:
    """Gives the adapter fine-tuned on the task named in the description. It has seen labels; the others have not."""

    name = "fine-tuned"
    stochastic = False

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        """Keep one fine-tuned adapter for each task's name."""
        self._adapters = dict(adapters)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the task's own adapter.

        Raises:
            DescriptionError: the description names no task, or one that was not fine-tuned.
        """
        description.require_any(["task_id"])
        name = str(description.task_id)
        if name not in self._adapters:
            raise DescriptionError(
                f"There is no fine-tuned adapter for task {name!r}; there are {len(self._adapters)}, for example "
                f"{next(iter(self._adapters), 'none')!r}. Fine-tune the task first, or use another source."
            )
        return repeat_adapter(self._adapters[name], self.name, description, n, seed)
