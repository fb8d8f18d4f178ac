"""All worlds of the study of unseen tasks together: one table against what was asked, one page of every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wildbench.studies.world_bars import Bar, judge_worlds
from wildbench.studies.worlds import BASE, EXTRAPOLATION, WORLD_NAMES, WorldsConfig, folder_name, measure_world
from wildpdiff.disk import write_file
from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Results, Stage, read_results, write_results
from wildpdiff.evaluate.trust_points import TrustSection
from wildpdiff.report.html import write_report
from wildpdiff.run_folder import Reporter, RunFolder, silent


@dataclass(frozen=True)
class WorldsResult:
    """What a study left on disk.

    Attributes:
        folder: of the study; each world has its own folder, results and page in it.
        results: of all worlds that lie in the folder.
        bars: what was asked against what was measured.
        table: the same as a Markdown file.
        report: the page.
    """

    folder: Path
    results: Results
    bars: tuple[Bar, ...]
    table: Path
    report: Path


def run_worlds(
    config: WorldsConfig, worlds: Sequence[str], out: Path | str, *, command: str, reporter: Reporter = silent
) -> WorldsResult:
    """Measure some worlds, then judge all that lie in the folder. Interrupted and called again, it goes on.

    Worlds may come in several calls; processes that measure different worlds of one folder do not disturb each other.

    Args:
        config: of the study; the same in every call for one folder.
        worlds: of :data:`~wildbench.studies.worlds.WORLD_NAMES`.
        out: folder of the study.
        command: what the user typed, for the record.
        reporter: is told of every stage and its progress.

    Raises:
        DataError: no world, or one that does not exist.
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: whatever a stage raises.
    """
    unknown = [name for name in worlds if name not in WORLD_NAMES]
    if unknown or not worlds:
        asked = f"There is no world {unknown[0]!r}" if unknown else "No world was asked for"
        raise DataError(f"{asked}; there are {', '.join(WORLD_NAMES)}.")
    folder = RunFolder(Path(out), reporter)
    folder.claim(config.to_json())
    for name in (entry for entry in WORLD_NAMES if entry in worlds):
        measure_world(config, name, folder.folder, command=command, reporter=reporter)
    paths = {name: folder.folder / folder_name(name) / "results.json" for name in WORLD_NAMES}
    found = {name: read_results(path) for name, path in paths.items() if path.is_file()}
    bars = judge_worlds(found)
    merged = merge_worlds(found, bars)
    write_results(folder.folder / "results.json", merged)
    table = folder.folder / "unseen.md"
    write_file(table, bars_markdown(bars, merged).encode())
    reporter("report")
    return WorldsResult(folder.folder, merged, bars, table, write_report(merged, folder.folder).page)


def merge_worlds(found: Mapping[str, Results], bars: Sequence[Bar] = ()) -> Results:
    """Every world's rows in one file of results, each world a suite of its own name.

    Groups held out of :data:`~wildbench.studies.worlds.BASE` stand beside its unseen tasks. What is measured beside
    accuracy and trust (novelty, calibration, pictures) stays in the worlds' own pages.

    Args:
        found: results by the name of the world.
        bars: are told as notes.

    Raises:
        DataError: no world.
    """
    if not found:
        raise DataError("There is no world to judge. Run at least one.")
    named = [_renamed(name, results) for name, results in found.items()]
    first = named[0]
    points = [point for results in named if results.trust is not None for point in results.trust.points]
    infos = {info.name: info for results in reversed(named) for info in results.sources}
    ordered = dict.fromkeys(info.name for results in named for info in results.sources)
    told = [f"{bar.what}: {bar.measured}{_asked(bar)}." for bar in bars]
    return Results(
        provenance=first.provenance,
        suite=first.suite,
        backbone=first.backbone,
        generator=first.generator,
        autoencoder=None,
        rows=tuple(row for results in named for row in results.rows),
        summary=tuple(row for results in named for row in results.summary),
        stages=tuple(stage for results in named for stage in results.stages),
        notes=(*told, *(note for results in named for note in results.notes)),
        sources=tuple(infos[name] for name in ordered),
        trust=TrustSection(tuple(points)) if points else None,
    )


def bars_markdown(bars: Sequence[Bar], results: Results) -> str:
    """The table of what was asked, as Markdown, with what made it."""
    made = results.provenance
    lines = ["| what | asked | measured | |", "|---|---|---|---|"]
    lines += [f"| {bar.what} | {bar.asked or '–'} | {bar.measured} | {bar.verdict} |" for bar in bars]
    words = (
        "Means over all samples and generators, never the best; in brackets 95 % bootstrap intervals over tasks. "
        f"Made by `{made.command}`; seed {made.seed}; {made.hardware}; {made.created[:10]}."
    )
    return "\n".join([*lines, "", words, ""])


def _asked(bar: Bar) -> str:
    return f" (asked: {bar.asked}; {bar.verdict})" if bar.asked else ""


def _renamed(name: str, results: Results) -> Results:
    place = BASE if name == EXTRAPOLATION else name
    suite = f"{results.suite.name}, {place}"
    return replace(
        results,
        rows=tuple(replace(row, suite=suite) for row in results.rows),
        summary=tuple(replace(row, suite=suite) for row in results.summary),
        stages=tuple(Stage(f"{name}: {stage.name}", stage.seconds) for stage in results.stages),
        notes=tuple(f"{name}: {note}" for note in results.notes),
    )
