"""The table of results: rows averaged per task, then summarised over tasks for each source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from wildpdiff.evaluate.results import ResultRow, SummaryRow
from wildpdiff.evaluate.statistics import SAME, mean_interval, recovered_gain
from wildpdiff.tasks.metric import ACCURACY, Metric

PRETRAINED = "pretrained"
FINETUNED = "fine-tuned"
GENERATED = "generated"

SOURCE_ORDER = (PRETRAINED, "mean adapter", "nearest task", "kernel ridge regression", None, GENERATED, FINETUNED)
"""Order of every table; None is for all further sources, in the order in which they were evaluated."""

_CONDITIONS = ("own", "none", "shuffled", "random")

Groups = dict[tuple[str, str], dict[tuple[str, str], list[ResultRow]]]
"""Rows by suite and split, then by source and condition, in their order."""


def display_label(source: str, condition: str) -> str:
    """The name of a source in tables, for example ``generated, shuffled conditions``."""
    if condition in ("shuffled", "random"):
        return f"{source}, {condition} conditions"
    # Only the generator may or may not read a description: other sources with none never do.
    return f"{source}, no description" if (source, condition) == (GENERATED, "none") else source


def grouped_rows(rows: Iterable[ResultRow]) -> Groups:
    """Rows of each suite and split, by source and condition."""
    groups: Groups = {}
    for row in rows:
        groups.setdefault((row.suite, row.split), {}).setdefault((row.source, row.condition), []).append(row)
    return groups


def scores_by_task(rows: Iterable[ResultRow]) -> dict[str, list[float]]:
    """Accuracies of each task, over all samples and generator seeds."""
    by_task: dict[str, list[float]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row.accuracy)
    return by_task


def task_means(rows: Iterable[ResultRow]) -> dict[str, float]:
    """Mean accuracy of each task, over all samples and generator seeds."""
    return {task: float(np.mean(values)) for task, values in scores_by_task(rows).items()}


def summarise(
    rows: Sequence[ResultRow],
    seconds: Mapping[str, float],
    training: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    metric: Metric = ACCURACY,
) -> list[SummaryRow]:
    """The table: one row for each suite, split, source and condition, in the order of :data:`SOURCE_ORDER`.

    The recovered gain is taken over the tasks that the source, ``pretrained`` and ``fine-tuned`` have all.

    Args:
        rows: every score.
        seconds, training: of one adapter and of the training, by source; a source may be missing.
        seed: of the bootstrap.
        metric: of the scores.
    """
    grouped = grouped_rows(rows)
    suites = list(dict.fromkeys(suite for suite, _ in grouped))
    summary: list[SummaryRow] = []
    for split in sorted(grouped, key=lambda key: (suites.index(key[0]), key[1])):
        sources = grouped[split]
        names = list(dict.fromkeys(source for source, _ in sources))
        ranks = {name: SOURCE_ORDER.index(name if name in SOURCE_ORDER else None) for name in names}
        order = {key: (ranks[key[0]], names.index(key[0]), _CONDITIONS.index(key[1])) for key in sources}
        references = {
            name: task_means(row for key, own in sources.items() if key[0] == name for row in own)
            for name in (PRETRAINED, FINETUNED)
        }
        for key in sorted(sources, key=order.__getitem__):
            costs = (seconds.get(key[0]), (training or {}).get(key[0]))
            summary.append(_summary_row(sources[key], references, costs, (seed, metric.sign)))
    return summary


def _summary_row(
    rows: list[ResultRow],
    references: Mapping[str, Mapping[str, float]],
    costs: tuple[float | None, float | None],
    seed_and_sign: tuple[int, int],
) -> SummaryRow:
    seed, sign = seed_and_sign
    first = rows[0]
    means = task_means(rows)
    accuracy = mean_interval(np.array(list(means.values())), seed=seed)
    shared = [task for task in means if all(task in reference for reference in references.values())]
    gain = None
    if shared and first.source not in references:
        columns = [np.array([sign * table[task] for task in shared]) for table in (means, *references.values())]
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


def contradicted_summary(
    rows: Sequence[ResultRow], summary: Sequence[SummaryRow], seed: int, metric: Metric = ACCURACY
) -> str | None:
    """The first contradiction between the table and its rows, as a message; None where both agree.

    Means are recomputed and must agree but for rounding. Intervals may come from other draws: their ends may differ by
    a tenth of a point and a third of the interval. ``seed`` is of the bootstrap.
    """

    def key(row: SummaryRow) -> tuple[str, str, str, str]:
        return (row.suite, row.split, row.source, row.condition)

    again = {key(row): row for row in summarise(rows, {}, seed=seed, metric=metric)}
    for row in summary:
        for name in ("label", "tasks", "samples", "seeds", "accuracy", "accuracy_interval", "recovered_gain",
                     "recovered_gain_interval"):  # fmt: skip
            found, right = getattr(row, name), getattr(again[key(row)], name)
            if not _agree(found, right):
                return f"{name} of {row.split} / {row.label} is {found!r}, the rows give {right!r}"
    return None


def _agree(found: object, right: object) -> bool:
    """Whether a value of the table may come from the rows; a missing interval is no contradiction."""
    if isinstance(right, float) and isinstance(found, float):
        return abs(found - right) <= SAME
    if isinstance(right, tuple) and (found is None or isinstance(found, tuple)):
        slack = 0.001 + (right[1] - right[0]) / 3
        return found is None or all(abs(one - other) <= slack for one, other in zip(found, right, strict=True))
    return found == right
