"""Contents of a section of the page: texts, figures, tables and rows of pictures, as plain values without HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wildpdiff.report.palette import SourceStyle


@dataclass(frozen=True)
class Text:
    """A paragraph; a ``warning`` and a ``note`` are set apart."""

    text: str
    tone: Literal["plain", "note", "warning"] = "plain"
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: tuple[str, ...]
    kind: str = field(default="bullets", init=False)


@dataclass(frozen=True)
class Cell:
    """A value and a smaller text below it, for example its interval."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        head: the name at its left.
        cells: one a column; none for a heading within the table.
        tone: ``group`` for a heading, ``ahead`` in bold, ``own`` for the generator, ``muted`` for references.
        small: below the name.
        style, condition: of the marker before the name, where the row is a source.
    """

    head: str
    cells: tuple[Cell, ...]
    tone: frozenset[str] = frozenset()
    small: str = ""
    style: SourceStyle | None = None
    condition: str = "own"


@dataclass(frozen=True)
class DataTable:
    """A table with its title and a note below; ``columns`` names the first one too."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    note: str = ""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Shot:
    """A picture as a data URI, its label, and the predictions of two models, each with whether it is right."""

    source: str
    label: str
    pretrained: str
    pretrained_right: bool
    generated: str
    generated_right: bool


@dataclass(frozen=True)
class PictureRow:
    """Pictures of one task."""

    title: str
    shots: tuple[Shot, ...]
    kind: str = field(default="pictures", init=False)


Block = object
"""One of the above, or a :class:`~wildpdiff.report.drawing.ReportFigure`."""


@dataclass(frozen=True)
class PageSection:
    """A heading and its blocks, in order."""

    title: str
    blocks: tuple[Block, ...]
