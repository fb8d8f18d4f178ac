"""One colour and one marker a source, everywhere; each colour has a light and a dark value and a CSS variable.

The hues are those of Okabe and Ito (2008, Color Universal Design), darkened or lightened until each has a contrast of
at least 3:1 to its background. The marker tells sources apart where the colour cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED

__all__ = ["THEME", "Colour", "SourceStyle", "css_variables", "source_styles"]


@dataclass(frozen=True)
class Colour:
    """A CSS variable and its value on a light and on a dark page, as ``#rrggbb``."""

    variable: str
    light: str
    dark: str


@dataclass(frozen=True)
class SourceStyle:
    """How a source is drawn: its colour and its matplotlib marker."""

    colour: Colour
    marker: str


THEME = {
    "surface": Colour("--surface", "#fefefd", "#14181d"),
    "text": Colour("--text", "#1b2128", "#e9ecef"),
    "muted": Colour("--muted", "#5a636e", "#a2abb5"),
    "grid": Colour("--grid", "#dfe2e6", "#2e353d"),
    "band": Colour("--band", "#e9ecef", "#262c33"),
}

_STYLES = {
    PRETRAINED: SourceStyle(Colour("--pretrained", "#7b838d", "#98a1ab"), "o"),
    "mean adapter": SourceStyle(Colour("--mean-adapter", "#8a6a00", "#d9b84c"), "v"),
    "nearest task": SourceStyle(Colour("--nearest-task", "#b4588d", "#e59cc7"), "^"),
    "kernel ridge regression": SourceStyle(Colour("--kernel-ridge", "#d45d00", "#ff9046"), "s"),
    GENERATED: SourceStyle(Colour("--generated", "#0072b2", "#4fb2ee"), "o"),
    FINETUNED: SourceStyle(Colour("--fine-tuned", "#1f2a36", "#f3f5f7"), "D"),
}

_FURTHER = (
    SourceStyle(Colour("--further-1", "#007a5b", "#43c79c"), "P"),
    SourceStyle(Colour("--further-2", "#6b52a4", "#b6a5e8"), "X"),
    SourceStyle(Colour("--further-3", "#7e3c09", "#d3986d"), "h"),
    SourceStyle(Colour("--further-4", "#3b7d8a", "#80c6d3"), "*"),
    SourceStyle(Colour("--further-5", "#96323f", "#ec8f9b"), "p"),
    SourceStyle(Colour("--further-6", "#55701a", "#b0cc6a"), "<"),
)


def source_styles(sources: Iterable[str]) -> dict[str, SourceStyle]:
    """The style of each source; those without a fixed one take further ones in turn."""
    names = list(dict.fromkeys(sources))
    further = [name for name in names if name not in _STYLES]
    taken = {name: _FURTHER[number % len(_FURTHER)] for number, name in enumerate(further)}
    return {name: _STYLES.get(name) or taken[name] for name in names}


def css_variables(*, dark: bool) -> str:
    """Declarations of every variable, for one of the two colour schemes."""
    colours = [*THEME.values(), *(style.colour for style in (*_STYLES.values(), *_FURTHER))]
    return "\n".join(f"  {entry.variable}: {entry.dark if dark else entry.light};" for entry in colours)
