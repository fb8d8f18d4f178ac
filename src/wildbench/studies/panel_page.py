"""The page of the panel: one row a benchmark, then one table of methods a benchmark, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from wildbench.methods.classifier_alone import CLASSIFIER_ALONE
from wildbench.report.plain_page import PlainPage, PlainSection, PlainTable, page_html, page_markdown
from wildbench.trust_summary import TrustSummary, summarise_trust
from wildpdiff.disk import write_file
from wildpdiff.evaluate.results import Condition, Results
from wildpdiff.evaluate.statistics import Difference, Estimate, paired_difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, task_means
from wildpdiff.report.wording import interval_text, percent, seconds_text, signed_points

UNSEEN = "unseen"
LEAST_GAIN = 0.03
"""LoRA matters in a benchmark where it adds this much to the accuracy of the classifier alone."""


@dataclass(frozen=True)
class ShownMethod:
    """A line of a benchmark's table.

    Attributes:
        label: of the line.
        source, condition: of the rows it is made of.
        trained: whether the source is a network of its own, whose training takes most of an evaluation.
    """

    label: str
    source: str
    condition: Condition = "own"
    trained: bool = False


METHODS = (
    ShownMethod("pretrained", PRETRAINED, "none"),
    ShownMethod("mean adapter", "mean adapter", "none"),
    ShownMethod("nearest task", "nearest task"),
    ShownMethod("kernel ridge regression", "kernel ridge regression"),
    ShownMethod("additive kernel regression", "additive kernel regression"),
    ShownMethod("multi-task adapter", "multi-task adapter", "none", trained=True),
    ShownMethod("multi-task adapter with description", "multi-task adapter with description", trained=True),
    ShownMethod("hypernetwork, task loss", "hypernetwork, task loss", trained=True),
    ShownMethod("column-wise merge", "column-wise merge", trained=True),
    ShownMethod("feature prompt", "feature prompt", trained=True),
    ShownMethod("generated", GENERATED),
    ShownMethod("generated, shuffled descriptions", GENERATED, "shuffled"),
    ShownMethod("one sample", "one sample"),
    ShownMethod("best of 8 by unlabelled images", "best of 8 by unlabelled images"),
    ShownMethod("best of 8 by 5 labels", "best of 8 by 5 labels"),
    ShownMethod("fine-tuned", FINETUNED),
    ShownMethod("fine-tuned, classifier alone", CLASSIFIER_ALONE),
)
"""The lines of a benchmark's table in order; those without rows are left out."""

SIMPLE = (PRETRAINED, "mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression")
"""The simple alternatives that the generator is held against, by label."""


@dataclass(frozen=True)
class PanelRow:
    """A benchmark on its unseen tasks. Accuracies and shares are fractions of 1, means over tasks.

    Attributes:
        benchmark: its name.
        tasks: number of unseen tasks.
        accuracy: of every method, by label, in the order of :data:`METHODS`.
        lora: fine-tuned minus classifier alone.
        cross_validated: accuracy of generated adapters on held-out seen tasks; None where it was not measured.
        simple: label of the best simple alternative.
        lead: generated minus that.
        with_trust: accuracy where the pretrained model is kept below the threshold of trust; None without trust.
        trust: how good trust was; None where it was not calibrated.
        command, seed: of the run.
        seconds: wall-clock time of all stages.
    """

    benchmark: str
    tasks: int
    accuracy: Mapping[str, Estimate]
    lora: Difference
    cross_validated: float | None
    simple: str
    lead: Difference
    with_trust: float | None
    trust: TrustSummary | None
    command: str
    seed: int
    seconds: float

    @property
    def lora_matters(self) -> bool:
        """True where LoRA adds three points or more to the classifier alone."""
        return self.lora.value >= LEAST_GAIN


@dataclass(frozen=True)
class PanelPage:
    """The page on disk, and the rows it was made of."""

    rows: tuple[PanelRow, ...]
    remarks: tuple[str, ...]
    markdown: Path
    html: Path


def panel_row(benchmark: str, results: Results) -> PanelRow:
    """The row of one benchmark.

    Raises:
        DataError: the results have no unseen tasks with all that a row needs.
    """
    columns = _columns(results)
    pretrained, generated = columns[PRETRAINED], columns[GENERATED]
    seed = results.provenance.seed
    simple = max((label for label in SIMPLE if label in columns), key=lambda label: float(columns[label].mean()))
    trust = None
    if results.trust is not None:
        points = [point for point in results.trust.points if point.split == UNSEEN]
        trust = summarise_trust(points, seed=seed) if points else None
    return PanelRow(
        benchmark,
        len(pretrained),
        {label: _estimate(values, seed) for label, values in columns.items()},
        paired_difference(columns[FINETUNED], columns[CLASSIFIER_ALONE], seed=seed),
        _cross_validated(results),
        simple,
        paired_difference(generated, columns[simple], seed=seed),
        None if trust is None else float(pretrained.mean()) + trust.gain_with.value / 100,
        trust,
        results.provenance.command,
        seed,
        sum(stage.seconds for stage in results.stages),
    )


def _cross_validated(results: Results) -> float | None:
    table = None if results.generator is None else results.generator.cross_validation
    return None if table is None else table.delivered.accuracy / 100


def _columns(results: Results) -> dict[str, ndarray]:
    """Accuracy per unseen task of every method that has rows, tasks in one order."""
    suites = {row.suite for row in results.rows}
    found: dict[str, ndarray] = {}
    order: list[str] = []
    for method in METHODS:
        for suite in suites:
            key = (suite, UNSEEN, method.source, method.condition)
            own = task_means(row for row in results.rows if (row.suite, row.split, row.source, row.condition) == key)
            if not own:
                continue
            order = order or list(own)
            found[method.label] = np.array([own[task] for task in order])
    return found


def _estimate(values: ndarray, seed: int) -> Estimate:
    from wildpdiff.evaluate.statistics import mean_interval

    return mean_interval(values, seed=seed)


def write_page(out: Path, found: Mapping[str, Results], remarks: Sequence[str] = ()) -> PanelPage:
    """Write ``panel.md`` and ``panel.html`` from the results of benchmarks, by name."""
    rows = tuple(panel_row(benchmark, results) for benchmark, results in found.items())
    page = _page(rows, remarks)
    write_file(out / "panel.md", page_markdown(page).encode())
    write_file(out / "panel.html", page_html(page).encode())
    return PanelPage(rows, tuple(remarks), out / "panel.md", out / "panel.html")


def _page(rows: Sequence[PanelRow], remarks: Sequence[str]) -> PlainPage:
    lead = (
        "Accuracy on unseen tasks in percent, mean over all tasks, samples and generators; in brackets 95 % bootstrap "
        "intervals over tasks. With trust: the pretrained model is kept below the threshold. Harmed: lost more than a "
        "point against the pretrained model. Cross-validated: on held-out seen tasks, by the "
        "first generator's fit. Coverage: measured gain inside its 90 % interval."
    )
    sections = [PlainSection("Benchmarks", (lead,), (_overview(rows),), tuple(remarks))]
    if rows:
        deep = [row.benchmark for row in rows if row.lora_matters]
        lora = f"LoRA adds 3 points or more to the classifier alone in {len(deep)} of {len(rows)} benchmarks"
        lora += f": {', '.join(deep)}." if deep else "."
        sections[0] = PlainSection("Benchmarks", (lead, lora), (_overview(rows),), tuple(remarks))
    for row in rows:
        made = f"`{row.command}`; seed {row.seed}; {seconds_text(row.seconds)} (wall clock)."
        lines = tuple(
            (label, _percent(value), interval_text(value.interval).strip()) for label, value in row.accuracy.items()
        )
        table = PlainTable(("method", "accuracy", "interval"), lines)
        sections.append(
            PlainSection(
                row.benchmark, (f"[Report of this benchmark]({row.benchmark}/report.html)",), (table,), (made,)
            )
        )
    return PlainPage("Panel of benchmarks", tuple(sections))


def _overview(rows: Sequence[PanelRow]) -> PlainTable:
    columns = (
        "benchmark",
        "tasks",
        "LoRA − classifier alone",
        "pretrained",
        "best simple",
        "generated",
        "cross-validated",
        "with trust",
        "one sample",
        "fine-tuned",
        "generated − best simple",
        "harmed",
        "harmed with trust",
        "coverage",
        "abstained",
        "seed",
        "time",
    )
    return PlainTable(columns, tuple(_cells(row) for row in rows))


def _cells(row: PanelRow) -> tuple[str, ...]:
    trust, sample = row.trust, row.accuracy.get("one sample")
    return (
        row.benchmark,
        str(row.tasks),
        f"{signed_points(row.lora.value)}{interval_text(row.lora.interval)}",
        _percent(row.accuracy[PRETRAINED]),
        f"{_percent(row.accuracy[row.simple])} ({row.simple})",
        _percent(row.accuracy[GENERATED]),
        "–" if row.cross_validated is None else percent(row.cross_validated),
        "–" if row.with_trust is None else percent(row.with_trust),
        "–" if sample is None else _percent(sample),
        _percent(row.accuracy[FINETUNED]),
        f"{signed_points(row.lead.value)}{interval_text(row.lead.interval)}",
        *(
            ("–", "–", "–", "–")
            if trust is None
            else (
                percent(trust.harmed_without.value, 0),
                percent(trust.harmed_with.value, 0),
                percent(trust.coverage.value, 0),
                percent(1 - trust.used_share.value, 0),
            )
        ),
        str(row.seed),
        seconds_text(row.seconds),
    )


def _percent(value: Estimate) -> str:
    return percent(value.value)
