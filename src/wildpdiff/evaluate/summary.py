"""The table of results: rows averaged per task, then summarised over tasks for each source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from wildpdiff.evaluate.results import ResultRow, SummaryRow
from wildpdiff.evaluate.statistics import mean_interval, recovered_gain

PRETRAINED = "pretrained"
FINETUNED = "fine-tuned"
GENERATED = "generated"

SOURCE_ORDER = (PRETRAINED, "mean adapter", "nearest task", "kernel ridge regression", None, GENERATED, FINETUNED)
"""Order of every table; None stands for all further sources, in the order in which they were evaluated."""

SAME_MEAN = 1e-9
"""Largest difference of two means of the same scores."""

_CONDITIONS = ("own", "none", "shuffled", "random")


def display_label(source: str, condition: str) -> str:
    """The name of a source in tables, for example ``generated, shuffled conditions``."""
    if condition in ("shuffled", "random"):
        return f"{source}, {condition} conditions"
    # Only the generator can read a description and also do without: other sources with none never read one.
    return f"{source}, no description" if (source, condition) == (GENERATED, "none") else source


def accuracy_per_task(
    rows: Iterable[ResultRow], *, suite: str, split: str, source: str, condition: str
) -> dict[str, float]:
    """Mean accuracy of each task over all samples and generator seeds, keyed by task in the order of the rows."""
    wanted = (suite, split, source, condition)
    return _task_means(row for row in rows if (row.suite, row.split, row.source, row.condition) == wanted)


def summarise(
    rows: Sequence[ResultRow],
    seconds: Mapping[str, float],
    training: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
) -> list[SummaryRow]:
    """The table: one line for each suite, split, source and condition, in the order of :data:`SOURCE_ORDER`.

    Args:
        rows: every score. The sources ``pretrained`` and ``fine-tuned`` are the reference of the recovered gain,
            which is taken over the tasks that all three have.
        seconds: seconds for one adapter, by source; a source may be missing.
        training: seconds of a source's training, by source; a source may be missing.
        seed: of the bootstrap.
    """
    grouped: dict[tuple[str, str], dict[tuple[str, str], list[ResultRow]]] = {}
    for row in rows:
        grouped.setdefault((row.suite, row.split), {}).setdefault((row.source, row.condition), []).append(row)
    suites = list(dict.fromkeys(suite for suite, _ in grouped))
    summary: list[SummaryRow] = []
    for place in sorted(grouped, key=lambda key: (suites.index(key[0]), key[1])):
        sources = grouped[place]
        names = list(dict.fromkeys(source for source, _ in sources))
        order = {key: (_rank(key[0]), names.index(key[0]), _CONDITIONS.index(key[1])) for key in sources}
        references = {name: _reference(sources, name) for name in (PRETRAINED, FINETUNED)}
        for key in sorted(sources, key=order.__getitem__):
            costs = (seconds.get(key[0]), (training or {}).get(key[0]))
            summary.append(_summary_row(sources[key], references, costs, seed))
    return summary


def contradicted_summary(rows: Sequence[ResultRow], summary: Sequence[SummaryRow], seed: int) -> str | None:
    """What the table says otherwise than its rows do, in words; None where both agree.

    Means are recomputed and must agree but for rounding. Intervals come from random draws, which may have been others:
    their ends may differ by a tenth of a point, and by a third of the interval.

    Args:
        rows: every score.
        summary: the table that came with them.
        seed: of the bootstrap.
    """
    again = {_key(line): line for line in summarise(rows, {}, seed=seed)}
    for line in summary:
        wanted = again[_key(line)]
        where = f"{line.split} / {line.label}"
        for name in ("label", "tasks", "samples", "seeds"):
            if getattr(line, name) != getattr(wanted, name):
                return f"{name} of {where} is {getattr(line, name)!r}, the rows give {getattr(wanted, name)!r}"
        for name in ("accuracy", "recovered_gain"):
            found, right = getattr(line, name), getattr(wanted, name)
            if (found is None) is not (right is None) or abs((found or 0.0) - (right or 0.0)) > SAME_MEAN:
                return f"{name} of {where} is {found}, the rows give {right}"
            if _far(getattr(line, f"{name}_interval"), getattr(wanted, f"{name}_interval")):
                found, right = getattr(line, f"{name}_interval"), getattr(wanted, f"{name}_interval")
                return f"{name}_interval of {where} is {found}, the rows give {right}"
    return None


def _key(line: SummaryRow) -> tuple[str, str, str, str]:
    return (line.suite, line.split, line.source, line.condition)


def _far(found: tuple[float, float] | None, right: tuple[float, float] | None) -> bool:
    """Whether two bootstrap intervals cannot be of the same values; a missing one claims nothing."""
    if found is None or right is None:
        return found is not None
    slack = 0.001 + (right[1] - right[0]) / 3
    return any(abs(one - other) > slack for one, other in zip(found, right, strict=True))


def _rank(source: str) -> int:
    return SOURCE_ORDER.index(source if source in SOURCE_ORDER else None)


def _task_means(rows: Iterable[ResultRow]) -> dict[str, float]:
    by_task: dict[str, list[float]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row.accuracy)
    return {task: float(np.mean(values)) for task, values in by_task.items()}


def _reference(sources: Mapping[tuple[str, str], list[ResultRow]], name: str) -> dict[str, float]:
    return _task_means(row for key, rows in sources.items() if key[0] == name for row in rows)


def _summary_row(
    rows: list[ResultRow],
    references: Mapping[str, Mapping[str, float]],
    costs: tuple[float | None, float | None],
    seed: int,
) -> SummaryRow:
    first = rows[0]
    means = _task_means(rows)
    accuracy = mean_interval(np.array(list(means.values())), seed=seed)
    shared = [task for task in means if all(task in reference for reference in references.values())]
    gain = None
    if shared and first.source not in references:
        columns = [np.array([table[task] for task in shared]) for table in (means, *references.values())]
        gain = recovered_gain(*columns, seed=seed)
    return SummaryRow(
        suite=first.suite,
        split=first.split,
        source=first.source,
        condition=first.condition,
        label=display_label(first.source, first.condition),
        accuracy=accuracy.value,
        accuracy_interval=accuracy.interval,
        recovered_gain=gain.value if gain else None,
        recovered_gain_interval=gain.interval if gain else None,
        seconds_per_adapter=None if costs[0] is None else float(costs[0]),
        training_seconds=None if costs[1] is None else float(costs[1]),
        tasks=len(means),
        samples=len({row.sample for row in rows}),
        seeds=len({row.generator_seed for row in rows}),
    )
