"""The joined table of several domains: rows, directions, missing cells, and files that are none."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from wildbench.domains.domain import EVOLUTION
from wildbench.domains.regret import Regret
from wildbench.domains.table import WITH_TRUST, Cell, DomainRow, DomainTable, write_table
from wildbench.trust_summary import TrustSummary
from wildpdiff.evaluate.statistics import Estimate
from wildpdiff.tasks.metric import ACCURACY, Metric

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
LOSS = Metric("loss", "nats", higher_is_better=False)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("domains_table", BENCHMARKS / "domains_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(method: str, **scores: float) -> DomainRow:
    cells = {group: Cell(Estimate(value - 0.01, value + 0.01, value, 4), None, {}) for group, value in scores.items()}
    return DomainRow(method, "description", cells)


def summary() -> TrustSummary:
    def share(value: float) -> Estimate:
        return Estimate(None, None, value, 4)

    return TrustSummary(
        4, 1, share(0.6), None, share(0.9), share(0.75), share(0.0), share(0.25), share(1.0), share(1.0)
    )


def table() -> DomainTable:
    rows = (
        row("pretrained", seen=0.5, unseen=0.5, far=0.5),
        row("mean adapter", seen=0.99, unseen=0.625, far=0.4),
        row("generated", seen=0.7, unseen=0.75, far=0.3),
        row(WITH_TRUST, unseen=0.71),
        row(EVOLUTION, unseen=0.9),
        row("fine-tuned", unseen=0.8, far=0.9),
    )
    return DomainTable(
        "tiny", "Tiny", ACCURACY, (), {"seen": 2, "unseen": 4, "far": 1}, rows, {"unseen": summary()},
        {"unseen": Regret(Estimate(None, None, 0.1, 4), Estimate(None, None, 0.1, 4), None)}, 1, 7, 1.0, "command a",
    )  # fmt: skip


def cells(text: str, name: str, group: str) -> dict[str, str]:
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    found = [line for line in lines if [cell.strip() for cell in line[:2]] == [name, group]]
    assert len(found) == 1
    return dict(zip(lines[0], found[0], strict=True))


def written(script: ModuleType, tmp_path: Path, *tables: tuple[str, DomainTable]) -> tuple[int, str]:
    page, folders = tmp_path / "page.md", []
    page.write_text("before\n<!-- domains:begin -->\nold\n<!-- domains:end -->\nafter\n", encoding="utf-8")
    for number, (name, made) in enumerate(tables):
        folder = tmp_path / f"run-{number}"
        folder.mkdir(exist_ok=True)
        write_table(made, folder)
        folders.append(f"{name}={folder}" if name else str(folder))
    return script.main([str(page), *folders]), page.read_text(encoding="utf-8")


def test_one_row_a_domain_and_group_of_unseen_tasks(script: ModuleType, tmp_path: Path) -> None:
    other = replace(table(), domain="other", metric=LOSS, trust={}, command="command b")
    rc, text = written(script, tmp_path, ("", table()), ("", other))
    assert rc == 0
    assert text.startswith("before\n<!-- domains:begin -->\n| domain |")
    assert text.endswith("<!-- domains:end -->\nafter\n")
    assert sum(line.startswith(("| tiny |", "| other |")) for line in text.splitlines()) == 4, "no row of seen tasks"
    own = cells(text, "tiny", "unseen")
    assert (own["tasks"], own["pretrained"], own["mean"]) == ("4", "50.0", "62.5")
    assert own["generated"] == "**75.0** [74.0, 76.0]", "labelled methods are not compared with"
    assert own["nearest"] == own["hypernetwork"] == script.MISSING
    assert (own["mean trust"], own["kept back, %"]) == ("0.60", "25")
    assert own["harmed without, with, %"] == "25, 0"
    assert cells(text, "tiny", "far")["kept back, %"] == script.MISSING
    assert cells(text, "tiny", "far")["pretrained"] == "**50.0**"
    groups = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| tiny |")]
    assert groups == ["unseen", "far"], "held-out groups come last"
    assert "command a" in text
    assert "command b" in text


def test_of_a_loss_the_least_is_best(script: ModuleType, tmp_path: Path) -> None:
    _, text = written(script, tmp_path, ("", replace(table(), metric=LOSS)))
    own = cells(text, "tiny", "unseen")
    assert own["pretrained"] == "**0.500**"
    assert own["generated"] == "0.750 [0.740, 0.760]"
    assert "↓" in own["metric"]


def test_a_run_can_have_another_name_and_no_two_have_the_same(script: ModuleType, tmp_path: Path) -> None:
    rc, text = written(script, tmp_path, ("", table()), ("tiny | whole", table()))
    assert rc == 0
    assert "| tiny \\| whole | far |" in text
    rc, text = written(script, tmp_path, ("", table()), ("", table()))
    assert rc == 2
    assert "\nold\n" in text


def test_without_a_finished_run_the_page_is_left_alone(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- domains:begin -->\n<!-- domains:end -->\n")
    assert script.main([str(page), str(tmp_path)]) == 2
    assert "domain.json" in capsys.readouterr().err
    (tmp_path / "domain.json").write_text("{}")
    assert script.main([str(page), str(tmp_path)]) == 2
    assert page.read_text() == "<!-- domains:begin -->\n<!-- domains:end -->\n"
