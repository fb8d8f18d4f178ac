"""Colours of the figures and of the sources: one colour a family, one marker a source.

The hues are those of Okabe and Ito (2008, Color Universal Design), darkened until each has a contrast of at least 3:1
to a light page; on a dark page, the style sheet inverts lightness. Markers distinguish the sources of a family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wildpdiff.evaluate.results import SourceFamily
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED

SURFACE, TEXT, MUTED, GRID = "#fefefd", "#1b2128", "#5a636e", "#dfe2e6"
BAND, OTHER, TINT, ACCENT = "#e9ecef", "#a3abb4", "#edf4fa", "#0072b2"

HEAT = ("#a33d00", "#d9722e", "#f0a878", "#f8d9c2", "#eef0f1", "#c9e0ef", "#86b9db", "#3f8cc0", "#0a5a92")
"""Diverging, from much worse over no change (the middle) to much better."""

FAMILIES: dict[SourceFamily, str] = {
    "reference": "#7b838d",
    "no description": "#8a6a00",
    "description": "#d45d00",
    "unlabelled images": "#007a5b",
    "labels": "#6b52a4",
    "checkpoints": "#3b7d8a",
}
"""Colour of every source of a family but the generator and fine-tuning."""

_MARKERS = ("s", "^", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")


@dataclass(frozen=True)
class SourceStyle:
    """Colour (``#rrggbb``) and matplotlib marker of a source."""

    colour: str
    marker: str


_FIXED = {
    PRETRAINED: SourceStyle(FAMILIES["reference"], "o"),
    GENERATED: SourceStyle(ACCENT, "o"),
    FINETUNED: SourceStyle("#1f2a36", "D"),
}


def source_styles(families: Mapping[str, SourceFamily]) -> dict[str, SourceStyle]:
    """Style of each source by its family, whose sources take the markers in turn."""
    styles = dict(_FIXED)
    for family, colour in FAMILIES.items():
        sources = [source for source, own in families.items() if own == family and source not in _FIXED]
        styles |= {source: SourceStyle(colour, _MARKERS[i % len(_MARKERS)]) for i, source in enumerate(sources)}
    return styles
