"""The lines of the table in groups by what a source uses of the task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED
from wildpdiff.report.findings import SplitFindings

_GENERATED_GROUP = "the generator"
_TITLES = {
    "reference": "Reference",
    "no description": "Without a description",
    "description": "From the description",
    "unlabelled images": "From the task's unlabelled images",
    _GENERATED_GROUP: "The generator and its controls",
    "labels": "With labels of the task: no rivals of the above",
    "checkpoints": "Controls made of stored checkpoints",
}


@dataclass(frozen=True)
class Group:
    """A heading and the lines of the table below it: in the order of the summary, numbers of labels ascending."""

    title: str
    lines: tuple[SummaryRow, ...]


def grouped(part: SplitFindings, lines: Sequence[SummaryRow] | None = None) -> list[Group]:
    """The lines of a split by family; the generator has a group of its own, fine-tuning stands among the labels."""
    by_title: dict[str, list[SummaryRow]] = {}
    for row in part.summary if lines is None else lines:
        family: str = part.family(row)
        family = _GENERATED_GROUP if row.source == GENERATED else "labels" if row.source == FINETUNED else family
        by_title.setdefault(_TITLES[family], []).append(row)
    return [Group(title, _by_labels(by_title[title])) for title in _TITLES.values() if title in by_title]


_LABELS = re.compile(r"\d+(?= labels a class)")


def _by_labels(lines: Sequence[SummaryRow]) -> tuple[SummaryRow, ...]:
    """Lines that differ in the number of labels alone one below the other, the fewest first."""
    alike: dict[str, list[SummaryRow]] = {}
    for row in lines:
        alike.setdefault(_LABELS.sub("", row.source), []).append(row)

    def labels(row: SummaryRow) -> int:
        found = _LABELS.search(row.source)
        return int(found.group()) if found else 0

    return tuple(row for rows in alike.values() for row in sorted(rows, key=labels))


def joined_groups(groups: Sequence[Group]) -> list[Group]:
    """Groups of several splits as one list: each source and condition once, in the order of the table."""
    joined = []
    for title in _TITLES.values():
        lines = {(row.source, row.condition): row for group in groups if group.title == title for row in group.lines}
        if lines:
            joined.append(Group(title, tuple(lines.values())))
    return joined
