"""The further sections: their numbers and their words follow planted data, and what is missing is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wildbench.interpolation.interpolation_summary import SIMILARITY, midpoint_kept
from wildbench.report.figure_interpolation import alignment_caption
from wildbench.report.figure_novelty import novelty_means
from wildbench.report.scaling_summary import scaling_curves, scaling_sentences
from wildbench.report.section_tables import paper_blocks
from wildbench.sections import MEMORISATION, PAPER
from wildpdiff.evaluate.results import Results
from wildpdiff.report.figure_accuracy import accuracy_figure
from wildpdiff.report.figure_gain import headroom_figure
from wildpdiff.report.figures import styles_of
from wildpdiff.report.findings import findings
from wildpdiff.report.html import write_report

Sections = Callable[..., Any]


@pytest.fixture(scope="module")
def page(whole_results: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    text = write_report(whole_results, folder).page.read_text()
    pictures = sorted(path.stem for path in (folder / "figures").iterdir())
    assert pictures == [
        "accuracy-and-novelty",
        "accuracy-per-task",
        "alignment",
        "calibration",
        "change-per-task",
        "gain-against-distance",
        "gain-against-headroom",
        "interpolation",
        "latent-map",
        "recovered-gain",
        "scaling",
        "trust",
    ]
    return text


def test_the_whole_page_needs_no_network_and_stays_small(page: str) -> None:
    assert len(page) < 3_000_000
    assert "<script" not in page
    assert set(re.findall(r"https?://[\w./-]+", page)) <= {"http://www.w3.org/1999/xlink"}
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'<img src="([^"]*)"', page))
    identifiers = re.findall(r' id="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))
    style, body = page.split("</style>", 1)
    declared = set(re.findall(r"(--[\w-]+):", style))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= declared
    assert set(re.findall(r"#[0-9a-f]{6}\b", body)) == set()


def test_every_source_stands_in_its_group(page: str) -> None:
    table = re.findall(r"<table.*?</table>", page, re.DOTALL)[0]
    groups = re.split(r'<tr class="group">', table)[1:]
    titles = [re.findall(r"<span>(.*?)</span>", group)[0] for group in groups]
    assert titles[-2:] == ["With labels of the task: no rivals of the above", "Controls made of stored checkpoints"]
    labels = next(group for group in groups if "With labels" in group)
    assert "CMA-ES on raw LoRA" in labels
    assert "Fine-tuned</th>" in labels or "Fine-tuned<small>" in labels


def test_what_is_ahead_of_the_generator_is_bold_and_nothing_else(page: str, whole_results: Results) -> None:
    part = next(part for part in findings(whole_results) if part.split == "unseen")
    table = re.findall(r"<table.*?</table>", page, re.DOTALL)[0]
    bold = re.findall(r'<tr class="[^"]*ahead[^"]*"><th scope="row">.*?</svg>(.*?)<', table, re.DOTALL)
    expected = {row.label for row in part.summary if part.is_ahead(row) or row is part.winner}
    assert {text.lower() for text in bold} == {label.lower() for label in expected}


def test_nothing_is_said_to_be_missing_from_a_whole_page_and_everything_from_a_bare_one(
    page: str, build_results: Callable[..., Results], tmp_path: Path
) -> None:
    assert "Not measured here" not in page
    bare = write_report(build_results(splits={"unseen": 3}, seeds=1, samples=1), tmp_path).page.read_text()
    (line,) = re.findall(r"Not measured here.*", bare)
    for words in ("novelty", "calibration", "held out", "reproduce scaling", "reproduce paper", "trust in generated"):
        assert words in line


def test_one_definition_of_harm_serves_every_caption(page: str, whole_results: Results) -> None:
    (per_task,) = re.findall(r"pretrained model on (\d+), worse on (\d+) and equal on (\d+)", page)
    (harm,) = re.findall(r"does harm: (\d+) of 30", page)
    (listed,) = re.findall(r"worse than the pretrained model on (\d+) of 30 unseen tasks; the worst", page)
    assert per_task[1] == harm == listed


def test_accuracies_that_differ_by_rounding_are_no_harm(build_results: Callable[..., Results], tmp_path: Path) -> None:
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
    figures = accuracy_figure(part, styles, "a", ""), headroom_figure(part, styles, "b", "")
    captions = [figure.caption for figure in figures if figure is not None]
    assert "better than the pretrained model on 0, worse on 0 and equal on 12" in captions[0]
    assert "does harm: 0 of 12, and 12 stay as they were" in captions[1]


def test_pictures_show_truth_and_both_answers(page: str) -> None:
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


def test_scaling_says_how_many_tasks_are_needed_and_how_failure_looks(scaling_of: Sections) -> None:
    told = " ".join(scaling_sentences(scaling_of({5: -0.9, 10: -0.2, 20: 0.25, 40: 0.55, 80: 0.72, 160: 0.85})))
    told = told.replace("\N{NO-BREAK SPACE}", " ")
    assert "needs about 20 varied tasks" in told
    assert "40 for surely more than half of what 160 give" in told
    assert "harm: adapters worse than none (5 tasks −9" in told
    assert "With 1 checkpoint a task instead of 13" in told


def test_scaling_that_never_works_is_said_so(scaling_of: Sections) -> None:
    told = " ".join(scaling_sentences(scaling_of({5: -0.9, 20: -0.5})))
    assert "needs more than 20 tasks" in told
    assert "no size is surely above" in told


def test_scaling_that_works_at_once_shows_no_failure(scaling_of: Sections) -> None:
    assert "no failure was seen" in " ".join(scaling_sentences(scaling_of({5: 0.8, 20: 0.9})))


def test_a_dip_after_a_good_size_moves_the_answer_up(scaling_of: Sections) -> None:
    told = " ".join(scaling_sentences(scaling_of({5: 0.4, 10: -0.3, 20: 0.5})))
    assert "needs about 20 varied tasks" in told


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
    cells = list(scaling.cells)
    moved = [
        replace(cell, accuracy=tuple(min(1.0, value + 0.04 * (cell.seed - 1)) for value in cell.accuracy))
        for cell in cells
    ]
    spread = scaling_curves(replace(scaling, cells=tuple(moved)))[0].points[0]
    assert point.interval is not None
    assert spread.interval is not None
    assert np.ptp(spread.interval) > 1.5 * np.ptp(point.interval), "seeds that differ widen the interval"


def test_interpolation_tells_which_ways_work_and_what_predicts_it(page: str) -> None:
    assert "Half-way between tasks of low similarity" in page
    assert "keeps less than 90" in page
    assert "The strongest, principal angles, predicts it well." in page
    table = next(table for table in re.findall(r"<table.*?</table>", page, re.DOTALL) if "Alignment number" in table)
    assert re.findall(r'<th scope="row">([^<]*)', table)[-1].lower() == SIMILARITY


def test_alignment_that_predicts_nothing_is_not_said_to(interpolation_of: Sections) -> None:
    between = interpolation_of(36, predicts=False)
    only = replace(
        between,
        alignments={"principal_angles": "x"},
        pairs=tuple(
            replace(pair, alignment={"principal_angles": pair.alignment["principal_angles"]}) for pair in between.pairs
        ),
    )
    assert "is not shown to predict it" in alignment_caption(only, midpoint_kept(only, "conditions"))


def test_alignment_that_runs_the_wrong_way_is_said_so(interpolation_of: Sections) -> None:
    between = interpolation_of(36)
    turned = tuple(replace(pair, alignment={"angles": -pair.alignment["principal_angles"]}) for pair in between.pairs)
    between = replace(between, alignments={"angles": "x"}, pairs=turned)
    assert "goes against it" in alignment_caption(between, midpoint_kept(between, "conditions"))


def test_the_papers_numbers_stand_once_below_ours(whole_results: Results) -> None:
    _, table = paper_blocks(PAPER.of(whole_results) or ())
    heads = [row.head for row in table.rows]  # type: ignore[attr-defined]
    assert heads[:4] == ["RQ1", "one seen task", "one seen task", "the paper"]
    assert heads.count("the paper") == 5
    assert "secondary notes" in table.note  # type: ignore[attr-defined]
    assert paper_blocks(()) == []
