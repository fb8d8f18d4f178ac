"""The further sections: their numbers follow planted data, and missing ones are listed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wildbench.interpolation.interpolation_summary import SIMILARITY
from wildbench.report.figures import novelty_means
from wildbench.report.scaling_summary import scaling_curves, scaling_sentences
from wildbench.report.section_tables import paper_blocks
from wildbench.sections import MEMORISATION, PAPER
from wildpdiff.evaluate.results import Results
from wildpdiff.report.figures import accuracy_figure
from wildpdiff.report.findings import findings
from wildpdiff.report.page import styles_of, write_report

Sections = Callable[..., Any]


@pytest.fixture(scope="module")
def page(whole_results: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    text = write_report(whole_results, folder).page.read_text()
    assert sorted(path.stem for path in (folder / "figures").iterdir()) == [
        "accuracy-and-novelty",
        "accuracy-per-task",
        "alignment",
        "calibration",
        "change-per-task",
        "gain-against-distance",
        "interpolation",
        "latent-map",
        "recovered-gain",
        "scaling",
        "trust",
    ]
    return text


def tables_of(page: str) -> list[str]:
    return re.findall(r"<table.*?</table>", page, re.DOTALL)


def test_the_whole_page_needs_no_network_and_stays_small(page: str) -> None:
    assert len(page) < 2_000_000
    assert "<script" not in page
    assert not re.findall(r"https?://", page)
    assert all(source.startswith("data:image/") for source in re.findall(r'<img src="([^"]*)"', page))


def test_every_source_is_in_its_group(page: str) -> None:
    groups = re.split(r'<tr class="group">', tables_of(page)[0])[1:]
    labels, checkpoints = groups[-2:]
    assert "CMA-ES on raw LoRA" in labels
    assert "Fine-tuned<small>" in labels
    assert "Checkpoint + noise .12" in checkpoints


def test_sources_ahead_of_the_generator_are_bold_and_nothing_else(page: str, whole_results: Results) -> None:
    part = next(part for part in findings(whole_results) if part.split == "unseen")
    bold = re.findall(r'<tr class="[^"]*ahead[^"]*"><th scope="row">.*?</svg>(.*?)<', tables_of(page)[0], re.DOTALL)
    expected = {row.label for row in part.summary if part.is_ahead(row) or row is part.winner}
    assert {text.lower() for text in bold} == {label.lower() for label in expected}


def test_missing_sections_are_listed_with_their_commands(
    page: str, build_results: Callable[..., Results], tmp_path: Path
) -> None:
    assert "Not measured" not in page
    bare = write_report(build_results(splits={"unseen": 3}, seeds=1, samples=1), tmp_path).page.read_text()
    (line,) = re.findall(r"Not measured.*", bare)
    for words in ("novelty", "calibration", "held out", "reproduce scaling", "reproduce paper", "trust"):
        assert words in line


def test_accuracies_that_differ_by_rounding_are_equal(build_results: Callable[..., Results]) -> None:
    results = build_results(splits={"unseen": 12})
    rows = []
    before = {row.task: row.accuracy for row in results.rows if row.source == "pretrained"}
    for row in results.rows:
        same = row.source == "generated" and row.condition == "own"
        # The mean of equal numbers is not always that number to the last bit.
        rows.append(replace(row, accuracy=before[row.task] - 1e-16) if same else row)
    results = replace(results, rows=tuple(rows))
    (part,) = findings(results)
    styles = styles_of(results, [part])
    assert "better on 0 tasks, worse on 0, equal on 12" in accuracy_figure(part, styles, "a", "").caption


def test_pictures_have_label_and_both_predictions(page: str) -> None:
    assert page.count('class="shot"') == 16
    assert "before: empty&nbsp;✗" in page
    assert "adapted: zebra&nbsp;✓" in page


def test_novelty_is_the_mean_over_tasks_of_the_mean_over_samples(whole_results: Results) -> None:
    memorisation = MEMORISATION.of(whole_results)
    assert memorisation is not None
    means = {(mean.source, mean.condition): mean for mean in novelty_means(memorisation, "unseen")}
    assert len(means) == len([row for row in whole_results.summary if row.split == "unseen"])
    line = next(row for row in whole_results.summary if (row.split, row.label) == ("unseen", "generated"))
    assert means["generated", "own"].accuracy == pytest.approx(line.accuracy)


@pytest.mark.parametrize(
    ("gains", "sizes"),
    [
        ({5: -0.9, 10: -0.2, 20: 0.25, 40: 0.55, 80: 0.72, 160: 0.85}, ["zero from 20 tasks", "gain from 40 tasks"]),
        ({5: -0.9, 20: -0.5}, ["zero at no size", "gain at no size"]),
        ({5: 0.8, 20: 0.9}, ["zero from 5 tasks", "gain from 5 tasks"]),
        ({5: 0.4, 10: -0.3, 20: 0.5}, ["zero from 20 tasks"]),
    ],
    ids=["grows", "never", "at once", "dips"],
)
def test_scaling_gives_the_sizes_from_which_every_interval_lies_above(
    gains: dict[int, float], sizes: list[str], scaling_of: Sections
) -> None:
    (text,) = scaling_sentences(scaling_of(gains))
    for size in sizes:
        assert size in text


def test_scaling_gain_is_a_ratio_of_means_with_seeds_in_its_interval(scaling_of: Sections) -> None:
    scaling = scaling_of({10: 0.5})
    (curve,) = (
        curve
        for curve in scaling_curves(scaling)
        if (curve.source, curve.diversity, curve.checkpoints) == ("generated", "wide", 13)
    )
    (point,) = curve.points
    assert point.gain == pytest.approx(0.5, abs=0.05)
    assert point.seeds == 3
    moved = tuple(
        replace(cell, accuracy=tuple(min(1.0, value + 0.04 * (cell.seed - 1)) for value in cell.accuracy))
        for cell in scaling.cells
    )
    spread = scaling_curves(replace(scaling, cells=moved))[0].points[0]
    assert point.interval is not None
    assert spread.interval is not None
    assert np.ptp(spread.interval) > 1.5 * np.ptp(point.interval), "seeds that differ widen the interval"


def test_every_alignment_number_has_its_row(page: str) -> None:
    table = next(table for table in tables_of(page) if "Alignment number" in table)
    rows = [head.lower() for head in re.findall(r'<th scope="row">([^<]*)', table)]
    assert rows == ["principal angles", "mode connectivity", SIMILARITY]


def test_published_numbers_are_once_below_ours(whole_results: Results) -> None:
    (table,) = paper_blocks(PAPER.of(whole_results) or ())
    heads = [row.head for row in table.rows]  # type: ignore[attr-defined]
    assert heads[:4] == ["RQ1", "one seen task", "one seen task", "the paper"]
    assert heads.count("the paper") == 5
    assert paper_blocks(()) == []
