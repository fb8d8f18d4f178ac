"""A pole on a cart (Barto, Sutton & Anderson 1983; gymnasium's CartPole-v1), balanced by a quadratic regulator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_discrete_are

from wildbench.datasets.control.system import Actions, Context, ContextField, Floats, System

TIME, MOST_X, MOST_ANGLE = 0.02, 2.4, 12 * 2 * np.pi / 360
STATE_COST = np.diag([0.1, 0.1, 100.0, 1.0])
"""Weights of position, speed, angle and angular speed; the force weighs 0.01 newton to the minus two."""
START = np.array([1.0, 1.0, 0.1, 1.0])
"""Bounds of the states in which episodes begin: wider than gymnasium's ±0.05, from which almost any policy balances."""


def _start(draws: np.random.Generator, count: int) -> Floats:
    return draws.uniform(-START, START, (count, 4))


def advance(states: Floats, actions: Actions, context: Context) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """One step of 0.02 s by Euler's method; an episode ends where the pole or the cart leaves its bounds."""
    _, speed, angle, turning = states.T
    total = context["masscart"] + context["masspole"]
    moment = context["masspole"] * context["length"]
    push = np.where(actions == 1, 1.0, -1.0) * context["force_mag"] + moment * turning**2 * np.sin(angle)
    inertia = context["length"] * (4 / 3 - context["masspole"] * np.cos(angle) ** 2 / total)
    turned = (context["gravity"] * np.sin(angle) - np.cos(angle) * push / total) / inertia
    pushed = push / total - moment * turned * np.cos(angle) / total
    found = states + TIME * np.stack([speed, pushed, turning, turned], 1)
    ended = (np.abs(found[:, 0]) > MOST_X) | (np.abs(found[:, 2]) > MOST_ANGLE)
    return found, np.ones(len(found)), ended


def _gains(context: Context) -> Floats:
    """Gains of the regulator of the linearised dynamics, for each context."""
    rows = []
    for values in np.stack([context[field.name] for field in FIELDS], 1):
        own = dict(zip((field.name for field in FIELDS), values, strict=True))
        total = own["masscart"] + own["masspole"]
        inertia = own["length"] * (4 / 3 - own["masspole"] / total)
        share = own["masspole"] * own["length"] / total
        a, b = np.eye(4), np.zeros((4, 1))
        a[0, 1] = a[2, 3] = TIME
        a[3, 2] = TIME * own["gravity"] / inertia
        b[3, 0] = -TIME / (total * inertia)
        a[1, 2] = -share * a[3, 2]
        b[1, 0] = TIME / total - share * b[3, 0]
        cost = solve_discrete_are(a, b, STATE_COST, np.array([[0.01]]))
        rows.append(np.linalg.solve(0.01 + b.T @ cost @ b, b.T @ cost @ a)[0])
    return np.array(rows)


def _law(states: Floats, context: Context, gains: Floats) -> Actions:
    """The direction of the regulator's force: its size cannot be chosen."""
    return np.asarray((states * gains).sum(1) < 0, np.int64)


FIELDS = (
    ContextField("gravity", "m/s²", 5.0, 15.0),
    ContextField("masscart", "kg", 0.5, 2.0, hidden=True),
    ContextField("masspole", "kg", 0.05, 0.5, hidden=True),
    ContextField("length", "m", 0.3, 1.0),
    ContextField("force_mag", "N", 6.0, 16.0),
)
SCALE = (1.0, 1.0, 0.1, 1.0)
CARTPOLE = System(
    "cartpole", "CartPole-v1", FIELDS, 2, SCALE, 500, _start, lambda states: states, advance, _gains, _law
)
