"""results.json: every measured accuracy, its summary and where it came from. Schema: ``docs/results-schema.md``."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from wildpdiff.conditional_mean.score_table import CrossValidation
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError, SchemaVersionError
from wildpdiff.evaluate.sections import Calibration, SourceInfo, section_kinds
from wildpdiff.evaluate.trust_points import TrustSection, contradiction
from wildpdiff.posterior.score import PosteriorSummary
from wildpdiff.records import decode, encode

SCHEMA_VERSION = 5
_SPLIT = re.compile(r"seen|unseen|held-out \S.*")
"""Raised when an older package could not read what a newer one writes."""

Split = str
"""``seen``, ``unseen``, or ``held-out NAME``: seen tasks that a generator was fitted without, a whole group at a time
(for example every task of one habitat)."""
Condition = Literal["own", "shuffled", "random", "none"]


@dataclass(frozen=True)
class ResultRow:
    """One adapter scored on one task's test images.

    Attributes:
        suite: name of the suite the task belongs to.
        split: ``seen`` (trained the generator), ``unseen``, or ``held-out NAME`` (see :data:`Split`).
        source: what gave the adapter, for example ``generated`` or ``nearest task``.
        condition: the description it was given: the task's ``own``, another task's (``shuffled``), one made of
            parts of many tasks (``random``), or ``none``.
        generator_seed: seed the generator was trained with; None for sources that are not trained.
        sample: number of the sample, from 0.
        task: the task's name.
        accuracy: fraction of the test images classified right, 0 to 1.
        images: how many test images.
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
    """One line of the table: a source over all tasks of a split.

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
    """What made the numbers; ``created`` is an ISO 8601 date or time."""

    package_version: str
    command: str
    seed: int
    hardware: str
    python: str
    torch: str
    created: str


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
    """The generators, one hash a seed; their configuration, and how many checkpoints they were trained on.

    Attributes:
        hashes: one a seed.
        config: of all of them.
        checkpoints: number of checkpoints of the zoo.
        cross_validation: of the first on seen tasks; None where it has none.
        posterior: of the first, as it did on held-out seen tasks; None where it has none.
    """

    hashes: tuple[str, ...]
    config: dict[str, Any]
    checkpoints: int
    cross_validation: CrossValidation | None = None
    posterior: PosteriorSummary | None = None


@dataclass(frozen=True)
class Ceiling:
    """Accuracy of fine-tuned adapters after the autoencoder's round trip, beside the same adapters untouched."""

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
    """Everything the report is drawn from. ``generator`` and ``autoencoder`` are None where only baselines ran."""

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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values in the documented schema."""
        body = {field.name: encode(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"schema_version": SCHEMA_VERSION, "kind": "results", **body}

    @classmethod
    def from_json(cls, value: Any, where: str = "results.json") -> Results:
        """Check and read what :meth:`to_json` gave.

        Args:
            value: parsed JSON.
            where: the file's name, for messages.

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
        results = dataclasses.replace(results, sections=_decoded_sections(results.sections, where))
        _check(results, where)
        return results


ADDED = ("spread", "memorisation", "distances", "latent_map", "pictures", "interpolation", "scaling", "paper")
"""Keys that versions before 5 had beside the rows; they are sections since."""


def _from_version(version: int, body: dict[str, Any]) -> dict[str, Any]:
    """A file of an earlier version in the keys of this one; what came later was not measured."""
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


def _decoded_sections(sections: dict[str, Any], where: str) -> dict[str, Any]:
    """Sections of installed packages as their records; others stay plain values, to be written again as they are."""
    kinds = section_kinds()
    separator = "." if ": " in where else ": "
    return {
        name: decode(kinds[name].record, value, f"{where}{separator}sections.{name}") if name in kinds else value
        for name, value in sections.items()
    }


def _check(results: Results, where: str) -> None:
    """What types cannot say: ranges, no score twice, and a summary that belongs to the rows."""
    try:
        datetime.fromisoformat(results.provenance.created)
    except ValueError as error:
        found = results.provenance.created
        raise ArtifactError(f"{where}: provenance.created is {found!r}; an ISO 8601 date is needed.") from error
    seen = set()
    for number, row in enumerate(results.rows):
        if not 0 <= row.accuracy <= 1:
            raise ArtifactError(
                f"{where}: rows[{number}].accuracy is {row.accuracy}; a fraction from 0 to 1 is needed."
            )
        if row.images < 1:
            raise ArtifactError(f"{where}: rows[{number}].images is {row.images}; at least one image is needed.")
        key = (row.suite, row.split, row.source, row.condition, row.generator_seed, row.sample, row.task)
        if key in seen:
            raise ArtifactError(
                f"{where}: rows[{number}] scores {row.source!r} on {row.task!r} a second time. Evaluate again."
            )
        seen.add(key)
    odd_splits = [row.split for row in results.rows if not _SPLIT.fullmatch(row.split)]
    if odd_splits:
        raise ArtifactError(
            f"{where}: a row has the split {odd_splits[0]!r}; seen, unseen or held-out NAME is needed. Evaluate again."
        )
    for split, stated in (("seen", results.suite.seen), ("unseen", results.suite.unseen)):
        tasks = {row.task for row in results.rows if (row.suite, row.split) == (results.suite.name, split)}
        if len(tasks) > stated:
            raise ArtifactError(
                f"{where}: suite.{split} is {stated}; the rows have {len(tasks)} {split} tasks. Evaluate again, or "
                "restore the file."
            )
    measured = {key[:4] for key in seen}
    shown = [(row.suite, row.split, row.source, row.condition) for row in results.summary]
    if measured != set(shown) or len(shown) != len(measured):
        odd = sorted(measured.symmetric_difference(shown)) or sorted(key for key in shown if shown.count(key) > 1)
        raise ArtifactError(f"{where}: rows and summary disagree about {' / '.join(odd[0])}. Summarise the rows again.")
    from wildpdiff.evaluate.summary import contradicted_summary

    wrong = contradicted_summary(results.rows, results.summary, results.provenance.seed)
    if wrong is not None:
        raise ArtifactError(f"{where}: the summary contradicts the rows: {wrong}. Evaluate again, or restore the file.")
    for splits in results.autoencoder.ceiling if results.autoencoder else ():
        if splits not in ("seen", "unseen"):
            raise ArtifactError(f"{where}: autoencoder.ceiling has the key {splits!r}; seen or unseen is needed.")
    _check_ceiling(results, where)
    _check_trust(results, where)


def _check_ceiling(results: Results, where: str) -> None:
    """Fine-tuned adapters beside the autoencoder's round trip are those of the rows."""
    for split, entry in results.autoencoder.ceiling.items() if results.autoencoder else ():
        own = [row.accuracy for row in results.rows if (row.split, row.source) == (split, "fine-tuned")]
        if own and abs(sum(own) / len(own) - entry.finetuned) > 1e-6:
            raise ArtifactError(
                f"{where}: autoencoder.ceiling.{split}.finetuned is {entry.finetuned}; the rows have "
                f"{sum(own) / len(own):.6f}. Evaluate again, or restore the file."
            )


def _check_trust(results: Results, where: str) -> None:
    """Trust of at least one task, every point sound in itself."""
    if results.trust is None:
        return
    odd = contradiction(results.trust.points) if results.trust.points else "points is empty; null says it better"
    if odd is not None:
        raise ArtifactError(f"{where}: trust.{odd}. Assess the tasks again.")


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
        ArtifactError: missing, not JSON, or not as the schema says.
        SchemaVersionError: written by a newer version of the package.
    """
    return Results.from_json(read_json(path), str(path))
