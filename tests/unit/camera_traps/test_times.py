"""Times in the spellings that cameras and their tools write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wildpdiff.camera_traps.times import FIRST_YEAR, LAST_YEAR, counted_time, days_first, has_time, parse_time

MAY = datetime(2013, 5, 1, 15, 4, 5)


@pytest.mark.parametrize(
    "text",
    [
        "2013-05-01 15:04:05",
        "2013-05-01T15:04:05",
        " 2013-5-1 15:04:05 ",
        "2013:05:01 15:04:05",
        "2013/05/01 15:04:05",
        "2013.05.01 15:04:05",
        "01-May-2013 15:04:05",
        "1 may 2013, 3:04:05 PM",
        "May 1, 2013 3:04:05 p.m.",
        "1/5/2013 15:04:05",
        "1.5.2013 15:04:05",
        "01-05-2013 3:04:05 pm",
        "20130501T150405",
        "20130501_150405",
        "20130501150405",
        "1/5/13 15:04:05",
        "1.5.13 3:04:05 PM",
        "01-Mai-2013 15:04:05",
        "1-May-13 3:04:05 PM",
        "1. mei 2013 15:04:05",
        "01-мая-2013 15:04:05",
    ],
)
def test_spellings_of_one_time(text: str) -> None:
    assert parse_time(text) == MAY


@pytest.mark.parametrize(
    ("month", "names"),
    [
        (1, "janv. Jän ene gennaio"), (2, "févr. fév fev"), (3, "Mär mrt mars März"), (4, "avr. abr aprile"),
        (6, "juin giu июнь"), (7, "juil. lug Juli"), (8, "août ago aou авг."), (9, "set septiembre"),
        (10, "Okt. out ott"), (12, "déc. Dez dic decembre"),
    ],
)  # fmt: skip
def test_months_in_the_language_of_the_machine(month: int, names: str) -> None:
    for name in names.split():
        assert parse_time(f"05-{name}-2020 13:00:01") == datetime(2020, month, 5, 13, 0, 1), name


def test_fractions_zones_and_dates_alone() -> None:
    assert parse_time("2013:05:01 15:04:05.25") == MAY.replace(microsecond=250_000)
    assert parse_time("2013-05-01 15:04:05.123456789") == MAY.replace(microsecond=123_456)
    for text in ("2013-05-01T15:04:05Z", "2013:05:01 15:04:05 UTC", "2013-05-01T15:04:05+0000"):
        assert parse_time(text) == MAY.replace(tzinfo=UTC)
    assert parse_time("2013:05:01 15:04:05+02:00") == MAY.replace(tzinfo=timezone(timedelta(hours=2)))
    assert parse_time("2013:05:01") == parse_time("01-May-2013") == datetime(2013, 5, 1)
    assert parse_time("5/1/2013 12:30 AM", day_first=False) == datetime(2013, 5, 1, 0, 30)


@pytest.mark.parametrize(
    "text",
    ["", "0000:00:00 00:00:00", "0001-01-01", "2013-02-30", "1/13/2013 25:00", "soon", "2013", "1369047600",
     "13:05:01", "2013-05-01 13:00 PM", "01-Foo-2013", "99/99/9999", "2013-05-01 15:04:05 tomorrow"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("41395.627835648", MAY),
        ("41395,627835648", MAY),
        ("41395 0.627835648", MAY),
        ("41395.0", datetime(2013, 5, 1)),
        ("1367420645", MAY.replace(tzinfo=UTC)),
        ("1367420645000", MAY.replace(tzinfo=UTC)),
        ("41395", None),
        ("1480.5", None),
        ("99999.5", None),
    ],
)
def test_numbers_of_days_and_seconds(text: str, time: datetime | None) -> None:
    assert counted_time(text) == time
    assert has_time(text) == (time is not None)


@pytest.mark.parametrize("text", ["201305011504", "20130501 1504", "20130501_1504"])
def test_digits_without_seconds_are_a_time_and_no_count(text: str) -> None:
    assert parse_time(text) == MAY.replace(second=0)
    assert has_time(text)


def test_day_and_month() -> None:
    assert parse_time("4/5/2013 10:00") == datetime(2013, 5, 4, 10)
    assert parse_time("4/5/2013 10:00", day_first=False) == datetime(2013, 4, 5, 10)
    assert parse_time("4.5.2013 10:00", day_first=False) == datetime(2013, 5, 4, 10)
    for first in (True, False):
        assert parse_time("13/5/2013", first) == datetime(2013, 5, 13)
        assert parse_time("5/13/2013", first) == datetime(2013, 5, 13)
    assert days_first(["1/5/2013", "x", "13/5/2013"]) is True
    assert days_first(["1/5/2013", "5/13/2013"]) is False
    assert days_first(["1/5/2013", "2013-05-13"]) is None


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_a_time_or_none(text: str, first: bool) -> None:
    time = parse_time(text, first)
    assert time is None or FIRST_YEAR <= time.year <= LAST_YEAR


@given(st.datetimes(datetime(FIRST_YEAR, 1, 1), datetime(LAST_YEAR, 12, 31)))
def test_times_come_back(time: datetime) -> None:
    whole = time.replace(microsecond=0)
    for form in ("%Y:%m:%d %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%B %d, %Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S"):
        assert parse_time(whole.strftime(form)) == whole
    assert parse_time(time.isoformat()) == time
