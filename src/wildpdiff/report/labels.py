"""Names beside marks, placed so that they cover neither marks nor each other; a thin line leads to a far one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from numpy import ndarray

from wildpdiff.report.drawing import Canvas
from wildpdiff.report.palette import THEME

_MUTED = THEME["muted"].light
_LETTER = 0.56
"""Width of a letter as a share of the font size, on the safe side."""
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_REACHES = (9.0, 18.0, 30.0, 46.0, 66.0, 90.0, 120.0)


@dataclass(frozen=True)
class Label:
    """A text for a mark at a place in data coordinates."""

    text: str
    x: float
    y: float
    colour: str = _MUTED


def place_labels(
    canvas: Canvas, axes: Axes, labels: Sequence[Label], marks: Sequence[tuple[float, float]], size: float = 10.5
) -> None:
    """Write every label at the first free place around its mark; where none is free, at the least crowded one.

    Args:
        canvas: of the axes; resized before.
        axes: with its final limits.
        labels: what to write.
        marks: data coordinates of everything that must not be covered.
        size: of the letters, CSS pixels.
    """
    box = axes.get_position()
    frame = np.array([box.width * canvas.width, box.height * canvas.figure.get_size_inches()[1] * 72])
    low, high = (np.array(ends) for ends in zip(axes.get_xlim(), axes.get_ylim(), strict=True))
    scale = frame / (high - low)
    spots = (np.array(marks).reshape(-1, 2) - low) * scale
    taken = np.concatenate([spots - 5, spots + 5], axis=1)
    for label in labels:
        mark = (np.array([label.x, label.y]) - low) * scale
        boxes = _candidates(mark, _LETTER * size * len(label.text), 1.24 * size)
        out = np.maximum(-boxes[:, :2], 0).sum(axis=1) + np.maximum(boxes[:, 2:] - frame - (8, 0), 0).sum(axis=1)
        shared = np.minimum(boxes[:, None, 2:], taken[None, :, 2:]) - np.maximum(boxes[:, None, :2], taken[None, :, :2])
        covered = np.maximum(shared, 0).prod(axis=2).sum(axis=1)
        reach = np.repeat(_REACHES, len(_DIRECTIONS))
        best = int(np.argmin(covered + 100 * out + reach))
        taken = np.concatenate([taken, boxes[best : best + 1]])
        middle = (boxes[best, :2] + boxes[best, 2:]) / 2 - mark
        _write(axes, label, (float(middle[0]), float(middle[1])), size, far=bool(reach[best] > _REACHES[1]))


def _candidates(mark: Float[ndarray, " 2"], width: float, height: float) -> Float[ndarray, "c 4"]:
    """Boxes (left, bottom, right, top) around a mark, from the nearest to the farthest."""
    boxes = []
    for reach in _REACHES:
        for across, up in _DIRECTIONS:
            left = mark[0] + across * reach - (width if across < 0 else 0.0 if across > 0 else width / 2)
            middle = mark[1] + up * reach * (1.0 if across == 0 else 0.8)
            boxes.append((left, middle - height / 2, left + width, middle + height / 2))
    return np.array(boxes)


def _write(axes: Axes, label: Label, middle: tuple[float, float], size: float, far: bool) -> None:
    axes.annotate(
        label.text, (label.x, label.y), middle, textcoords="offset points", ha="center", va="center", fontsize=size,
        color=label.colour, parse_math=False, annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": THEME["other"].light, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
        if far else None,
    )  # fmt: skip
