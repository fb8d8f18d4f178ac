"""Numbers as people write them: decimal commas, thousands, units, degrees and minutes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "nd", "?", "-", "--", "unknown"})
"""Cells of a column of numbers that state no value, in lower case."""

NUMBER_SHARE = 0.8
"""Share of a column's distinct values that must be numbers for the column to be one of numbers."""

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_GROUPED = re.compile(r"([+-]?\d{1,3})(?P<mark>[,.' ’])\d{3}(?:(?P=mark)\d{3})*([.,]\d+)?")
_BASE_UNITS = ("m", "metre", "metres", "meter", "meters", "masl", "°", "º", "deg", "degrees", "%")
"""Units that plain numbers of their column have as well."""
_UNITS = (
    *_BASE_UNITS,
    "km",
    "cm",
    "mm",
    "ft",
    "feet",
    "°c",
    "°f",
    "ha",
    "km2",
    "s",
    "min",
    "h",
    "d",
    "days",
    "kg",
    "g",
)
_WITH_UNIT = re.compile(
    rf"(?P<number>[+-]?[\d.,' ’]*\d)\s*(?P<unit>{'|'.join(map(re.escape, _UNITS))})\.?", re.IGNORECASE
)
_DEGREES = re.compile(  # without O, which is east in German and west in French
    r"(?P<before>[NSEW])?\s*(?P<degrees>[+-]?\d{1,3}(?:[.,]\d+)?)\s*[°ºd˚]?"
    r"(?:\s*(?P<minutes>\d{1,2}(?:[.,]\d+)?)\s*['’′´m]?(?:\s*(?P<seconds>\d{1,2}(?:[.,]\d+)?)\s*(?:\"|”|″|''|s)?)?)?"
    r"\s*(?P<after>[NSEW])?",
    re.IGNORECASE,
)
_SPACES = re.compile(r"[\s\u00a0\u2007\u2009\u202f]+")


class Number(NamedTuple):
    """A text read as a number.

    Attributes:
        value: None where the text is no number, not finite, or may mean two.
        oddity: how it differs from a plain number, for example ``decimal comma``; empty for a plain one.
        unit: written behind the number, in lower case.
    """

    value: float | None
    oddity: str = ""
    unit: str = ""


AMBIGUOUS = "a comma that may part decimals or thousands"


def parse_number(text: str) -> Number:
    """The number that a text means.

    ``1480``, ``-2.5e3``, ``1480,5`` (decimal comma), ``1,480,000`` and ``1 480`` (thousands), ``1480 m`` (a unit),
    ``47°06'N`` (degrees). ``1,480`` may mean two numbers and gets none.
    """
    text = _SPACES.sub(" ", text).strip().replace("−", "-")
    if _PLAIN.fullmatch(text):
        return Number(_finite(text))
    if _AMBIGUOUS.fullmatch(text):
        return Number(None, AMBIGUOUS)
    if _DECIMAL_COMMA.fullmatch(text):
        return Number(_finite(text.replace(",", ".")), "decimal comma")
    grouped = _GROUPED.fullmatch(text)
    if grouped and grouped[3] != "" and (grouped[3] or "x")[0] != grouped["mark"]:
        whole = text[: len(text) - len(grouped[3] or "")]
        fraction = (grouped[3] or "").replace(",", ".")
        return Number(_finite(re.sub(r"[^\d+-]", "", whole) + fraction), "separated thousands")
    degrees = _degrees(text)
    if degrees is not None:
        return Number(degrees, "degrees")
    united = _WITH_UNIT.fullmatch(text)
    if united:
        inner = parse_number(united["number"])
        return Number(inner.value, inner.oddity or "unit", united["unit"].lower().rstrip("."))
    return Number(None, "no number")


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _degrees(text: str) -> float | None:
    """Decimal degrees of a coordinate with a hemisphere or minutes; None where the text is none."""
    found = _DEGREES.fullmatch(text)
    if not found or (found["before"] and found["after"]):
        return None
    hemisphere = (found["before"] or found["after"] or "").upper()
    if not (re.search("[°º˚]", text) or (hemisphere and re.search("[.,]", text))):
        return None  # codes such as N1 are no coordinates
    if not hemisphere and not found["minutes"]:
        return None
    parts = ("degrees", "minutes", "seconds")
    degrees, minutes, seconds = (float((found[part] or "0").replace(",", ".")) for part in parts)
    if minutes >= 60 or seconds >= 60:
        return None
    size = abs(degrees) + minutes / 60 + seconds / 3600
    negative = found["degrees"].startswith("-") or hemisphere in ("S", "W")
    return -size if negative else size


@dataclass(frozen=True)
class NumberColumn:
    """The values of a column of numbers.

    Attributes:
        values: number by text as written; texts that mean none, or none for sure, are left out.
        odd: how each text that is not a plain number was read, for example ``1480,5 is read as 1480.5 (decimal
            comma)``, by text.
    """

    values: Mapping[str, float]
    odd: Mapping[str, str]


def number_column(texts: Iterable[str], limit: float = math.inf) -> NumberColumn | None:
    """The numbers of a column's values; None where it is no column of numbers.

    A column is one of numbers where at least :data:`NUMBER_SHARE` of its distinct values are. Commas that may part
    decimals or thousands are read as the column's other cells, or the limit, show; units are left away where they are
    the same everywhere, or metres, degrees or per cent among plain numbers.

    Args:
        texts: the values as written.
        limit: the largest size that a value may have, for example 90 of a latitude.
    """
    parsed = {text: parse_number(text) for text in dict.fromkeys(texts) if text.strip().lower() not in MISSING}
    numeric = sum(number.oddity != "no number" for number in parsed.values())
    if not parsed or numeric < NUMBER_SHARE * len(parsed):
        return None
    commas = any(number.oddity == "decimal comma" for number in parsed.values())
    points = any(not number.oddity and "." in text for text, number in parsed.items())
    for text, number in parsed.items():
        if number.oddity == AMBIGUOUS and not number.unit:
            parsed[text] = _disambiguated(text, commas, points, limit)
    units = {number.unit for number in parsed.values() if number.value is not None}
    accepted = units if len(units) == 1 else {*_BASE_UNITS, ""}
    values = {text: n.value for text, n in parsed.items() if n.value is not None and n.unit in accepted}
    odd = {text: _words(text, n, values) for text, n in parsed.items() if n.oddity or text not in values}
    return NumberColumn(values, odd)


def _disambiguated(text: str, commas: bool, points: bool, limit: float) -> Number:
    """``1,480`` as the column's other commas and points, or its limit, show; without a value where they do not."""
    plain = _SPACES.sub("", text).replace("−", "-")
    thousands = float(plain.replace(",", ""))
    if (commas and not points) or abs(thousands) > limit:
        return Number(float(plain.replace(",", ".")), "decimal comma")
    return Number(thousands, "separated thousands") if points and not commas else Number(None, AMBIGUOUS)


def _words(text: str, number: Number, values: Mapping[str, float]) -> str:
    if text in values:
        return f"{text!r} is read as {values[text]:.12g} ({number.oddity})"
    why = "another unit" if number.value is not None else number.oddity or "not finite"
    return f"{text!r} is left out ({why})"
