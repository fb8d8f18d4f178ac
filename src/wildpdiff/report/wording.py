"""Format of numbers and names in every table, caption and sentence of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wildpdiff.tasks.metric import Metric

MINUS = "\N{MINUS SIGN}"


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a number of percent, without the sign %."""
    return number(100 * value, digits)


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus and without a negative zero."""
    text = f"{value:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def percentage(value: float, digits: int = 1) -> str:
    """A fraction in percent with the sign, which never starts a line of its own."""
    return f"{percent(value, digits)}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    """The size of a difference of accuracies, in points."""
    return f"{percent(abs(value))} points"


@dataclass(frozen=True)
class Scores:
    """Format of the scores of a metric, and of their differences."""

    metric: Metric

    @property
    def digits(self) -> int:
        """Digits after the point."""
        return 1 if self.metric.scale >= 100 else 3

    def number(self, value: float) -> str:
        """A score in the metric's unit, without it."""
        return number(self.metric.scale * value, self.digits)

    def text(self, value: float) -> str:
        """A score with its unit."""
        return f"{self.number(value)}\N{NO-BREAK SPACE}{self.metric.unit}".strip()

    def size(self, value: float) -> str:
        """The size of a difference with its unit."""
        return f"{self.number(abs(value))} {self.metric.difference_unit}".strip()

    def signed(self, value: float) -> str:
        """A difference with its sign, without the unit."""
        return signed(self.number(value))

    def interval(self, ends: tuple[float, float] | None) -> str:
        """An interval with a leading space, or nothing."""
        return f" [{self.number(ends[0])}, {self.number(ends[1])}]" if ends else ""

    def range(self, ends: tuple[float, float] | None) -> str:
        """An interval for a table."""
        return "no interval" if ends is None else f"{self.number(ends[0])} to {self.number(ends[1])}"


def signed(text: str) -> str:
    """A number's text with a plus before it where it is above zero."""
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def signed_points(value: float) -> str:
    """A difference of accuracies in points, with its sign."""
    return signed(percent(value))


def interval_text(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """An interval of fractions in percent, with a leading space, or nothing."""
    return f" [{percent(interval[0], digits)}, {percent(interval[1], digits)}]" if interval else ""


def percent_range(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """An interval of fractions in percent for a table, ``1.0 to 2.0``."""
    return "no interval" if interval is None else f"{percent(interval[0], digits)} to {percent(interval[1], digits)}"


def count(amount: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def capital(text: str) -> str:
    """With a capital first letter; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def seconds_text(seconds: float) -> str:
    """A duration with two significant digits or as minutes: ``4.2 ms``, ``12 s``, ``3 min 20 s``."""
    if seconds >= 99.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    if seconds >= 9.95:
        return f"{seconds:.0f} s"
    if seconds < 0.001:
        return "< 1 ms"
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{seconds:.2g} s"
