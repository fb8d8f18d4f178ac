"""Baselines without regression: the pretrained model, the mean adapter, and the task's own fine-tuned adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description


class PretrainedSource:
    """The initial adapter (``Backbone.initial_adapter``), which leaves the pretrained model as it is: the floor."""

    name = "pretrained"
    stochastic = False

    def __init__(self, initial: Adapter) -> None:
        self._initial = initial

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the initial adapter."""
        return repeat_adapter(self._initial, self.name, description, n=n, seed=seed)


class MeanSource:
    """The mean of all seen adapters (a uniform soup, Wortsman et al. 2022), whatever the description.

    The factors A and B are averaged separately. That is meaningful because all adapters of a zoo start from one
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
        return repeat_adapter(self._mean, self.name, description, n=n, seed=seed)


class FinetunedSource:
    """The adapter fine-tuned on the labels of the named task: the reference, the only source that has seen them."""

    name = "fine-tuned"
    stochastic = False

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        """``adapters`` are fine-tuned ones by the task's name."""
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
        return repeat_adapter(self._adapters[name], self.name, description, n=n, seed=seed)
