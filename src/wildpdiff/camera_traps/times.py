"""Times of exposure, in the spellings that cameras, spreadsheets and their tools write."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

FIRST_YEAR, LAST_YEAR = 1900, 2199

TIME_OF_DAY = re.compile(r"(^|[ T])\d{1,2}:\d\d|T\d{4}")
"""Found in texts that are more than a date."""

_NAMES = """
    jan jän ene gen янв | feb fev fév фев | mar mär mrz mrt maa мар | apr avr abr апр | may mai mei mag maj май мая
    jun juin giu июн | jul juil lug июл | aug aou aoû ago авг | sep set сен | oct okt ott out окт | nov ноя
    dec déc dez dic дек
"""
_MONTHS = {name: number for number, names in enumerate(re.split(r"[|\n]", _NAMES.strip()), 1) for name in names.split()}
"""By the beginnings of their names, as programs write them in the language of their machine."""
_YEAR_FIRST = re.compile(r"(\d{4})([-:/.])(\d{1,2})\2(\d{1,2})(?=$|[\sT])")
_NAMED_MONTH = re.compile(r"(\d{1,2})[-/. ]\s*([^\W\d_]{3,10})\.?,?[-/. ]\s*(\d{4}|\d\d)(?=$|[\sT,])")
_MONTH_FIRST = re.compile(r"([^\W\d_]{3,10})\.?\s+(\d{1,2}),?\s+(\d{4})(?=$|[\sT,])")
_NUMBERED = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?=$|[\sT,])")
_SHORT_YEAR = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d\d)(?=$|[\sT,])")
_DAYS = re.compile(r"([2-7]\d{4})(?:[.,](\d+)| +(0?[.,]\d+|0))")
_SECONDS = re.compile(r"(\d{9,10})(?:\.\d+)?|(\d{12,13})")
_COMPACT = re.compile(r"(\d{8})[_ -]?(\d{4}(?:\d\d)?)")
_EPOCH = datetime(1899, 12, 30)
"""Of days that spreadsheets count."""
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d+))?)?\s*([AaPp]\.?[Mm]\.?)?\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?"
)


def parse_time(text: str, day_first: bool = True) -> datetime | None:
    """A time from its text; None where it cannot be read or is no time (a camera's ``0000:00:00``).

    Read are ISO 8601 with and without zone, fraction or time of day, EXIF's ``2013:05:01 10:00:00``,
    ``01-May-2013 10:00:00`` (months in several languages), ``May 1, 2013``, ``1.5.2013``, ``1/5/13 3:45 PM`` and
    ``20130501_100000``. A zone is kept where one is given; a date alone is its midnight.

    Args:
        text: as written.
        day_first: whether ``1/5/2013`` is the first of May; see :func:`days_first`. A number above 12 decides itself.
    """
    text = unicodedata.normalize("NFC", text.strip())
    try:
        time = datetime.fromisoformat(text) if len(text) >= 8 else None
    except ValueError:
        time = _other_spelling(text, day_first)
    return time if time is not None and FIRST_YEAR <= time.year <= LAST_YEAR else None


def counted_time(text: str) -> datetime | None:
    """A time from a number: days and their fraction as spreadsheets count them, or seconds since 1970; None for others.

    A number of days without a fraction is a date alone, and none. Days have no zone, seconds are UTC.
    """
    text = text.strip()
    if found := _DAYS.fullmatch(text):
        fraction = float(f"0.{found[2]}") if found[2] else float(found[3].replace(",", "."))
        return _EPOCH + timedelta(days=int(found[1]), seconds=round(86400 * fraction))
    if found := _SECONDS.fullmatch(text):
        seconds = int(found[1]) if found[1] else int(found[2]) // 1000
        return datetime.fromtimestamp(seconds, UTC)
    return None


def has_time(text: str) -> bool:
    """Whether a text is more than a date: it has a time of day, or counts days with a fraction or seconds."""
    return bool(TIME_OF_DAY.search(text) or _COMPACT.fullmatch(text) or counted_time(text))


def days_first(texts: Iterable[str]) -> bool | None:
    """Whether a column's dates of the form ``1/5/2013`` begin with the day; None where no date of it decides."""
    for text in texts:
        found = _NUMBERED.match(text.strip()) or _SHORT_YEAR.match(text.strip())
        if found and (int(found[1]) > 12 or found[2] == "."):
            return True
        if found and int(found[3]) > 12:
            return False
    return None


def _other_spelling(text: str, day_first: bool) -> datetime | None:
    if found := _YEAR_FIRST.match(text):
        year, month, day = int(found[1]), int(found[3]), int(found[4])
    elif found := _NAMED_MONTH.match(text):
        year, month, day = _year(found[3]), _month(found[2]), int(found[1])
    elif found := _MONTH_FIRST.match(text):
        year, month, day = int(found[3]), _month(found[1]), int(found[2])
    elif found := _COMPACT.fullmatch(text):
        return _compact(found[1] + found[2])
    elif found := _NUMBERED.match(text) or _SHORT_YEAR.match(text):
        first, second, year = int(found[1]), int(found[3]), _year(found[4])
        is_day = second <= 12 and (day_first or first > 12 or found[2] == ".")
        day, month = (first, second) if is_day else (second, first)
    else:
        return None
    clock = _clock(text[found.end() :].strip(" ,T\t"))
    if clock is None:
        return None
    try:
        return datetime.fromisoformat(f"{year:04}-{month:02}-{day:02}{clock}")
    except ValueError:
        return None


def _year(digits: str) -> int:
    """A year of four digits, or of two as POSIX reads them."""
    year = int(digits)
    return year + (0 if len(digits) == 4 else 2000 if year < 70 else 1900)


def _month(name: str) -> int:
    """The number of a month, 0 where its name is none."""
    name = name.lower()
    return _MONTHS.get(name[:4]) or _MONTHS.get(name[:3], 0)


def _compact(digits: str) -> datetime | None:
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S" if len(digits) == 14 else "%Y%m%d%H%M")
    except ValueError:
        return None


def _clock(text: str) -> str | None:
    """The rest after a date as ISO 8601 has it; None where it is no time of day."""
    if not text:
        return ""
    found = _CLOCK.fullmatch(text)
    if not found:
        return None
    hour, half = int(found[1]), (found[5] or "").lower()[:1]
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    zone = found[6] or ""
    zone = "+00:00" if zone in ("Z", "UTC", "GMT") else zone
    fraction = f".{found[4][:6]}" if found[4] else ""
    return f"T{hour:02}:{found[2]:0>2}:{found[3] or '0':0>2}{fraction}{zone}"
