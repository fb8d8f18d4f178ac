"""What the rows say of each split: accuracies per task, families of sources, who is ahead of the generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildpdiff.evaluate.results import ResultRow, Results, SummaryRow
from wildpdiff.evaluate.sections import SourceFamily, SourceInfo
from wildpdiff.evaluate.statistics import Difference, paired_difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, accuracy_per_task

Key = tuple[str, str]
"""Source and condition: a line of the table within a suite and split."""

RIVALS: tuple[SourceFamily, ...] = ("no description", "description", "unlabelled images")
"""Families that, like the generator, use no label of the task; the pretrained model competes with them."""

TIE = 1e-9
"""Accuracies over the same images that differ by less are equal but for the order of a sum, in the whole report."""


OWN_SAMPLES = ("one sample", "best of 8 by unlabelled images", "best of 8 by 5 labels")
"""The generator's own posterior samples: no rivals of its estimate."""


@dataclass(frozen=True)
class TaskColumns:
    """Tasks that several lines of the table share, and the accuracy of each line on them, ``lines t``."""

    tasks: tuple[str, ...]
    accuracy: Float[ndarray, "lines t"]


@dataclass(frozen=True)
class SplitFindings:
    """One suite and split of the results, with accuracies per task and who won.

    Attributes:
        suite, split: which.
        summary: its lines of the table.
        rows: its scores.
        accuracy: accuracy per task (mean over samples and seeds) by source and condition.
        families: of every line.
        tasks: names, sorted by the accuracy of the pretrained model.
        generated: the generator's line, where there is one.
        differences: generated − source over the tasks both have, for every other line; empty without a generator.
        baseline: the best line that, like the generator, uses no label of the task: neither fine-tuning, nor a control.
            The pretrained model counts: a source that does not beat it is of no use.
        winner: the better of the two.
        lead: generated − baseline over the tasks both have; None where either is missing.
    """

    suite: str
    split: str
    summary: tuple[SummaryRow, ...]
    rows: tuple[ResultRow, ...]
    accuracy: Mapping[Key, Mapping[str, float]]
    families: Mapping[Key, SourceFamily]
    tasks: tuple[str, ...]
    generated: SummaryRow | None
    differences: Mapping[Key, Difference]
    baseline: SummaryRow | None
    winner: SummaryRow | None
    lead: Difference | None

    def of(self, source: str, condition: str = "own") -> SummaryRow | None:
        """The line of a source; the references and sources without a description count under any condition."""
        for row in self.summary:
            if row.source == source and (row.condition == condition or (condition, row.condition) == ("own", "none")):
                return row
        return None

    def per_task(self, row: SummaryRow) -> Mapping[str, float]:
        """Accuracy per task of a line of the table."""
        return self.accuracy[row.source, row.condition]

    def family(self, row: SummaryRow) -> SourceFamily:
        """What a line uses of the task."""
        return self.families[row.source, row.condition]

    def difference(self, row: SummaryRow) -> Difference | None:
        """Generated − this line, over the tasks both have; None for the generator itself and without one."""
        return self.differences.get((row.source, row.condition))

    def is_rival(self, row: SummaryRow) -> bool:
        """Whether a line competes with the generator: no label of the task, no control."""
        if row.source in (GENERATED, *OWN_SAMPLES) or row.condition in ("shuffled", "random"):
            return False
        return row.source == PRETRAINED or self.family(row) in RIVALS

    def is_ahead(self, row: SummaryRow) -> bool:
        """Whether a line is more accurate than the generator on the tasks both have, whatever it uses."""
        difference = self.difference(row)
        return difference is not None and difference.value < -TIE

    @property
    def ahead(self) -> tuple[SummaryRow, ...]:
        """Every line that is ahead of the generator, best first."""
        lines = [row for row in self.summary if self.is_ahead(row)]
        return tuple(sorted(lines, key=lambda row: self.differences[row.source, row.condition].value))

    def columns(self, lines: Sequence[SummaryRow | None]) -> TaskColumns | None:
        """Accuracies of several lines on the tasks that all have; None where a line or a shared task is missing."""
        present = [row for row in lines if row is not None]
        tables = [self.per_task(row) for row in present]
        shared = tuple(task for task in self.tasks if all(task in table for table in tables))
        if len(present) < len(lines) or not shared:
            return None
        return TaskColumns(shared, np.array([[table[task] for task in shared] for table in tables]))


def family_of(row: SummaryRow, infos: Mapping[str, SourceInfo]) -> SourceFamily:
    """What a line uses of the task: as the results say; where they do not, as its condition tells."""
    if row.source in (PRETRAINED, FINETUNED):
        return "reference"
    if row.source in infos:
        return infos[row.source].family
    return "no description" if row.condition == "none" else "description"


def compare(part: SplitFindings, a: SummaryRow | None, b: SummaryRow | None) -> Difference | None:
    """Paired difference of two lines over the tasks that both have."""
    if a is None or b is None:
        return None
    return _difference(part.per_task(a), part.per_task(b))


def _difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference | None:
    shared = [task for task in first if task in second]
    if not shared:
        return None
    return paired_difference(np.array([first[task] for task in shared]), np.array([second[task] for task in shared]))


def findings(results: Results) -> list[SplitFindings]:
    """One entry for each suite and split, in the order of the summary."""
    places = dict.fromkeys((row.suite, row.split) for row in results.summary)
    infos = {info.name: info for info in results.sources}
    return [_split_findings(results, infos, suite, split) for suite, split in places]


def main_first(parts: Sequence[SplitFindings]) -> list[SplitFindings]:
    """The unseen tasks first, because they are the question; then held-out groups, then the seen tasks."""
    return sorted(parts, key=lambda part: (part.split != "unseen", part.split == "seen"))


def _split_findings(results: Results, infos: Mapping[str, SourceInfo], suite: str, split: str) -> SplitFindings:
    summary = tuple(row for row in results.summary if (row.suite, row.split) == (suite, split))
    rows = tuple(row for row in results.rows if (row.suite, row.split) == (suite, split))
    accuracy: dict[Key, dict[str, float]] = {
        (line.source, line.condition): accuracy_per_task(
            rows, suite=suite, split=split, source=line.source, condition=line.condition
        )
        for line in summary
    }
    order = next((table for (source, _), table in accuracy.items() if source == PRETRAINED), {})
    names = dict.fromkeys(row.task for row in rows)
    generated = next((line for line in summary if (line.source, line.condition) == (GENERATED, "own")), None)
    differences: dict[Key, Difference] = {}
    if generated is not None:
        own = accuracy[GENERATED, "own"]
        found = {key: _difference(own, table) for key, table in accuracy.items() if key != (GENERATED, "own")}
        differences = {key: value for key, value in found.items() if value is not None}
    part = SplitFindings(
        suite=suite,
        split=split,
        summary=summary,
        rows=rows,
        accuracy=accuracy,
        families={(line.source, line.condition): family_of(line, infos) for line in summary},
        tasks=tuple(sorted(names, key=lambda task: (order.get(task, 0.0), task))),
        generated=generated,
        differences=differences,
        baseline=None,
        winner=None,
        lead=None,
    )
    baseline = _best_rival(part)
    lead = differences.get((baseline.source, baseline.condition)) if baseline is not None else None
    beaten = generated is None or (lead is not None and lead.value < -TIE)
    winner = baseline if beaten else generated
    return SplitFindings(**{**vars(part), "baseline": baseline, "winner": winner, "lead": lead})


def _best_rival(part: SplitFindings) -> SummaryRow | None:
    """The strongest rival; against a generator, among those scored on all of its tasks where there are any."""
    rivals = [line for line in part.summary if part.is_rival(line)]
    if part.generated is None:
        return max(rivals, key=lambda line: line.accuracy, default=None)
    tasks = set(part.per_task(part.generated))
    whole = [line for line in rivals if tasks <= set(part.per_task(line))]
    paired = [line for line in whole or rivals if part.difference(line) is not None]
    return min(paired, key=lambda line: part.differences[line.source, line.condition].value, default=None)
