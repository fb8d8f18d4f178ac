"""report.html: one page that needs no network and no script, and its figures as PNG files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from wildpdiff.disk import write_file
from wildpdiff.errors import ArtifactError
from wildpdiff.evaluate.results import Results, SummaryRow
from wildpdiff.evaluate.summary import FINETUNED, PRETRAINED
from wildpdiff.report.findings import (
    SplitFindings,
    compare,
    control_sentence,
    count,
    findings,
    headline,
    percent,
    percentage,
    seeds_sentence,
    signed_points,
)
from wildpdiff.report.palette import SourceStyle, css_variables, source_styles

__all__ = ["ReportFiles", "write_report"]

WORST_TASKS = 5


@dataclass(frozen=True)
class ReportFiles:
    """What was written: the page, and the figures as PNG in the order of the page."""

    page: Path
    figures: tuple[Path, ...]


@dataclass(frozen=True)
class TableLine:
    """A line of a table of sources, as texts."""

    label: str
    swatch: Markup
    best: bool
    reference: bool
    accuracy: str
    accuracy_interval: str
    gain: str
    gain_interval: str
    seconds: str
    tasks: int


@dataclass(frozen=True)
class LostTask:
    """A task and its accuracies in percent, as texts."""

    task: str
    pretrained: str
    generated: str
    baseline: str
    finetuned: str
    change: str


def write_report(results: Results, folder: Path) -> ReportFiles:
    """Write ``report.html`` and ``figures/*.png`` into a folder, each file atomically.

    Raises:
        ArtifactError: the results hold no row, or the disk refuses.
    """
    # Imported late: matplotlib costs a second that other users of this room need not pay.
    from wildpdiff.report.figures import report_figures

    if not results.summary:
        raise ArtifactError("The results hold no row, so there is nothing to report: evaluate at least one source.")
    figures = report_figures(results)
    template = Environment(
        loader=BaseLoader(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(_template("report.html.j2"))
    page = template.render(
        **_page_values(results),
        figures=[
            {**vars(figure), "wide": Markup(figure.drawing.wide), "narrow": Markup(figure.drawing.narrow)}
            for figure in figures
        ],
    )
    pictures = []
    for figure in figures:
        path = folder / "figures" / f"{figure.name}.png"
        write_file(path, figure.drawing.png)
        pictures.append(path)
    write_file(folder / "report.html", page.encode())
    return ReportFiles(folder / "report.html", tuple(pictures))


def _template(name: str) -> str:
    return (files("wildpdiff.report") / "templates" / name).read_text(encoding="utf-8")


def _page_values(results: Results) -> dict[str, Any]:
    """Every value the template shows; the unseen tasks come first, because they are the question."""
    parts = sorted(findings(results), key=lambda part: part.split != "unseen")
    suites = list(dict.fromkeys(part.suite for part in parts))
    main = parts[0]
    styles = source_styles(row.source for row in results.summary)
    light, dark = (Markup(css_variables(dark=value)) for value in (False, True))
    return {
        "results": results,
        "headline": headline(main),
        "control": control_sentence(main),
        "seeds": seeds_sentence(main),
        "several_suites": len(suites) > 1,
        "tables": [{"part": part, "lines": _table(part, styles), "uneven": _uneven(part)} for part in parts],
        "losses": [_losses(part) for part in parts if part.split == main.split],
        "ceilings": _ceilings(results),
        "limits": _limits(results, parts),
        "count": count,
        "stage_times": [{"name": stage.name, "time": seconds_text(stage.seconds)} for stage in results.stages],
        "css": Markup(_template("style.css").replace("/*light*/", light).replace("/*dark*/", dark)),
    }


def _table(part: SplitFindings, styles: dict[str, SourceStyle]) -> list[TableLine]:
    return [_table_line(row, part, styles[row.source]) for row in part.summary]


def _table_line(row: SummaryRow, part: SplitFindings, style: SourceStyle) -> TableLine:
    from wildpdiff.report.drawing import swatch

    reference = row.source in (PRETRAINED, FINETUNED)
    by_definition = {PRETRAINED: "0", FINETUNED: "100"}.get(row.source, "–")
    return TableLine(
        label=row.label[:1].upper() + row.label[1:],
        swatch=Markup(swatch(style, row.condition)),
        best=row is part.winner,
        reference=reference,
        accuracy=percent(row.accuracy),
        accuracy_interval=_range(row.accuracy_interval, 1),
        gain=by_definition if row.recovered_gain is None else percent(row.recovered_gain, 0),
        gain_interval="by definition" if reference else _range(row.recovered_gain_interval, 0),
        seconds="–" if row.seconds_per_adapter is None else seconds_text(row.seconds_per_adapter),
        tasks=row.tasks,
    )


def _range(interval: tuple[float, float] | None, digits: int) -> str:
    return "no interval" if interval is None else f"{percent(interval[0], digits)} to {percent(interval[1], digits)}"


def seconds_text(seconds: float) -> str:
    """A duration with two significant digits or as minutes: ``4.2 ms``, ``12 s``, ``3 min 20 s``."""
    if seconds >= 99.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
    if seconds >= 9.95:
        return f"{seconds:.0f} s"
    if seconds < 0.001:
        return "< 1 ms"
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else f"{seconds:.2g} s"


def _uneven(part: SplitFindings) -> bool:
    """Whether sources were scored on different tasks, so that their means cannot be compared directly."""
    return len({frozenset(table) for table in part.accuracy.values()}) > 1


def _losses(part: SplitFindings) -> dict[str, Any] | None:
    """The tasks on which the generated adapter does worst against the pretrained model."""
    pretrained = part.of(PRETRAINED)
    lead = compare(part, part.generated, pretrained)
    if part.generated is None or pretrained is None or lead is None:
        return None
    rival = part.baseline if part.baseline is not pretrained else None
    columns = [
        part.per_task(row) if row is not None else {} for row in (pretrained, part.generated, rival, part.of(FINETUNED))
    ]
    shared = [task for task in part.tasks if task in columns[0] and task in columns[1]]
    worst = sorted(shared, key=lambda task: columns[1][task] - columns[0][task])[
        : min(lead.losses or WORST_TASKS, WORST_TASKS)
    ]
    lines = []
    for task in worst:
        before, generated, baseline, finetuned = (percent(table[task]) if task in table else "–" for table in columns)
        change = signed_points(columns[1][task] - columns[0][task])
        lines.append(LostTask(task, before, generated, baseline, finetuned, change))
    return {"part": part, "lead": lead, "lines": lines, "baseline": rival.label if rival else None}


def _ceilings(results: Results) -> list[str]:
    if results.autoencoder is None:
        return []
    sentences = []
    for split, entry in sorted(results.autoencoder.ceiling.items()):
        before, after = percentage(entry.finetuned), percentage(entry.accuracy)
        change = signed_points(entry.accuracy - entry.finetuned)
        sentences.append(
            f"On {split} tasks fine-tuned adapters reach {before} before and {after} after the autoencoder's "
            f"round trip ({change} points)."
        )
    return sentences


def _limits(results: Results, parts: list[SplitFindings]) -> list[str]:
    """What these numbers do not show, in words."""
    limits = []
    if not any(part.split == "unseen" for part in parts):
        limits.append("No unseen task was evaluated: nothing here shows that generation works on a new task.")
    main = parts[0]
    if len(main.tasks) < 10:
        limits.append(
            f"With {count(len(main.tasks), 'task')} the intervals are too narrow or missing: percentile intervals need "
            "about ten tasks."
        )
    if main.generated is not None and main.generated.seeds == 1:
        limits.append("One generator was trained: how far another seed would move the result is not measured.")
    if not any(row.condition == "shuffled" for row in main.summary):
        limits.append("No control with shuffled descriptions was run: the use of the description is not shown.")
    limits += [
        f"The result holds for the suite {results.suite.name} and the backbone {results.backbone.name}; other "
        "suites, classes and backbones may behave differently.",
        "Unseen tasks come from the same distribution as the seen ones. A description far from all seen ones is not "
        "tested by these averages.",
        "Intervals say how far the choice of tasks moves the result, not the choice of test images in a task.",
        "Accuracy alone says nothing of calibration, of rare classes or of the cost of single errors.",
    ]
    return limits
