"""A plain page has the same content as Markdown and as HTML; nothing in a text becomes markup."""

from wildbench.report.plain_page import PlainPage, PlainSection, PlainTable, page_html, page_markdown

TABLE = PlainTable(("name", "value"), (("a|b", "<b>1</b>"), ("c", "2")))
SECTION = PlainSection(
    "Heads & tails",
    ("See [the report](one/report.html) and [this](javascript:alert(1)).",),
    (TABLE,),
    ("Made by `run <x>`.",),
)
PAGE = PlainPage("Title <i>", (SECTION,))


def test_markdown_has_every_part() -> None:
    lines = page_markdown(PAGE).splitlines()
    assert lines[0] == "# Title <i>"
    assert "## Heads & tails" in lines
    assert "| a\\|b | <b>1</b> |" in lines
    assert lines.index("|---|---|") == lines.index("| name | value |") + 1
    assert "Made by `run <x>`." in lines


def test_html_escapes_texts_and_links_only_to_files() -> None:
    page = page_html(PAGE)
    assert "<title>Title &lt;i&gt;</title>" in page
    assert "<td>&lt;b&gt;1&lt;/b&gt;</td>" in page
    assert '<a href="one/report.html">the report</a>' in page
    assert 'href="javascript' not in page
    assert "<code>run &lt;x&gt;</code>" in page
    assert "Heads &amp; tails" in page
    assert "<script" not in page
