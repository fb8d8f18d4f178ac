"""The lines of the table in groups by what a source uses of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, GENERATED
from wildpdiff.report.findings import SplitFindings

__all__ = ["Group", "grouped", "joined_groups"]

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
    """A heading and the lines of the table below it, in the order of the summary."""

    title: str
    lines: tuple[SummaryRow, ...]


def grouped(part: SplitFindings, lines: Sequence[SummaryRow] | None = None) -> list[Group]:
    """The lines of a split by family; the generator has a group of its own, fine-tuning stands among the labels."""
    by_title: dict[str, list[SummaryRow]] = {}
    for row in part.summary if lines is None else lines:
        family: str = part.family(row)
        family = _GENERATED_GROUP if row.source == GENERATED else "labels" if row.source == FINETUNED else family
        by_title.setdefault(_TITLES[family], []).append(row)
    return [Group(title, tuple(by_title[title])) for title in _TITLES.values() if title in by_title]


def joined_groups(groups: Sequence[Group]) -> list[Group]:
    """Groups of several splits as one list: each source and condition once, in the order of the table."""
    joined = []
    for title in _TITLES.values():
        lines = {(row.source, row.condition): row for group in groups if group.title == title for row in group.lines}
        if lines:
            joined.append(Group(title, tuple(lines.values())))
    return joined
