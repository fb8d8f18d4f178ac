"""One colour a family of sources and one marker a source, everywhere; each colour has a light and a dark value.

The hues are those of Okabe and Ito (2008, Color Universal Design), darkened or lightened until each has a contrast of
at least 3:1 to its background. The marker tells sources of a family apart, and families where the colour cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wildpdiff.evaluate.sections import SourceFamily
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED


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
    "other": Colour("--other", "#a3abb4", "#6b747e"),
    "accent": Colour("--accent", "#0072b3", "#4fb2ef"),
    "tint": Colour("--tint", "#edf4fa", "#1a2632"),
}

HEAT = (
    Colour("--heat-0", "#a33d00", "#ff8a3d"),
    Colour("--heat-1", "#d9722e", "#c9662a"),
    Colour("--heat-2", "#f0a878", "#8a4a24"),
    Colour("--heat-3", "#f8d9c2", "#4d3022"),
    Colour("--heat-4", "#eef0f1", "#252b31"),
    Colour("--heat-5", "#c9e0ef", "#1f3c51"),
    Colour("--heat-6", "#86b9db", "#25608a"),
    Colour("--heat-7", "#3f8cc0", "#3389c2"),
    Colour("--heat-8", "#0a5a92", "#63c0f8"),
)
"""From much worse over no change (the middle) to much better."""

_GENERATED = Colour("--generated", "#0072b2", "#4fb2ee")
_PRETRAINED = Colour("--pretrained", "#7b838d", "#98a1ab")
_FINETUNED = Colour("--fine-tuned", "#1f2a36", "#f3f5f7")
_FAMILIES: dict[SourceFamily, Colour] = {
    "reference": _PRETRAINED,
    "no description": Colour("--no-description", "#8a6a00", "#d9b84c"),
    "description": Colour("--description", "#d45d00", "#ff9046"),
    "unlabelled images": Colour("--unlabelled-images", "#007a5b", "#43c79c"),
    "labels": Colour("--labels", "#6b52a4", "#b6a5e8"),
    "checkpoints": Colour("--checkpoints", "#3b7d8a", "#80c6d3"),
}

_FIXED = {
    PRETRAINED: SourceStyle(_PRETRAINED, "o"),
    GENERATED: SourceStyle(_GENERATED, "o"),
    FINETUNED: SourceStyle(_FINETUNED, "D"),
}

_MARKERS = ("s", "^", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")


def family_colour(family: SourceFamily) -> Colour:
    """The colour of every source of a family but the generator and fine-tuning."""
    return _FAMILIES[family]


def source_styles(families: Mapping[str, SourceFamily]) -> dict[str, SourceStyle]:
    """The style of each source from its family: within one, sources take the markers in turn."""
    taken: dict[SourceFamily, int] = {}
    styles = {}
    for source, family in families.items():
        if source in _FIXED:
            styles[source] = _FIXED[source]
            continue
        turn = taken.get(family, 0)
        taken[family] = turn + 1
        styles[source] = SourceStyle(_FAMILIES[family], _MARKERS[turn % len(_MARKERS)])
    return styles


def css_variables(*, dark: bool) -> str:
    """Declarations of every variable, for one of the two colour schemes."""
    colours = [*THEME.values(), *HEAT, _GENERATED, _FINETUNED, *_FAMILIES.values()]
    return "\n".join(f"  {entry.variable}: {entry.dark if dark else entry.light};" for entry in colours)
