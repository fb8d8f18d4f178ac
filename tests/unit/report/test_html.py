"""The page: alone, honest, escaped, and the same for the same results."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results
from wildpdiff.report.figure_accuracy import accuracy_figure
from wildpdiff.report.figures import styles_of
from wildpdiff.report.findings import findings
from wildpdiff.report.html import write_report
from wildpdiff.report.palette import css_variables
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


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(results, tmp_path_factory.mktemp("report")).page.read_text()


def test_the_page_is_whole_and_needs_no_network_and_no_script(page: str) -> None:
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert len(structure.identifiers) == len(set(structure.identifiers))
    assert not {"script", "link", "img", "iframe"} & structure.tags
    assert set(re.findall(r"https?://[\w./-]+", page)) <= {"http://www.w3.org/1999/xlink"}
    references = set(re.findall(r'xlink:href="#([^"]+)|url\(#([^)]+)\)', page))
    assert {first or second for first, second in references} <= set(structure.identifiers)


def test_colours_of_figures_follow_the_scheme_of_the_page(page: str) -> None:
    style, body = page.split("</style>", 1)
    declared = set(re.findall(r"(--[\w-]+):", style))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= declared
    # A colour left as a number would not change in the dark.
    assert set(re.findall(r"#[0-9a-f]{6}\b", body)) == set()
    assert "prefers-color-scheme: dark" in style
    assert css_variables(dark=True) != css_variables(dark=False)


def test_the_page_shows_every_source_its_controls_and_its_limits(page: str, results: Results) -> None:
    for line in results.summary:
        assert (line.label[:1].upper() + line.label[1:]) in page
    for words in (
        "<strong>generated adapters</strong>",
        "What this does not show",
        "The autoencoder&#39;s ceiling" if "&#39;s ceiling" in page else "The autoencoder's ceiling",
        "wildpdiff run --size tiny",
        "3 min 04 s",
        "Every number is the mean of all samples.",
    ):
        assert words in page


def test_the_winner_is_the_bold_line_also_when_it_is_a_baseline(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    results = build_results(splits={"seen": 6}, gains={("kernel ridge regression", "own"): 1.2}, seeds=1, samples=1)
    text = write_report(results, tmp_path).page.read_text()
    ahead = re.findall(r'<tr class="[^"]*ahead.*?</tr>', text, re.DOTALL)
    assert sum("Kernel ridge regression" in line for line in ahead) == 1
    assert all("Generated" not in line for line in ahead)
    assert "<strong>kernel ridge regression</strong>" in text
    assert "No unseen task was evaluated" in text
    assert "One generator was trained" in text


def test_names_of_tasks_are_text_and_never_markup_or_formulas(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    results = build_results(splits={"unseen": 1}, task_name="$x_1<b>&{number}$")
    written = write_report(results, tmp_path)
    text = written.page.read_text()
    assert "<b>" not in text
    assert text.count("$x_1&lt;b&gt;&amp;0$") >= 3
    assert "no interval" in text


def test_figures_are_pictures_and_the_same_results_give_the_same_bytes(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    results = build_results(splits={"unseen": 4}, seeds=1, samples=2)
    first, second = write_report(results, tmp_path / "a"), write_report(results, tmp_path / "b")
    names = [path.name for path in first.figures]
    assert names == ["recovered-gain.png", "accuracy-per-task.png", "change-per-task.png", "gain-against-headroom.png"]
    for one, other in zip((first.page, *first.figures), (second.page, *second.figures), strict=True):
        assert one.read_bytes() == other.read_bytes()
    for path in first.figures:
        with Image.open(path) as picture:
            assert picture.width == 1840
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
    assert "the generator was not evaluated" in written.page.read_text()
    assert "accuracy-per-task.png" in [path.name for path in written.figures]


def test_many_tasks_keep_the_figure_on_one_screen(build_results: Callable[..., Results]) -> None:
    results = build_results(splits={"unseen": 120}, seeds=1, samples=1)
    (part,) = findings(results)
    figure = accuracy_figure(part, styles_of(results, [part]), "accuracy-per-task", "")
    with Image.open(BytesIO(figure.drawing.png)) as picture:
        assert picture.height < 2200


def test_nothing_to_report_is_an_error_and_leaves_no_file(
    build_results: Callable[..., Results], tmp_path: Path
) -> None:
    empty = Results(**{**vars(build_results(splits={"unseen": 1})), "rows": (), "summary": ()})
    with pytest.raises(ArtifactError, match="nothing to report"):
        write_report(empty, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_terminal_shows_one_table_a_split_with_the_winner_in_bold(results: Results) -> None:
    stream = StringIO()
    Console(file=stream, width=140, force_terminal=True, color_system="standard").print(results_table(results))
    lines = stream.getvalue().splitlines()
    bold = [line for line in lines if line.startswith("\x1b[1mgenerated")]
    assert len(bold) == 1 + ("generated adapters" in str(lines[-4:]))
    assert all("shuffled" not in line for line in bold)
    assert any("15 unseen tasks" in line for line in lines)
    assert sum("kernel ridge regression" in line and "\x1b[1m" not in line for line in lines) >= 2
