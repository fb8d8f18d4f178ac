"""The page: self-contained, honest, escaped, and reproducible."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from refusals import refused
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results
from wildpdiff.report.drawing import PNG_SCALE, WIDTH
from wildpdiff.report.figures import accuracy_figure
from wildpdiff.report.findings import findings
from wildpdiff.report.page import styles_of, write_report
from wildpdiff.report.terminal import results_table

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Structure(HTMLParser):
    """Collects identifiers and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identifiers: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.identifiers += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.identifiers += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _figures(page: str) -> list[bytes]:
    return [b64decode(data) for data in re.findall(r"data:image/svg\+xml;base64,([^\"]*)", page)]


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(results, tmp_path_factory.mktemp("report")).page.read_text()


def test_the_page_is_whole_and_needs_no_network_and_no_script(page: str) -> None:
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert len(structure.identifiers) == len(set(structure.identifiers))
    assert not {"script", "link", "iframe"} & structure.tags
    assert not re.findall(r"https?://", page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'<img src="([^"]*)"', page))


def test_the_page_has_a_light_and_a_dark_scheme(page: str) -> None:
    style, _ = page.split("</style>", 1)
    light, dark = style.split("prefers-color-scheme: dark", 1)
    declared = set(re.findall(r"(--[\w-]+):", light))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= declared
    assert declared == set(re.findall(r"(--[\w-]+):", dark))
    assert "invert" in dark


def test_the_page_shows_every_source_its_controls_and_its_limits(page: str, results: Results) -> None:
    for line in results.summary:
        assert (line.label[:1].upper() + line.label[1:]) in page
    for value in ("<strong>generated adapters</strong>", "wildpdiff run --size tiny", "3 min 04 s", results.notes[0]):
        assert value in page


def test_the_winner_is_the_bold_line_also_when_it_is_a_baseline(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    results = build_results(splits={"seen": 6}, gains={("kernel ridge regression", "own"): 1.2}, seeds=1, samples=1)
    text = write_report(results, tmp_path).page.read_text()
    ahead = re.findall(r'<tr class="[^"]*ahead.*?</tr>', text, re.DOTALL)
    assert sum("Kernel ridge regression" in line for line in ahead) == 1
    assert all("Generated" not in line for line in ahead)
    assert "<strong>kernel ridge regression</strong>" in text


def test_the_users_own_names_of_tasks_are_shown_in_any_script(
    build_results: Callable[..., Results], recwarn: pytest.WarningsRecorder
) -> None:
    results = build_results(splits={"unseen": 4})
    shown = {"渓谷 5": "渓谷 5", "Föhrenwald/3": "Föhrenwald/3", "Río\nHondo": "Río Hondo", "\x1b[31m7": "\\x1b[31m7"}
    titles = dict(zip(sorted({row.task for row in results.rows}), shown, strict=True))
    named = results.with_titles(titles)
    assert [row.task for row in named.rows] == [titles[row.task] for row in results.rows]
    assert named.summary == results.summary
    (part,) = findings(named)
    drawn = accuracy_figure(part, styles_of(named, [part]), "a", "").svg.decode()
    assert [name for name in shown.values() if name not in drawn] == []
    assert not [str(entry.message) for entry in recwarn if "Glyph" in str(entry.message)]


def test_names_of_tasks_are_text_and_never_markup_or_formulas(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    results = build_results(splits={"unseen": 1}, task_name="$x_1<b>&{number}$")
    written = write_report(results, tmp_path)
    text = written.page.read_text()
    assert "<b>" not in text
    assert "$x_1&lt;b&gt;&amp;0$" in text
    assert b"$x_1&lt;b&gt;&amp;0$" in _figures(text)[1]
    assert "no interval" in text


def test_figures_are_pictures_and_the_same_results_give_the_same_bytes(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    results = build_results(splits={"unseen": 4}, seeds=1, samples=2)
    first, second = write_report(results, tmp_path / "a"), write_report(results, tmp_path / "b")
    names = [path.name for path in first.figures]
    assert names == ["recovered-gain.png", "accuracy-per-task.png", "change-per-task.png"]
    for one, other in zip((first.page, *first.figures), (second.page, *second.figures), strict=True):
        assert one.read_bytes() == other.read_bytes()
    for path in first.figures:
        with Image.open(path) as picture:
            assert picture.width == WIDTH * PNG_SCALE
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6) or []) > 20


def test_results_without_references_or_generator_still_make_a_page(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    whole = build_results(splits={"unseen": 3})
    keep = {"nearest task", "mean adapter"}
    results = Results(
        **{
            **vars(whole),
            "rows": tuple(row for row in whole.rows if row.source in keep),
            "summary": tuple(row for row in whole.summary if row.source in keep),
            "generator": None,
            "autoencoder": None,
            "stages": (),
        }
    )
    written = write_report(results, tmp_path)
    assert "the generator" in re.findall(r"<h1>.*?</h1>", written.page.read_text(), re.DOTALL)[0]
    assert "accuracy-per-task.png" in [path.name for path in written.figures]


def test_many_tasks_keep_the_figure_on_one_screen(build_results: Callable[..., Results]) -> None:
    results = build_results(splits={"unseen": 120}, seeds=1, samples=1)
    (part,) = findings(results)
    figure = accuracy_figure(part, styles_of(results, [part]), "accuracy-per-task", "")
    with Image.open(BytesIO(figure.png)) as picture:
        assert picture.height < 2.5 * picture.width


def test_nothing_to_report_is_an_error_and_leaves_no_file(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    empty = Results(**{**vars(build_results(splits={"unseen": 1})), "rows": (), "summary": ()})
    with refused(ArtifactError):
        write_report(empty, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_terminal_shows_one_table_a_split_with_the_winner_in_bold(results: Results) -> None:
    stream = StringIO()
    Console(file=stream, width=140, force_terminal=True, color_system="standard").print(results_table(results))
    lines = stream.getvalue().splitlines()
    bold = [line for line in lines if line.startswith("\x1b[1mGenerated")]
    assert len(bold) == 2
    assert all("shuffled" not in line for line in bold)
    assert any("15 unseen tasks" in line for line in lines)
    assert sum("Kernel ridge regression" in line and "\x1b[1m" not in line for line in lines) == 2
