"""Accuracies per task, families of sources and paired differences of each split, from the rows of the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildpdiff.evaluate.results import ResultRow, Results, SourceFamily, SummaryRow
from wildpdiff.evaluate.statistics import SAME, Difference, paired_difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, grouped_rows, task_means
from wildpdiff.report.wording import Scores
from wildpdiff.tasks.metric import ACCURACY, Metric

Key = tuple[str, str]
"""Source and condition: a row of the table within a suite and split."""

RIVALS: tuple[SourceFamily, ...] = ("no description", "description", "unlabelled images")
"""Families that, like the generator, use no label of the task; the pretrained model competes with them."""

OWN_SAMPLES = ("one sample", "best of 8 by unlabelled images", "best of 8 by 5 labels")
"""The generator's own posterior samples: no rivals of its estimate."""


@dataclass(frozen=True)
class TaskColumns:
    """Tasks shared by several rows of the table, and the accuracy of each row on them, ``rows t``."""

    tasks: tuple[str, ...]
    accuracy: Float[ndarray, "lines t"]


@dataclass(frozen=True)
class SplitFindings:
    """One suite and split of the results.

    Attributes:
        suite, split: which.
        summary: its rows of the table.
        rows: its scores.
        accuracy: accuracy per task (mean over samples and seeds) by source and condition.
        families: of every row of the table.
        tasks: names, the hardest for the pretrained model first.
        differences: lead of generated over source on the tasks of both, for every other row, positive where generated
            is better; empty without a generator.
        metric: of the scores.
    """

    suite: str
    split: str
    summary: tuple[SummaryRow, ...]
    rows: tuple[ResultRow, ...]
    accuracy: Mapping[Key, Mapping[str, float]]
    families: Mapping[Key, SourceFamily]
    tasks: tuple[str, ...]
    differences: Mapping[Key, Difference]
    metric: Metric = ACCURACY

    @property
    def scores(self) -> Scores:
        """Format of scores."""
        return Scores(self.metric)

    def of(self, source: str, condition: str = "own") -> SummaryRow | None:
        """Row of a source; references and sources without a description count under any condition."""
        for row in self.summary:
            if row.source == source and (row.condition == condition or (condition, row.condition) == ("own", "none")):
                return row
        return None

    @property
    def generated(self) -> SummaryRow | None:
        """The generator's row."""
        return next((row for row in self.summary if (row.source, row.condition) == (GENERATED, "own")), None)

    @property
    def baseline(self) -> SummaryRow | None:
        """The best rival; against a generator, among those scored on all of its tasks where there are any."""
        rivals = [row for row in self.summary if self.is_rival(row)]
        if self.generated is None:
            return max(rivals, key=lambda row: self.metric.sign * row.accuracy, default=None)
        tasks = set(self.per_task(self.generated))
        whole = [row for row in rivals if tasks <= set(self.per_task(row))]
        paired = [row for row in whole or rivals if self.difference(row) is not None]
        return min(paired, key=lambda row: self.differences[row.source, row.condition].value, default=None)

    @property
    def lead(self) -> Difference | None:
        """Generated − baseline over the tasks of both; None where either is missing."""
        return None if self.baseline is None else self.difference(self.baseline)

    @property
    def winner(self) -> SummaryRow | None:
        """The better of generator and baseline."""
        beaten = self.generated is None or (self.baseline is not None and self.is_ahead(self.baseline))
        return self.baseline if beaten else self.generated

    @property
    def ahead(self) -> tuple[SummaryRow, ...]:
        """Every row that is ahead of the generator, best first."""
        rows = [row for row in self.summary if self.is_ahead(row)]
        return tuple(sorted(rows, key=lambda row: self.differences[row.source, row.condition].value))

    def per_task(self, row: SummaryRow) -> Mapping[str, float]:
        """Accuracy per task of a row of the table."""
        return self.accuracy[row.source, row.condition]

    def family(self, row: SummaryRow) -> SourceFamily:
        """Information about the task that a row uses."""
        return self.families[row.source, row.condition]

    def difference(self, row: SummaryRow) -> Difference | None:
        """Generated − this row, over the tasks of both; None for the generator itself and without one."""
        return self.differences.get((row.source, row.condition))

    def is_rival(self, row: SummaryRow) -> bool:
        """Whether a row competes with the generator: no label of the task, no control."""
        if row.source in (GENERATED, *OWN_SAMPLES) or row.condition in ("shuffled", "random"):
            return False
        return row.source == PRETRAINED or self.family(row) in RIVALS

    def is_ahead(self, row: SummaryRow) -> bool:
        """Whether a row is more accurate than the generator on the tasks of both, whatever it uses."""
        difference = self.difference(row)
        return difference is not None and difference.value < -SAME

    def columns(self, lines: Sequence[SummaryRow | None]) -> TaskColumns | None:
        """Accuracies of several rows on the tasks that all have; None where a row or a shared task is missing."""
        present = [row for row in lines if row is not None]
        tables = [self.per_task(row) for row in present]
        shared = tuple(task for task in self.tasks if all(task in table for table in tables))
        if len(present) < len(lines) or not shared:
            return None
        return TaskColumns(shared, np.array([[table[task] for task in shared] for table in tables]))


def compare(part: SplitFindings, a: SummaryRow | None, b: SummaryRow | None) -> Difference | None:
    """Paired lead of one row over another on the tasks of both."""
    return None if a is None or b is None else _difference(part.per_task(a), part.per_task(b), part.metric)


def _difference(first: Mapping[str, float], second: Mapping[str, float], metric: Metric) -> Difference | None:
    if not metric.higher_is_better:
        first, second = second, first
    shared = [task for task in first if task in second]
    if not shared:
        return None
    return paired_difference(np.array([first[task] for task in shared]), np.array([second[task] for task in shared]))


def findings(results: Results) -> list[SplitFindings]:
    """One entry for each suite and split, in the order of the summary."""
    known = {info.name: info.family for info in results.sources}
    rows = grouped_rows(results.rows)
    splits = dict.fromkeys((row.suite, row.split) for row in results.summary)
    summaries = {key: [row for row in results.summary if (row.suite, row.split) == key] for key in splits}
    return [_split_findings(own, rows[key], known, results.metric) for key, own in summaries.items()]


def _split_findings(
    summary: Sequence[SummaryRow],
    groups: Mapping[Key, Sequence[ResultRow]],
    known: Mapping[str, SourceFamily],
    metric: Metric,
) -> SplitFindings:
    keys: list[Key] = [(row.source, row.condition) for row in summary]
    accuracy = {key: task_means(groups[key]) for key in keys}
    order = next((table for (source, _), table in accuracy.items() if source == PRETRAINED), {})
    names = {row.task for rows in groups.values() for row in rows}
    own = accuracy.get((GENERATED, "own"), {})
    found = {key: _difference(own, table, metric) for key, table in accuracy.items() if key != (GENERATED, "own")}
    return SplitFindings(
        suite=summary[0].suite,
        split=summary[0].split,
        summary=tuple(summary),
        rows=tuple(row for rows in groups.values() for row in rows),
        accuracy=accuracy,
        families={(row.source, row.condition): _family(row, known) for row in summary},
        tasks=tuple(sorted(names, key=lambda task: (metric.sign * order.get(task, 0.0), task))),
        differences={key: value for key, value in found.items() if value is not None},
        metric=metric,
    )


def _family(row: SummaryRow, known: Mapping[str, SourceFamily]) -> SourceFamily:
    if row.source in (PRETRAINED, FINETUNED):
        return "reference"
    return known.get(row.source, "no description" if row.condition == "none" else "description")


def main_first(parts: Sequence[SplitFindings]) -> list[SplitFindings]:
    """Unseen tasks first, then held-out groups, then the seen tasks."""
    return sorted(parts, key=lambda part: (part.split != "unseen", part.split == "seen"))


_GENERATED_GROUP = "the generator"
_TITLES = {
    "reference": "Reference",
    "no description": "Without a description",
    "description": "From the description",
    "unlabelled images": "From unlabelled examples of the task",
    _GENERATED_GROUP: "The generator and its controls",
    "labels": "With task labels (not comparable)",
    "checkpoints": "Controls from stored checkpoints",
}
_LABELS = re.compile(r"\d+(?= labels a class)")


def grouped(
    parts: Sequence[SplitFindings], keep: Callable[[SummaryRow], bool] = lambda row: True
) -> dict[str, list[SummaryRow]]:
    """Rows of one or more splits under the titles of their families, each source and condition once.

    The generator has a group of its own, fine-tuning is among the labels; rows that differ only in the number of labels
    are adjacent, the fewest first.
    """
    groups: dict[str, dict[Key, SummaryRow]] = {title: {} for title in _TITLES.values()}
    for part in parts:
        for row in part.summary:
            family: str = part.family(row)
            family = _GENERATED_GROUP if row.source == GENERATED else "labels" if row.source == FINETUNED else family
            if keep(row):
                groups[_TITLES[family]].setdefault((row.source, row.condition), row)
    return {title: _by_labels(list(rows.values())) for title, rows in groups.items() if rows}


def _by_labels(rows: list[SummaryRow]) -> list[SummaryRow]:
    names = [_LABELS.sub("", row.source) for row in rows]
    numbers = [int(found.group()) if (found := _LABELS.search(row.source)) else 0 for row in rows]
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: (names.index(names[i]), numbers[i]))]
