"""Delimited text in the encodings, separators and quotes that are found."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from refusals import refused
from remarked import remarked
from wildpdiff.errors import DataError
from wildpdiff.tables.delimited import Delimited, parse_delimited, read_delimited, read_header


def parsed(text: str | bytes) -> Delimited:
    return parse_delimited(text.encode() if isinstance(text, str) else text, "T")


def cells(table: Delimited) -> list[tuple[str, ...]]:
    return [row for _, row in table.rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_separators_are_found_and_quotes_respected(delimiter: str) -> None:
    lines = ["path", "note"], ["a.jpg", '"x, y; z | ""w"""'], ["b.jpg", '"two\nlines"'], ["c.jpg", "47,1"]
    text = "\n".join(delimiter.join(line) for line in (lines if delimiter != "," else lines[:3]))
    table = parsed(text)
    assert table.header == ("path", "note")
    assert cells(table)[:2] == [("a.jpg", 'x, y; z | "w"'), ("b.jpg", "two\nlines")]
    assert [line for line, _ in table.rows][:3] == [2, 3, 5][: len(table.rows)]
    assert table.remarks == ()


def test_decimal_commas_do_not_pass_for_separators() -> None:
    table = parsed("Path;Label, species;Lat\na.jpg;fox;47,1\nb.jpg;fox;47,2\n")
    assert table.header == ("Path", "Label, species", "Lat")
    assert cells(table)[0][2] == "47,1"


def test_a_line_that_states_the_separator_is_no_header() -> None:
    table = parsed("sep=;\r\npath;label\r\na,b;c\r\n")
    assert table.header == ("path", "label")
    assert table.rows == ((3, ("a,b", "c")),)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_is_read_without_a_remark(encoding: str) -> None:
    table = parsed("path,task\nä.jpg,Föhrenwald 北\n".encode(encoding))
    assert cells(table) == [("ä.jpg", "Föhrenwald 北")]
    assert table.remarks == ()


def test_western_text_is_read_with_a_remark_that_names_it() -> None:
    table = parsed("path,task\na.jpg,Föhrenwald\n".encode("cp1252"))
    assert cells(table) == [("a.jpg", "Föhrenwald")]
    (remark,) = table.remarks
    assert "Windows-1252" in remark
    assert "Föhrenwald" in remark


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("path,task\na,лиса\n".encode("cp1251"), ("line 2", "UTF-8")),
        ("path,task\na,é\nb,ö".encode() + b"\xff\n", ("line 3", "damaged")),
        (b"path,task\na,\xed\xa0\x80\n", ("line 2", "damaged")),
        ("path,task\na,b\n".encode("utf-16")[:-1], ("UTF-16",)),
        (b"path,task\na,b\0c\n", ("line 2", "byte 0")),
        (b"PK\x03\x04rest", ("CSV",)),
        (b"\xd0\xcf\x11\xe0rest", ("CSV",)),
        (b"", ("empty file",)),
        (b"\n\n", ("empty file",)),
        (b"path,task,task\n", ("'task' twice",)),
        (b"path,task\na\nb,c,d\n", ("line 2", "1 cells", "has 2", "1 further")),
        (b"path,lat\na,47,1\n", ("line 2", "3 cells")),
        (b'path,task\na,"x\nb,y\nc,z\n', ("line 2", "quote")),
        (b'path,task\nq,"two\nlines"\na,"x\nb,"y"\n', ("line 4", "quote")),
        (b'path,task\na,"Red" fox\n', ("line 2", "quote")),
        (b'path,task\na,"' + b"x\n" * 100_000, ("line 2", "quote")),
        (b"path,task\na," + b"x" * 140_000 + b"\n", ("line 2", "131,072")),
    ],
)
def test_faults_are_refused_with_their_line(content: bytes, values: tuple[str, ...]) -> None:
    with refused(DataError, *values):
        parsed(content)


@pytest.mark.parametrize(
    ("content", "header", "first"),
    [
        ('"","path","task"\n"1","a","b"\n"2","c","d"\n', ("path", "task"), ("a", "b")),
        ("path,task\n1,a,b\n2,c,d\n", ("path", "task"), ("a", "b")),
        ("Unnamed: 0,path,task\n0,a,b\n", ("path", "task"), ("a", "b")),
        ("path,,task\na,stray,b\n", ("path", "task"), ("a", "b")),
    ],
)
def test_columns_without_a_name_are_left_out_with_a_remark(
    content: str, header: tuple[str, ...], first: tuple[str, ...]
) -> None:
    table = parsed(content)
    assert table.header == header
    assert cells(table)[0] == first
    assert len(table.remarks) == 1


@pytest.mark.parametrize("content", ["path,task,,\na,b,,\n", "path,task,,\na,b\n", "path,task\na,b,\nc,d,\n"])
def test_empty_cells_at_the_end_do_not_count(content: str) -> None:
    table = parsed(content)
    assert table.header == ("path", "task")
    assert cells(table)[0] == ("a", "b")
    assert table.remarks == ()


def test_empty_rows_and_repeated_headers_are_no_rows() -> None:
    table = parsed("\n path , task \n\na,b\n,\npath,task\nc,d\n")
    assert table.rows == ((4, ("a", "b")), (7, ("c", "d")))
    assert len(table.remarks) == 1
    assert "line 6" in table.remarks[0]


def test_compressed_files_and_beginnings(tmp_path: Path) -> None:
    text = "Path;Label\n" + "a.jpg;fox\n" * 20_000
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16"))
    for name in ("t.csv.gz", "t.csv"):
        assert read_header(tmp_path / name) == ("Path", "Label")
        assert len(read_delimited(tmp_path / name).rows) == 20_000
    (tmp_path / "cut.gz").write_bytes(gzip.compress(text.encode())[:-20])
    with refused(DataError, "cut.gz"):
        read_delimited(tmp_path / "cut.gz")
    with refused(DataError, "absent.csv"):
        read_delimited(tmp_path / "absent.csv")
    assert read_header(tmp_path / "absent.csv") == ()
    assert read_header(tmp_path) == ()


@pytest.mark.parametrize(
    ("above", "rows", "header"),
    [
        ("Survey 2024\n", "path,label,task\na.jpg,fox,A\n", ("path", "label", "task")),
        ("Survey 2024,,,\nby: Anna,,,\n\n", "path,label,task,x\na.jpg,fox,A,1\n", ("path", "label", "task", "x")),
        ("Project;Alps\nBy;Anna\n", "Datei;Species;Station\na.jpg;fox;A\nb.jpg;fox;A\n",
         ("Datei", "Species", "Station")),
        ("Liste der Bilder\n", "Datei;Art;Ort\na.jpg;Fuchs;A\n", ("Datei", "Art", "Ort")),
        ("", "Datei,Art,Typ\na.jpg,Fuchs,image\n", ("Datei", "Art", "Typ")),
        ("", "Datei,Art\na.jpg,Fuchs\n", ("Datei", "Art")),
        ("", "file\na.jpg\n", ("file",)),
    ],
)  # fmt: skip
def test_titles_above_the_names_of_columns(tmp_path: Path, above: str, rows: str, header: tuple[str, ...]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(above + rows, encoding="utf-8")
    table = read_delimited(path)
    assert table.header == read_header(path) == header
    assert table.rows[0][0] == above.count("\n") + 2
    assert table.rows[0][1][0] == "a.jpg"
    assert len(table.remarks) == (above != "")


def test_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,label,label,note,note,note\na.jpg,fox,fox,1,2,1\nb.jpg,hare,hare,1,3,1\n")
    table = read_delimited(path)
    assert table.header == ("path", "label", "note", "note (2)")
    assert table.rows[1][1] == ("b.jpg", "hare", "1", "3")
    remarked(table.remarks, "'note'", "numbers")
    remarked(table.remarks, "'label'", "2")
    path.write_text("path,label,label\na.jpg,fox,hare\n")
    with refused(DataError, "'label' twice"):
        read_delimited(path)
