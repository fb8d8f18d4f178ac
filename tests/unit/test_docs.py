"""Claims of README and docs: code runs, commands parse, links have targets, numbers are those of docs/results.md."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from PIL import Image

import peft_folders
import wildpdiff
from documents import README, ROOT, blocks, commands
from wildpdiff import registry
from wildpdiff.cli.main import app
from wildpdiff.cli.main import main as wildpdiff_command
from wildpdiff.evaluate.methods import baseline_names
from wildpdiff.evaluate.results import read_results

RESULTS = ROOT / "docs" / "results.md"
EXTENDING = ROOT / "docs" / "extending.md"
DOCUMENTS = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
QUICK = ("generate", "predict", "inspect", "refine")
OWN = ("own/", "words/")
"""Folders of the commands for cameras of one's own: tests/e2e/test_tutorial.py runs them."""
IMPORTED = {"lora-zoo", "lora-generator"}
"""Folders of the commands for adapters made elsewhere."""
LONGEST = 40
"""Most lines of an example of docs/extending.md, without empty ones."""


PYTHON = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, code in enumerate(blocks(path, "python"))
]
COMMANDS = [pytest.param(words, id=" ".join(words[:2])) for path in DOCUMENTS for words in commands(path)]


@pytest.fixture(scope="module", autouse=True)
def _undrawn() -> Iterator[None]:
    """Reports with empty figures: drawing takes seconds, and tests/e2e/test_demo.py does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **options: file.write(b""))
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, _undrawn: None) -> Path:
    """The folder of the smallest ``make demo``, and the inputs that the README names."""
    folder = tmp_path_factory.mktemp("docs")
    threads = torch.get_num_threads()
    out = str(folder / "runs" / "demo")
    assert wildpdiff_command(["demo", "--size", "tiny", "--out", out, "--threads", "1", "--json"]) == 0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    (described,) = blocks(README, "json")
    (folder / "ford.json").write_text(described)
    site = wildpdiff.load_suite("savanna", unseen=1, test=3).tasks("unseen")[0]
    pictures = {"empty-frames": site.description.backgrounds, "photographs": site.data("test").images}
    for name, images in pictures.items():
        (folder / name).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{number}.jpg")
    shown = site.data("train")
    for number, (image, label) in enumerate(zip(shown.images[:12], shown.labels[:12], strict=True)):
        kind = folder / "labelled" / wildpdiff.load_backbone("savanna-cnn").classes[int(label)]
        kind.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(kind / f"{number}.jpg")
    return folder


@pytest.fixture
def _in_demo(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    monkeypatch.setenv("WILDPDIFF_DEBUG", "1")


@pytest.mark.usefixtures("_in_demo")
@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_docs_runs(code: str) -> None:
    exec(compile(code, "docs", "exec"), {"__name__": "docs"})


@pytest.mark.usefixtures("_in_demo")
def test_readme_example_is_short_and_names_every_photograph(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(README, "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    exec(compile(code, "README", "exec"), {"__name__": "README"})
    lines = capsys.readouterr().out.splitlines()
    pictures = sorted(Path("runs/demo/images").rglob("*.jpg"))
    classes = wildpdiff.load_backbone("savanna-cnn").classes
    assert [line.split()[0] for line in lines] == [picture.name for picture in pictures]
    assert all(line.split()[1] in classes and 0 < float(line.split()[2]) <= 1 for line in lines)
    assert wildpdiff.Adapter.load("ford-adapter").provenance["description"]["text"].startswith("The new camera")


def refused(words: list[str]) -> str:
    """The parser's objection to these words, or nothing; no command is run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("wildpdiff", list(words), resilient_parsing=True)
    try:
        while hasattr(command, "resolve_command"):
            name, found, words = command.resolve_command(context, words)
            if found is None:
                return f"no verb {words}"
            command = found
        return " ".join(command.make_context(name, words, parent=context).args)
    except Exception as error:
        return str(error) or type(error).__name__


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_in_the_docs_are_understood(words: list[str]) -> None:
    assert refused(words) == ""


@pytest.mark.parametrize(
    "words",
    [
        ["zoo", "feed"],
        ["feed"],
        ["zoo", "build"],
        ["zoo", "build", "--out", "zoo", "--sweet"],
        ["zoo", "build", "--out", "zoo", "x"],
    ],
)
def test_commands_that_do_not_exist_would_be_noticed(words: list[str]) -> None:
    assert refused(words) != ""


@pytest.mark.usefixtures("_in_demo")
def test_quick_commands_of_the_readme_run() -> None:
    others = [words for words in commands(README) if not any(word.startswith(OWN) for word in words)]
    chosen = [words for words in others if words[0] in QUICK and not IMPORTED & set(words)]
    assert [words[0] for words in chosen] == ["generate", "predict", "inspect", "generate", "refine"]
    for words in chosen:
        assert wildpdiff_command(words) == 0, words
    lines = Path("classes.csv").read_text().splitlines()
    assert lines[0].startswith("file,class,probability,camera,time,")
    assert len(lines) == 1 + len(list(Path("photographs").iterdir()))


@pytest.mark.usefixtures("_in_demo")
def test_commands_for_adapters_of_ones_own_run() -> None:
    made = peft_folders.write(Path("loras"), 40)
    made.table.rename("tasks.csv")
    chosen = [words for words in commands(README) if IMPORTED & set(words)]
    assert [words[0] for words in chosen] == ["zoo", "fit", "generate"]
    for words in chosen:
        assert wildpdiff_command(words) == 0, words
    assert wildpdiff.Adapter.load("new-lora").config.backbone == "somebody/base"


@pytest.mark.usefixtures("_in_demo")
def test_the_method_of_the_docs_has_a_row_in_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (entry,) = blocks(EXTENDING, "toml")
    package = tmp_path / "habitats-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: habitats\nVersion: 1.0\n")
    group, line = re.fullmatch(r'\[project\.entry-points\."(.+)"\]\n(.+)\n', entry).groups()  # type: ignore[union-attr]
    (package / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    (tmp_path / "habitats.py").write_text(blocks(EXTENDING, "python")[0])
    others = [part for name in baseline_names() for part in ("--without", name)]
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(registry.registered.cache_clear)
    registry.registered.cache_clear()
    words = ["evaluate", "--run", "runs/demo", "--baselines", "all", *others, "--samples", "1", "--seen-tasks", "1"]
    assert wildpdiff_command([*words, "--out", str(tmp_path / "report")]) == 0
    rows = [row for row in read_results(tmp_path / "report" / "results.json").rows if row.source == "same habitat"]
    assert {row.split for row in rows} == {"seen", "unseen"}
    assert len({row.accuracy for row in rows if row.split == "unseen"}) > 1


@pytest.mark.parametrize("code", blocks(EXTENDING, "python"))
def test_examples_of_extending_are_short(code: str) -> None:
    assert len([line for line in code.splitlines() if line.strip()]) <= LONGEST


@pytest.mark.usefixtures("_in_demo")
def test_the_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["new_site.py", "runs/demo"])
    runpy.run_path(str(ROOT / "examples" / "new_site.py"), run_name="__main__")
    shown = capsys.readouterr().out
    suite = json.loads(Path("runs/demo/run.json").read_text())["suite_options"]
    assert shown.count("adapters agree") == len(list(Path("runs/demo/images").rglob("*.jpg")))
    rows = [row for row in read_results(Path("runs/demo/results.json")).rows if row.task == "unseen-000"]
    (pretrained,) = [row.accuracy for row in rows if row.source == "pretrained"]
    assert f"pretrained names {pretrained:.0%} of {suite['test']} labelled" in shown


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not target.startswith(("http://", "https://"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    source = Path(wildpdiff.__file__).parent
    modules = {path.name + "/" for path in source.iterdir() if (path / "__init__.py").is_file()}
    modules |= {path.name for path in source.glob("*.py")}
    listed = set(re.findall(r"^  ([a-z_]+(?:/|\.py))", blocks(ROOT / "docs" / "architecture.md", "")[1], re.MULTILINE))
    assert modules == listed
    assert "kernel_mean" in text


@pytest.fixture(scope="module")
def results_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "benchmarks" / "results_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_results_become_the_table_between_the_marks(demo: Path, results_table: ModuleType, tmp_path: Path) -> None:
    path, document = demo / "runs" / "demo" / "results.json", tmp_path / "page.md"
    document.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n", encoding="utf-8")
    assert results_table.main([str(path), str(document)]) == 0
    text = document.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- results:begin -->\n| source |")
    assert text.endswith("\n<!-- results:end -->\nafter\n")
    assert "old" not in text
    results = read_results(path)
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line[:1] == "|"}
    for row in results.summary:
        column = {"unseen": 1, "seen": 3}[row.split]
        assert float(cells[row.label][column].split()[0]) == pytest.approx(100 * row.accuracy, abs=0.051)
        if row.recovered_gain is not None:
            shown = cells[row.label][column + 1].split()[0].replace("\N{MINUS SIGN}", "-")
            assert float(shown) == pytest.approx(100 * row.recovered_gain, abs=0.51)
    made = results.provenance
    for fact in (made.command, f"seed {made.seed}", made.hardware, made.created[:10]):
        assert fact in text
    assert results_table.main([str(path), str(document)]) == 0
    assert document.read_text(encoding="utf-8") == text, "a second time changes nothing"


@pytest.mark.parametrize(
    "text", ["no marks", "<!-- results:end -->\n<!-- results:begin -->", "<!-- results:begin -->\nnever closed"]
)
def test_a_page_without_marks_is_left_alone(
    text: str, demo: Path, results_table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert results_table.main([str(demo / "runs" / "demo" / "results.json"), str(page)]) == 2
    assert page.read_text() == text
    assert "<!-- results:begin -->" in capsys.readouterr().err


def test_the_published_pages_have_their_marks(results_table: ModuleType) -> None:
    tables = (
        "unseen-16",
        "full-7",
        "full-3",
        "full-4",
        "full-5",
        "groups-3",
        "memorisation",
        "paper",
        "between",
        "scaling",
    )
    for block in (*tables, "trust", "pacs"):
        assert "\nNEW\n" in results_table.fill(RESULTS.read_text(encoding="utf-8"), block, "NEW", RESULTS.name)


def test_every_measured_number_of_the_readme_is_in_the_results() -> None:
    text = re.sub(
        r"^```.*?^```$|\[arXiv .*?\)|\]\(\S+\)", "", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    measured = set(re.findall(r"[−+]?\d+\.\d+|\[[−\d., ]+\]|\d+ %", text)) - {"3.11"}
    assert len(measured) > 30
    published = RESULTS.read_text(encoding="utf-8")
    assert [number for number in measured if number not in published] == []
