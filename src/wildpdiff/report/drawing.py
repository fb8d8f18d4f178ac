"""Canvas of the figures: sizes in CSS pixels, colours as CSS variables in SVG and as their light values in PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle

from wildpdiff.report.palette import THEME, SourceStyle, css_variables

WIDE = 920
NARROW = 360
PNG_SCALE = 2

_TEXT = THEME["text"].light
_MUTED = THEME["muted"].light
_GRID = THEME["grid"].light
_SURFACE = THEME["surface"].light

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wildpdiff",
    "font.size": 12.5,
    "text.color": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _TEXT,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "grid.color": _GRID,
    "grid.linewidth": 1,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
}


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn for a wide and for a narrow page as inline SVG, and for other uses as PNG."""

    wide: str
    narrow: str
    png: bytes


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its file name (no suffix), title and caption."""

    name: str
    title: str
    caption: str
    drawing: Drawing


@dataclass(frozen=True)
class Canvas:
    """A figure of a given width; heights and margins are CSS pixels."""

    figure: Figure
    narrow: bool

    @property
    def width(self) -> int:
        """Width in CSS pixels."""
        return NARROW if self.narrow else WIDE

    def resize(self, height: float | int) -> None:
        """Set the height."""
        self.figure.set_size_inches(self.width / 72, height / 72)

    def axes(self, left: float | int, top: float | int, width: float | int, height: float | int) -> Axes:
        """Axes at a place given from the upper left corner, without a frame; resize before."""
        total = self.figure.get_size_inches()[1] * 72
        box = (left / self.width, 1 - (top + height) / total, width / self.width, height / total)
        axes = self.figure.add_axes(box)
        axes.patch.set_alpha(0)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0, pad=5)
        return axes

    def legend(self, entries: list[tuple[str, dict[str, Any]]], columns: int, *, line: bool = False) -> None:
        """Names at the top, each with the look of its line or marker."""
        bare: dict[str, Any] = {"linestyle": "none", "markersize": 7}
        handles = [Line2D([], [], **(bare | look)) for _, look in entries]
        height = self.figure.get_size_inches()[1] * 72
        legend = self.figure.legend(
            handles, [label for label, _ in entries], loc="upper left", bbox_to_anchor=(0, 1 - 5 / height),
            ncols=columns, handletextpad=0.5 if line else 0.3, columnspacing=1.4, borderpad=0.1, labelspacing=0.45,
            borderaxespad=0.1, handlelength=3.4 if line else 1.6,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def marker(style: SourceStyle, condition: str) -> dict[str, Any]:
    """Arguments of a marker: hollow for the controls (random conditions as a diamond), filled otherwise."""
    hollow = condition in ("shuffled", "random")
    return {
        "marker": "d" if condition == "random" else style.marker,
        "markeredgecolor": style.colour.light,
        "markerfacecolor": _SURFACE if hollow else style.colour.light,
        "markeredgewidth": 1.5 if hollow else 0.8,
    }


def shorten(name: str, length: int) -> str:
    """A name of at most ``length`` characters, cut before its middle: the end tells tasks apart."""
    if len(name) <= length:
        return name
    head = (length - 1) // 3
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def swatch(style: SourceStyle, condition: str) -> str:
    """The marker of a source as a small inline SVG, for tables."""
    hollow = condition in ("shuffled", "random")
    shape = MarkerStyle("d" if condition == "random" else style.marker)
    polygons = [np.asarray(polygon) for polygon in shape.get_path().transformed(shape.get_transform()).to_polygons()]
    scale = 10 / max(float(np.abs(polygon).max()) for polygon in polygons)
    drawn = ""
    for polygon in polygons:
        corners = " ".join(f"{scale * x:.2f},{-scale * y:.2f}" for x, y in polygon)
        drawn += f'<polygon points="{corners}"/>'
    fill = "none" if hollow else f"var({style.colour.variable})"
    return (
        f'<svg class="swatch" viewBox="-13 -13 26 26" aria-hidden="true" fill="{fill}" '
        f'stroke="var({style.colour.variable})" stroke-width="3">{drawn}</svg>'
    )


def render(draw: Callable[[Canvas], None], title: str) -> Drawing:
    """Draw for both widths and turn into SVG and PNG. The same input gives the same bytes."""
    with rc_context(_STYLE):
        wide, narrow = Canvas(Figure(dpi=72), False), Canvas(Figure(dpi=72), True)
        for canvas in (wide, narrow):
            draw(canvas)
        picture = io.BytesIO()
        wide.figure.savefig(picture, format="png", dpi=72 * PNG_SCALE, facecolor=_SURFACE, metadata={"Software": None})
        return Drawing(_svg(wide, title), _svg(narrow, title), picture.getvalue())


def _svg(canvas: Canvas, title: str) -> str:
    """The figure as an inline SVG that scales with its box and takes colours and font from the page."""
    stream = io.StringIO()
    canvas.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1]}" role="img" aria-label="{label}"'
    return head + ">" + _styled(_unique(body, f"{title}{canvas.narrow}"))


def _styled(body: str) -> str:
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", body)
    # Matplotlib's own style sheet would reach the whole page.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    for variable, value in re.findall(r"(--[\w-]+): (#\w{6});", css_variables(dark=False)):
        body = body.replace(value, f"var({variable})")
    return body


def _unique(body: str, salt: str) -> str:
    """Identifiers that no other figure of the page has; those nobody refers to are dropped."""
    prefix = f"fig{sum(ord(letter) * (place + 1) for place, letter in enumerate(salt)):x}-"
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", body)
    return re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", body)
