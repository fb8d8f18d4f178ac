"""results.json: every measured accuracy, its summary and where it came from. Schema: ``docs/results-schema.md``.

All are plain values, so that reading and drawing them needs no torch. Accuracies and shares are fractions of 1; gains
in the points of trust, and the ends of their intervals, are points of accuracy (a point is 0.01) against the
pretrained model.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.posterior.score import PosteriorSummary
from wildpdiff.records import check_version, decode, encode
from wildpdiff.registry import package_version, registered
from wildpdiff.tasks.metric import ACCURACY, Metric

T = TypeVar("T")

SCHEMA_VERSION = 6
"""Raised when an older package could not read the files of a newer one."""

OWN_FIELDS = ("calibration", "trust")
"""Sections that are fields of the results."""

_SPLIT = re.compile(r"seen|unseen|held-out \S.*")

Split = str
"""``seen``, ``unseen``, or ``held-out NAME``: seen tasks that a generator was fitted without, a whole group at a time
(for example every task of one habitat)."""
Condition = Literal["own", "shuffled", "random", "none"]


@dataclass(frozen=True)
class ResultRow:
    """One adapter scored on one task's test images.

    Attributes:
        suite: name of the task's suite.
        split: ``seen`` (trained the generator), ``unseen``, or ``held-out NAME`` (see :data:`Split`).
        source: source of the adapter, for example ``generated`` or ``nearest task``.
        condition: its description: the task's ``own``, another task's (``shuffled``), one made of parts of many tasks
            (``random``), or ``none``.
        generator_seed: seed the generator was trained with; None for sources that are not trained.
        sample: index of the sample.
        task: the task's name.
        accuracy: mean score of the test examples, in the results' metric; for classifiers the fraction right.
        images: number of test examples.
    """

    suite: str
    split: Split
    source: str
    condition: Condition
    generator_seed: int | None
    sample: int
    task: str
    accuracy: float
    images: int


@dataclass(frozen=True)
class SummaryRow:
    """One row of the table: a source over all tasks of a split.

    Accuracies are means over tasks of the means over all samples and seeds, never the best of several samples.
    An interval is None for one task; the gain is None for the two references and where there is no gain to recover.
    """

    suite: str
    split: Split
    source: str
    condition: Condition
    label: str
    accuracy: float
    accuracy_interval: tuple[float, float] | None
    recovered_gain: float | None
    recovered_gain_interval: tuple[float, float] | None
    seconds_per_adapter: float | None
    training_seconds: float | None
    tasks: int
    samples: int
    seeds: int


@dataclass(frozen=True)
class Provenance:
    """Origin of the numbers; ``created`` is an ISO 8601 date or time."""

    package_version: str
    command: str
    seed: int
    hardware: str
    python: str
    torch: str
    created: str


def hardware() -> str:
    """Architecture and number of cores of the machine, without its name."""
    import torch

    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, no GPU used"


def provenance(command: str, seed: int) -> Provenance:
    """Provenance of numbers that are made now by this command."""
    import torch

    package = package_version() or "not installed"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Provenance(package, command, seed, hardware(), platform.python_version(), str(torch.__version__), now)


@dataclass(frozen=True)
class SuiteInfo:
    """The tasks: counts of classes, seen and unseen tasks, the content's fingerprint and the suite's settings."""

    name: str
    classes: int
    fingerprint: str
    seen: int
    unseen: int
    knobs: dict[str, Any]


@dataclass(frozen=True)
class BackboneInfo:
    """The frozen model, and the counts of its own and of one adapter's values."""

    name: str
    hash: str
    parameters: int
    adapter_parameters: int


@dataclass(frozen=True)
class GeneratorInfo:
    """The generators of a comparison.

    Attributes:
        hashes: one a seed.
        config: of all of them.
        checkpoints: number of checkpoints of the zoo.
        cross_validation: of the first on seen tasks; None where it has none.
        posterior: of the first, as measured on held-out seen tasks; None where it has none.
    """

    hashes: tuple[str, ...]
    config: dict[str, Any]
    checkpoints: int
    cross_validation: CrossValidation | None = None
    posterior: PosteriorSummary | None = None


@dataclass(frozen=True)
class Ceiling:
    """Accuracy of fine-tuned adapters after the autoencoder's round trip, and without it."""

    accuracy: float
    finetuned: float


@dataclass(frozen=True)
class AutoencoderInfo:
    """The autoencoder, and its ceiling for each split on which it was measured."""

    kind: str
    latent_size: int
    ceiling: dict[str, Ceiling]


@dataclass(frozen=True)
class Stage:
    """A stage of the run and its wall-clock seconds."""

    name: str
    seconds: float


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
class Results:
    """All input of the report. ``generator`` and ``autoencoder`` are None where only baselines ran."""

    provenance: Provenance
    suite: SuiteInfo
    backbone: BackboneInfo
    generator: GeneratorInfo | None
    autoencoder: AutoencoderInfo | None
    rows: tuple[ResultRow, ...]
    summary: tuple[SummaryRow, ...]
    stages: tuple[Stage, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[SourceInfo, ...] = ()
    calibration: tuple[Calibration, ...] = ()
    trust: TrustSection | None = None
    sections: dict[str, Any] = dataclasses.field(default_factory=dict)
    metric: Metric = ACCURACY

    def section(self, name: str) -> Any:
        """The section of this name; None where it was not measured."""
        return (getattr(self, name) if name in OWN_FIELDS else self.sections.get(name)) or None

    def with_sections(self, found: dict[str, Any]) -> Results:
        """The results with these sections; empty ones are left out."""
        own = {name: value for name, value in found.items() if value and name in OWN_FIELDS}
        others = {name: value for name, value in found.items() if value and name not in OWN_FIELDS}
        return dataclasses.replace(self, sections={**self.sections, **others}, **own)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values in the documented schema."""
        body = {field.name: encode(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"schema_version": SCHEMA_VERSION, "kind": "results", **body}

    @classmethod
    def from_json(cls, value: Any, where: str = "results.json") -> Results:
        """Read and check parsed JSON of the schema of :meth:`to_json`; ``where`` is the file's name, for messages.

        Raises:
            ArtifactError: a key is missing, unknown or of a wrong type, or the content contradicts itself.
            SchemaVersionError: written by a newer version of the package.
        """
        if not isinstance(value, dict) or value.get("kind") != "results":
            raise ArtifactError(f'{where} is not a file of results: "kind": "results" is missing. Check the path.')
        version = check_version(value.get("schema_version"), SCHEMA_VERSION, where)
        body = {key: entry for key, entry in value.items() if key not in ("schema_version", "kind")}
        if version <= 5:
            body = _from_version(version, body)
        results: Results = decode(cls, body, where)
        kinds, separator = section_kinds(), "." if ": " in where else ": "
        # Sections of no installed package stay plain values, to be written again as they are.
        sections = {
            name: decode(kinds[name].record, entry, f"{where}{separator}sections.{name}") if name in kinds else entry
            for name, entry in results.sections.items()
        }
        results = dataclasses.replace(results, sections=sections)
        fault = next(_contradictions(results), None)
        if fault is not None:
            raise ArtifactError(f"{where}: {fault} Evaluate again, or restore the file.")
        return results


@dataclass(frozen=True)
class SectionKind(Generic[T]):
    """A kind of section that a package adds under ``sections`` of results.json and to the report.

    Attributes:
        name: its key.
        record: its type, as :func:`wildpdiff.records.decode` reads types.
        own_tasks: whether it is about the tasks and the backbone of the table; else it has tasks of its own.
        measures: its content in a few words.
        command: the command that measures it; empty where a report without it lacks nothing.
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


ADDED = ("spread", "memorisation", "distances", "latent_map", "pictures", "interpolation", "scaling", "paper")
"""Top-level keys of versions before 5 that are sections since."""


def _from_version(version: int, body: dict[str, Any]) -> dict[str, Any]:
    """A file of an earlier version with the keys of this one; later additions count as not measured."""
    body = {"metric": encode(ACCURACY), **body}
    table = body["generator"].get("cross_validation") if isinstance(body.get("generator"), dict) else None
    if isinstance(table, dict):
        body["generator"] = {**body["generator"], "cross_validation": {"metric": encode(ACCURACY), **table}}
    if version == 5:
        return body
    sections = {name: body[name] for name in ADDED if body.get(name)}
    body = {"sections": sections, **{key: entry for key, entry in body.items() if key not in ADDED}}
    if version <= 3 and isinstance(body.get("generator"), dict):
        body["generator"] = {"cross_validation": None, "posterior": None, **body["generator"]}
    if version <= 2:
        body = {"trust": None, **body}
    if version == 1:
        lines = body.get("summary")
        if isinstance(lines, list):
            lines = [{"training_seconds": None, **line} if isinstance(line, dict) else line for line in lines]
        body = {"sources": [], "calibration": [], **body, "summary": lines}
    return body


def _contradictions(results: Results) -> Iterator[str]:
    """Every contradiction that types do not exclude, as a sentence that names the key and its value."""
    from wildpdiff.evaluate.summary import contradicted_summary

    made = results.provenance.created
    try:
        datetime.fromisoformat(made)
    except ValueError:
        yield f"provenance.created is {made!r}; an ISO 8601 date is needed."
    seen = set()
    for index, row in enumerate(results.rows):
        if not results.metric.contains(row.accuracy):
            bounds = f"from {results.metric.low} to {results.metric.high}"
            yield f"rows[{index}].accuracy is {row.accuracy}; a number {bounds} is needed ({results.metric.name})."
        if row.images < 1:
            yield f"rows[{index}].images is {row.images}; at least one image is needed."
        if not _SPLIT.fullmatch(row.split):
            yield f"rows[{index}].split is {row.split!r}; seen, unseen or held-out NAME is needed."
        key = (row.suite, row.split, row.source, row.condition, row.generator_seed, row.sample, row.task)
        if key in seen:
            yield f"rows[{index}] scores {row.source!r} on {row.task!r} a second time."
        seen.add(key)
    for split, stated in (("seen", results.suite.seen), ("unseen", results.suite.unseen)):
        tasks = {row.task for row in results.rows if (row.suite, row.split) == (results.suite.name, split)}
        if len(tasks) > stated:
            yield f"suite.{split} is {stated}; the rows have {len(tasks)} {split} tasks."
    shown = [(row.suite, row.split, row.source, row.condition) for row in results.summary]
    odd = sorted({key[:4] for key in seen}.symmetric_difference(shown)) or [k for k in shown if shown.count(k) > 1]
    if odd:
        yield f"rows and summary disagree about {' / '.join(odd[0])}."
    wrong = contradicted_summary(results.rows, results.summary, results.provenance.seed, results.metric)
    if wrong is not None:
        yield f"the summary contradicts the rows: {wrong}."
    for split, entry in results.autoencoder.ceiling.items() if results.autoencoder else ():
        if split not in ("seen", "unseen"):
            yield f"autoencoder.ceiling has the key {split!r}; seen or unseen is needed."
        own = [row.accuracy for row in results.rows if (row.split, row.source) == (split, "fine-tuned")]
        if own and abs(sum(own) / len(own) - entry.finetuned) > 1e-6:
            mean = sum(own) / len(own)
            yield f"autoencoder.ceiling.{split}.finetuned is {entry.finetuned}; the rows have {mean:.6f}."
    if results.trust is not None:
        wrong = contradiction(results.trust.points) if results.trust.points else "points is empty; null is needed"
        if wrong is not None:
            yield f"trust.{wrong}."


def write_results(path: Path, results: Results) -> None:
    """Write results.json atomically.

    Raises:
        ArtifactError: the content contradicts itself, or the disk refuses.
    """
    document = results.to_json()
    Results.from_json(document, str(path))
    write_file(path, json_bytes(document))


def read_results(path: Path) -> Results:
    """Read and check results.json.

    Raises:
        ArtifactError: missing, not JSON, or against the schema.
        SchemaVersionError: written by a newer version of the package.
    """
    return Results.from_json(read_json(path), str(path))
