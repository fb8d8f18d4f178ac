"""Animals: silhouettes and coats of many animals at once, in small tiles around each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.bodies import ACCENT, EYE, FAR, body_parts, part_roles, trunk_height
from wildbench.datasets.savanna.frames import Frames
from wildbench.datasets.savanna.locations import Location
from wildbench.datasets.savanna.scene import INFRARED
from wildbench.datasets.savanna.shapes import capsule_distance, coverage

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_TILES = (0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Sides of the square tiles in which animals are drawn, as shares of the image."""

IS_BIRD = np.array([*(entry.plan.bird for entry in world.SPECIES), False])
_LENGTH = np.array([entry.plan.length for entry in world.SPECIES], dtype=np.float32)
_PRIMARY = np.array([entry.coat.primary for entry in world.SPECIES], dtype=np.float32)
_SECONDARY = np.array([entry.coat.secondary for entry in world.SPECIES], dtype=np.float32)
_STRENGTH = np.array([entry.coat.strength for entry in world.SPECIES], dtype=np.float32)
_AXIS = np.array([entry.coat.axis for entry in world.SPECIES])
_PATTERN = np.array([entry.coat.pattern for entry in world.SPECIES])
_REAR = np.array([entry.plan.rear for entry in world.SPECIES], dtype=np.float32)
_ACCENT_COLOUR = np.array([0.16, 0.14, 0.13], dtype=np.float32)
_BEAK_COLOUR = np.array([0.70, 0.48, 0.25], dtype=np.float32)


@dataclass(frozen=True)
class Placement:
    """Positions of ``n`` animals of one family in their images.

    Attributes:
        parts: capsules in pixels of the image, ``[n, parts, 6]``.
        origin: the feet's position in pixels, ``[n, 2]`` (x, y).
        unit: pixels per trunk length, ``[n]``.
        box: pixels covered, clipped to the image, ``[n, 4]`` (left, top, right, bottom).
    """

    parts: Array
    origin: Array
    unit: Array
    box: Integers


def position_animals(location: Location, frames: Frames, size: int) -> Placement:
    """Pose the animals of frames of one family (all birds or none) and put them on the ground."""
    species = frames.label
    local = body_parts(species, frames.phase, frames.bow, bool(IS_BIRD[species[0]]))
    unit = (_LENGTH[species] * np.float32(location.scale) * frames.distance * np.float32(size)).astype(np.float32)
    ground = location.horizon + 0.03 + (1.0 - location.horizon) * 0.90 * (frames.distance - 0.34) / 1.12
    origin = np.stack([frames.across, ground], axis=-1).astype(np.float32) * np.float32(size)
    sine, cosine = np.sin(frames.tilt)[:, None], np.cos(frames.tilt)[:, None]
    parts = np.empty_like(local)
    for start in (0, 2):
        x, y = local[..., start] * frames.facing[:, None], local[..., start + 1]
        parts[..., start] = origin[:, :1] + unit[:, None] * (x * cosine - y * sine)
        parts[..., start + 1] = origin[:, 1:] - unit[:, None] * (x * sine + y * cosine)
    parts[..., 4:] = local[..., 4:] * unit[:, None, None]
    reach = np.maximum(parts[..., 4], parts[..., 5]) + 1.0
    sides = []
    for axis in (0, 1):
        low, high = (
            np.minimum(parts[..., axis], parts[..., axis + 2]),
            np.maximum(parts[..., axis], parts[..., axis + 2]),
        )
        hidden = reach <= 1.0
        sides.append(np.floor(np.where(hidden, np.inf, low - reach).min(axis=1)))
        sides.append(np.ceil(np.where(hidden, -np.inf, high + reach).max(axis=1)))
    left, right, top, bottom = (np.clip(side, 0, size).astype(np.int64) for side in sides)
    return Placement(parts, origin, unit, np.stack([left, top, right, bottom], axis=-1))


def tile_sides(box: Integers, size: int) -> Integers:
    """The side of the smallest tile that holds each box, in pixels, ``[n]``."""
    ladder = np.array([min(size, round(share * size)) for share in _TILES])
    needed = np.maximum(np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]), 1)
    return np.asarray(ladder[np.searchsorted(ladder, needed)])


def _pattern(kind: str, u: Array, v: Array) -> Array:
    """The share of the second colour at body coordinates: u along the trunk, v up from its axis, in radii."""
    if kind == "stripes":
        wave = np.sin(np.float32(21.0) * u + np.float32(1.2) * v)
        return np.asarray(np.clip(0.5 + 1.6 * wave, 0, 1))
    if kind == "spots":
        wave = np.cos(np.float32(15.0) * (u + 0.22 * v)) * np.cos(np.float32(4.2) * v - np.float32(5.0) * u)
        return np.asarray(np.clip(3.0 * (wave - 0.12), 0, 1))
    if kind == "patches":
        wave = np.abs(
            np.cos(np.float32(9.0) * u + np.float32(0.8) * v) * np.cos(np.float32(2.0) * v - np.float32(3.0) * u)
        )
        return np.asarray(np.clip(4.0 * (wave - 0.22), 0, 1))
    if kind == "band":
        return np.asarray(np.clip(2.2 - 4.0 * np.abs(v + 0.15), 0, 1) * np.clip(6.0 * (0.55 - np.abs(u)), 0, 1))
    if kind == "mantle":
        return np.asarray(np.clip(0.5 + 2.2 * v, 0, 1))
    if kind == "quills":
        wave = np.sin(np.float32(30.0) * (u + np.float32(0.30) * v))
        return np.asarray(np.clip(0.4 + 1.5 * wave, 0, 1) * np.clip(1.2 * v + 0.3, 0, 1) * (u < 0.25))
    if kind == "scales":
        wave = np.sin(np.float32(17.0) * u) * np.sin(np.float32(3.0) * v)
        return np.asarray(np.clip(0.3 + 1.2 * wave, 0, 1))
    return np.zeros_like(u)


def _pattern_amount(frames: Frames) -> tuple[Array, Array]:
    """Strength of the pattern at the top and at the bottom of the mantle, ``[n]`` each."""
    axis = _AXIS[frames.label]
    along = np.clip(0.5 + 0.5 * frames.coat, 0, 1)
    drawn = np.where(np.isin(axis, ("band", "stripes", "spots", "mantle")), along, _STRENGTH[frames.label])
    # A mantle turns upside down along its axis instead of fading: dark above, or dark below.
    return drawn.astype(np.float32), np.where(axis == "mantle", 1 - along, 0).astype(np.float32)


def _tones(frames: Frames, colours: Array) -> Array:
    """Coat colours ``[n, 3]`` with each animal's own tone and the hue and tone of the light pairs."""
    axis = _AXIS[frames.label]
    shift = np.float32(world.LIGHT_COAT) * frames.coat
    log = np.repeat(frames.lightness[:, None], 3, axis=1)
    log += np.where(axis == "warm", shift, 0)[:, None] * np.array([1, 0, -1], dtype=np.float32)
    log += np.where(axis == "tone", shift, 0)[:, None]
    return np.asarray(colours * np.exp(log), dtype=np.float32)


def _in_light(colours: Array, infrared: bool) -> Array:
    """Colours ``[n, 3]`` by day, or their infrared reflectance ``[n, 1]`` with more contrast."""
    if not infrared:
        return colours
    gray = np.maximum(colours @ INFRARED, 0.01)
    return np.asarray(0.45 * (gray / 0.45) ** 1.2, dtype=np.float32)[:, None]


def paint_tiles(
    canvas: Array, frames: Frames, placement: Placement, light: Array, *, side: int, infrared: bool
) -> None:
    """Paint the animals of one family whose tiles have ``side`` pixels onto ``canvas [n, c, s, s]``.

    ``light [n, c]`` multiplies the coat's colours. Frames must be sorted by label.
    """
    n, channels, size = canvas.shape[:3]
    left = np.minimum(placement.box[:, 0], size - side)
    top = np.minimum(placement.box[:, 1], size - side)
    step = np.arange(side, dtype=np.float32) + np.float32(0.5)
    x = (left[:, None, None] + np.broadcast_to(step, (1, side, side))).reshape(n, -1).astype(np.float32)
    y = (top[:, None, None] + np.broadcast_to(step[:, None], (1, side, side))).reshape(n, -1).astype(np.float32)
    mix, height = _coat_mix(frames, placement, x, y)
    colour = _colours(frames, mix, height, light, infrared=infrared)
    species = frames.label
    far, body = np.full_like(x, 1e3), np.full_like(x, 1e3)
    accents = []
    for index, role in enumerate(part_roles(bool(IS_BIRD[species[0]]))):
        x0, y0, x1, y1, radius0, radius1 = (placement.parts[:, index, k, None] for k in range(6))
        if not (radius0 > 0).any():
            continue
        distance = capsule_distance(x, y, (x0, y0, x1, y1, radius0, radius1))
        if role == FAR:
            np.minimum(far, distance, out=far)
        elif role == EYE:
            accents.append((coverage(distance), _eye_colour(n, light, infrared)))
        elif role == ACCENT:
            accents.append((coverage(distance), _accent_colour(species, light, infrared)))
        else:
            np.minimum(body, distance, out=body)
    inside = coverage(body)
    alpha = np.maximum(inside, coverage(far))
    # Far limbs take the coat too, in the shade of the body.
    colour *= (np.float32(0.62) + np.float32(0.38) * inside)[:, None]
    for cover, tint in accents:
        colour += cover[:, None] * (tint[:, :, None] - colour)
        alpha = np.maximum(alpha, cover)
    alpha = alpha.reshape(n, 1, side, side)
    colour = colour.reshape(n, channels, side, side)
    for i in range(n):
        tile = canvas[i, :, top[i] : top[i] + side, left[i] : left[i] + side]
        tile += alpha[i] * (colour[i] - tile)


def _coat_mix(frames: Frames, placement: Placement, x: Array, y: Array) -> tuple[Array, Array]:
    """Share of the coat's second colour at the points, and their height over the trunk's axis in radii."""
    inverse = np.float32(1) / placement.unit[:, None]
    sine, cosine = np.sin(frames.tilt)[:, None] * inverse, np.cos(frames.tilt)[:, None] * inverse
    dx, dy = x - placement.origin[:, :1], placement.origin[:, 1:] - y
    u: Array = (dx * cosine + dy * sine) * frames.facing[:, None]
    v: Array = dy * cosine - dx * sine
    v -= trunk_height(frames.label)[:, None]
    v *= np.float32(1) / _REAR[frames.label][:, None]
    above, below = _pattern_amount(frames)
    mix = np.empty_like(u)
    edges = np.flatnonzero(np.diff(frames.label, prepend=-1, append=-1))
    for start, stop in pairwise(edges):
        here = slice(int(start), int(stop))
        pattern = _pattern(str(_PATTERN[frames.label[start]]), u[here], v[here])
        mix[here] = above[here, None] * pattern + below[here, None] * (1 - pattern)
    return mix, v.astype(np.float32, copy=False)


def _colours(frames: Frames, mix: Array, height: Array, light: Array, *, infrared: bool) -> Array:
    """Lit coat colours at the points, ``[n, c, points]``."""
    primary = _in_light(_tones(frames, _PRIMARY[frames.label]), infrared) * light
    secondary = _in_light(_tones(frames, _SECONDARY[frames.label]), infrared) * light
    shade = np.clip(np.float32(0.93) + np.float32(0.13) * height, 0.68, 1.12)
    colour = mix[:, None] * (secondary - primary)[:, :, None]
    colour += primary[:, :, None]
    colour *= shade[:, None]
    return colour


def _accent_colour(species: Integers, light: Array, infrared: bool) -> Array:
    tints = np.where(IS_BIRD[species][:, None], _BEAK_COLOUR, _ACCENT_COLOUR)
    return np.asarray(_in_light(tints, infrared) * light, dtype=np.float32)


def _eye_colour(n: int, light: Array, infrared: bool) -> Array:
    # The retina throws the flash back: eyes shine whatever the distance.
    if infrared:
        return np.full((n, 1), 1.1, dtype=np.float32)
    return np.asarray(np.full((n, 3), 0.06, dtype=np.float32) * light, dtype=np.float32)
