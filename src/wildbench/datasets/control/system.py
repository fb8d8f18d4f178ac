"""A system to be controlled: its physical context, dynamics, and the controller that is computed from the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int64]
Context = Mapping[str, Floats]
"""Values of the context by name, each one number a row of states."""


@dataclass(frozen=True)
class ContextField:
    """One number of the context.

    Attributes:
        unit: for display.
        low, high: the range of the seen contexts.
        hidden: whether the description lacks it where the context is hidden.
    """

    name: str
    unit: str
    low: float
    high: float
    hidden: bool = False


@dataclass(frozen=True)
class System:
    """A system, vectorised over states ``[n, s]``; its dynamics are those of the environment of gymnasium of that name.

    Attributes:
        environment: name in gymnasium.
        actions: their number.
        scale: of each number of an observation; a policy's inputs are divided by it.
        steps: of an episode.
        start: draws states in which episodes begin.
        observe: states to observations ``[n, o]``.
        advance: states, actions and context to the next states, rewards and which episodes end with this step.
        gains: contexts ``[c]`` to the controller's parameters ``[c, k]``.
        law: states, context and the controller's parameters ``[n, k]`` to its actions.
    """

    name: str
    environment: str
    fields: tuple[ContextField, ...]
    actions: int
    scale: tuple[float, ...]
    steps: int
    start: Callable[[np.random.Generator, int], Floats]
    observe: Callable[[Floats], Floats]
    advance: Callable[[Floats, Actions, Context], tuple[Floats, Floats, npt.NDArray[np.bool_]]]
    gains: Callable[[Context], Floats]
    law: Callable[[Floats, Context, Floats], Actions]


Policy = Callable[[Floats], Actions]
"""States ``[n, s]`` to actions ``[n]``; row i is always the same episode."""


def repeated(context: Mapping[str, float] | Context, rows: int) -> dict[str, Floats]:
    """A context for every row; several contexts have consecutive rows each."""
    each = {name: np.atleast_1d(np.asarray(values, np.float64)) for name, values in context.items()}
    return {name: np.repeat(values, rows // len(values)) for name, values in each.items()}


def returns(system: System, states: Floats, context: Context, policy: Policy) -> Floats:
    """Undiscounted returns ``[n]`` of episodes from these states."""
    total, running = np.zeros(len(states)), np.ones(len(states), bool)
    for _ in range(system.steps):
        states, rewards, ended = system.advance(states, policy(states), context)
        total += np.where(running, rewards, 0.0)
        running &= ~ended
        if not running.any():
            break
    return total
