"""Styles of the sources, names of the figures' files, and the figures of a suite's accuracies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.sections import SourceFamily
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import ReportFigure
from wildpdiff.report.figure_accuracy import accuracy_figure, heat_map_figure
from wildpdiff.report.figure_gain import gain_figure, headroom_figure
from wildpdiff.report.findings import SplitFindings
from wildpdiff.report.palette import SourceStyle, source_styles


@dataclass(frozen=True)
class FigureNames:
    """What stands before the file name and before the title of a suite's figures; nothing where there is one suite."""

    prefix: str
    heading: str


def figure_names(parts: Sequence[SplitFindings], suite: str) -> FigureNames:
    """Prefix and heading of a suite among all suites of the results."""
    if len({part.suite for part in parts}) == 1:
        return FigureNames("", "")
    return FigureNames(re.sub(r"[^\w-]+", "-", suite).strip("-").lower() + "-", f"{suite}: ")


def styles_of(results: Results, parts: Sequence[SplitFindings]) -> dict[str, SourceStyle]:
    """Colour and marker of every source that the results name anywhere."""
    families: dict[str, SourceFamily] = {}
    for part in parts:
        for row in part.summary:
            families.setdefault(row.source, part.family(row))
    for info in results.sources:
        families.setdefault(info.name, info.family)
    for name in (PRETRAINED, GENERATED, FINETUNED):
        families.setdefault(name, "description")
    return source_styles(families)


def accuracy_figures(
    own: Sequence[SplitFindings], styles: dict[str, SourceStyle], names: FigureNames
) -> list[ReportFigure]:
    """The figures of one suite, its main split first: by source, by task, every source on every task, headroom."""
    main = own[0]
    prefix, heading = names.prefix, names.heading
    plain = [part for part in own if not part.split.startswith("held-out ")] or list(own)
    found: list[ReportFigure | None] = []
    if any(row.recovered_gain is not None for part in plain for row in part.summary):
        found.append(gain_figure(plain, styles, f"{prefix}recovered-gain", heading))
    found += [
        accuracy_figure(main, styles, f"{prefix}accuracy-per-task", heading),
        heat_map_figure(main, f"{prefix}change-per-task", heading),
        headroom_figure(main, styles, f"{prefix}gain-against-headroom", heading),
    ]
    return [figure for figure in found if figure is not None]
