"""Two links swung up by a torque between them (Sutton 1996; gymnasium's Acrobot-v1), by a law found for the context."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wildbench.datasets.control.system import Actions, Context, ContextField, Floats, System, repeated, returns
from wildpdiff.rng import numpy_generator

TIME, GRAVITY, INERTIA = 0.2, 9.8, 1.0
MOST_SPEEDS = np.array([4 * np.pi, 9 * np.pi])
TERMS = 5
POPULATION, ELITE, ROUNDS, STARTS = 24, 5, 8, 4
"""Of the cross-entropy method that finds the law."""


def _start(draws: np.random.Generator, count: int) -> Floats:
    return draws.uniform(-0.1, 0.1, (count, 4))


def _observe(states: Floats) -> Floats:
    first, second, *speeds = states.T
    return np.stack([np.cos(first), np.sin(first), np.cos(second), np.sin(second), *speeds], 1)


def _derivative(states: Floats, torque: Floats, context: Context) -> Floats:
    """Of the state by time, the equations of the book of Sutton and Barto."""
    first, second, speed1, speed2 = states.T
    m1, m2 = context["mass_1"], context["mass_2"]
    l1, c1, c2 = context["length_1"], context["center_1"], context["center_2"]
    cosine, sine = np.cos(second), np.sin(second)
    d1 = m1 * c1**2 + m2 * (l1**2 + c2**2 + 2 * l1 * c2 * cosine) + 2 * INERTIA
    d2 = m2 * (c2**2 + l1 * c2 * cosine) + INERTIA
    pull2 = m2 * c2 * GRAVITY * np.sin(first + second)
    pull1 = (
        -m2 * l1 * c2 * sine * speed2 * (speed2 + 2 * speed1) + (m1 * c1 + m2 * l1) * GRAVITY * np.sin(first) + pull2
    )
    turned2 = torque + d2 / d1 * pull1 - m2 * l1 * c2 * speed1**2 * sine - pull2
    turned2 = turned2 / (m2 * c2**2 + INERTIA - d2**2 / d1)
    return np.stack([speed1, speed2, -(d2 * turned2 + pull1) / d1, turned2], 1)


def advance(states: Floats, actions: Actions, context: Context) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """One step of 0.2 s by Runge and Kutta's method; the reward is -1 until the tip is above the bar."""
    torque = (actions - 1.0) * context["torque"]
    k1 = _derivative(states, torque, context)
    k2 = _derivative(states + TIME / 2 * k1, torque, context)
    k3 = _derivative(states + TIME / 2 * k2, torque, context)
    k4 = _derivative(states + TIME * k3, torque, context)
    found = states + TIME / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    angles = (found[:, :2] + np.pi) % (2 * np.pi) - np.pi
    found = np.concatenate([angles, np.clip(found[:, 2:], -MOST_SPEEDS, MOST_SPEEDS)], 1)
    ended = -np.cos(found[:, 0]) - np.cos(found[:, 0] + found[:, 1]) > 1
    return found, np.where(ended, 0.0, -1.0), ended


def _law(states: Floats, context: Context, gains: Floats) -> Actions:
    """Torque along a weighted sum of both speeds and three sines of the angles."""
    first, second, speed1, speed2 = states.T
    terms = np.stack([speed1, speed2, np.sin(first), np.sin(second), np.sin(first + second)], 1)
    return np.where((terms * gains).sum(1) >= 0, 2, 0)


def _gains(context: Context) -> Floats:
    """Weights of the law with the highest mean return in a context, by the cross-entropy method (Rubinstein 1999)."""
    draws = numpy_generator(0, "acrobot", "law")
    contexts = len(next(iter(context.values())))
    mean = np.tile(np.array([0.0, 1.0, 0.0, 0.0, 0.0]), (contexts, 1))
    spread = np.ones((contexts, TERMS))
    own = repeated(context, contexts * POPULATION * STARTS)
    for _ in range(ROUNDS):
        tried = mean[:, None] + spread[:, None] * draws.standard_normal((contexts, POPULATION, TERMS))
        tried[:, 0] = mean
        gains = np.repeat(tried.reshape(-1, TERMS), STARTS, axis=0)
        states = np.tile(_start(draws, STARTS), (contexts * POPULATION, 1))
        scores = returns(ACROBOT, states, own, lambda now, gains=gains: _law(now, own, gains))  # type: ignore[misc]
        best = (-scores.reshape(contexts, POPULATION, STARTS).mean(2)).argsort(1)[:, :ELITE, None]
        elite = np.take_along_axis(tried, best, 1)
        mean, spread = elite.mean(1), elite.std(1) + 0.05
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


FIELDS = (
    ContextField("length_1", "m", 0.6, 1.4),
    ContextField("mass_1", "kg", 0.6, 1.6, hidden=True),
    ContextField("mass_2", "kg", 0.6, 1.6, hidden=True),
    ContextField("center_1", "m", 0.3, 0.7),
    ContextField("center_2", "m", 0.3, 0.7),
    ContextField("torque", "N m", 0.8, 2.0),
)
SCALE = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0)
ACROBOT = System("acrobot", "Acrobot-v1", FIELDS, 3, SCALE, 300, _start, _observe, advance, _gains, _law)
