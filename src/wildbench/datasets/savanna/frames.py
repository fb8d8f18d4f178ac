"""Frames: everything that differs from picture to picture at one camera, drawn before any pixel is."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.locations import Location

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

NOISE_SIZE = 512
"""Side of the shared field of sensor noise; a frame has its own window into it."""


@dataclass(frozen=True)
class Frames:
    """The parameters of ``n`` frames; every attribute is an array ``[n]``.

    Attributes:
        label: class index, blank last.
        night: an infrared frame.
        hour: local time, 0 to 24.
        brightness: factor on the light. warmth: log ratio of red to blue of the time of day.
        ambient_warm, ambient_tone: light on the scene but not on the animal, in log units.
        distance: relative size, 1 near. across: the feet's position, 0 to 1 over the width.
        facing: 1 right, -1 left. phase: of the walk. bow: head lowered, 0 to 1. tilt: rotation in radians.
        coat: position on the coat's axis. lightness: the individual's tone in log units.
        wind: which of the scene's three phases of swaying. noise_row, noise_column: window of sensor noise.
    """

    label: Integers
    night: npt.NDArray[np.bool_]
    hour: Floats
    brightness: Floats
    warmth: Floats
    ambient_warm: Floats
    ambient_tone: Floats
    distance: Floats
    across: Floats
    facing: Floats
    phase: Floats
    bow: Floats
    tilt: Floats
    coat: Floats
    lightness: Floats
    wind: Integers
    noise_row: Integers
    noise_column: Integers

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: npt.NDArray[np.integer]) -> Frames:
        """The frames of an index array, in its order."""
        return Frames(**{entry.name: getattr(self, entry.name)[index] for entry in fields(self)})


def _coats(location: Location, label: Integers, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Position of each animal on its coat's axis: the pairs at +c and -c, the easy species at 0."""
    centre = np.zeros(len(world.CLASSES))
    for (first, second), position in zip(world.CLINE_PAIRS, location.cline, strict=True):
        centre[first], centre[second] = position, -position
    for first, second in world.LIGHT_PAIRS:
        centre[first], centre[second] = 1.0, -1.0
    return np.asarray(centre[label] + world.COAT_NOISE * noise)


def draw_frames(
    location: Location,
    rng: np.random.Generator,
    n: int,
    labels: Integers | None = None,
    *,
    night: npt.NDArray[np.bool_] | None = None,
) -> Frames:
    """Draw ``n`` frames of a camera.

    Args:
        location: gives the class prior, the infrared share and the coats.
        rng: the source of all draws.
        n: number of frames.
        labels: fixed class indices ``[n]`` instead of draws from the prior.
        night: fixed infrared flags ``[n]`` instead of draws by the infrared share and the species' habits.
    """
    if labels is None:
        labels = rng.choice(len(world.CLASSES), size=n, p=location.prior)
    labels = np.asarray(labels, dtype=np.int64)
    habits = np.array([*(entry.nocturnal for entry in world.SPECIES), 0.0])[labels]
    share = np.clip(location.night_share, 0.01, 0.99)
    chance = 1 / (1 + np.exp(-(np.log(share / (1 - share)) + habits)))
    drawn_night = rng.random(n) < chance
    night = drawn_night if night is None else np.asarray(night, dtype=np.bool_)
    day_hour = 6.2 + 11.6 * rng.random(n)
    night_hour = (18.5 + 11.0 * rng.random(n)) % 24
    sun = np.sin(np.pi * (day_hour - 6.0) / 12.0)
    jitter = world.LIGHT_COAT * world.AMBIENT_JITTER
    nearest, farthest = world.DISTANCE_RANGE[1], world.DISTANCE_RANGE[0]
    drawn = {
        "hour": np.where(night, night_hour, day_hour),
        "brightness": np.where(night, 1.0, 0.72 + 0.33 * sun) * np.exp(0.07 * rng.standard_normal(n)),
        "warmth": np.where(night, 0.0, 0.16 * (1 - sun) ** 2),
        "ambient_warm": jitter * rng.standard_normal(n),
        "ambient_tone": jitter * rng.standard_normal(n),
        "distance": farthest + (nearest - farthest) * rng.beta(1.5, 1.7, n),
        "across": rng.uniform(0.04, 0.96, n),
        "facing": rng.choice([-1.0, 1.0], n),
        "phase": rng.uniform(0, 2 * np.pi, n),
        "bow": np.where(rng.random(n) < 0.35, rng.uniform(0.6, 1.0, n), rng.uniform(0.0, 0.25, n)),
        "tilt": 0.07 * rng.standard_normal(n),
        "coat": _coats(location, labels, rng.standard_normal(n)),
        "lightness": 0.07 * rng.standard_normal(n),
    }
    return Frames(
        label=labels,
        night=night,
        wind=rng.integers(3, size=n),
        noise_row=rng.integers(NOISE_SIZE, size=n),
        noise_column=rng.integers(NOISE_SIZE, size=n),
        **{name: values.astype(np.float32) for name, values in drawn.items()},
    )
