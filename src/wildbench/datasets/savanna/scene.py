"""The scene before a camera: the same ground, trees and rocks in all its frames, in three phases of the wind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.locations import Location
from wildbench.datasets.savanna.shapes import capsule_distance, coverage
from wildpdiff.rng import numpy_generator

Array = npt.NDArray[np.float32]

INFRARED = np.array([0.75, 0.35, -0.10], dtype=np.float32)
"""Weights of red, green and blue reflectance in infrared light: red surfaces are bright in it."""


@dataclass(frozen=True)
class Layers:
    """A scene in one kind of light, with ``c`` channels (3 by day, 1 in infrared).

    Attributes:
        back: what is behind the animals, ``[3, c, s, s]``, by phase of the wind.
        front: colour of what is before them, ``[3, c, s, s]``.
        front_alpha: its opacity, ``[3, 1, s, s]``.
    """

    back: Array
    front: Array
    front_alpha: Array


@dataclass(frozen=True)
class Scene:
    """A camera's scene by day and in infrared light."""

    day: Layers
    night: Layers


def _smooth_noise(rng: np.random.Generator, cells: int, size: int) -> Array:
    """Noise of about unit spread, bilinear between ``cells`` draws a side: the same field at every size."""
    grid = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    position = (np.arange(size, dtype=np.float32) + 0.5) / size * cells
    low = np.minimum(position.astype(np.int64), cells - 1)
    share = (position - low).astype(np.float32)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, low + 1] * share, dtype=np.float32)


class _Painter:
    """A canvas in pixels on which shapes given in shares of its side are painted."""

    def __init__(self, size: int, channels: int) -> None:
        self.size = size
        self.canvas = np.zeros((channels, size, size), dtype=np.float32)
        self.alpha = np.zeros((size, size), dtype=np.float32)
        axis = np.arange(size, dtype=np.float32) + np.float32(0.5)
        self.x, self.y = np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))

    def distance(self, *part: float) -> Array:
        """Distance in pixels to a capsule given in shares of the side."""
        x0, y0, x1, y1, radius0, radius1 = (np.float32(value * self.size) for value in part)
        return capsule_distance(self.x, self.y, (x0, y0, x1, y1, radius0, radius1))

    def paint(self, alpha: Array, colour: Array) -> None:
        """Lay a colour ``[c]`` or ``[c, s, s]`` over the canvas."""
        tint = colour if colour.ndim == 3 else colour[:, None, None]
        self.canvas += alpha * (tint - self.canvas)
        self.alpha += alpha * (1 - self.alpha)


def _colour(*rgb: float) -> Array:
    return np.array(rgb, dtype=np.float32)


def _ground(painter: _Painter, rng: np.random.Generator, location: Location) -> None:
    size, horizon = painter.size, location.horizon
    y = painter.y / size
    coarse, fine, grain = (_smooth_noise(rng, cells, size) for cells in (6, 14, 40))
    sky = _colour(0.60, 0.68, 0.74)[:, None, None] + (y / horizon * 0.12)[None]
    painter.paint(np.ones_like(y), sky.astype(np.float32))
    ridge = horizon - 0.035 - 0.03 * _smooth_noise(rng, 5, size)[0]
    hills = np.clip((y - ridge[None, :]) * size + 0.5, 0, 1).astype(np.float32)
    painter.paint(hills, _colour(0.44, 0.49, 0.47))
    habitat = world.HABITATS[location.habitat]
    green = 1 / (1 + np.exp(-(1.7 * location.lushness + 0.6 * coarse + 0.35 * fine)))
    dry = _colour(0.60, 0.51, 0.32) if habitat.grass > 0.6 else _colour(0.56, 0.44, 0.31)
    ground = dry[:, None, None] + green * (_colour(0.31, 0.40, 0.19) - dry)[:, None, None]
    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    texture = 1 + (0.05 + 0.08 * depth) * (0.7 * fine + 0.9 * grain) * (0.6 + 0.6 * habitat.grass)
    lit = 1.02 - 0.16 * depth
    below = np.clip((y - horizon) * size + 0.5, 0, 1).astype(np.float32)
    painter.paint(below, (ground * texture * lit).astype(np.float32))
    if habitat.water > 0:
        edge = horizon + 0.10 + 0.02 * coarse[0]
        band = np.clip((edge[None, :] - y) * size + 0.5, 0, 1) * below * (y > horizon)
        painter.paint((0.9 * band).astype(np.float32), _colour(0.42, 0.48, 0.50))


def _blob(
    painter: _Painter, rng: np.random.Generator, x: float, y: float, *, width: float, height: float, colour: Array
) -> None:
    """A clump of leaves: a few overlapping capsules, the upper ones lighter."""
    for step in range(4):
        dx, dy = rng.uniform(-0.5, 0.5) * width, (0.3 - 0.25 * step) * height
        radius = height * rng.uniform(0.3, 0.42)
        reach = width * rng.uniform(0.15, 0.3)
        alpha = coverage(painter.distance(x + dx - reach, y + dy, x + dx + reach, y + dy, radius, radius * 0.9))
        painter.paint(alpha, colour * np.float32(0.72 + 0.13 * step + 0.06 * rng.standard_normal()))


def _tree(painter: _Painter, rng: np.random.Generator, location: Location, leaf: Array) -> None:
    flat = location.habitat in (0, 4)
    near = rng.random() ** 2
    x, foot = rng.uniform(0, 1), location.horizon + 0.02 + 0.25 * near
    height = (0.22 if flat else 0.34) * (0.5 + near) * rng.uniform(0.8, 1.2)
    bark = _colour(0.27, 0.22, 0.18)
    lean = rng.uniform(-0.04, 0.04)
    radius = 0.012 + 0.022 * near
    painter.paint(coverage(painter.distance(x, foot, x + lean, foot - height, radius, radius * 0.7)), bark)
    width = height * (1.1 if flat else 0.55)
    _blob(painter, rng, x + lean, foot - height, width=width, height=height * (0.32 if flat else 0.6), colour=leaf)


def _stones(painter: _Painter, rng: np.random.Generator, location: Location) -> None:
    """Rocks and termite mounds: their number shows the stones factor."""
    draws = rng.random((9, 5))
    count = round(3.2 + 3.6 * location.stones)
    for kind, across, near, size, tone in draws[: max(count, 0)]:
        y = location.horizon + 0.05 + 0.5 * near
        radius = (0.022 + 0.03 * size) * (0.6 + near)
        if kind < 0.5:
            colour = _colour(0.55, 0.53, 0.50) * np.float32(0.8 + 0.35 * tone)
            painter.paint(
                coverage(painter.distance(across - radius, y, across + radius, y, radius, radius * 0.8)), colour
            )
            painter.paint(
                coverage(painter.distance(across - radius, y + radius, across + radius, y + radius, 0.012, 0.012)),
                colour * np.float32(0.5),
            )
        else:
            colour = _colour(0.58, 0.36, 0.24) * np.float32(0.85 + 0.25 * tone)
            painter.paint(
                coverage(painter.distance(across, y, across, y - 3.2 * radius, radius * 1.3, radius * 0.35)), colour
            )


def _back(location: Location, size: int, phase: int) -> Array:
    """Background behind the animals, ``[3, s, s]``; ``phase`` -1, 0, 1 sways the bushes."""
    rng = numpy_generator(location.scene_seed, "back")
    painter = _Painter(size, 3)
    habitat = world.HABITATS[location.habitat]
    _ground(painter, rng, location)
    green = 1 / (1 + np.exp(-(1.0 + 0.9 * location.lushness)))
    leaf = _colour(0.42, 0.38, 0.22) + np.float32(green) * (_colour(0.21, 0.29, 0.14) - _colour(0.42, 0.38, 0.22))
    for _ in range(round(habitat.boulders * rng.uniform(0.7, 1.3))):
        x, radius = rng.uniform(0, 1), rng.uniform(0.04, 0.10)
        y = location.horizon + 0.01
        tone = np.float32(rng.uniform(0.8, 1.1))
        painter.paint(
            coverage(painter.distance(x - radius, y, x + radius, y, radius, radius * 0.7)),
            _colour(0.50, 0.45, 0.41) * tone,
        )
    for _ in range(round(habitat.trees * rng.uniform(0.6, 1.4))):
        _tree(painter, rng, location, leaf)
    for _ in range(round(habitat.bushes * rng.uniform(0.6, 1.4))):
        near = rng.random() ** 1.5
        x, y = rng.uniform(0, 1) + 0.006 * phase, location.horizon + 0.02 + 0.22 * near
        _blob(painter, rng, x, y, width=0.10 + 0.12 * near, height=0.09 + 0.10 * near, colour=leaf * np.float32(1.1))
    _stones(painter, rng, location)
    return painter.canvas


def _front(location: Location, size: int, phase: int) -> _Painter:
    """Foreground before the animals: blades of grass, sometimes a bush or a branch, swaying with the wind."""
    rng = numpy_generator(location.scene_seed, "front")
    painter = _Painter(size, 3)
    habitat = world.HABITATS[location.habitat]
    green = np.float32(1 / (1 + np.exp(-1.7 * location.lushness)))
    straw = _colour(0.62, 0.54, 0.34) + green * (_colour(0.30, 0.40, 0.17) - _colour(0.62, 0.54, 0.34))
    for _ in range(round(26 * habitat.grass * world.OCCLUSION * rng.uniform(0.4, 1.4))):
        x, tall, lean = rng.uniform(0, 1), rng.uniform(0.06, 0.30) * rng.uniform(0.5, 1), rng.normal(0, 0.05)
        tone = np.float32(rng.uniform(0.7, 1.15))
        tip = x + lean + 0.03 * phase * tall / 0.3
        painter.paint(coverage(painter.distance(x, 1.0, tip, 1.0 - tall, 0.010, 0.004)), straw * tone)
    bush, corner, branch = rng.random(3)
    if bush < (0.15 + 0.06 * habitat.bushes) * world.OCCLUSION:
        x = 0.02 if corner < 0.5 else 0.98
        y, width = rng.uniform(0.72, 0.95), rng.uniform(0.18, 0.34)
        _blob(
            painter,
            rng,
            x + 0.012 * phase,
            y,
            width=width,
            height=rng.uniform(0.25, 0.45),
            colour=straw * np.float32(0.62),
        )
    if branch < 0.035 * (habitat.trees + habitat.bushes) * world.OCCLUSION:
        x, y = rng.uniform(0.1, 0.9), 0.02 * phase
        _blob(painter, rng, x, y + 0.03, width=0.4, height=0.16, colour=_colour(0.20, 0.25, 0.13))
    return painter


def draw_scene(location: Location, size: int) -> Scene:
    """Draw a camera's scene at ``size`` pixels a side. Depends on the location and the size alone."""
    backs = np.stack([_back(location, size, phase) for phase in (-1, 0, 1)])
    fronts = [_front(location, size, phase) for phase in (-1, 0, 1)]
    alpha = np.stack([painter.alpha[None] for painter in fronts])
    front = np.stack([painter.canvas for painter in fronts]) / np.maximum(alpha, np.float32(1e-3))
    y = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None]
    x = ((np.arange(size, dtype=np.float32) + 0.5) / size)[None, :]
    depth = np.clip((y - location.horizon + 0.08) / (1.08 - location.horizon), 0, 1)
    spot = 1 - 0.55 * ((x - 0.5) ** 2 + (y - 0.6) ** 2) / 0.5
    flash = ((0.16 + 0.95 * depth) * spot * (y > location.horizon - 0.25)).astype(np.float32) + np.float32(0.02)
    gray = np.einsum("c,pchw->phw", INFRARED, backs)[:, None] * flash
    # The leaves nearest to the flash are nearly white.
    front_gray = np.einsum("c,pchw->phw", INFRARED, front)[:, None] * np.float32(1.35)
    return Scene(
        Layers(backs, front.astype(np.float32), alpha),
        Layers(gray.astype(np.float32), front_gray.astype(np.float32), alpha),
    )
