"""report.html: one page that needs no network and no script, and its figures as PNG files.

Its sections are in order, each only where it was measured, with a list of what was not measured at the end.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from wildpdiff.disk import visible, write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results, SourceFamily, section_kinds
from wildpdiff.report.blocks import Block, Bullets, PageSection, Text
from wildpdiff.report.drawing import ReportFigure, swatch
from wildpdiff.report.figures import (
    accuracy_figure,
    gain_figure,
    heat_map_figure,
)
from wildpdiff.report.findings import SplitFindings, findings, main_first
from wildpdiff.report.palette import SourceStyle, source_styles
from wildpdiff.report.sentences import ahead_sentence, control_sentences, headline, seeds_sentence
from wildpdiff.report.tables import cross_validation_blocks, losses_blocks, sources_blocks
from wildpdiff.report.wording import count, percentage, seconds_text

_TABLE_NOTE = (
    "Means over tasks, of all samples and never of the best one; 95 % bootstrap intervals over tasks. "
    "Recovered gain: share of fine-tuning's gain over the pretrained model. Generated − source: paired difference on "
    "the same tasks. Bold: best without labels, and every source ahead of the generator. Training: beyond the zoo."
)


@dataclass(frozen=True)
class ReportFiles:
    """Paths of the page and of its figures as PNG, in the order of the page."""

    page: Path
    figures: tuple[Path, ...]


@dataclass(frozen=True)
class PageInputs:
    """Inputs of the sections that other packages draw.

    Attributes:
        results: everything that was measured.
        suites: the splits of every suite, by its name, the main one first.
        styles: colour and marker of every source.
    """

    results: Results
    suites: Mapping[str, Sequence[SplitFindings]]
    styles: dict[str, SourceStyle]

    @property
    def parts(self) -> Sequence[SplitFindings]:
        """The splits of the first suite."""
        return next(iter(self.suites.values()))

    @property
    def headings(self) -> dict[str, str]:
        """Prefixes of titles by suite; empty where there is one."""
        return {suite: f"{suite}: " if len(self.suites) > 1 else "" for suite in self.suites}


def write_report(results: Results, folder: Path) -> ReportFiles:
    """Write ``report.html`` and ``figures/*.png`` into a folder, each file atomically.

    Raises:
        ArtifactError: the results hold no row, or the disk refuses.
    """
    if not results.summary:
        raise ArtifactError("The results hold no row, so there is nothing to report: evaluate at least one source.")
    sections = page_sections(results)
    page = _render(results, sections)
    pictures = []
    for figure in (block for section in sections for block in section.blocks if isinstance(block, ReportFigure)):
        path = folder / "figures" / f"{figure.name}.png"
        write_file(path, figure.png)
        pictures.append(path)
    write_file(folder / "report.html", visible(page).encode(errors="backslashreplace"))
    return ReportFiles(folder / "report.html", tuple(pictures))


def _render(results: Results, sections: list[PageSection]) -> str:
    main = main_first(findings(results))[0]
    templates = files("wildpdiff.report") / "templates"
    values: dict[str, Any] = {
        "results": results,
        "sections": sections,
        "headline": headline(main),
        "leads": [*control_sentences(main), *filter(None, [seeds_sentence(main)])],
        "count": count,
        "seconds_text": seconds_text,
        "swatch": lambda row: Markup(swatch(row.style, row.condition)),
        "base64": lambda svg: b64encode(svg).decode(),
        "css": Markup((templates / "style.css").read_text(encoding="utf-8")),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((templates / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(**values).replace(" %", "\N{NO-BREAK SPACE}%")


def page_sections(results: Results) -> list[PageSection]:
    """Everything between the headline and the provenance."""
    parts = main_first(findings(results))
    styles = styles_of(results, parts)
    by_suite: dict[str, list[SplitFindings]] = {}
    for part in parts:
        by_suite.setdefault(part.suite, []).append(part)
    inputs = PageInputs(results, by_suite, styles)
    tables: list[Block] = [Text(_TABLE_NOTE, "note")]
    figures: list[Block] = []
    losses: list[Block] = []
    for suite, own in by_suite.items():
        heading = inputs.headings[suite]
        for part in _without_groups(own):
            tables += [*sources_blocks(results, part, styles, heading), Text(ahead_sentence(part) or "", "note")]
        figures += accuracy_figures(own, styles, heading)
        losses += losses_blocks(own[0])
    sections = [
        PageSection("The table", tuple(block for block in tables if block != Text("", "note"))),
        PageSection("Cross-validation on seen tasks", tuple(cross_validation_blocks(results))),
        PageSection("By source and task", tuple(figures)),
        *(page for kind in section_kinds().values() if kind.pages is not None for page in kind.pages(inputs)),
        PageSection("Worst tasks", tuple(losses)),
        PageSection("Ceiling of the autoencoder", tuple(_ceiling_blocks(results))),
        PageSection("Limits", (Bullets(tuple(_limits(results, parts))), *_unmeasured(results))),
    ]
    return [section for section in sections if section.blocks]


def styles_of(results: Results, parts: Sequence[SplitFindings]) -> dict[str, SourceStyle]:
    """Colour and marker of every source of the results."""
    families: dict[str, SourceFamily] = {}
    for part in parts:
        for row in part.summary:
            families.setdefault(row.source, part.family(row))
    for info in results.sources:
        families.setdefault(info.name, info.family)
    return source_styles(families)


def _without_groups(parts: Sequence[SplitFindings]) -> Sequence[SplitFindings]:
    return [part for part in parts if not part.split.startswith("held-out ")] or parts


def accuracy_figures(
    parts: Sequence[SplitFindings], styles: Mapping[str, SourceStyle], heading: str
) -> list[ReportFigure]:
    """Figures of one suite, its main split first: by source, by task, every source on every task."""
    main, prefix = parts[0], re.sub(r"[^\w-]+", "-", heading.lower())
    figures = [
        gain_figure(_without_groups(parts), styles, f"{prefix}recovered-gain", heading),
        accuracy_figure(main, styles, f"{prefix}accuracy-per-task", heading),
        heat_map_figure(main, f"{prefix}change-per-task", heading),
    ]
    return [figure for figure in figures if figure is not None]


def _ceiling_blocks(results: Results) -> list[Block]:
    coder = results.autoencoder
    if coder is None:
        return []
    reached = [
        f"{split} tasks {percentage(entry.finetuned)} before, {percentage(entry.accuracy)} after"
        for split, entry in sorted(coder.ceiling.items(), reverse=True)
    ]
    size = f"{coder.kind}, {coder.latent_size} latent values"
    mean = results.generator is not None and results.generator.config.get("kernel_mean")
    limit = "limits the samples' variation around the conditional mean" if mean else "limits the generator"
    text = f"The autoencoder ({size}) {limit}. Fine-tuned adapters through it: {'; '.join(reached) or 'not measured'}."
    return [Text(text)]


def _limits(results: Results, parts: Sequence[SplitFindings]) -> list[str]:
    main, limits = parts[0], []
    if not any(part.split == "unseen" for part in parts):
        limits.append("No unseen task was evaluated: generalisation to new tasks is not shown.")
    if len(main.tasks) < 10:
        limits.append(
            f"{count(len(main.tasks), 'task')}: percentile intervals over fewer than ten are too narrow or missing."
        )
    if main.generated is not None and main.generated.seeds == 1:
        limits.append("One generator was trained: variation over training seeds is not measured.")
    if not any(row.condition == "shuffled" for row in main.summary):
        limits.append("No control with shuffled descriptions: use of the description is not shown.")
    if not any(part.split.startswith("held-out ") for part in parts):
        limits.append("Unseen tasks come from the distribution of the seen ones: extrapolation is not measured.")
    return [
        *limits,
        f"One suite ({results.suite.name}) and one backbone ({results.backbone.name}): others may behave differently.",
        "Intervals cover the choice of tasks, not of test examples, and are not corrected for the number of sources.",
        "Accuracy hides rare classes and the cost of single errors.",
    ]


def _unmeasured(results: Results) -> list[Block]:
    """Missing sections, and the commands that would fill them."""
    missing: dict[str, list[str]] = {}
    if not results.sources:
        missing["wildpdiff evaluate"] = ["information used by each source"]
    for kind in section_kinds().values():
        if kind.command and kind.of(results) is None:
            missing.setdefault(kind.command, []).append(kind.measures)
    if not missing:
        return []
    listing = "; ".join(f"{', '.join(words)} (by `{command}`)" for command, words in missing.items())
    return [Text(f"Not measured: {listing}. `wildpdiff report` joins several files of results.", "note")]
