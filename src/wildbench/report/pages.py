"""Sections of the report that this package adds, each only where it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from wildbench.interpolation.interpolation_summary import ways_of
from wildbench.report.figure_distance import distance_figure
from wildbench.report.figure_interpolation import alignment_figure, interpolation_figure
from wildbench.report.figure_latent_map import latent_map_figure
from wildbench.report.figure_novelty import novelty_figure
from wildbench.report.figure_scaling import scaling_figure
from wildbench.report.section_tables import correlations_table, paper_blocks, picture_rows, spread_table
from wildbench.report.verdict_sentence import verdict_sentence
from wildbench.sections import INTERPOLATION, PAPER, SCALING, SPREAD
from wildpdiff.report.blocks import Block, PageSection, Text
from wildpdiff.report.page import PageInputs


def _page(title: str, blocks: Sequence[Block | None]) -> list[PageSection]:
    present = tuple(block for block in blocks if block is not None)
    return [PageSection(title, present)] if present else []


def distance_pages(inputs: PageInputs) -> list[PageSection]:
    """Gain against the distance of the description."""
    figure = distance_figure(inputs.results, inputs.parts, inputs.styles, "gain-against-distance", inputs.heading)
    return _page("Far from what was seen", [figure])


def novelty_pages(inputs: PageInputs) -> list[PageSection]:
    """Accuracy against novelty, the map of the latents, and how far samples vary."""
    results, styles, heading = inputs.results, inputs.styles, inputs.heading
    verdict = verdict_sentence(results)
    blocks = [
        novelty_figure(results, styles, verdict, "accuracy-and-novelty", heading),
        latent_map_figure(results, styles, "latent-map", heading),
        spread_table(SPREAD.of(results) or ()),
    ]
    return _page("New, or memorised?", blocks)


def interpolation_pages(inputs: PageInputs) -> list[PageSection]:
    """What both tasks keep on the way from one to the other."""
    between = INTERPOLATION.of(inputs.results)
    if between is None or not ways_of(between):
        return []
    figures = [interpolation_figure(between, "interpolation", ""), alignment_figure(between, "alignment", "")]
    return _page("Between tasks", [*figures, correlations_table(between)])


def scaling_pages(inputs: PageInputs) -> list[PageSection]:
    """Accuracy against the number of seen tasks."""
    scaling = SCALING.of(inputs.results)
    if scaling is None or not scaling.cells:
        return []
    return _page("How many tasks it takes", [scaling_figure(scaling, "scaling", "")])


def paper_pages(inputs: PageInputs) -> list[PageSection]:
    """The paper's tables, measured."""
    return _page("The paper's questions", paper_blocks(PAPER.of(inputs.results) or ()))


def picture_pages(inputs: PageInputs) -> list[PageSection]:
    """Test images with the answers of both models."""
    rows = picture_rows(inputs.results)
    if not rows:
        return []
    words = (
        "Test images of the tasks where the generated adapter gains most, and of those where it gains least or does "
        "harm, preferring images on which the two models differ. Below each: what it shows, what the pretrained model "
        "says, what the generated adapter says; ✓ is right."
    )
    return _page("What the models see", [Text(words), *rows])
