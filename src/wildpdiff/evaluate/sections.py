"""Sections of results.json: sources and calibration, and those that other packages add.

All are plain values, so that reading and drawing them needs no torch. Accuracies and shares are fractions of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from wildpdiff.registry import registered

if TYPE_CHECKING:
    from wildpdiff.evaluate.results import Results

T = TypeVar("T")

SourceFamily = Literal["reference", "no description", "description", "unlabelled images", "labels", "checkpoints"]
"""Information about the task that a source uses: none, its description, its unlabelled images, its labels;
``checkpoints`` are controls made from stored checkpoints; ``reference`` are pretrained and fine-tuned."""


@dataclass(frozen=True)
class SourceInfo:
    """A source of the table.

    Attributes:
        name: as in the rows.
        family: information about the task that it uses.
        training_seconds: wall-clock seconds of its training beyond the zoo, mean over seeds; None where it has none.
        note: one short phrase.
    """

    name: str
    family: SourceFamily
    training_seconds: float | None
    note: str


@dataclass(frozen=True)
class CalibrationBin:
    """Number, mean confidence and accuracy of the test images of a bin of confidence."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Reliability of a source's probabilities over all tasks of a split (Guo et al. 2017).

    Attributes:
        split, source, condition: as in a row.
        bins: equal-width bins of the largest probability that hold an image, rising.
        error: expected calibration error: mean over images of |accuracy − confidence| of their bin.
        negative_log_likelihood: mean, in nats.
    """

    split: str
    source: str
    condition: str
    bins: tuple[CalibrationBin, ...]
    error: float
    negative_log_likelihood: float


@dataclass(frozen=True)
class SectionKind(Generic[T]):
    """A kind of section that a package adds under ``sections`` of results.json and to the report.

    Attributes:
        name: its key.
        record: its type, as :func:`wildpdiff.records.decode` reads types.
        own_tasks: whether it is about the tasks and the backbone of the table; else it has tasks of its own.
        measures: its content in a few words.
        command: the command that measures it.
        pages: sections of the report from its inputs (:class:`wildpdiff.report.page.PageInputs`); none where nothing
            was measured.
    """

    name: str
    record: Any
    own_tasks: bool
    measures: str
    command: str
    pages: Callable[[Any], Sequence[Any]] | None = None

    def of(self, results: Results) -> T | None:
        """The section of these results; None where it was not measured."""
        return cast("T | None", results.sections.get(self.name))

    def added_to(self, results: Results, value: T) -> Results:
        """The results with this section; an empty one is left out."""
        return replace(results, sections={**results.sections, **({self.name: value} if value else {})})


def section_kinds() -> dict[str, SectionKind[Any]]:
    """Every kind that an installed package adds, by name, in the order of the report."""
    return {kind.name: kind for kinds in registered("sections").values() for kind in kinds}
