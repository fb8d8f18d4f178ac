"""Numbers as people write them."""

from __future__ import annotations

import math

import pytest

from wildpdiff.tables.numbers import AMBIGUOUS, number_column, parse_number


@pytest.mark.parametrize(
    ("text", "value", "oddity"),
    [
        ("1480", 1480, ""),
        (" -2.5e3 ", -2500, ""),
        ("\u2212.5", -0.5, ""),
        ("1480,5", 1480.5, "decimal comma"),
        ("0,480", 0.48, "decimal comma"),
        ("1,480,000", 1_480_000, "separated thousands"),
        ("1.480,5", 1480.5, "separated thousands"),
        ("1,480.5", 1480.5, "separated thousands"),
        ("1\u202f480", 1480, "separated thousands"),
        ("1'480", 1480, "separated thousands"),
        ("1480 m", 1480, "unit"),
        ("35%", 35, "unit"),
        ("47°06'N", 47.1, "degrees"),
        ("47° 06' 36\" S", -47.11, "degrees"),
        ("W 8.5", -8.5, "degrees"),
        ("N47 06.6", 47.11, "degrees"),
        ("1,480", None, AMBIGUOUS),
        ("1e400", None, ""),
        ("1_000", None, "no number"),
        ("inf", None, "no number"),
        ("N1", None, "no number"),
        ("12A", None, "no number"),
        ("47°61'N", None, "no number"),
        ("2020-01-01", None, "no number"),
        ("12:30", None, "no number"),
        ("", None, "no number"),
    ],
)
def test_a_text_is_read_as_the_number_that_it_means(text: str, value: float | None, oddity: str) -> None:
    number = parse_number(text)
    assert number.oddity == oddity
    assert number.value is None if value is None else math.isclose(number.value or 0, value)


def test_an_odd_cell_leaves_a_column_one_of_numbers() -> None:
    column = number_column(["1480", "1520", "1600", "1,480", "?", "1700 m", "high"])
    assert column is not None
    assert column.values == {"1480": 1480, "1520": 1520, "1600": 1600, "1700 m": 1700}
    assert set(column.odd) == {"1,480", "1700 m", "high"}
    assert number_column(["1", "2", "3", "north"]) is None
    assert number_column(["?", "NA"]) is None


def test_other_cells_show_what_a_comma_parts() -> None:
    def read(*texts: str, limit: float = math.inf) -> float | None:
        column = number_column(["1,480", *texts], limit)
        assert column is not None
        return column.values.get("1,480")

    assert read("1520.5") == 1480
    assert read("1520,5") == 1.48
    assert read("1520") is read() is read("1520.5", "1520,5") is None
    assert read(limit=90.0) == 1.48


def test_units_are_left_away_where_they_are_the_same_everywhere() -> None:
    same = number_column(["40 cm", "35 cm"])
    mixed = number_column(["1.2", "1.5", "1.4", "1.1", "40 cm"])
    assert same is not None
    assert mixed is not None
    assert same.values == {"40 cm": 40, "35 cm": 35}
    assert "40 cm" not in mixed.values
    assert "40 cm" in mixed.odd
