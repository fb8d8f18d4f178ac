"""report.html: one page that needs no network and no script, and its figures as PNG files."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from wildpdiff.disk import visible, write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results
from wildpdiff.report.blocks import PageSection
from wildpdiff.report.findings import findings, main_first
from wildpdiff.report.sentences import control_sentences, headline, seeds_sentence
from wildpdiff.report.wording import count, seconds_text


@dataclass(frozen=True)
class ReportFiles:
    """Paths of the page and of its figures as PNG, in the order of the page."""

    page: Path
    figures: tuple[Path, ...]


def write_report(results: Results, folder: Path) -> ReportFiles:
    """Write ``report.html`` and ``figures/*.png`` into a folder, each file atomically.

    Raises:
        ArtifactError: the results hold no row, or the disk refuses.
    """
    # Imported late: matplotlib costs a second that other users of this package need not pay.
    from wildpdiff.report.page import figures_of, page_sections

    if not results.summary:
        raise ArtifactError("The results hold no row, so there is nothing to report: evaluate at least one source.")
    sections = page_sections(results)
    page = _render(results, sections)
    pictures = []
    for figure in figures_of(sections):
        path = folder / "figures" / f"{figure.name}.png"
        write_file(path, figure.png)
        pictures.append(path)
    write_file(folder / "report.html", visible(page).encode(errors="backslashreplace"))
    return ReportFiles(folder / "report.html", tuple(pictures))


def _render(results: Results, sections: list[PageSection]) -> str:
    from wildpdiff.report.drawing import swatch

    main = main_first(findings(results))[0]
    values: dict[str, Any] = {
        "results": results,
        "sections": sections,
        "headline": headline(main),
        "leads": [*control_sentences(main), *filter(None, [seeds_sentence(main)])],
        "count": count,
        "seconds_text": seconds_text,
        "swatch": lambda row: Markup(swatch(row.style, row.condition)),
        "base64": lambda svg: b64encode(svg).decode(),
        "css": Markup(_template("style.css")),
    }
    environment = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_template("report.html.j2")).render(**values)
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def _template(name: str) -> str:
    return (files("wildpdiff.report") / "templates" / name).read_text(encoding="utf-8")
