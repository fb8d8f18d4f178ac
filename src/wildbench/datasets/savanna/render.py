"""Frames to pixels: scene, animal, what stands before it, and the camera."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.animals import IS_BIRD, paint_tiles, position_animals, tile_sides
from wildbench.datasets.savanna.frames import NOISE_SIZE, Frames
from wildbench.datasets.savanna.locations import Location
from wildbench.datasets.savanna.scene import INFRARED, Layers, Scene
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Images

Array = npt.NDArray[np.float32]

_CHUNK = 200
_WARM = np.array([1.0, 0.0, -1.0], dtype=np.float32)


@lru_cache(maxsize=1)
def _noise_field() -> Array:
    """One field of standard normal noise for all sensors; frames differ by their window into it."""
    rng = numpy_generator(world.WORLD_SEED, "savanna", "sensor")
    return rng.standard_normal((NOISE_SIZE + 160, NOISE_SIZE + 160)).astype(np.float32)


@lru_cache(maxsize=8)
def _vignette(size: int, strength: float) -> Array:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return np.asarray(1 - 2 * strength * (axis[:, None] ** 2 + axis[None, :] ** 2), dtype=np.float32)


def render(location: Location, scene: Scene, frames: Frames, size: int) -> Images:
    """The pictures of frames, ``uint8 [n, size, size, 3]``. Each depends on its own frame alone.

    Args:
        location: the camera.
        scene: of that location, drawn at ``size``.
        frames: what happens in each picture.
        size: pixels a side, at most 160.
    """
    images = np.empty((len(frames), size, size, 3), dtype=np.uint8)
    for infrared, layers in ((False, scene.day), (True, scene.night)):
        # Sorted by species, so that an animal group shares one body family and each coat is one slice.
        chosen = np.flatnonzero(frames.night == infrared)
        chosen = chosen[np.argsort(frames.label[chosen], kind="stable")]
        for start in range(0, len(chosen), _CHUNK):
            index = chosen[start : start + _CHUNK]
            images[index] = _expose(location, layers, frames.take(index), size, infrared=infrared)
    return images


def _ambient(frames: Frames, infrared: bool) -> Array:
    """Light on the scene relative to the light on the animal, ``[n, c]``."""
    log = frames.ambient_tone[:, None] + frames.ambient_warm[:, None] * _WARM
    return np.exp(log @ INFRARED)[:, None] if infrared else np.exp(log)


def _gain(location: Location, frames: Frames, infrared: bool) -> Array:
    """Effect of the hour's light, the site's cast and its exposure on every pixel, ``[n, c]``."""
    warm, bright = (np.float32(value) for value in location.cast)
    log = (warm + frames.warmth)[:, None] * _WARM + bright
    gain = np.exp(log)
    if infrared:
        gain = (gain @ INFRARED)[:, None] / INFRARED.sum()
    return np.asarray(gain * frames.brightness[:, None], dtype=np.float32)


def _expose(location: Location, layers: Layers, frames: Frames, size: int, *, infrared: bool) -> Images:
    canvas = layers.back[frames.wind]
    ambient = _ambient(frames, infrared)
    canvas *= ambient[:, :, None, None]
    for bird in (False, True):
        family = np.flatnonzero((frames.label != world.BLANK) & (IS_BIRD[frames.label] == bird))
        if len(family):
            _paint_family(canvas, location, frames, family, infrared=infrared)
    alpha = layers.front_alpha[frames.wind]
    front = layers.front[frames.wind]
    front *= ambient[:, :, None, None]
    front -= canvas
    front *= alpha
    canvas += front
    return _sensor(location, canvas, frames, size, infrared=infrared)


def _paint_family(
    canvas: Array, location: Location, frames: Frames, family: npt.NDArray[np.int64], *, infrared: bool
) -> None:
    own = frames.take(family)
    size = canvas.shape[-1]
    placement = position_animals(location, own, size)
    # The flash falls off with distance; by day the far animals pale a little.
    reach = (0.26 + 0.56 * own.distance if infrared else 1.04 - 0.06 * own.distance).astype(np.float32)
    light = np.repeat(reach[:, None], canvas.shape[1], axis=1)
    sides = tile_sides(placement.box, size)
    for side in np.unique(sides):
        here = np.flatnonzero(sides == side)
        part = type(placement)(placement.parts[here], placement.origin[here], placement.unit[here], placement.box[here])
        tiles = canvas[family[here]]
        paint_tiles(tiles, own.take(here), part, light[here], side=int(side), infrared=infrared)
        canvas[family[here]] = tiles


def _sensor(location: Location, canvas: Array, frames: Frames, size: int, *, infrared: bool) -> Images:
    """Cast, exposure, vignette, blur and noise; then eight bits a channel."""
    model = world.CAMERA_MODELS[location.camera_model]
    canvas *= _gain(location, frames, infrared)[:, :, None, None]
    canvas *= _vignette(size, model.vignette)
    if model.blur:
        weight = np.float32(0.5 * model.blur)
        blurred = canvas.copy()
        blurred[..., 1:] += weight * (canvas[..., :-1] - canvas[..., 1:])
        canvas = blurred
        canvas[..., :-1, :] += weight * (blurred[..., 1:, :] - blurred[..., :-1, :])
    spread = np.float32(world.SENSOR_NOISE * model.noise * (world.NIGHT_NOISE if infrared else 1.0))
    field, channels = _noise_field(), canvas.shape[1]
    for i in range(len(canvas)):
        for channel in range(channels):
            # The three channels look through windows of their own.
            row = (frames.noise_row[i] + 157 * channel) % NOISE_SIZE
            column = frames.noise_column[i]
            canvas[i, channel] += spread * field[row : row + size, column : column + size]
    canvas *= 255
    np.clip(canvas, 0, 255, out=canvas)
    pixels = canvas.astype(np.uint8).transpose(0, 2, 3, 1)
    return np.repeat(pixels, 3, axis=3) if infrared else pixels
