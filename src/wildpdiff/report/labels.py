"""Names beside marks, placed so that they cover neither marks nor each other; a thin line leads to a far one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from wildpdiff.report.drawing import Canvas
from wildpdiff.report.palette import THEME

__all__ = ["Label", "place_labels"]

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


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)


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
    height = canvas.figure.get_size_inches()[1] * 72
    frame = _Box(0.0, 0.0, box.width * canvas.width, box.height * height)
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()

    def pixels(x: float, y: float) -> tuple[float, float]:
        return (x - x_low) / (x_high - x_low) * frame.right, (y - y_low) / (y_high - y_low) * frame.top

    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in (pixels(*mark) for mark in marks)]
    for label in labels:
        x, y = pixels(label.x, label.y)
        width = _LETTER * size * len(label.text)
        best, best_cost, reach_of_best = None, float("inf"), 0.0
        for reach in _REACHES:
            for across, up in _DIRECTIONS:
                left = x + across * reach - (width if across < 0 else 0.0 if across > 0 else width / 2)
                middle = y + up * reach * (1.0 if across == 0 else 0.8)
                candidate = _Box(left, middle - size * 0.62, left + width, middle + size * 0.62)
                out = sum(
                    max(edge, 0.0)
                    for edge in (-candidate.left, candidate.right - frame.right - 8, -candidate.bottom,
                                 candidate.top - frame.top)
                )  # fmt: skip
                cost = sum(candidate.overlap(other) for other in taken) + 100 * out + reach
                if cost < best_cost:
                    best, best_cost, reach_of_best = candidate, cost, reach
            if best_cost <= reach:
                break
        assert best is not None
        taken.append(best)
        _write(axes, label, best, (x, y), size, far=reach_of_best > _REACHES[1])


def _write(axes: Axes, label: Label, box: _Box, mark: tuple[float, float], size: float, far: bool) -> None:
    middle = ((box.left + box.right) / 2 - mark[0], (box.bottom + box.top) / 2 - mark[1])
    axes.annotate(
        label.text, (label.x, label.y), middle, textcoords="offset points", ha="center", va="center", fontsize=size,
        color=label.colour, parse_math=False, annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": THEME["other"].light, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
        if far else None,
    )  # fmt: skip
