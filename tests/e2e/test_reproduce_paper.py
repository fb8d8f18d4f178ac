"""The paper's questions from one command, on a world of seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_world import Run, tiny_backbone

from wildbench.sections import INTERPOLATION, PAPER
from wildpdiff.cli.main import main
from wildpdiff.evaluate.results import Results, read_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    assert main(words(folder)) == 0
    return folder


def words(folder: Path, *further: str) -> list[str]:
    backbone = folder / "backbone"
    if not backbone.is_dir():
        tiny_backbone(backbone)
    options = ["--size", "tiny", "--seeds", "2", "--backbone", str(backbone), "--out", str(folder / "run")]
    return ["reproduce", "paper", *options, "--threads", "1", "--json", *further]


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return read_results(folder / "run" / "results.json")


def test_every_row_of_the_tables_is_measured(results: Results) -> None:
    rows = [(row.question, row.setting, row.method, row.tasks, row.seeds) for row in PAPER.of(results) or ()]
    assert rows == [
        ("RQ1", "one seen task, saving interval 1", "paper", 2, 2),
        ("RQ1", "one seen task, saving interval 10", "paper", 2, 2),
        ("RQ1", "3 seen tasks", "paper", 3, 2),
        ("RQ1", "12 seen tasks", "paper", 6, 2),
        ("RQ1", "12 seen tasks", "wildpdiff", 6, 2),
        ("RQ3", "unseen tasks", "paper", 3, 2),
        ("RQ3", "unseen tasks", "wildpdiff", 3, 2),
    ]
    for row in PAPER.of(results) or ():
        assert row.samples == (2 if row.method == "paper" else 1), "the paper's method samples, ours estimates"
        assert (row.over_samples is not None) is (row.method == "paper")
        assert row.over_seeds is not None
        assert row.parameters_over_seeds is not None
    published = [row.published.generated if row.published else None for row in PAPER.of(results) or ()]
    assert published[:2] == [0.938, 0.9366]


def test_a_row_is_the_mean_of_its_scores(results: Results) -> None:
    (row,) = (row for row in PAPER.of(results) or () if (row.question, row.method) == ("RQ3", "wildpdiff"))
    scores = [score.accuracy for score in results.rows if score.split == "unseen" and score.condition == "own"
              and score.source == "generated"]  # fmt: skip
    assert len(scores) == 3 * 2
    assert row.generated == pytest.approx(sum(scores) / len(scores))


def test_pairs_of_three_kinds_are_walked_in_three_ways(results: Results) -> None:
    found = INTERPOLATION.of(results)
    assert found is not None
    assert [pair.group for pair in found.pairs] == ["high", "high", "low", "low", "middle", "middle"]
    assert len(found.paths) == 18


@pytest.mark.usefixtures("undrawn")
def test_called_again_it_draws_the_page_and_trains_nothing(folder: Path, run: Run) -> None:
    kept = (folder / "run" / "results.json").read_bytes()
    outcome = run(*words(folder))
    assert outcome.status == 0
    assert outcome.json["report"].endswith("report.html")
    assert (folder / "run" / "results.json").read_bytes() == kept


def test_another_seed_in_the_folder_is_refused(folder: Path, run: Run) -> None:
    outcome = run(*words(folder, "--seed", "5"))
    assert outcome.status == 2
    assert "holds a run with another seed" in outcome.err
