"""Sections of the report that this package adds, each only where it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from wildbench.interpolation.interpolation_summary import ways_of
from wildbench.report.figures import (
    alignment_figure,
    calibration_figure,
    distance_figure,
    interpolation_figure,
    latent_map_figure,
    novelty_figure,
    scaling_figure,
)
from wildbench.report.held_out_groups import groups_blocks
from wildbench.report.section_tables import correlations_table, paper_blocks, picture_rows, spread_table
from wildbench.report.trust import trust_figure, trust_table
from wildbench.sections import INTERPOLATION, PAPER, SCALING, SPREAD
from wildpdiff.report.blocks import Block, PageSection, Text
from wildpdiff.report.page import PageInputs


def _page(title: str, blocks: Sequence[Block | None]) -> list[PageSection]:
    present = tuple(block for block in blocks if block is not None)
    return [PageSection(title, present)] if present else []


def _heading(inputs: PageInputs) -> str:
    return next(iter(inputs.headings.values()))


def group_pages(inputs: PageInputs) -> list[PageSection]:
    """Whole groups of tasks held out, suite by suite."""
    tables = [groups_blocks(own, inputs.styles, inputs.headings[suite]) for suite, own in inputs.suites.items()]
    return _page("Whole groups held out", [block for blocks in tables for block in blocks])


def trust_pages(inputs: PageInputs) -> list[PageSection]:
    """Trust on unseen tasks, next to the measured gains."""
    trust = inputs.results.trust
    return [] if trust is None else _page("Trust", [trust_figure(trust, inputs.styles), trust_table(trust)])


def calibration_pages(inputs: PageInputs) -> list[PageSection]:
    """Reliability of the probabilities."""
    return _page("Calibration", [calibration_figure(inputs.results, inputs.styles)])


def distance_pages(inputs: PageInputs) -> list[PageSection]:
    """Gain against the distance of the description."""
    figure = distance_figure(inputs.results, inputs.parts, inputs.styles, _heading(inputs))
    return _page("Distance to the seen tasks", [figure])


def novelty_pages(inputs: PageInputs) -> list[PageSection]:
    """Accuracy against novelty, the map of the latents, and how far samples vary."""
    results, styles, heading = inputs.results, inputs.styles, _heading(inputs)
    blocks = [
        novelty_figure(results, styles, heading),
        latent_map_figure(results, styles, heading),
        spread_table(SPREAD.of(results) or ()),
    ]
    return _page("Novelty and memorisation", blocks)


def interpolation_pages(inputs: PageInputs) -> list[PageSection]:
    """Gain kept between two tasks, and whether alignment predicts it."""
    between = INTERPOLATION.of(inputs.results)
    if between is None or not ways_of(between):
        return []
    return _page(
        "Interpolation", [interpolation_figure(between), alignment_figure(between), correlations_table(between)]
    )


def scaling_pages(inputs: PageInputs) -> list[PageSection]:
    """Accuracy against the number of seen tasks."""
    scaling = SCALING.of(inputs.results)
    if scaling is None or not scaling.cells:
        return []
    return _page("Number of training tasks", [scaling_figure(scaling)])


def paper_pages(inputs: PageInputs) -> list[PageSection]:
    """The paper's tables, measured."""
    return _page("The paper's tables", paper_blocks(PAPER.of(inputs.results) or ()))


def picture_pages(inputs: PageInputs) -> list[PageSection]:
    """Test images with the predictions of both models."""
    rows = picture_rows(inputs.results)
    if not rows:
        return []
    words = (
        "Test images of the tasks with the largest and the smallest gain of the generated adapter, preferably with "
        "different predictions; below each its label and the predictions of both models."
    )
    return _page("Pictures", [Text(words, "note"), *rows])
