"""A page of headings, paragraphs and tables, the same content as Markdown and as one HTML file without a script."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup, escape

_LINK = re.compile(r"\[([^\]\[]+)\]\(([^()\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class PlainTable:
    """Column names, and rows with a cell for each."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PlainSection:
    """A heading with paragraphs, tables, and notes below them. Texts may hold `code` and [links](address)."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[PlainTable, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlainPage:
    """A title and sections."""

    title: str
    sections: tuple[PlainSection, ...]


def page_markdown(page: PlainPage) -> str:
    """The page as Markdown; ``|`` inside a cell is escaped."""
    lines = [f"# {page.title}", ""]
    for section in page.sections:
        lines += [f"## {section.heading}", ""]
        for paragraph in section.paragraphs:
            lines += [paragraph, ""]
        for table in section.tables:
            lines += [_markdown_row(table.columns), "|" + "---|" * len(table.columns)]
            lines += [*(_markdown_row(row) for row in table.rows), ""]
        for note in section.notes:
            lines += [note, ""]
    return "\n".join(lines)


def _markdown_row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page_html(page: PlainPage) -> str:
    """The page as one HTML file in the style of the reports."""
    style = (files("wildpdiff.report") / "templates" / "style.css").read_text(encoding="utf-8")
    body = "\n".join(_html_section(section) for section in page.sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(page.title)}</title>\n'
        f"<style>\n{style}\nmain {{ max-width: 1400px; }}\n</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(page.title)}</h1></header>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html_section(section: PlainSection) -> str:
    parts = [f"<section>\n<h2>{escape(section.heading)}</h2>"]
    parts += [f"<p>{_inline(text)}</p>" for text in section.paragraphs]
    parts += [_html_table(table) for table in section.tables]
    parts += [f'<p class="note">{_inline(text)}</p>' for text in section.notes]
    return "\n".join([*parts, "</section>"])


def _html_table(table: PlainTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = []
    for row in table.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        rows.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    body = "\n".join(rows)
    kind = "plain broad" if len(table.columns) > 5 else "plain"
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(table.columns[0])}">\n'
        f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>'
    )


def _inline(text: str) -> Markup:
    """Escaped text with code and links; only addresses of files next to the page become links."""
    safe = str(escape(text))
    safe = _CODE.sub(r"<code>\1</code>", safe)
    return Markup(_LINK.sub(_anchor, safe))


def _anchor(match: re.Match[str]) -> str:
    address = match.group(2)
    return match.group(0) if ":" in address else f'<a href="{address}">{match.group(1)}</a>'
