"""results.json: what is written is what is read, and every way a file can be wrong has its sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refusals import refused
from wildpdiff.conditional_mean.score_table import CrossValidation, MethodScore
from wildpdiff.errors import ArtifactError, SchemaVersionError
from wildpdiff.evaluate.results import (
    BackboneInfo,
    GeneratorInfo,
    Provenance,
    ResultRow,
    Results,
    SuiteInfo,
    TrustPoint,
    TrustSection,
    read_results,
    write_results,
)
from wildpdiff.evaluate.summary import summarise, task_means
from wildpdiff.posterior.score import PosteriorScore, PosteriorSummary


def row(source: str, task: str, accuracy: float, **other: Any) -> ResultRow:
    values = {"condition": "own", "generator_seed": None, "sample": 0, "split": "unseen", **other}
    return ResultRow(suite="savanna", source=source, task=task, accuracy=accuracy, images=100, **values)


GOLDEN = Path(__file__).parents[2] / "golden"

ROWS = [
    row("fine-tuned", "a", 0.8, condition="none"),
    row("fine-tuned", "b", 0.9, condition="none"),
    row("noise", "a", 0.6),
    row("noise", "b", 0.7),
    row("generated", "a", 0.7, generator_seed=0, sample=0),
    row("generated", "a", 0.8, generator_seed=0, sample=1),
    row("generated", "a", 0.9, generator_seed=1, sample=0),
    row("generated", "a", 0.8, generator_seed=1, sample=1),
    row("generated", "b", 0.7, generator_seed=0),
    row("generated", "a", 0.5, generator_seed=0, condition="shuffled"),
    row("nearest task", "a", 0.65),
    row("kernel ridge regression", "a", 0.65),
    row("mean adapter", "a", 0.65, condition="none"),
    row("pretrained", "a", 0.6, condition="none"),
    row("pretrained", "b", 0.7, condition="none"),
]


def make(rows: list[ResultRow] | None = None) -> Results:
    rows = ROWS if rows is None else rows
    return Results(
        provenance=Provenance("0.1.0", "wildpdiff evaluate", 0, "2 cores", "3.11", "2.5", "2025-06-01"),
        suite=SuiteInfo("savanna", 10, "f" * 64, 60, 15, {"images": 400}),
        backbone=BackboneInfo("savanna-cnn", "a" * 64, 1000, 100),
        generator=None,
        autoencoder=None,
        rows=tuple(rows),
        summary=tuple(summarise(rows, {"generated": 0.25})),
    )


def test_the_table_has_the_documented_order_and_shows_further_sources() -> None:
    assert [line.label for line in make().summary] == [
        "pretrained",
        "mean adapter",
        "nearest task",
        "kernel ridge regression",
        "noise",
        "generated",
        "generated, shuffled conditions",
        "fine-tuned",
    ]


def test_samples_and_seeds_are_averaged_within_a_task_before_tasks_are() -> None:
    (line,) = (line for line in make().summary if line.label == "generated")
    # Task a: .8, the mean of four; task b: .7 from one. Five rows weighed alike would give .78.
    assert line.accuracy == pytest.approx(0.75)
    assert line.recovered_gain == pytest.approx((0.75 - 0.65) / (0.85 - 0.65))
    assert (line.tasks, line.samples, line.seeds, line.seconds_per_adapter) == (2, 2, 2, 0.25)
    own = [row for row in ROWS if (row.split, row.source, row.condition) == ("unseen", "generated", "own")]
    assert task_means(own) == pytest.approx({"a": 0.8, "b": 0.7})


def test_a_gain_is_taken_over_the_tasks_that_source_and_references_share() -> None:
    (line,) = (line for line in make().summary if line.label == "nearest task")
    assert line.recovered_gain == pytest.approx((0.65 - 0.6) / (0.8 - 0.6))
    assert line.recovered_gain_interval is None
    references = [line for line in make().summary if line.source in ("pretrained", "fine-tuned")]
    assert [line.recovered_gain for line in references] == [None, None]


def test_splits_and_suites_are_summarised_apart() -> None:
    lines = summarise([*ROWS, row("pretrained", "s", 0.5, split="seen")], {})
    assert (lines[0].split, lines[0].label, lines[0].accuracy) == ("seen", "pretrained", 0.5)
    assert sum(line.source == "pretrained" for line in lines) == 2


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    write_results(path, make())
    assert read_results(path) == make()
    document = json.loads(path.read_text())
    assert (document["schema_version"], document["kind"]) == (6, "results")
    assert document == make().to_json()


def change(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return apply


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (drop("rows"), ("'rows'",)),
        (change("extra", value=1), ("'extra'",)),
        (change("kind", value="generator"), ('"kind"',)),
        (change("schema_version", value="1"), ("'1'",)),
        (change("rows", 3, "accuracy", value="high"), ("rows[3].accuracy", "'high'")),
        (change("rows", 3, "accuracy", value=float("nan")), ("rows[3].accuracy", "nan")),
        (change("rows", 3, "accuracy", value=66.1), ("rows[3].accuracy", 66.1)),
        (change("rows", 3, "split", value="test"), ("rows[3].split", "'test'")),
        (change("rows", 3, "images", value=0), ("rows[3].images", 0)),
        (change("rows", 3, "sample", value=True), ("rows[3].sample", True)),
        (change("rows", 1, "task", value="a"), ("rows[1]", "'fine-tuned'", "'a'")),
        (change("rows", value={}), ("rows", "{}")),
        (change("summary", value=[]), ("summary", "fine-tuned")),
        (change("summary", 0, "accuracy_interval", value=[0.1]), ("summary[0].accuracy_interval", "[0.1]")),
        (change("summary", 0, "accuracy", value=0.1), ("accuracy of unseen / pretrained", 0.1)),
        (change("suite", "knobs", value=None), ("suite.knobs", None)),
        (change("provenance", "created", value="yesterday"), ("provenance.created", "'yesterday'")),
    ],
)
def test_a_damaged_file_is_refused_with_file_and_key(
    damage: Callable[[dict[str, Any]], None], named: tuple[object, ...], tmp_path: Path
) -> None:
    document = make().to_json()
    damage(document)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with refused(ArtifactError, path, *named):
        read_results(path)


def test_a_newer_schema_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({**make().to_json(), "schema_version": 7}))
    with refused(SchemaVersionError, path, 7):
        read_results(path)


POINT = TrustPoint("savanna", "unseen", "a", "examples", 0.9, 5.0, 1.0, 9.0, 4.0, 0.7, True, 0)


TABLE = CrossValidation(
    (MethodScore("mean adapter", 50.0, 1.0, 20.0, 10.0, 30.0, 1.0), MethodScore("generated", 70.0, 0.5, 0.0, 0.0, 0.0)),
    40,
    60,
)
SCORE = PosteriorScore("shift", "normal", 0.25, -1.5, 69.0, 71.0)
CHECKED = GeneratorInfo(("ab" * 32,), {"size": "tiny"}, 80, TABLE, PosteriorSummary(SCORE, SCORE, "Because."))


def test_what_the_fit_found_is_written_and_read(tmp_path: Path) -> None:
    results = replace(make(), generator=CHECKED)
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_a_file_from_before_the_cross_validation_is_read() -> None:
    results = replace(make(), generator=replace(CHECKED, cross_validation=None, posterior=None))
    document = results.to_json()
    del document["generator"]["cross_validation"], document["generator"]["posterior"]
    assert Results.from_json({**document, "schema_version": 3}) == results
    with refused(ArtifactError, "'cross_validation'"):
        Results.from_json(document)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (change("generator", "cross_validation", "rows", value=[]), ("'generated'",)),
        (change("generator", "cross_validation", "rows", 0, "lead", value="far"), ("lead", "'far'")),
        (change("generator", "posterior", "reason", value=None), ("reason", None)),
    ],
)
def test_a_damaged_cross_validation_is_refused(
    damage: Callable[[dict[str, Any]], None], named: tuple[object, ...]
) -> None:
    document = replace(make(), generator=CHECKED).to_json()
    damage(document)
    with refused(ArtifactError, *named):
        Results.from_json(document)


def test_trust_is_written_and_read(tmp_path: Path) -> None:
    results = replace(make(), trust=TrustSection((POINT, replace(POINT, generator=1))))
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_sections_of_installed_packages_are_records_and_others_stay_as_they_are(tmp_path: Path) -> None:
    document = json.loads((GOLDEN / "results-6" / "results.json").read_bytes())
    document["sections"]["of another package"] = {"values": [1, None, "x"]}
    (tmp_path / "results.json").write_text(json.dumps(document))
    results = read_results(tmp_path / "results.json")
    assert results.sections["spread"][0].over_samples == 0.25
    assert results.to_json() == document


def test_a_damaged_section_is_refused_with_its_key() -> None:
    document = json.loads((GOLDEN / "results-5" / "results.json").read_bytes())
    document["sections"]["distances"][0]["distance"] = "far"
    with refused(ArtifactError, "sections.distances[0].distance", "'far'"):
        Results.from_json(document)


def test_the_sections_of_before_are_those_of_today() -> None:
    before, now = (read_results(GOLDEN / f"results-{version}" / "results.json") for version in (4, 6))
    assert before == now
    assert set(now.sections) == {"spread", "distances", "scaling"}


def test_a_file_from_before_trust_is_read() -> None:
    document = make().to_json()
    del document["trust"]
    assert Results.from_json({**document, "schema_version": 2}) == make()
    with refused(ArtifactError, "'trust'"):
        Results.from_json(document)


@pytest.mark.parametrize(
    ("points", "named"),
    [
        ((), ("trust.points",)),
        ((POINT, POINT), ("trust.points[1]", "'a'")),
        ((replace(POINT, trust=1.2),), ("trust.points[0].trust", 1.2)),
    ],
)
def test_trust_that_contradicts_itself_is_refused(points: tuple[TrustPoint, ...], named: tuple[object, ...]) -> None:
    document = replace(make(), trust=TrustSection(points)).to_json()
    with refused(ArtifactError, *named):
        Results.from_json(document)


def test_contradicting_results_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with refused(ArtifactError, path, f"rows[{len(ROWS)}]"):
        write_results(path, make([*ROWS, ROWS[0]]))
    assert not path.exists()


def test_results_and_report_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, wildpdiff.evaluate.results, wildpdiff.evaluate.summary, "
        "wildpdiff.report.terminal; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
