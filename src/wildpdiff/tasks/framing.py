"""Framing: the part of a picture that a model of square inputs gets, and where it lies in the square."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from wildpdiff.errors import DataError

Framing = Literal["square", "whole", "box", "boxes"]
"""Kinds of framing.

``square``: the largest centred square; what lies outside of it is lost.
``whole``: the whole picture, with bars of :data:`GREY` where it is no square.
``box``: a box and :data:`MARGIN` around it, made square as far as the picture allows; without a box, ``whole``.
``boxes``: as ``box``, where every box of a picture is an example of its own.
"""

FRAMINGS: tuple[Framing, ...] = get_args(Framing)

GREY = 128
"""Of bars, and behind transparent pixels: in the middle of the range, and so near 0 for a model."""

MARGIN = 0.1
"""Of a box on each side, as a share of its longer side."""

Fractions = tuple[float, float, float, float]
"""Left, top, width and height of a box as fractions of the upright picture's width and height."""


@dataclass(frozen=True, slots=True)
class View:
    """A picture, and the box in it that an example is about.

    Attributes:
        path: of the file.
        box: in the picture as it is shown, after the orientation noted in the file. MegaDetector turns pictures
            before it detects; boxes in COCO files are relative to a picture's stored width and height, which are those
            of the shown one unless a camera was mounted sideways, and are taken as such. What lies outside of the
            picture is cut off; a box without area counts as none.
    """

    path: Path
    box: Fractions | None = None


class Region(NamedTuple):
    """A rectangle in pixels of the upright picture; edges may lie within pixels."""

    left: float
    top: float
    right: float
    bottom: float


class Placement(NamedTuple):
    """Where a region lies in the square, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


def check_framing(framing: str) -> Framing:
    """The framing of this name; raises :class:`DataError` for another word."""
    for known in FRAMINGS:
        if framing == known:
            return known
    raise DataError(f"The framing is {framing!r}; give one of {', '.join(FRAMINGS)}.")


def framed(framing: Framing, box: Fractions | None) -> tuple[Framing, Fractions | None]:
    """The framing and the box that decide the pixels: ``square`` needs no box, and no box gives ``whole``."""
    if framing in ("square", "whole"):
        return framing, None
    inside = None if box is None else _inside(box)
    return ("whole", None) if inside is None else ("box", inside)


def region_of(width: int, height: int, framing: Framing, box: Fractions | None = None) -> Region:
    """The part of an upright picture of this width and height, in pixels, that a model gets."""
    kind, inside = framed(framing, box)
    if kind == "whole":
        return Region(0.0, 0.0, float(width), float(height))
    if inside is None:
        short = float(min(width, height))
        left, top = (width - short) * 0.5, (height - short) * 0.5
        return Region(left, top, left + short, top + short)
    share_left, share_top, share_width, share_height = inside
    side = max(1.0, max(share_width * width, share_height * height) * (1 + 2 * MARGIN))
    left, right = _span((share_left + share_width / 2) * width, side, width)
    top, bottom = _span((share_top + share_height / 2) * height, side, height)
    return Region(left, top, right, bottom)


def placement_of(region: Region, image_size: int) -> Placement:
    """Where a region is drawn in a square of ``image_size`` pixels: as large as it fits, in the middle."""
    scale = image_size / max(region.right - region.left, region.bottom - region.top)
    width = max(1, round((region.right - region.left) * scale))
    height = max(1, round((region.bottom - region.top) * scale))
    return Placement((image_size - width) // 2, (image_size - height) // 2, width, height)


def _inside(box: Fractions) -> Fractions | None:
    """The part of a box within the picture; None where there is none."""
    if not all(map(math.isfinite, box)):
        return None
    left, top, width, height = box
    right, bottom = min(left + width, 1.0), min(top + height, 1.0)
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def _span(middle: float, length: float, limit: int) -> tuple[float, float]:
    """An interval of this length around a middle, moved and if need be shortened to lie within 0 and a limit."""
    length = min(length, float(limit))
    start = min(max(middle - length / 2, 0.0), limit - length)
    return start, start + length
