"""The one shape everything is drawn from: a capsule whose radius changes from end to end, with a soft edge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Value = Array | np.float32
Capsule = tuple[Value, Value, Value, Value, Value, Value]
"""``(x0, y0, x1, y1, radius0, radius1)``: numbers, or arrays of one shape each."""


def capsule_distance(x: Array, y: Array, part: Capsule) -> Array:
    """Signed distance of points to tapered capsules, negative inside; exact for equal radii, close otherwise.

    Args:
        x, y: points; shapes broadcast against the part's.
        part: ``(x0, y0, x1, y1, radius0, radius1)`` in the unit of the points.
    """
    x0, y0, x1, y1, radius0, radius1 = part
    along_x, along_y = x1 - x0, y1 - y0
    inverse = np.float32(1) / (along_x * along_x + along_y * along_y + np.float32(1e-8))
    dx: Array = np.asarray(x - x0)
    dy: Array = np.asarray(y - y0)
    share = np.asarray(dx * (along_x * inverse))
    share += dy * (along_y * inverse)
    np.clip(share, 0, 1, out=share)
    dx -= share * along_x
    dy -= share * along_y
    dx *= dx
    dy *= dy
    dx += dy
    np.sqrt(dx, out=dx)
    share *= radius1 - radius0
    dx -= share
    dx -= radius0
    return dx


def coverage(distance: Array) -> Array:
    """Share of a pixel that is inside, from a distance in pixels: a ramp one pixel wide."""
    return np.asarray(np.clip(np.float32(0.5) - distance, 0, 1))
