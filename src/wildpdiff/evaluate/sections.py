"""Sections of results.json: sources, calibration and trust, and those that other packages add.

All are plain values, so that reading and drawing them needs no torch. Accuracies and shares are fractions of 1; gains
in the points of trust, and the ends of their intervals, are points of accuracy (a point is 0.01) against the
pretrained model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
class TrustPoint:
    """One generator on one task: trust without labels, and the gain measured with them.

    Attributes:
        world: the suite, or its variant, that the task belongs to.
        split: as in a row of the results.
        task: its name within suite and split.
        basis: evidence: ``examples`` (unlabelled images of the task), ``backgrounds`` or ``description``.
        trust: probability, 0 to 1, that the generated adapters beat the pretrained model.
        predicted: expected gain, in points.
        low, high: its 90 % interval, in points.
        gain: measured on the test images: accuracy with the generated adapters, mean over samples, minus pretrained, in
            points.
        min_trust: the threshold that was chosen on held-out seen tasks.
        used: whether trust reaches it; the pretrained model is used otherwise.
        generator: the seed that the generator was trained with.
    """

    world: str
    split: str
    task: str
    basis: str
    trust: float
    predicted: float
    low: float
    high: float
    gain: float
    min_trust: float
    used: bool
    generator: int


@dataclass(frozen=True)
class TrustSection:
    """Trust and measured gains, one point a variant, split, task and generator."""

    points: tuple[TrustPoint, ...]


def contradiction(points: Sequence[TrustPoint]) -> str | None:
    """The first contradiction within a point, as a message that begins with its index; None where there is none."""
    seen = set()
    for index, point in enumerate(points):
        shares = {"trust": point.trust, "min_trust": point.min_trust}
        odd = next((name for name, value in shares.items() if not 0 <= value <= 1), None)
        if odd is not None:
            return f"points[{index}].{odd} is {shares[odd]}; a share from 0 to 1 is needed"
        if point.low > point.high:
            return f"points[{index}] has an interval from {point.low} to {point.high}; low must not be above high"
        if point.used != (point.trust >= point.min_trust):
            return f"points[{index}].used is {point.used}, against trust {point.trust} and min_trust {point.min_trust}"
        key = (point.world, point.split, point.task, point.generator)
        if key in seen:
            return f"points[{index}] repeats the task {point.task!r}"
        seen.add(key)
    return None


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
        table: of a section for the terminal (:class:`wildpdiff.report.blocks.DataTable`).
        find: where the section is a part of the rows.
    """

    name: str
    record: Any
    own_tasks: bool
    measures: str
    command: str
    pages: Callable[[Any], Sequence[Any]] | None = None
    table: Callable[[T], Any] | None = None
    find: Callable[[Results], T | None] | None = None

    def of(self, results: Results) -> T | None:
        """The section of these results; None where it was not measured."""
        return self.find(results) if self.find is not None else cast("T | None", results.section(self.name))

    def added_to(self, results: Results, value: T) -> Results:
        """The results with this section; an empty one is left out."""
        return results.with_sections({self.name: value})


def section_kinds() -> dict[str, SectionKind[Any]]:
    """Every kind that an installed package adds, by name, in the order of the report."""
    return {kind.name: kind for kinds in registered("sections").values() for kind in kinds}
