"""A domain measured in a folder: results.json, report and table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wildbench.domains.domain import Domain
from wildbench.domains.table import DomainTable, domain_table, write_table
from wildbench.run_folder import Reporter, RunFolder, Tick, null_progress
from wildbench.studies.measuring import Measurement, OpenBenchmark, StudyConfig


def run_domain(
    domain: Domain, data: Path, out: Path, config: StudyConfig, *, command: str, reporter: Reporter = null_progress
) -> DomainTable:
    """Measure a domain. Interrupted and called again, it resumes at the stage that it was in.

    Args:
        data: folder with the data sets.
        out: folder of the run: zoos, generators, ``results.json``, ``report.html``, ``domain.md``, ``domain.json``.
        config: of :func:`domain_config`.
        command: as the user typed it, for the record.
        reporter: informed of every stage and its progress.

    Raises:
        DataError: a file of the domain is absent or cannot be read.
        ArtifactError: the folder holds something else, or the disk is full.
        WildpdiffError: from any stage.
    """
    domain.require(data)

    def opened(tick: Tick) -> OpenBenchmark:
        return replace(domain.open(data, out, config.seed, tick), pooled=domain.pooled)

    results = Measurement(domain.name, config, {}, command).run(RunFolder(out, reporter), opened)
    table = domain_table(domain, results)
    write_table(table, out)
    return table


def domain_config(domain: Domain, seed: int = 0, generators: int = 1, *, trained: bool = True) -> StudyConfig:
    """The settings of a run: ``trained`` adds the methods that are networks of their own or searches."""
    return StudyConfig(
        seed, generators, domain.generator, domain.samples, domain.seen_tasks, domain.methods(trained=trained)
    )
