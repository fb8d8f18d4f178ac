"""Metrics of tables: name, unit, scale, direction and bounds; read without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The metric of a table.

    Attributes:
        name: for example ``accuracy``.
        unit: of the numbers in tables, for example ``%``.
        scale: factor from a score to the unit, 100 for percent.
        higher_is_better: its direction.
        low, high: bounds of a score; None where there are none.
    """

    name: str
    unit: str = ""
    scale: float = 1.0
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None

    @property
    def sign(self) -> int:
        """Factor that makes a higher value the better one."""
        return 1 if self.higher_is_better else -1

    @property
    def span(self) -> float | None:
        """Distance of the bounds; None where one is missing."""
        return None if self.low is None or self.high is None else self.high - self.low

    @property
    def heading(self) -> str:
        """Name and unit, for the head of a column."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def difference_unit(self) -> str:
        """Unit of differences: points of percentages."""
        return "points" if self.unit == "%" else self.unit

    def contains(self, score: float) -> bool:
        """Whether a score is within the bounds."""
        return (self.low is None or score >= self.low) and (self.high is None or score <= self.high)


ACCURACY = Metric("accuracy", "%", 100.0, low=0.0, high=1.0)
"""Share of examples whose class is predicted."""
