"""Figures of one width that scale with the page, as SVG and as PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle

from wildpdiff.report.palette import GRID, MUTED, SURFACE, TEXT, SourceStyle

WIDTH = 440
"""Width in drawing units (72 an inch): letters of 12 units measure 9 px on a phone and 16 px on a desktop."""

PNG_SCALE = 3

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wildpdiff",
    "text.parse_math": False,
    "text.color": TEXT,
    "font.size": 12,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": TEXT,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
}


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its file name (no suffix), title and caption, drawn as SVG and as PNG."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Caption:
    """File name (no suffix), title and caption of a figure."""

    name: str
    title: str
    text: str


def render(caption: Caption, height: float | int, draw: Callable[[Figure], None]) -> ReportFigure:
    """Draw a figure of this height; the same input gives the same bytes."""
    svg, png = io.BytesIO(), io.BytesIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's fonts have all scripts, and PNG some
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        draw(figure)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # keeps the layout of the first drawing
        figure.savefig(png, format="png", dpi=72 * PNG_SCALE, facecolor=SURFACE, metadata={"Software": None})
    return ReportFigure(caption.name, caption.title, caption.text.strip(), svg.getvalue(), png.getvalue())


def add_legend(figure: Figure, entries: dict[str, dict[str, Any]], columns: int = 2) -> None:
    """Legend above all axes, from labels to the properties of their lines."""
    handles = [Line2D([], [], **{"linestyle": "none", "markersize": 6, **line}) for line in entries.values()]
    figure.legend(handles, list(entries), loc="outside upper left", ncols=columns, handletextpad=0.4, columnspacing=1.2)


def marker(style: SourceStyle, condition: str) -> dict[str, Any]:
    """Properties of a source's marker: hollow for the controls (random conditions as a diamond), filled otherwise."""
    hollow = condition in ("shuffled", "random")
    return {
        "marker": "d" if condition == "random" else style.marker,
        "markeredgecolor": style.colour,
        "markerfacecolor": "none" if hollow else style.colour,
        "markeredgewidth": 1.5 if hollow else 0.8,
    }


def shorten(name: str, length: int) -> str:
    """A name of at most ``length`` characters, cut before its middle: the end distinguishes tasks."""
    if len(name) <= length:
        return name
    head = (length - 1) // 3
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def swatch(style: SourceStyle, condition: str) -> str:
    """A source's marker as a small inline SVG, for tables."""
    own = marker(style, condition)
    shape = MarkerStyle(own["marker"])
    polygons = [np.asarray(polygon) for polygon in shape.get_path().transformed(shape.get_transform()).to_polygons()]
    scale = 10 / max(float(np.abs(polygon).max()) for polygon in polygons)
    drawn = "".join(
        f'<polygon points="{" ".join(f"{scale * x:.2f},{-scale * y:.2f}" for x, y in polygon)}"/>'
        for polygon in polygons
    )
    return (
        f'<svg class="swatch" viewBox="-13 -13 26 26" aria-hidden="true" fill="{own["markerfacecolor"]}" '
        f'stroke="{style.colour}" stroke-width="3">{drawn}</svg>'
    )
