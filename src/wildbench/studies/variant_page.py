"""All variants of the study of unseen tasks together: one table of targets, one page of every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wildbench.run_folder import Reporter, RunFolder, null_progress
from wildbench.studies.variant_targets import Target, judge_variants
from wildbench.studies.variants import BASE, EXTRAPOLATION, VARIANT_NAMES, VariantsConfig, folder_name, measure_variant
from wildpdiff.disk import write_file
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Results, Stage, TrustSection, read_results, write_results
from wildpdiff.report.page import write_report


@dataclass(frozen=True)
class VariantsResult:
    """The files of a study.

    Attributes:
        folder: of the study; each variant has its own folder, results and page in it.
        results: of all variants that lie in the folder.
        targets: required against measured.
        table: the same as a Markdown file.
        report: the page.
    """

    folder: Path
    results: Results
    targets: tuple[Target, ...]
    table: Path
    report: Path


def run_variants(
    config: VariantsConfig,
    variants: Sequence[str],
    out: Path | str,
    *,
    command: str,
    reporter: Reporter = null_progress,
) -> VariantsResult:
    """Measure some variants, then judge all that lie in the folder. Interrupted and called again, it resumes.

    Variants may come in several calls, and processes may measure different variants of one folder at the same time.

    Args:
        config: of the study; the same in every call for one folder.
        variants: of :data:`~wildbench.studies.variants.VARIANT_NAMES`.
        out: folder of the study.
        command: what the user typed, for the record.
        reporter: receives every stage and its progress.

    Raises:
        DataError: no variant, or one that does not exist.
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: whatever a stage raises.
    """
    unknown = [name for name in variants if name not in VARIANT_NAMES]
    if unknown or not variants:
        problem = f"There is no variant {unknown[0]!r}" if unknown else "No variant was requested"
        raise DataError(f"{problem}; there are {', '.join(VARIANT_NAMES)}.")
    folder = RunFolder(Path(out), reporter)
    folder.claim(config.to_json())
    for name in (entry for entry in VARIANT_NAMES if entry in variants):
        measure_variant(config, name, folder.folder, command=command, reporter=reporter)
    paths = {name: folder.folder / folder_name(name) / "results.json" for name in VARIANT_NAMES}
    found = {name: read_results(path) for name, path in paths.items() if path.is_file()}
    targets = judge_variants(found)
    merged = merge_variants(found, targets)
    write_results(folder.folder / "results.json", merged)
    table = folder.folder / "unseen.md"
    write_file(table, targets_markdown(targets, merged).encode())
    reporter("report")
    return VariantsResult(folder.folder, merged, targets, table, write_report(merged, folder.folder).page)


def merge_variants(found: Mapping[str, Results], targets: Sequence[Target] = ()) -> Results:
    """Every variant's rows in one file of results, each variant a suite of its own name.

    Groups held out of :data:`~wildbench.studies.variants.BASE` follow its unseen tasks. Measurements other than
    accuracy and trust (novelty, calibration, pictures) stay in the variants' own pages.

    Args:
        found: results by the name of the variant.
        targets: become notes.

    Raises:
        DataError: no variant.
    """
    if not found:
        raise DataError("There is no variant to judge. Run at least one.")
    named = [_renamed(name, results) for name, results in found.items()]
    first = named[0]
    points = [point for results in named if results.trust is not None for point in results.trust.points]
    infos = {info.name: info for results in reversed(named) for info in results.sources}
    ordered = dict.fromkeys(info.name for results in named for info in results.sources)
    verdicts = [f"{target.what}: {target.measured}{_requirement(target)}." for target in targets]
    return Results(
        provenance=first.provenance,
        suite=first.suite,
        backbone=first.backbone,
        generator=first.generator,
        autoencoder=None,
        rows=tuple(row for results in named for row in results.rows),
        summary=tuple(row for results in named for row in results.summary),
        stages=tuple(stage for results in named for stage in results.stages),
        notes=(*verdicts, *(note for results in named for note in results.notes)),
        sources=tuple(infos[name] for name in ordered),
        trust=TrustSection(tuple(points)) if points else None,
    )


def targets_markdown(targets: Sequence[Target], results: Results) -> str:
    """The table of targets as Markdown, with its provenance."""
    made = results.provenance
    lines = ["| what | required | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {target.what} | {target.required or '–'} | {target.measured} | {target.verdict} |" for target in targets
    ]
    words = (
        "Means over all samples and generators, never the best; in brackets 95 % bootstrap intervals over tasks. "
        f"Made by `{made.command}`; seed {made.seed}; {made.hardware}; {made.created[:10]}."
    )
    return "\n".join([*lines, "", words, ""])


def _requirement(target: Target) -> str:
    return f" (required: {target.required}; {target.verdict})" if target.required else ""


def _renamed(name: str, results: Results) -> Results:
    variant = BASE if name == EXTRAPOLATION else name
    suite = f"{results.suite.name}, {variant}"
    return replace(
        results,
        rows=tuple(replace(row, suite=suite) for row in results.rows),
        summary=tuple(replace(row, suite=suite) for row in results.summary),
        stages=tuple(Stage(f"{name}: {stage.name}", stage.seconds) for stage in results.stages),
        notes=tuple(f"{name}: {note}" for note in results.notes),
    )
