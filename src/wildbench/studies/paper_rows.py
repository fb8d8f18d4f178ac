"""The rows of the paper's tables from measured scores, next to the numbers of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from wildbench.sections import SPREAD, ParameterSpread
from wildbench.study_sections import PaperRow, PublishedRow
from wildpdiff.evaluate.results import ResultRow, Results
from wildpdiff.evaluate.statistics import mean_interval, paired_difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED

PAPER_SOURCE = "generated, the paper's method"
PUBLISHED = {
    "one task, interval 1": PublishedRow(0.814, 0.9229, 0.9380, "location R10, interval 1"),
    "one task, interval 10": PublishedRow(0.814, 0.9268, 0.9366, "location R10, interval 10"),
    "one task, interval 100": PublishedRow(0.814, 0.9419, 0.9380, "location R10, interval 100"),
    "several tasks": PublishedRow(None, 0.93, None, "fine-tuned about 93 each, generated within 1 point"),
    "unseen tasks": PublishedRow(None, None, None, "no better than pretrained"),
}
"""The paper's numbers (Snapshot Serengeti, 19 classes), from secondary notes of it."""


def paper_row(
    question: str,
    setting: str,
    method: Literal["paper", "wildpdiff"],
    *,
    rows: Sequence[ResultRow],
    spread: ParameterSpread,
    published: PublishedRow | None,
    source: str = GENERATED,
) -> PaperRow:
    """One row: pretrained, fine-tuned and generated over the same tasks.

    Args:
        question: ``RQ1`` or ``RQ3``.
        setting: in words.
        method: whose generator.
        rows: the scores of all three on the tasks of the row.
        spread: of the generated parameters and their accuracy.
        published: the paper's numbers for this row, where it has any.
        source: name of the generated source.
    """
    drawn = [row for row in rows if row.source == source and row.condition == "own"]
    tasks = list(dict.fromkeys(row.task for row in drawn))

    def per_task(name: str) -> np.ndarray:
        picked = drawn if name == source else [row for row in rows if row.source == name]
        return np.array([np.mean([row.accuracy for row in picked if row.task == task]) for task in tasks])

    generated, finetuned = per_task(source), per_task(FINETUNED)
    return PaperRow(
        question,
        setting,
        method,
        len(tasks),
        len({row.sample for row in drawn}),
        len({row.generator_seed for row in drawn}),
        float(per_task(PRETRAINED).mean()),
        float(finetuned.mean()),
        float(generated.mean()),
        mean_interval(finetuned).interval,
        mean_interval(generated).interval,
        paired_difference(generated, finetuned).interval,
        spread.accuracy_over_samples,
        spread.accuracy_over_seeds,
        spread.over_samples,
        spread.over_seeds,
        published,
    )


def comparison_rows(results: Results, fitted: int) -> tuple[PaperRow, ...]:
    """The rows about many seen tasks and about unseen ones, for the paper's method and for this package's.

    Args:
        results: of the comparison, in which the paper's method takes part as :data:`PAPER_SOURCE`.
        fitted: how many tasks the generators were fitted to.
    """
    found = []
    methods: tuple[tuple[Literal["paper", "wildpdiff"], str], ...] = (
        ("paper", PAPER_SOURCE),
        ("wildpdiff", GENERATED),
    )
    questions = {
        "seen": ("RQ1", f"{fitted} seen tasks", None),
        "unseen": ("RQ3", "unseen tasks", PUBLISHED["unseen tasks"]),
    }
    for split, (question, setting, published) in questions.items():
        rows = [row for row in results.rows if row.split == split]
        for method, source in methods:
            spread = [entry for entry in SPREAD.of(results) or () if (entry.split, entry.source) == (split, source)]
            if spread and any(row.source == source for row in rows):
                found.append(
                    paper_row(
                        question, setting, method, rows=rows, spread=spread[0], published=published, source=source
                    )
                )
    return tuple(found)
