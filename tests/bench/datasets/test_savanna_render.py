"""Pixels: the fast renderer against slow ones, and what a frame must show."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from wildbench.datasets.savanna import SavannaConfig, SavannaSuite, world
from wildbench.datasets.savanna.animals import IS_BIRD, position_animals
from wildbench.datasets.savanna.bodies import body_parts, part_roles
from wildbench.datasets.savanna.frames import Frames, draw_frames
from wildbench.datasets.savanna.locations import Location, ShiftStrengths, draw_location
from wildbench.datasets.savanna.render import render
from wildbench.datasets.savanna.scene import draw_scene
from wildbench.datasets.savanna.shapes import capsule_distance
from wildpdiff.rng import numpy_generator

FULL = ShiftStrengths(1.0, 1.0, 1.0)


def location_at(index: int = 0) -> Location:
    return draw_location(0, "seen", index, FULL)


def blank_twin(frames: Frames) -> Frames:
    """The same frames without their animals."""
    return replace(frames, label=np.full_like(frames.label, world.BLANK))


def slow_distance(x: float, y: float, part: tuple[float, ...]) -> float:
    x0, y0, x1, y1, radius0, radius1 = part
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    share = min(max(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0.0), 1.0)
    return math.dist((x, y), (x0 + share * (x1 - x0), y0 + share * (y1 - y0))) - radius0 - share * (radius1 - radius0)


def test_capsules_equal_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    parts, points = rng.uniform(-3, 3, (20, 6)), rng.uniform(-5, 5, (20, 2))
    fast = capsule_distance(
        points[:, 0].astype(np.float32),
        points[:, 1].astype(np.float32),
        tuple(parts[:, k].astype(np.float32) for k in range(6)),
    )
    slow = [slow_distance(*point, tuple(part)) for point, part in zip(points, parts, strict=True)]
    assert np.allclose(fast, slow, atol=1e-4)


@pytest.mark.parametrize("size", [40, 56])
def test_a_batch_equals_one_picture_after_the_other(size: int) -> None:
    location = location_at(2)
    scene = draw_scene(location, size)
    labels = np.tile(np.arange(17), 4)
    frames = draw_frames(
        location, numpy_generator(0, "batch"), len(labels), labels, night=np.arange(len(labels)) % 3 == 0
    )
    batch = render(location, scene, frames, size)
    single = np.concatenate([render(location, scene, frames.take(np.array([i])), size) for i in range(len(frames))])
    assert np.array_equal(batch, single)


def test_an_animal_changes_only_pixels_near_its_capsules() -> None:
    """The slow twin of the silhouettes: every pixel of every picture against every capsule."""
    size, location = 40, draw_location(0, "seen", 1, FULL)
    location = replace(location, camera_model=0)  # the model without blur
    scene = draw_scene(location, size)
    labels = np.arange(16)
    frames = draw_frames(location, numpy_generator(0, "twin"), 16, labels, night=np.zeros(16, dtype=bool))
    with_animal = render(location, scene, frames, size).astype(int)
    changed = np.abs(with_animal - render(location, scene, blank_twin(frames), size)).max(axis=-1) > 0
    for bird in (False, True):
        index = np.flatnonzero(IS_BIRD[labels] == bird)
        parts = position_animals(location, frames.take(index), size).parts
        for own, i in zip(parts, index, strict=True):
            visible = [tuple(map(float, part)) for part in own if part[4] > 0]
            for row, column in np.argwhere(changed[i]):
                assert min(slow_distance(column + 0.5, row + 0.5, part) for part in visible) < 0.51


def test_blank_frames_lack_animals() -> None:
    """Blank frames differ from the scene by light and noise alone; near animals in the open stand out."""
    location = location_at(4)
    scene = draw_scene(location, 40)
    labels = np.concatenate([np.full(40, world.BLANK), np.tile(np.arange(16), 3)])
    frames = draw_frames(location, numpy_generator(0, "blank"), 88, labels, night=np.zeros(88, dtype=bool))
    frames = replace(frames, distance=np.full(88, 1.0, np.float32), across=np.full(88, 0.5, np.float32))
    changed = np.abs(
        render(location, scene, frames, 40).astype(int) - render(location, scene, blank_twin(frames), 40).astype(int)
    ).max(axis=(1, 2, 3))
    assert changed[:40].max() == 0
    assert (changed[40:] > 20).mean() > 0.95


def test_infrared_frames_are_gray_and_day_frames_are_not() -> None:
    location = location_at(3)
    night = np.arange(40) % 2 == 0
    frames = draw_frames(location, numpy_generator(0, "night"), 40, None, night=night)
    images = render(location, draw_scene(location, 40), frames, 40).astype(int)
    colourful = np.ptp(images, axis=-1).max(axis=(1, 2)) > 0
    assert np.array_equal(colourful, ~night)


def test_the_cast_shifts_red_against_blue() -> None:
    location = location_at(5)
    scene, frames = (
        draw_scene(location, 40),
        draw_frames(location, numpy_generator(0, "cast"), 40, None, night=np.zeros(40, bool)),
    )
    warm, cold = (
        render(replace(location, cast=np.array([side * 0.15, 0.0])), scene, frames, 40).mean(axis=(0, 1, 2))
        for side in (1, -1)
    )
    assert warm[0] > cold[0] + 10
    assert warm[2] < cold[2] - 10


def test_a_location_without_light_shift_keeps_the_light_pairs_apart() -> None:
    """Under one cast the mean colours of a light pair's coats differ, by day and in infrared."""
    location = replace(location_at(6), cast=np.zeros(2))
    scene = draw_scene(location, 40)
    for first, second in world.LIGHT_PAIRS:
        for infrared in (False, True):
            means = []
            for label in (first, second):
                frames = draw_frames(
                    location, numpy_generator(0, "light"), 60, np.full(60, label), night=np.full(60, infrared)
                )
                images = render(location, scene, frames, 40).astype(float)
                bare = render(location, scene, blank_twin(frames), 40).astype(float)
                shown = np.abs(images - bare).max(axis=-1) > 6
                means.append(images[shown].mean(axis=0))
            assert np.abs(means[0] - means[1]).max() > 6


def test_the_scene_is_the_same_at_every_size() -> None:
    location = location_at(7)
    large = draw_scene(location, 80).day.back[1].reshape(3, 40, 2, 40, 2).mean(axis=(2, 4))
    small = draw_scene(location, 40).day.back[1]
    assert np.abs(large - small).mean() < 0.03


@pytest.mark.parametrize("size", [32, 160])
def test_small_and_large_pictures(size: int) -> None:
    suite = SavannaSuite(SavannaConfig(seen=1, test=20, image_size=size))
    assert suite.tasks("seen")[0].data("test").images.shape == (20, size, size, 3)


@pytest.mark.parametrize("bird", [False, True])
def test_every_part_has_a_role_and_the_head_follows_the_bow(bird: bool) -> None:
    species = np.flatnonzero(IS_BIRD[:16] == bird)
    n = len(species)
    upright, bowed = (
        body_parts(species, np.zeros(n, np.float32), np.full(n, bow, np.float32), bird) for bow in (0.0, 1.0)
    )
    assert upright.shape == (n, len(part_roles(bird)), 6)
    assert (upright[..., [1, 3]] >= 0).all()
    # The eye is the last part.
    assert (bowed[:, -1, 1] < upright[:, -1, 1]).all()


def test_rendering_is_fast_enough() -> None:
    """2,000 pictures a second on a free core; a fifth is required here, since other work may run at the same time."""
    task = SavannaSuite(SavannaConfig(seen=2)).tasks("seen")[1]
    task.data("validation")
    start = time.process_time()
    task.data("train")
    assert 400 / (time.process_time() - start) > 400
