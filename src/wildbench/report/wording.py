"""Further words of numbers."""

from __future__ import annotations

from wildpdiff.report.wording import number


def number_range(interval: tuple[float, float] | None, digits: int = 2) -> str:
    """An interval of plain numbers with a leading space, or nothing."""
    return f" [{number(interval[0], digits)}, {number(interval[1], digits)}]" if interval else ""
