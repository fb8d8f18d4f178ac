"""``wildpdiff compare``, and ``wildpdiff report`` on several files; called as functions, not through the parser."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from refusals import refused
from wildbench.cli.compare import compare
from wildbench.cli.report import report
from wildbench.sections import ParameterSpread
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.evaluate.results import BackboneInfo, Provenance, ResultRow, Results, SuiteInfo, write_results
from wildpdiff.evaluate.summary import summarise

ACCURACY = {
    "pretrained": (0.5, 0.6, 0.7),
    "kernel ridge regression": (0.7, 0.6, 0.7),
    "kernel smoother": (0.6, 0.6, 0.6),
    "generated": (0.8, 0.6, 0.6),
}


def make() -> Results:
    rows = [
        ResultRow("savanna", split, source, "own", None, 0, f"{split}-{number}", value, 100)
        for split in ("seen", "unseen")
        for source, values in ACCURACY.items()
        for number, value in enumerate(values if split == "unseen" else (*values[::-1], 0.9))
    ]
    return Results(
        provenance=Provenance("0.1.0", "wildpdiff evaluate", 0, "2 cores", "3.11", "2.5", "2025-06-01"),
        suite=SuiteInfo("savanna", 10, "f" * 64, 4, 3, {}),
        backbone=BackboneInfo("savanna-cnn", "a" * 64, 1000, 100),
        generator=None,
        autoencoder=None,
        rows=tuple(rows),
        summary=tuple(summarise(rows, {})),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_results(tmp_path / "results.json", make())
    return tmp_path / "results.json"


def test_a_comparison_is_paired_and_counts_tasks(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(path, "generated", "Kernel Ridge", None, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"], found["split"]) == ("generated", "kernel ridge regression", "unseen")
    assert found["difference"] == pytest.approx(0.0)
    assert (found["wins"], found["losses"], found["ties"], found["tasks"]) == (1, 1, 1, 3)
    assert found["interval"][0] < 0 < found["interval"][1]
    assert found["accuracy_a"] == pytest.approx(2 / 3)
    assert found["decided"] is False


def test_a_comparison_in_words_and_on_another_split(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(path, "kernel ridge regression", "pretrained", "seen")
    found = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    assert "4 seen tasks: kernel ridge regression 72.5 %, pretrained 67.5 %" in found
    assert "better on 1, worse on 0, equal on 3" in found


@pytest.mark.parametrize(
    ("a", "b", "split", "values"),
    [
        ("hypernetwork", "generated", None, ["'hypernetwork'", "unseen", "pretrained"]),
        ("kernel", "generated", None, ["'kernel'", "kernel ridge regression", "kernel smoother"]),
        ("generated", "gener", None, ["'generated'"]),
        ("generated", "pretrained", "held-out habitat", ["'held-out habitat'", "unseen, seen"]),
    ],
)
def test_what_cannot_be_compared_is_refused(a: str, b: str, split: str | None, values: list[str], path: Path) -> None:
    with refused(DataError, *values):
        compare(path, a, b, split)


def test_a_report_of_two_files_takes_what_the_first_lacks(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spread = (ParameterSpread("unseen", "generated", 0.25, None, None, None),)
    further = path.with_name("further.json")
    write_results(further, replace(make(), sections={"spread": spread}))
    report([path, further], path.parent / "page", as_json=True)
    page = Path(json.loads(capsys.readouterr().out)["report"])
    assert page.parent == path.parent / "page"
    text = page.read_text()
    assert "Spread of generated adapters" in text
    assert "Spread: measured by wildpdiff evaluate" in text
    foreign = replace(make(), sections={"spread": spread}, suite=replace(make().suite, fingerprint="e" * 64))
    write_results(further, foreign)
    with refused(ArtifactError, further):
        report([path, further], path.parent / "page")


REPORT = """
import sys
from wildpdiff.cli.main import main
status = main(["report", sys.argv[1]])
print(status, [name for name in ("torch", "pyarrow", "peft", "sklearn", "scipy") if name in sys.modules])
"""


def test_a_report_that_is_really_drawn_loads_no_torch(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", REPORT, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
