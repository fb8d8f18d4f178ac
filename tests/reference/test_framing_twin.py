"""Framing against a slow twin that computes each pixel of the square by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wildpdiff.tasks.framing import FRAMINGS, GREY, MARGIN, Fractions, Framing, View, placement_of, region_of
from wildpdiff.tasks.image_files import read_views

BOXES = [None, (0.1, 0.2, 0.3, 0.3), (0.7, 0.6, 0.3, 0.4), (0.0, 0.4, 1.0, 0.2), (0.5, 0.5, 0.01, 0.01)]


def slow_region(width: int, height: int, framing: Framing, box: Fractions | None) -> tuple[float, float, float, float]:
    """Left, top, width and height of the part, case by case."""
    if framing == "square":
        if width > height:
            return (width - height) / 2, 0, height, height
        return 0, (height - width) / 2, width, width
    if framing == "whole" or box is None:
        return 0, 0, width, height
    animal_width, animal_height = box[2] * width, box[3] * height
    side = max(animal_width, animal_height)
    side = max(1, side + 2 * MARGIN * side)
    part_width = width if side > width else side
    part_height = height if side > height else side
    left = (box[0] + box[2] / 2) * width - part_width / 2
    top = (box[1] + box[3] / 2) * height - part_height / 2
    if left < 0:
        left = 0
    if left + part_width > width:
        left = width - part_width
    if top < 0:
        top = 0
    if top + part_height > height:
        top = height - part_height
    return left, top, part_width, part_height


def slow_line(values: np.ndarray, start: float, length: float, size: int) -> np.ndarray:
    """Resample along the first axis: each result is a mean of pixels, weighted by a triangle about its middle."""
    step = length / size
    reach = max(step, 1.0)
    result = []
    for number in range(size):
        middle = start + (number + 0.5) * step
        weights = np.array([max(0.0, 1 - abs(pixel + 0.5 - middle) / reach) for pixel in range(len(values))])
        result.append(np.tensordot(weights / weights.sum(), values, 1))
    return np.array(result)


def slow_square(pixels: np.ndarray, size: int, framing: Framing, box: Fractions | None) -> np.ndarray:
    """The square of an upright picture ``[h, w, 3]``."""
    left, top, width, height = slow_region(pixels.shape[1], pixels.shape[0], framing, box)
    scale = size / max(width, height)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    part = slow_line(pixels.astype(float), top, height, rows)
    part = slow_line(part.swapaxes(0, 1), left, width, columns).swapaxes(0, 1)
    square = np.full((size, size, 3), float(GREY))
    above, before = (size - rows) // 2, (size - columns) // 2
    square[above : above + rows, before : before + columns] = part
    return square


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("shape", [(17, 29), (31, 20), (16, 16), (9, 60)])
def test_the_square_is_that_of_the_slow_twin(
    tmp_path: Path, framing: Framing, box: Fractions | None, shape: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    for size in (7, 24):
        found = read_views([View(path, box)], size, framing)[0]
        # Pillow weighs only pixels within the part and rounds twice; a part's edge may cut a pixel.
        difference = np.abs(found - slow_square(pixels, size, framing, box))
        inner = difference[2:-2, 2:-2]
        assert inner.max() <= 2
        assert difference.mean() <= 3


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_one_of_the_upright_picture(tmp_path: Path, framing: Framing, orientation: int) -> None:
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 48, 3), dtype=np.uint8))
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse of what turns the stored picture upright
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(stored_as[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.save(tmp_path / "upright.png")
    stored.save(tmp_path / "stored.png", exif=exif)
    for box in BOXES:
        views = [View(tmp_path / f"{name}.png", box) for name in ("upright", "stored")]
        first, second = read_views(views, 12, framing).astype(int)
        assert np.abs(first - second).max() <= 1


fractions = st.floats(-0.2, 1.2)


@settings(deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.tuples(fractions, fractions, fractions, fractions))
def test_parts_lie_in_the_picture_and_hold_the_box(width: int, height: int, box: Fractions) -> None:
    region = region_of(width, height, "box", box)
    assert 0 <= region.left < region.right <= width
    assert 0 <= region.top < region.bottom <= height
    left, top = max(box[0], 0) * width, max(box[1], 0) * height
    right, bottom = min(box[0] + box[2], 1) * width, min(box[1] + box[3], 1) * height
    if left < right and top < bottom:
        assert region.left <= left + 1e-6
        assert region.top <= top + 1e-6
        assert region.right >= right - 1e-6
        assert region.bottom >= bottom - 1e-6
    else:
        assert region == (0, 0, width, height)
    place = placement_of(region, 50)
    assert max(place.width, place.height) == 50
    assert min(place) >= 0
    assert place.left + place.width <= 50
    assert place.top + place.height <= 50


@pytest.mark.parametrize("framing", ["box", "boxes"])
@pytest.mark.parametrize("box", [None, (0.5, 0.5, 0.0, 0.1), (float("nan"), 0.0, 1.0, 1.0), (1.1, 0.0, 0.2, 1.0)])
def test_without_a_box_the_whole_picture_is_taken(framing: Framing, box: Fractions | None) -> None:
    assert region_of(200, 100, framing, box) == region_of(200, 100, "whole") == (0, 0, 200, 100)
