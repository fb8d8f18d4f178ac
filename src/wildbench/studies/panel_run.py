"""The panel measured: a benchmark at a time, each in a folder of its own with results.json and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wildbench.run_folder import Reporter, RunFolder, null_progress
from wildbench.studies.measuring import Measurement, StudyConfig
from wildbench.studies.panel import BENCHMARKS, Benchmark, open_benchmark
from wildbench.studies.panel_page import PanelPage, write_page
from wildpdiff.evaluate.results import Results, read_results


def run_panel(
    config: StudyConfig,
    benchmarks: Sequence[Benchmark],
    data: Path | None,
    out: Path,
    *,
    command: str,
    reporter: Reporter = null_progress,
) -> PanelPage:
    """Measure some benchmarks, then write the page of all in the folder. Interrupted and called again, it resumes.

    Args:
        config: the same in every call for one folder.
        benchmarks: measured in this order; a benchmark whose data are absent is skipped with a remark on the page.
        data: folder with the data sets.
        out: folder of the panel.
        command: as the user typed it, for the record.
        reporter: informed of every stage and its progress.

    Raises:
        ArtifactError: the folder holds a panel of other settings, or the disk is full.
        WildpdiffError: from any stage.
    """
    RunFolder(out).claim(config.to_json())
    remarks = []
    for benchmark in benchmarks:
        missing = benchmark.missing(data)
        if missing is not None and not (out / benchmark.name / "results.json").is_file():
            remarks.append(f"{benchmark.name}: skipped, because {_absent(data)} has no {missing}.")
            continue
        measure_benchmark(config, benchmark, data, out, command=command, reporter=reporter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    paths = {path.parent.name: path for path in sorted(out.glob("*/results.json"))}
    order = sorted(paths, key=lambda name: names.index(name) if name in names else len(names))
    return write_page(out, {name: read_results(paths[name]) for name in order}, remarks)


def _absent(data: Path | None) -> str:
    return "no --data was given, which" if data is None else f"the data folder {data.name}"


def measure_benchmark(
    config: StudyConfig,
    benchmark: Benchmark,
    data: Path | None,
    out: Path,
    *,
    command: str,
    reporter: Reporter = null_progress,
) -> Results:
    """One benchmark measured in a folder of its own below ``out``. Interrupted and called again, it resumes.

    Args:
        config: of the panel.
        benchmark: its data are there.
        data: folder with the data sets.
        out: folder of the panel.
        command: as the user typed it, for the record.
        reporter: informed of every stage and its progress.

    Raises:
        DataError: the data are not there or cannot be read.
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: from any stage.
    """
    path = out / benchmark.name / "results.json"
    if path.is_file():
        return read_results(path)
    folder = RunFolder(path.parent, lambda stage: reporter(f"{benchmark.name}: {stage}"))
    finetune = None if benchmark.finetune is None else benchmark.finetune.to_json()
    measurement = Measurement(benchmark.name, config, {"finetune": finetune}, command)
    return measurement.run(
        folder, lambda tick: open_benchmark(benchmark, data, folder.folder, config.seed, progress=tick)
    )
