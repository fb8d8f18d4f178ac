"""The table of a domain: one row a method, one column a group of tasks, and trust; as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from wildbench.domains.domain import GROUPS, Domain
from wildbench.domains.regret import Regret, regret
from wildbench.report.plain_page import PlainPage, PlainSection, PlainTable, page_markdown
from wildbench.sections import POOLED, PooledCounts
from wildbench.studies.panel_page import ShownMethod
from wildbench.studies.pooled_scores import PooledScore
from wildbench.trust_summary import TrustSummary, summarise_trust
from wildpdiff.disk import json_bytes, read_json, write_file
from wildpdiff.evaluate.results import ResultRow, Results
from wildpdiff.evaluate.statistics import Estimate, Gain, interval_ends, mean_interval, recovered_gain, task_draws
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, task_means
from wildpdiff.records import decode, encode
from wildpdiff.report.wording import seconds_text
from wildpdiff.tasks.metric import Metric

SEEN, UNSEEN = "seen", "unseen"
WITH_TRUST = "generated, with trust"
"""The generated adapter where trust reaches its threshold, elsewhere the pretrained model."""


@dataclass(frozen=True)
class Cell:
    """A method on one group of tasks: means over tasks, with 95 % bootstrap intervals over tasks.

    Attributes:
        score: mean score.
        gain: recovered share of the gain of fine-tuning; None for the references, and where there is none to recover.
        pooled: scores of all examples of the group together, by name.
    """

    score: Estimate
    gain: Gain | None
    pooled: dict[str, Estimate]


@dataclass(frozen=True)
class DomainRow:
    """A method, the information about a task that it uses, and its cells by group."""

    method: str
    uses: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class DomainTable:
    """The table of a domain.

    Attributes:
        groups: number of scored tasks by group: seen, unseen (drawn at random), and groups that are held out whole.
        trust: its quality by group, of those with calibrated trust.
        regret: of the generated adapters, by group of unseen tasks.
        generators: their number.
    """

    domain: str
    title: str
    metric: Metric
    pooled_metrics: tuple[Metric, ...]
    groups: dict[str, int]
    rows: tuple[DomainRow, ...]
    trust: dict[str, TrustSummary]
    regret: dict[str, Regret]
    generators: int
    seed: int
    seconds: float
    command: str
    remarks: tuple[str, ...] = ()

    def cell(self, method: str, group: str) -> Cell:
        """A cell; ``KeyError`` where there is none."""
        return {row.method: row.cells for row in self.rows}[method][group]


@dataclass(frozen=True)
class _Line:
    """A method's scores and counts: by task, means over samples and generators."""

    scores: Mapping[str, float]
    counts: Mapping[str, Mapping[str, ndarray]]


def domain_table(domain: Domain, results: Results) -> DomainTable:
    """The table of some results of the domain."""
    lines = {method.label: _line(results, method) for method in _shown(domain, results)}
    lines = {label: line for label, line in lines.items() if line.scores}
    if results.trust is not None:
        lines[WITH_TRUST] = _with_trust(results, lines)
    groups = _groups(results, lines[PRETRAINED])
    uses = {info.name: info.family for info in results.sources}
    sources = {method.label: method.source for method in _shown(domain, results)} | {WITH_TRUST: GENERATED}
    rows = tuple(
        DomainRow(
            label,
            uses.get(sources[label], "description"),
            {
                group: _cell(domain, results, lines, label=label, tasks=tasks)
                for group, tasks in groups.items()
                if all(task in lines[label].scores for task in tasks)
            },
        )
        for label in lines
    )
    points = () if results.trust is None else results.trust.points
    trust = {
        group: [point for point in points if point.task in tasks] for group, tasks in groups.items() if group != SEEN
    }
    seed = results.provenance.seed
    return DomainTable(
        domain.name,
        domain.title,
        results.metric,
        tuple(score.metric for score in domain.pooled),
        {group: len(tasks) for group, tasks in groups.items()},
        rows,
        {group: summarise_trust(own, seed=seed) for group, own in trust.items() if own},
        _regrets(results, lines, groups),
        0 if results.generator is None else len(results.generator.hashes),
        seed,
        sum(stage.seconds for stage in results.stages),
        results.provenance.command,
        domain.remarks,
    )


def _regrets(results: Results, lines: Mapping[str, _Line], groups: Mapping[str, Sequence[str]]) -> dict[str, Regret]:
    if GENERATED not in lines:
        return {}
    delivered = lines[WITH_TRUST].scores if WITH_TRUST in lines else None
    scores = (lines[PRETRAINED].scores, lines[GENERATED].scores, delivered)
    return {
        group: regret(tasks, *scores, sign=float(results.metric.sign), seed=results.provenance.seed)
        for group, tasks in groups.items()
        if group != SEEN
    }


def _shown(domain: Domain, results: Results) -> list[ShownMethod]:
    """The methods of every domain, then the further ones of the results, fine-tuning last."""
    *methods, last = domain.methods(trained=True)
    known = {(method.source, method.condition) for method in (*methods, last)}
    own = dict.fromkeys((row.source, row.condition) for row in results.rows)
    further = [
        ShownMethod(source, source, condition)
        for source, condition in own
        if (source, condition) not in known and source != GENERATED
    ]
    return [*methods, *further, last]


def _line(results: Results, method: ShownMethod) -> _Line:
    rows = [row for row in results.rows if (row.source, row.condition) == (method.source, method.condition)]
    counts = [
        entry
        for entry in POOLED.of(results) or ()
        if (entry.source, entry.condition) == (method.source, method.condition)
    ]
    return _joined(rows, counts)


def _joined(rows: Iterable[ResultRow], counts: Iterable[PooledCounts]) -> _Line:
    found: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    for entry in counts:
        found.setdefault(entry.score, {}).setdefault(entry.task, []).append(entry.counts)
    means = {score: {task: np.mean(values, axis=0) for task, values in tasks.items()} for score, tasks in found.items()}
    return _Line(task_means(rows), means)


def _with_trust(results: Results, lines: Mapping[str, _Line]) -> _Line:
    """Of each generator and task the generated or the pretrained line."""
    assert results.trust is not None
    chosen = [(point.task, point.generator, point.used) for point in results.trust.points]
    generated = {
        seed: _joined(
            [row for row in results.rows if _of_generator(row, seed)],
            [entry for entry in POOLED.of(results) or () if _of_generator(entry, seed)],
        )
        for seed in {seed for _, seed, _ in chosen}
    }
    picked: dict[str, list[_Line]] = {}
    for task, seed, used in chosen:
        picked.setdefault(task, []).append(generated[seed] if used else lines[PRETRAINED])
    names = lines[PRETRAINED].counts
    return _Line(
        {task: float(np.mean([line.scores[task] for line in own])) for task, own in picked.items()},
        {
            name: {task: np.mean([line.counts[name][task] for line in own], axis=0) for task, own in picked.items()}
            for name in names
        },
    )


def _of_generator(entry: ResultRow | PooledCounts, seed: int) -> bool:
    return (entry.source, entry.condition, entry.generator_seed) == (GENERATED, "own", seed)


def _groups(results: Results, pretrained: _Line) -> dict[str, list[str]]:
    """Tasks by group, in a fixed order; a task is in one split only."""
    named: Mapping[str, str] = results.suite.knobs.get(GROUPS, {})
    splits = {row.task: row.split for row in results.rows}
    found: dict[str, list[str]] = {SEEN: [], UNSEEN: []}
    for task in pretrained.scores:
        group = SEEN if splits[task] == SEEN else named.get(task, UNSEEN)
        found.setdefault(group, []).append(task)
    return {group: tasks for group, tasks in found.items() if tasks}


def _cell(domain: Domain, results: Results, lines: Mapping[str, _Line], *, label: str, tasks: Sequence[str]) -> Cell:
    seed, sign = results.provenance.seed, results.metric.sign

    def column(name: str) -> ndarray:
        return np.array([lines[name].scores[task] for task in tasks])

    gain = None
    if label not in (PRETRAINED, FINETUNED) and FINETUNED in lines:
        gain = recovered_gain(*(sign * column(name) for name in (label, PRETRAINED, FINETUNED)), seed=seed)
    pooled = {
        score.metric.name: _pooled(score, [lines[label].counts[score.metric.name][task] for task in tasks], seed)
        for score in domain.pooled
        if score.metric.name in lines[label].counts
    }
    return Cell(mean_interval(column(label), seed=seed), gain, pooled)


def _pooled(score: PooledScore, counts: Sequence[ndarray], seed: int) -> Estimate:
    """The score of the summed counts, with an interval over resampled tasks."""
    stacked, tasks = np.stack(counts), len(counts)
    value = float(score.value(torch.from_numpy(stacked.sum(0))))
    if tasks == 1:
        return Estimate(None, None, value, tasks)
    drawn = score.value(torch.from_numpy(task_draws(tasks, seed) @ stacked)).numpy()
    return Estimate(*interval_ends(drawn, drawn), value, tasks)


def write_table(table: DomainTable, folder: Path) -> tuple[Path, Path]:
    """Write ``domain.md`` and ``domain.json``; returns their paths."""
    markdown, data = folder / "domain.md", folder / "domain.json"
    write_file(markdown, page_markdown(_page(table)).encode())
    write_file(data, json_bytes(encode(table)))
    return markdown, data


def read_table(path: Path) -> DomainTable:
    """The table of a ``domain.json``; raises :class:`ArtifactError` where it is none."""
    found: DomainTable = decode(DomainTable, read_json(path), str(path))
    return found


def _page(table: DomainTable) -> PlainPage:
    lead = (
        f"{table.metric.name.capitalize()}, mean over tasks; in brackets 95 % bootstrap intervals over tasks. Gain: "
        "recovered share of the gain of fine-tuning over the pretrained model. With trust: the pretrained model is "
        "kept below the threshold. Methods that use labels of the task itself are named so."
    )
    made = (
        f"`{table.command}`; seed {table.seed}; {table.generators} generator{'s' if table.generators > 1 else ''}; "
        f"{seconds_text(table.seconds)} (wall clock)."
    )
    tables = [methods_table(table), regret_table(table)] + ([trust_table(table)] if table.trust else [])
    section = PlainSection(table.domain, (lead,), tuple(tables), (*table.remarks, made))
    return PlainPage(table.title, (section,))


def methods_table(table: DomainTable) -> PlainTable:
    """One row a method, with columns for each group of tasks."""
    columns = ["method", "uses"]
    for group, tasks in table.groups.items():
        columns += [f"{group} ({tasks})", f"gain, {group}"]
        columns += [f"{metric.name}, {group}" for metric in table.pooled_metrics]
    rows = []
    for row in table.rows:
        cells = [row.method, row.uses]
        for group in table.groups:
            cells += _cells(table, row.cells.get(group))
        rows.append(tuple(cells))
    return PlainTable(tuple(columns), tuple(rows))


def _cells(table: DomainTable, cell: Cell | None) -> list[str]:
    if cell is None:
        return ["–"] * (2 + len(table.pooled_metrics))
    pooled = [cell.pooled.get(metric.name) for metric in table.pooled_metrics]
    return [
        _number(cell.score, table.metric),
        "–" if cell.gain is None or cell.gain.value is None else _text(cell.gain.value, cell.gain.interval, 2),
        *("–" if value is None else _number(value, metric)
          for value, metric in zip(pooled, table.pooled_metrics, strict=True)),
    ]  # fmt: skip


def regret_table(table: DomainTable) -> PlainTable:
    """Mean loss against the better of the pretrained and the adapted model of each task, by policy."""
    columns = ("regret", "never adapt", "always adapt", "adapt where trusted")
    rows = [
        (group, *("–" if value is None else _number(value, table.metric)
                  for value in (found.never, found.always, found.trusted)))
        for group, found in table.regret.items()
    ]  # fmt: skip
    return PlainTable(columns, tuple(rows))


def trust_table(table: DomainTable) -> PlainTable:
    """Mean trust, and shares of tasks in percent by group: kept back, and harmed without and with trust."""
    shares = ("kept back", "harmed without trust", "harmed with trust")
    columns = ("trust", "tasks", "mean trust", *shares, "gain without", "gain with")
    rows = [
        (
            group,
            str(found.tasks),
            _text(found.trust.value, found.trust.interval, 2),
            *(f"{100 * value:.0f}" for value in (
                1 - found.used_share.value, found.harmed_without.value, found.harmed_with.value)),
            *(_text(value.value, value.interval, 1) for value in (found.gain_without, found.gain_with)),
        )
        for group, found in table.trust.items()
    ]  # fmt: skip
    return PlainTable(columns, tuple(rows))


def _number(value: Estimate, metric: Metric) -> str:
    digits = 1 if metric.scale == 100 else 3
    interval = value.interval
    scaled = None if interval is None else (metric.scale * interval[0], metric.scale * interval[1])
    return _text(metric.scale * value.value, scaled, digits)


def _text(value: float, interval: tuple[float, float] | None, digits: int) -> str:
    shown = f"{value:.{digits}f}"
    return shown if interval is None else f"{shown} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
