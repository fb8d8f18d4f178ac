"""The page of the panel: one row a world, then one table of methods a world, as Markdown and as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from wildbench.methods.classifier_alone import CLASSIFIER_ALONE
from wildbench.report.plain_page import PlainPage, PlainSection, PlainTable, page_html, page_markdown
from wildpdiff.disk import write_file
from wildpdiff.evaluate.results import Condition, Results
from wildpdiff.evaluate.statistics import Difference, Estimate, paired_difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, accuracy_per_task
from wildpdiff.evaluate.trust_points import TrustSummary, summarise_trust
from wildpdiff.report.wording import interval_text, percent, seconds_text, signed_points

UNSEEN = "unseen"
LEAST_GAIN = 0.03
"""LoRA matters in a world where it adds this much to the accuracy of the classifier alone."""


@dataclass(frozen=True)
class Method:
    """A line of a world's table.

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
    Method("pretrained", PRETRAINED, "none"),
    Method("mean adapter", "mean adapter", "none"),
    Method("nearest task", "nearest task"),
    Method("kernel ridge regression", "kernel ridge regression"),
    Method("additive kernel regression", "additive kernel regression"),
    Method("multi-task adapter", "multi-task adapter", "none", trained=True),
    Method("multi-task adapter with description", "multi-task adapter with description", trained=True),
    Method("hypernetwork, task loss", "hypernetwork, task loss", trained=True),
    Method("column-wise merge", "column-wise merge", trained=True),
    Method("feature prompt", "feature prompt", trained=True),
    Method("generated", GENERATED),
    Method("generated, shuffled descriptions", GENERATED, "shuffled"),
    Method("one sample", "one sample"),
    Method("best of 8 by unlabelled images", "best of 8 by unlabelled images"),
    Method("best of 8 by 5 labels", "best of 8 by 5 labels"),
    Method("fine-tuned", FINETUNED),
    Method("fine-tuned, classifier alone", CLASSIFIER_ALONE),
)
"""The lines of a world's table in order; those without rows are left out."""

SIMPLE = (PRETRAINED, "mean adapter", "nearest task", "kernel ridge regression", "additive kernel regression")
"""The simple alternatives that the generator is held against, by label."""


@dataclass(frozen=True)
class PanelRow:
    """A world on its unseen tasks. Accuracies and shares are fractions of 1, means over tasks.

    Attributes:
        world: its name.
        tasks: number of unseen tasks.
        accuracy: of every method, by label, in the order of :data:`METHODS`.
        lora: fine-tuned minus classifier alone.
        foretold: accuracy of generated adapters in the cross-validation on seen tasks; None where there was none.
        simple: label of the best simple alternative.
        lead: generated minus that.
        with_trust: accuracy where the pretrained model is kept below the threshold of trust; None without trust.
        trust: how good trust was; None where it was not calibrated.
        command, seed: of the run.
        seconds: wall-clock time of all stages.
    """

    world: str
    tasks: int
    accuracy: Mapping[str, Estimate]
    lora: Difference
    foretold: float | None
    simple: str
    lead: Difference
    with_trust: float | None
    trust: TrustSummary | None
    command: str
    seed: int
    seconds: float

    @property
    def lora_matters(self) -> bool:
        """Whether LoRA adds three points or more to the classifier alone."""
        return self.lora.value >= LEAST_GAIN


@dataclass(frozen=True)
class PanelPage:
    """The page on disk, and the rows it was made of."""

    rows: tuple[PanelRow, ...]
    remarks: tuple[str, ...]
    markdown: Path
    html: Path


def panel_row(world: str, results: Results) -> PanelRow:
    """The row of one world.

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
        world,
        len(pretrained),
        {label: _estimate(values, seed) for label, values in columns.items()},
        paired_difference(columns[FINETUNED], columns[CLASSIFIER_ALONE], seed=seed),
        _foretold(results),
        simple,
        paired_difference(generated, columns[simple], seed=seed),
        None if trust is None else float(pretrained.mean()) + trust.gain_with.value / 100,
        trust,
        results.provenance.command,
        seed,
        sum(stage.seconds for stage in results.stages),
    )


def _foretold(results: Results) -> float | None:
    table = None if results.generator is None else results.generator.cross_validation
    return None if table is None else table.delivered.accuracy / 100


def _columns(results: Results) -> dict[str, ndarray]:
    """Accuracy per unseen task of every method that has rows, tasks in one order."""
    suites = {row.suite for row in results.rows}
    found: dict[str, ndarray] = {}
    order: list[str] = []
    for method in METHODS:
        for suite in suites:
            own = accuracy_per_task(
                results.rows, suite=suite, split=UNSEEN, source=method.source, condition=method.condition
            )
            if not own:
                continue
            order = order or list(own)
            found[method.label] = np.array([own[task] for task in order])
    return found


def _estimate(values: ndarray, seed: int) -> Estimate:
    from wildpdiff.evaluate.statistics import mean_interval

    return mean_interval(values, seed=seed)


def write_page(out: Path, found: Mapping[str, Results], remarks: Sequence[str] = ()) -> PanelPage:
    """Write ``panel.md`` and ``panel.html`` from the results of worlds, by name."""
    rows = tuple(panel_row(world, results) for world, results in found.items())
    page = _page(rows, remarks)
    write_file(out / "panel.md", page_markdown(page).encode())
    write_file(out / "panel.html", page_html(page).encode())
    return PanelPage(rows, tuple(remarks), out / "panel.md", out / "panel.html")


def _page(rows: Sequence[PanelRow], remarks: Sequence[str]) -> PlainPage:
    lead = (
        "Accuracy on unseen tasks in percent, mean over all tasks, samples and generators; in brackets 95 % bootstrap "
        "intervals over tasks. With trust: the pretrained model is kept below the threshold. Harmed: lost more than a "
        "point against the pretrained model. Foretold: cross-validation on seen tasks, "
        "by the first generator's fit. Coverage: measured gain inside its 90 % interval."
    )
    sections = [PlainSection("Worlds", (lead,), (_overview(rows),), tuple(remarks))]
    if rows:
        deep = [row.world for row in rows if row.lora_matters]
        lora = f"LoRA adds 3 points or more to the classifier alone in {len(deep)} of {len(rows)} worlds"
        lora += f": {', '.join(deep)}." if deep else "."
        sections[0] = PlainSection("Worlds", (lead, lora), (_overview(rows),), tuple(remarks))
    for row in rows:
        made = f"`{row.command}`; seed {row.seed}; {seconds_text(row.seconds)} (wall clock)."
        lines = tuple(
            (label, _percent(value), interval_text(value.interval).strip()) for label, value in row.accuracy.items()
        )
        table = PlainTable(("method", "accuracy", "interval"), lines)
        sections.append(
            PlainSection(row.world, (f"[Report of this world]({row.world}/report.html)",), (table,), (made,))
        )
    return PlainPage("Panel of worlds", tuple(sections))


def _overview(rows: Sequence[PanelRow]) -> PlainTable:
    columns = (
        "world",
        "tasks",
        "LoRA − classifier alone",
        "pretrained",
        "best simple",
        "generated",
        "foretold",
        "with trust",
        "one sample",
        "fine-tuned",
        "generated − best simple",
        "harmed",
        "harmed with trust",
        "coverage",
        "kept back",
        "seed",
        "time",
    )
    return PlainTable(columns, tuple(_cells(row) for row in rows))


def _cells(row: PanelRow) -> tuple[str, ...]:
    trust, sample = row.trust, row.accuracy.get("one sample")
    return (
        row.world,
        str(row.tasks),
        f"{signed_points(row.lora.value)}{interval_text(row.lora.interval)}",
        _percent(row.accuracy[PRETRAINED]),
        f"{_percent(row.accuracy[row.simple])} ({row.simple})",
        _percent(row.accuracy[GENERATED]),
        "–" if row.foretold is None else percent(row.foretold),
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
