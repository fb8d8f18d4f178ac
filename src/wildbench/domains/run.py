"""A domain measured in a folder: results.json, report and table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wildbench.domains.domain import Domain
from wildbench.domains.table import DomainTable, domain_table, write_table
from wildbench.run_folder import Reporter, RunFolder, Tick, null_progress
from wildbench.studies.measuring import Measurement, OpenBenchmark, StudyConfig
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.errors import ArtifactError

DATA = "data.json"
"""The file of a run's folder with a hash of the data."""


def run_domain(
    domain: Domain,
    data: Path,
    out: Path,
    config: StudyConfig,
    *,
    command: str,
    options: Mapping[str, Any] | None = None,
    reporter: Reporter = null_progress,
) -> DomainTable:
    """Measure a domain. Interrupted and called again, it resumes at the stage that it was in.

    Args:
        data: folder with the data sets.
        out: folder of the run: zoos, generators, ``results.json``, ``report.html``, ``domain.md``, ``domain.json``.
        config: of :func:`domain_config`.
        command: as the user typed it, for the record.
        options: of the domain, by name.
        reporter: informed of every stage and its progress.

    Raises:
        DataError: a file of the domain is absent or cannot be read.
        ArtifactError: the folder holds something else, also of other data, or the disk is full.
        WildpdiffError: from any stage.
    """
    domain.require(data)
    path, content = out / DATA, domain.content_of(data)
    if path.is_file() and read_json(path) != content:
        raise ArtifactError(f"{out} holds a run of other data than {data}. Choose another --out, or remove the folder.")

    def opened(tick: Tick) -> OpenBenchmark:
        write_file(path, json_bytes(content))  # the folder is claimed now, and nothing is made yet
        return replace(domain.open(data, out, config.seed, tick, **(options or {})), pooled=domain.pooled)

    claim = {"options": dict(options)} if options else {}
    results = Measurement(domain.name, config, claim, command).run(RunFolder(out, reporter), opened)
    table = domain_table(domain, results)
    write_table(table, out)
    return table


def domain_config(domain: Domain, seed: int = 0, generators: int = 1, *, trained: bool = True) -> StudyConfig:
    """The settings of a run: ``trained`` adds the methods that are networks of their own or searches."""
    return StudyConfig(
        seed, generators, domain.generator, domain.samples, domain.seen_tasks, domain.methods(trained=trained)
    )
