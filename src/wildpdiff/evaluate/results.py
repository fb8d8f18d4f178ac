"""results.json: every measured accuracy, its summary and where it came from. Schema: ``docs/results-schema.md``."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError, SchemaVersionError
from wildpdiff.evaluate.sections import Calibration, SourceInfo, TrustSection, contradiction, section_kinds
from wildpdiff.posterior.score import PosteriorSummary
from wildpdiff.records import decode, encode

SCHEMA_VERSION = 5
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
        accuracy: fraction of the test images classified right, 0 to 1.
        images: number of test images.
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

    try:
        package = version("wildpdiff")
    except PackageNotFoundError:
        package = "not installed"
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
        version = value.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ArtifactError(
                f"{where} has schema_version {version!r}; a whole number from 1 is needed. Evaluate again."
            )
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{where} has schema version {version}; this package reads up to {SCHEMA_VERSION}. Update wildpdiff."
            )
        body = {key: entry for key, entry in value.items() if key not in ("schema_version", "kind")}
        if version <= 4:
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


ADDED = ("spread", "memorisation", "distances", "latent_map", "pictures", "interpolation", "scaling", "paper")
"""Top-level keys of versions before 5 that are sections since."""


def _from_version(version: int, body: dict[str, Any]) -> dict[str, Any]:
    """A file of an earlier version with the keys of this one; later additions count as not measured."""
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
        if not 0 <= row.accuracy <= 1:
            yield f"rows[{index}].accuracy is {row.accuracy}; a fraction from 0 to 1 is needed."
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
    wrong = contradicted_summary(results.rows, results.summary, results.provenance.seed)
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
