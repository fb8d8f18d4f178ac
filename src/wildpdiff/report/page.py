"""The sections of the page in order, each only where it was measured, and what was not measured at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.sections import section_kinds
from wildpdiff.report.blocks import Block, Bullets, PageSection, Text
from wildpdiff.report.cross_validation_table import cross_validation_blocks
from wildpdiff.report.drawing import ReportFigure
from wildpdiff.report.figure_calibration import calibration_figure
from wildpdiff.report.figure_trust import trust_figure
from wildpdiff.report.figures import FigureNames, accuracy_figures, figure_names, styles_of
from wildpdiff.report.findings import SplitFindings, findings, main_first
from wildpdiff.report.palette import SourceStyle
from wildpdiff.report.sentences import table_sentences
from wildpdiff.report.tables import groups_blocks, losses_blocks, sources_blocks
from wildpdiff.report.trust_findings import trust_sentences, trust_table
from wildpdiff.report.wording import count, percentage, signed_points

_TABLE_WORDS = (
    "Mean accuracy over tasks, of all samples and never of the best one; intervals are 95 % bootstrap intervals over "
    "tasks. Recovered gain is the share of fine-tuning's gain over the pretrained model. Generated − source is the "
    "paired difference on the same tasks: above zero the generator is ahead. In bold: what is best without labels, and "
    "every source that is ahead of the generator; the generator's line is tinted. Training is beyond the zoo."
)
_UNMEASURED = {
    "sources": ("what each source uses of the task", "wildpdiff evaluate"),
    "calibration": ("calibration", "wildpdiff evaluate"),
    "trust": ("trust in generated adapters", "wildpdiff evaluate"),
}


@dataclass(frozen=True)
class PageInputs:
    """What sections of the report are drawn from.

    Attributes:
        results: everything that was measured.
        parts: the tables of the first suite, its main split first.
        styles: colour and marker of every source.
        heading: stands before the title of a figure where there are several suites.
    """

    results: Results
    parts: Sequence[SplitFindings]
    styles: dict[str, SourceStyle]
    heading: str


def page_sections(results: Results) -> list[PageSection]:
    """Everything between the headline and how it was made."""
    parts = main_first(findings(results))
    styles = styles_of(results, parts)
    suites = list(dict.fromkeys(part.suite for part in parts))
    by_suite = {suite: [part for part in parts if part.suite == suite] for suite in suites}
    names = {suite: figure_names(parts, suite) for suite in suites}
    first = by_suite[suites[0]]
    sections: list[PageSection | None] = [_table_section(results, by_suite, styles, names)]
    sections.append(_section("Known before: cross-validation on seen tasks", cross_validation_blocks(results)))
    figures = [figure for suite in suites for figure in accuracy_figures(by_suite[suite], styles, names[suite])]
    sections.append(PageSection("Source by source, task by task", tuple(figures)))
    groups = [block for suite in suites for block in groups_blocks(by_suite[suite], styles, names[suite].heading)]
    sections.append(_section("Whole groups held out", groups))
    sections.append(_trust_section(results, styles))
    inputs = PageInputs(results, first, styles, names[suites[0]].heading)
    sections += [page for kind in section_kinds().values() if kind.pages is not None for page in kind.pages(inputs)]
    calibration = calibration_figure(results, styles, "calibration", "")
    sections.append(_section("Calibration", [calibration]))
    losses = [block for suite in suites for block in losses_blocks(by_suite[suite][0], styles)]
    sections += [_section("Where it lost", losses), _ceiling_section(results), _limits_section(results, parts)]
    return [section for section in sections if section is not None and section.blocks]


def _section(title: str, blocks: Sequence[Block | None]) -> PageSection | None:
    present = tuple(block for block in blocks if block is not None)
    return PageSection(title, present) if present else None


def _table_section(
    results: Results,
    by_suite: Mapping[str, Sequence[SplitFindings]],
    styles: Mapping[str, SourceStyle],
    names: Mapping[str, FigureNames],
) -> PageSection:
    blocks: list[Block] = [Text(_TABLE_WORDS)]
    for suite, own in by_suite.items():
        plain = [part for part in own if not part.split.startswith("held-out ")] or own
        for part in plain:
            table, *warnings = sources_blocks(results, part, styles, names[suite].heading)
            blocks += [table, *warnings]
            sentences = table_sentences(part)
            if sentences:
                blocks.append(Text(" ".join(sentences), "note"))
    return PageSection("The table", tuple(blocks))


def _trust_section(results: Results, styles: Mapping[str, SourceStyle]) -> PageSection | None:
    trust = results.trust
    if trust is None:
        return None
    words = Text(" ".join(trust_sentences(trust)))
    return PageSection("When to trust it", (words, trust_figure(trust, styles, "trust", ""), trust_table(trust)))


def _ceiling_section(results: Results) -> PageSection | None:
    coder = results.autoencoder
    if coder is None:
        return None
    passes = f"({coder.kind}, {coder.latent_size} latent values)"
    if results.generator is not None and results.generator.config.get("kernel_mean"):
        first = (
            f"Samples vary around a conditional mean by what passes the autoencoder {passes}; the mean itself does not."
        )
    else:
        first = f"A generator can be no better than what its autoencoder lets through {passes}."
    sentences = [first]
    for split, entry in sorted(coder.ceiling.items(), reverse=True):
        change = signed_points(entry.accuracy - entry.finetuned)
        sentences.append(
            f"On {split} tasks fine-tuned adapters reach {percentage(entry.finetuned)} before and "
            f"{percentage(entry.accuracy)} after the autoencoder's round trip ({change} points)."
        )
    if not coder.ceiling:
        sentences.append("It was not measured.")
    return PageSection("The autoencoder's ceiling", (Text(" ".join(sentences)),))


def _limits_section(results: Results, parts: Sequence[SplitFindings]) -> PageSection:
    """What these numbers do not show, in words."""
    limits = []
    if not any(part.split == "unseen" for part in parts):
        limits.append("No unseen task was evaluated: nothing here shows that generation works on a new task.")
    main = parts[0]
    if len(main.tasks) < 10:
        limits.append(
            f"With {count(len(main.tasks), 'task')} the intervals are too narrow or missing: percentile intervals need "
            "about ten tasks."
        )
    if main.generated is not None and main.generated.seeds == 1:
        limits.append("One generator was trained: how far another seed would move the result is not measured.")
    if not any(row.condition == "shuffled" for row in main.summary):
        limits.append("No control with shuffled descriptions was run: the use of the description is not shown.")
    if not any(part.split.startswith("held-out ") for part in parts):
        limits.append(
            "Unseen tasks come from the same distribution as the seen ones. A description far from all seen ones is "
            "not tested by these averages."
        )
    limits += [
        f"The result holds for the suite {results.suite.name} and the backbone {results.backbone.name}; other "
        "suites, classes and backbones may behave differently.",
        "Intervals say how far the choice of tasks moves the result, not the choice of test images in a task; with "
        "many sources in one table, one in twenty intervals misses its true value by chance.",
        "Accuracy says nothing of rare classes or of the cost of single errors.",
    ]
    return PageSection("What this does not show", (Bullets(tuple(limits)), *_unmeasured(results, parts)))


def _unmeasured(results: Results, parts: Sequence[SplitFindings]) -> list[Block]:
    """Which sections are missing, and the commands that would fill them."""
    missing: dict[str, list[str]] = {}
    for section, (words, command) in _UNMEASURED.items():
        if not getattr(results, section):
            missing.setdefault(command, []).append(words)
    for kind in section_kinds().values():
        if kind.name not in results.sections:
            missing.setdefault(kind.command, []).append(kind.measures)
    if not any(part.split.startswith("held-out ") for part in parts):
        missing.setdefault("wildpdiff reproduce groups", []).append("whole groups of tasks held out")
    if not missing:
        return []
    told = "; ".join(f"{', '.join(words)} (by `{command}`)" for command, words in missing.items())
    return [Text(f"Not measured here: {told}. `wildpdiff report` joins several files of results.", "note")]


def figures_of(sections: Sequence[PageSection]) -> list[ReportFigure]:
    """Every figure in the order of the page."""
    return [block for section in sections for block in section.blocks if isinstance(block, ReportFigure)]
