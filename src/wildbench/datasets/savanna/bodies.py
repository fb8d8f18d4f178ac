"""Bodies: from proportions and pose to the tapered capsules that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wildbench.datasets.savanna.world import SPECIES

Array = npt.NDArray[np.floating[Any]]

FAR, BODY, ACCENT, EYE = 0, 1, 2, 3
"""Roles of a part, in the order of painting: far limbs (darker), the coat, accents (horns, beak), the eye."""

_FIELDS = tuple(SPECIES[0].plan.__dataclass_fields__)
_PLANS = {name: np.array([float(getattr(entry.plan, name)) for entry in SPECIES], dtype=np.float32) for name in _FIELDS}
_QUADRUPED = (FAR,) * 4 + (BODY,) * 11 + (ACCENT,) * 2 + (EYE,)
_BIRD = (FAR,) * 2 + (BODY,) * 6 + (ACCENT,) * 2 + (EYE,)


def part_roles(bird: bool) -> tuple[int, ...]:
    """The role of each part, in the order of :func:`body_parts`."""
    return _BIRD if bird else _QUADRUPED


def trunk_height(species: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Height of the trunk's axis above the feet in trunk lengths, ``float32 [n]``."""
    return np.asarray(_PLANS["leg"][species] + 0.6 * _PLANS["rear"][species], dtype=np.float32)


def _along(x: Array, y: Array, length: Array, degrees: Array) -> list[Array]:
    angle = np.deg2rad(degrees)
    return [x, y, x + length * np.cos(angle), y + length * np.sin(angle)]


def _stack(parts: Sequence[Sequence[Array | float]], n: int) -> npt.NDArray[np.float32]:
    rows = [[np.broadcast_to(np.asarray(value, dtype=np.float32), (n,)) for value in part] for part in parts]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)


def body_parts(species: npt.NDArray[np.int64], phase: Array, bow: Array, bird: bool) -> npt.NDArray[np.float32]:
    """The tapered capsules of a batch of animals of one family, ``float32 [n, parts, 6]``.

    A capsule is ``(x0, y0, x1, y1, radius0, radius1)`` in trunk lengths: x along the walk, y up, the feet on
    y = 0. A radius of at most 0 hides the part.

    Args:
        species: species indices, ``[n]``, all birds or all four-legged.
        phase: walking phase in radians, ``[n]``.
        bow: how far the head is lowered, 0 (up) to 1 (to the ground), ``[n]``.
        bird: the family.
    """
    plan = {name: values[species] for name, values in _PLANS.items()}
    return _bird(plan, phase, bow, len(species)) if bird else _quadruped(plan, phase, bow, len(species))


def _leg(x: Array, y: Array, plan: dict[str, Array], swing: Array, *, bend: float) -> list[list[Array | float]]:
    radius = plan["leg_radius"]
    foot = x + 0.38 * plan["leg"] * swing
    knee_x, knee_y = 0.55 * x + 0.45 * foot + bend * plan["leg"], 0.5 * y
    return [[x, y, knee_x, knee_y, radius * 1.5, radius], [knee_x, knee_y, foot, radius, radius, radius * 0.85]]


def _head(plan: dict[str, Array], x: Array, y: Array, angle: Array) -> list[Array]:
    return [*_along(x, y, plan["head"], angle), plan["head_radius"], plan["snout"]]


def _quadruped(plan: dict[str, Array], phase: Array, bow: Array, n: int) -> npt.NDArray[np.float32]:
    height = plan["leg"] + 0.6 * plan["rear"]
    hip_x, hip_y = -0.5 + 0.8 * plan["rear"], height
    shoulder_x, shoulder_y = 0.5 - 0.8 * plan["front"], height + plan["slope"]
    swing = np.sin(phase)
    far_hind, far_fore = (
        _leg(hip_x, hip_y, plan, -swing, bend=-0.06),
        _leg(shoulder_x, shoulder_y, plan, swing, bend=0.0),
    )
    hind, fore = (
        _leg(hip_x - 0.05, hip_y, plan, swing, bend=-0.06),
        _leg(shoulder_x + 0.03, shoulder_y, plan, -swing, bend=0.0),
    )
    # A short neck cannot bring the head to the ground, so it bows less.
    drop = bow * np.minimum(95.0, 60.0 + 80.0 * plan["neck"])
    neck = _along(
        shoulder_x + 0.4 * plan["front"], shoulder_y + 0.3 * plan["front"], plan["neck"], plan["neck_angle"] - drop
    )
    head_angle = plan["head_angle"] - 0.4 * drop * (plan["neck"] > 0.15)
    head = _head(plan, neck[2], neck[3], head_angle)
    nose_x, nose_y = head[2], head[3]
    crown_x, crown_y = neck[2], neck[3] + 0.7 * plan["head_radius"]
    ear_angle = np.where(plan["ear"] > 0.25, 225.0, 128.0 - 0.5 * drop).astype(np.float32)
    ear = _along(crown_x, crown_y, plan["ear"], ear_angle)
    horn = _along(crown_x + 0.02, crown_y, plan["horn"] * 0.6, plan["horn_angle"] - 0.5 * drop)
    tip = _along(horn[2], horn[3], plan["horn"] * 0.5, plan["horn_angle"] + plan["horn_curve"] - 0.5 * drop)
    tail = _along(hip_x - 0.7 * plan["rear"], hip_y + 0.3 * plan["rear"], plan["tail"], plan["tail_angle"] + 8 * swing)
    trunk_y = np.maximum(nose_y - plan["proboscis"], 0.06)
    horn_radius = np.where(plan["horn"] > 0, 0.024, -1.0).astype(np.float32)
    nose_radius = np.where(plan["proboscis"] > 0, 0.085, -1.0).astype(np.float32)
    crest = np.where(plan["crest"] > 0, plan["crest"], -1.0).astype(np.float32)
    quills = plan["crest"] > 0.2
    withers = shoulder_y + 0.6 * plan["front"]
    crest_line = [
        np.where(quills, -0.35, shoulder_x + 0.3 * plan["front"]),
        np.where(quills, height + 0.05, withers),
        np.where(quills, 0.15, neck[2] - 0.04),
        np.where(quills, height + 0.12, neck[3] + 0.05),
    ]
    ear_radius = np.where(plan["ear"] > 0, np.where(plan["ear"] > 0.25, 0.15, 0.035), -1.0).astype(np.float32)
    return _stack(
        [
            *far_hind, *far_fore, *hind, *fore,
            [hip_x, hip_y, shoulder_x, shoulder_y, plan["rear"], plan["front"]],
            [*neck, np.maximum(plan["neck_radius"] * 1.35, 0), plan["neck_radius"]],
            head,
            [*tail, np.maximum(plan["tail_radius"], 0.02), plan["tail_radius"] * 0.4 + 0.008],
            [*ear, ear_radius, ear_radius * 0.7],
            [nose_x - 0.03, nose_y, nose_x + 0.05, trunk_y, nose_radius, nose_radius * 0.6],
            [*crest_line, crest, crest * 0.8],
            [*horn, horn_radius, horn_radius * 0.9],
            [*tip, horn_radius * 0.9, horn_radius * 0.5],
            _eye(neck, nose_x, nose_y, plan),
        ],
        n,
    )  # fmt: skip


def _eye(neck: list[Array], nose_x: Array, nose_y: Array, plan: dict[str, Array]) -> list[Array | float]:
    x, y = 0.7 * neck[2] + 0.3 * nose_x, 0.7 * neck[3] + 0.3 * nose_y + 0.25 * plan["head_radius"]
    return [x, y, x + 0.001, y, 0.028, 0.028]


def _bird(plan: dict[str, Array], phase: Array, bow: Array, n: int) -> npt.NDArray[np.float32]:
    height = plan["leg"] + 0.6 * plan["rear"]
    swing = np.sin(phase)
    zero = np.zeros_like(height)
    far = _leg(zero, height, plan, swing, bend=0.05)
    near = _leg(zero - 0.04, height, plan, -swing, bend=0.05)
    chest_x, chest_y = zero + 0.26, height + plan["slope"]
    neck = _along(chest_x, chest_y + 0.05, plan["neck"], plan["neck_angle"] - 105.0 * bow)
    head = _head(plan, neck[2], neck[3] + 0.02, -10.0 - 35.0 * bow)
    nose_x, nose_y = head[2], head[3]
    tail = _along(-0.28 + zero, height + 0.06, plan["tail"], 172.0 + zero)
    crest = _along(neck[2], neck[3] + 0.05, 0.14 + zero, 165.0 - 60.0 * bow)
    return _stack(
        [
            *far,
            [-0.24 + zero, height, chest_x, chest_y, plan["rear"], plan["front"]],
            [*neck, plan["neck_radius"] * 1.5, plan["neck_radius"]],
            head,
            [*tail, 0.11, 0.05],
            *near,
            [nose_x - 0.02, nose_y, nose_x + 0.10, nose_y - 0.03, 0.025, 0.012],
            [*crest, 0.022, 0.012],
            _eye(neck, nose_x, nose_y, plan),
        ],
        n,
    )
