"""A pendulum swung up with little torque (gymnasium's Pendulum-v1) by shaping its energy (Åström & Furuta 2000)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_discrete_are

from wildbench.datasets.control.system import Actions, Context, ContextField, Floats, System

TIME, MOST_SPEED = 0.05, 8.0
LEVELS = np.array([-1.0, -0.4, -0.1, 0.0, 0.1, 0.4, 1.0])
"""Torques in units of the largest one: an action is one of them."""
CAPTURE = 2.0
"""The regulator takes over where it asks for at most so many times the largest torque."""
NEAR = 0.6
"""Radians from the top within which it may."""


def _start(draws: np.random.Generator, count: int) -> Floats:
    return draws.uniform([-np.pi, -1.0], [np.pi, 1.0], (count, 2))


def _wrapped(angle: Floats) -> Floats:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _observe(states: Floats) -> Floats:
    return np.stack([np.cos(states[:, 0]), np.sin(states[:, 0]), states[:, 1]], 1)


def advance(states: Floats, actions: Actions, context: Context) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """One step of 0.05 s; the reward is minus squared angle, speed and torque. No episode ends early."""
    angle, speed = states.T
    torque = LEVELS[actions] * context["max_torque"]
    reward = -(_wrapped(angle) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)
    gravity = 3 * context["g"] / (2 * context["l"]) * np.sin(angle)
    faster = speed + TIME * (gravity + 3 * torque / (context["m"] * context["l"] ** 2))
    faster = np.clip(faster, -MOST_SPEED, MOST_SPEED)
    return np.stack([angle + TIME * faster, faster], 1), reward, np.zeros(len(states), bool)


def _gains(context: Context) -> Floats:
    """Gains of the regulator at the top, for each context."""
    rows = []
    for g, m, length in zip(context["g"], context["m"], context["l"], strict=True):
        pull, push = 3 * g / (2 * length), 3 / (m * length**2)
        a = np.array([[1 + TIME**2 * pull, TIME], [TIME * pull, 1.0]])
        b = np.array([[TIME**2 * push], [TIME * push]])
        cost = solve_discrete_are(a, b, np.diag([1.0, 0.1]), np.array([[0.001]]))
        rows.append(np.linalg.solve(0.001 + b.T @ cost @ b, b.T @ cost @ a)[0])
    return np.array(rows)


def _law(states: Floats, context: Context, gains: Floats) -> Actions:
    """The regulator near the top, elsewhere torque along the speed while the energy is below that of the top."""
    angle, speed = _wrapped(states[:, 0]), states[:, 1]
    most = context["max_torque"]
    held = -(gains[:, 0] * angle + gains[:, 1] * speed)
    # Energy above that at rest on top, per mass and length squared.
    energy = speed**2 / 6 + context["g"] / (2 * context["l"]) * (np.cos(angle) - 1)
    direction = np.where(speed >= 0, 1.0, -1.0)
    shaped = -direction * most * np.clip(energy / (0.02 * context["g"] / context["l"]), -1, 1)
    near = (np.abs(angle) < NEAR) & (np.abs(held) < CAPTURE * most)
    torque = np.clip(np.where(near, held, shaped), -most, most)
    return np.asarray(np.abs(torque[:, None] - LEVELS * most[:, None]).argmin(1))


FIELDS = (
    ContextField("g", "m/s²", 4.0, 16.0),
    ContextField("m", "kg", 0.5, 1.5, hidden=True),
    ContextField("l", "m", 0.5, 1.5, hidden=True),
    ContextField("max_torque", "N m", 1.5, 4.0),
)
SCALE = (1.0, 1.0, 4.0)
PENDULUM = System("pendulum", "Pendulum-v1", FIELDS, len(LEVELS), SCALE, 200, _start, _observe, advance, _gains, _law)
