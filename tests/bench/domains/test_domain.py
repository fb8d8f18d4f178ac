"""The runner of domains on one of seconds: rows, groups, opponents, scorers, resuming."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_domain import TINY, Episodes, backbone, opened
from tiny_domain import suite as turned
from typer.testing import CliRunner

from refusals import refused
from wildbench.cli.reproduce import app
from wildbench.domains import registry
from wildbench.domains.run import domain_config, run_domain
from wildbench.domains.table import WITH_TRUST, DomainTable, domain_table, methods_table, read_table
from wildbench.studies import measuring
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.pooled_scores import class_counts, macro_f1
from wildpdiff.cli.terminal import recorded_command, remember_command
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.evaluate.results import TrustPoint, TrustSection, read_results
from wildpdiff.tasks.dataset import PlainSuite, PlainTask
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.tasks.task import GROUPS

CORE = domain_config(TINY, trained=False)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("domain") / "out"


@pytest.fixture(scope="module")
def table(out: Path) -> DomainTable:
    return run_domain(TINY, Path("."), out, CORE, command="wildbench domain tiny")


def test_every_method_and_opponent_has_a_row_and_every_group_a_column(table: DomainTable, out: Path) -> None:
    assert table.groups == {"seen": 2, "unseen": 2, "far": 1}
    labels = [row.method for row in table.rows]
    assert labels[0] == "pretrained"
    assert labels[-2:] == ["true rule", "fine-tuned"]
    assert {"mean adapter", "nearest task", "additive kernel regression", "generated"} <= set(labels)
    assert table.cell("true rule", "far").score.value == 1.0
    assert table.cell("true rule", "unseen").pooled["macro-F1"].value == 1.0
    assert table.cell("fine-tuned", "unseen").score.value > table.cell("pretrained", "unseen").score.value
    assert next(row.uses for row in table.rows if row.method == "true rule") == "labels"
    assert read_table(out / "domain.json") == table
    assert len(methods_table(table).rows) == len(labels)
    assert "| true rule | labels |" in (out / "domain.md").read_text()
    assert (out / "report.html").is_file()


def test_called_again_nothing_is_measured_anew(table: DomainTable, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "prepare", lambda *_: pytest.fail("measured again"))
    assert run_domain(TINY, Path("."), out, CORE, command="another") == table
    with refused(ArtifactError, "seed"):
        run_domain(TINY, Path("."), out, replace(CORE, seed=5), command="another")


def test_other_data_need_another_folder(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "prepare", lambda *_: pytest.fail("measured"))
    reading, data, other = replace(TINY, files=("a.txt", "b")), tmp_path / "data", tmp_path / "other"
    for folder, text in ((data, "one"), (other, "two")):
        (folder / "b").mkdir(parents=True)
        (folder / "a.txt").write_text(text)
    with pytest.raises(pytest.fail.Exception):  # as a kill: the folder is claimed, and nothing is finished
        run_domain(reading, data, tmp_path / "out", CORE, command="tiny")
    with refused(ArtifactError, other):
        run_domain(reading, other, tmp_path / "out", CORE, command="tiny")
    shutil.copytree(data, tmp_path / "moved")
    assert reading.content_of(tmp_path / "moved") == reading.content_of(data)
    (data / "b" / "more").touch()
    assert reading.content_of(tmp_path / "moved") != reading.content_of(data)


def test_a_domain_is_opened_on_one_thread_whatever_the_user_allows(tmp_path: Path) -> None:
    """The bytes of a backbone that is made anew at every call, and with them the resumed run, depend on it."""
    threads, found = torch.get_num_threads(), []

    def counted(*_: object, **__: object) -> OpenBenchmark:
        found.append(torch.get_num_threads())
        raise DataError("enough")

    torch.set_num_threads(2)
    try:
        with refused(DataError, "enough"):
            run_domain(replace(TINY, open=counted), Path("."), tmp_path / "out", CORE, command="tiny")
        assert (found, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(threads)


def test_with_trust_the_pretrained_model_is_kept_below_the_threshold(table: DomainTable, out: Path) -> None:
    points = [
        TrustPoint("tiny", "unseen", f"unseen-{number}", "description", trust, 1.0, 0.0, 2.0, gain, 0.5, trust > 0.5, 0)
        for number, trust, gain in ((0, 0.9, 3.0), (1, 0.1, -2.0), (2, 0.2, -4.0))
    ]
    results = replace(read_results(out / "results.json"), trust=TrustSection(tuple(points)))
    found = domain_table(TINY, results)
    scores = {
        (row.task, row.source): row.accuracy
        for row in results.rows
        if row.source == "pretrained" or (row.source, row.condition) == ("generated", "own")
    }
    wanted = (scores["unseen-0", "generated"] + scores["unseen-1", "pretrained"]) / 2
    assert found.cell(WITH_TRUST, "unseen").score.value == pytest.approx(wanted)
    assert found.cell(WITH_TRUST, "far").score.value == scores["unseen-2", "pretrained"]
    assert set(found.trust) == {"unseen", "far"}
    assert (found.trust["far"].used_share.value, found.trust["far"].harmed_without.value) == (0.0, 1.0)
    assert "seen" not in next(row.cells for row in found.rows if row.method == WITH_TRUST)


def test_a_scorer_of_episodes_writes_the_same_rows(tmp_path: Path) -> None:
    scorer = Episodes(backbone().initial_adapter(0))
    scored = replace(
        TINY,
        open=lambda *given: replace(opened(*given), scorer=scorer, predictors=lambda made: []),
        pooled=(),
    )
    found = run_domain(scored, Path("."), tmp_path / "out", domain_config(scored, trained=False), command="c")
    assert found.metric == scorer.metric
    assert found.cell("pretrained", "unseen").score.value == 1.0
    assert found.cell("fine-tuned", "unseen").score.value == pytest.approx(1.5)
    assert {row.images for row in read_results(tmp_path / "out" / "results.json").rows} == {2}


@dataclass(frozen=True)
class Titled(PlainTask):
    """A task whose user calls it otherwise than folders can be called."""

    @property
    def title(self) -> str:
        return f"Süd/{self.name}"


def test_results_and_report_have_the_user_s_own_names_of_tasks(tmp_path: Path) -> None:
    scorer = Episodes(backbone().initial_adapter(0))

    def of_user(*given: Any) -> OpenBenchmark:
        suite = turned()
        groups = ([Titled(own.name, own.splits, own.description) for own in suite.tasks(group)] for group in GROUPS)
        pretraining, seen, unseen = groups
        titled = PlainSuite(suite.name, seen, unseen, pretraining)
        return replace(opened(*given), suite=titled, scorer=scorer, predictors=lambda made: [], knobs={})

    domain = replace(TINY, open=of_user, pooled=())
    found = run_domain(domain, Path("."), tmp_path / "out", domain_config(domain, trained=False), command="c")
    results = read_results(tmp_path / "out" / "results.json")
    assert {row.task for row in results.rows if row.split == "unseen"} == {f"Süd/unseen-{i}" for i in range(3)}
    assert found == domain_table(domain, results)
    assert "Süd/unseen-2" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_macro_f1_is_of_the_classes_that_occur() -> None:
    targets = torch.tensor([0, 0, 1, 1, 1])
    outputs = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 1, 0]), 3).float()
    counts = class_counts(outputs, {TARGETS: targets})
    # Class 0: one right of two predicted and two true; class 1: two right of two and three.
    assert float(macro_f1().value(counts)) == pytest.approx((2 / 4 + 4 / 5) / 2)
    assert macro_f1(only=(1, 2)).value(torch.stack([counts, counts])).tolist() == pytest.approx([4 / 5, 4 / 5])


def test_the_command_lists_domains_and_refuses_unknown_ones(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["domain", "--list", "--json"])
    assert listed.exit_code == 0, listed.output
    assert [entry["name"] for entry in json.loads(listed.stdout)] == list(registry.MODULES)
    for arguments in (["domain"], ["domain", "mars"], ["domain", next(iter(registry.MODULES), "mars")]):
        assert isinstance(CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "o")]).exception, DataError)
    for name in registry.MODULES:
        assert registry.find_domain(name).name == name
        if registry.find_domain(name).reads:  # the others would run
            assert isinstance(CliRunner().invoke(app, ["domain", name]).exception, DataError)
        for file in registry.find_domain(name).files[:1]:
            with refused(DataError, name, file):
                registry.find_domain(name).require(tmp_path)


def test_the_recorded_command_is_of_the_program_that_ran() -> None:
    remember_command(["domain", "a b"], "wildbench")
    try:
        assert recorded_command() == "wildbench domain 'a b'"
    finally:
        remember_command([])
