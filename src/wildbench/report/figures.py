"""Figures of the further sections: distance, novelty, latents, interpolation, alignment, scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from wildbench.interpolation.interpolation_summary import (
    GROUPS,
    SIMILARITY,
    KeptCurve,
    kept_curve,
    midpoint_kept,
    ways_of,
)
from wildbench.interpolation.rank_correlation import RankCorrelation, spearman
from wildbench.observers.verdict import verdict_sentence
from wildbench.report.scaling_summary import ScalingCurve, scaling_curves, scaling_sentences
from wildbench.report.wording import number_range
from wildbench.sections import DISTANCES, LATENT_MAP, MEMORISATION, LatentPoint, Memorisation, NoveltyPoint
from wildbench.study_sections import Interpolation, Scaling
from wildpdiff.evaluate.results import Calibration, Results
from wildpdiff.evaluate.statistics import mean_interval
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, display_label
from wildpdiff.report.drawing import Caption, ReportFigure, add_legend, marker, render, shorten
from wildpdiff.report.findings import Key, SplitFindings
from wildpdiff.report.palette import ACCENT, BAND, FAMILIES, MUTED, OTHER, TEXT, SourceStyle
from wildpdiff.report.wording import count, number, percentage

Styles = Mapping[str, SourceStyle]
Line = dict[str, Any]

_SERIES: tuple[Line, ...] = (
    {"color": ACCENT, "marker": "o"},
    {"color": FAMILIES["unlabelled images"], "marker": "s"},
    {"color": FAMILIES["description"], "marker": "^"},
    {"color": FAMILIES["no description"], "marker": "v"},
    {"color": FAMILIES["labels"], "marker": "P"},
    {"color": FAMILIES["checkpoints"], "marker": "X"},
)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))

SMALLEST = 0.01
"""Smaller distances are drawn here, on a logarithmic axis."""

MOST_BINS, FEWEST_IN_BIN = 5, 5
GAIN_LIMITS = (-150.0, 200.0)
MOST_PANELS = 4


def distance_figure(
    results: Results, parts: Sequence[SplitFindings], styles: Styles, heading: str
) -> ReportFigure | None:
    """Gain of the generator against condition distance on tasks that it was not fitted to, with binned means."""
    distances = {(entry.split, entry.task): entry.distance for entry in DISTANCES.of(results) or ()}
    found: dict[str, list[list[float]]] = {}
    for part in parts:
        columns = part.columns([part.of(PRETRAINED), part.generated, part.of(FINETUNED)])
        if part.split != "seen" and columns is not None:
            for task, scores in zip(columns.tasks, 100 * columns.accuracy.T, strict=True):
                if (part.split, task) in distances:
                    found.setdefault(part.split, []).append([distances[part.split, task], *scores])
    tables = {split: np.array(rows) for split, rows in found.items()}
    if sum(map(len, tables.values())) < 2 * FEWEST_IN_BIN:
        return None
    table = np.concatenate(list(tables.values()))
    distance, gain = table[:, 0], table[:, 2] - table[:, 1]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        entries: dict[str, Line] = {}
        for line, (split, rows) in zip(_SERIES * len(tables), tables.items(), strict=False):
            mark = {"marker": line["marker"], "color": styles[GENERATED].colour, "alpha": 0.55, "markersize": 5}
            axes.plot(rows[:, 0], rows[:, 2] - rows[:, 1], linestyle="none", **mark)
            entries[f"{split} tasks"] = mark
        axes.axhline(0, color=MUTED, linewidth=1.2)
        order = np.argsort(distance, kind="stable")
        for chunk in np.array_split(order, max(2, min(MOST_BINS, len(order) // FEWEST_IN_BIN))):
            estimate = mean_interval(gain[chunk])
            ends = [distance[chunk].min(), distance[chunk].max()]
            axes.plot(ends, [estimate.value] * 2, color=TEXT, linewidth=2.4)
            if estimate.interval is not None:
                axes.vlines(float(np.median(distance[chunk])), *estimate.interval, color=TEXT, linewidth=1.2)
        axes.set_xlabel("distance of the description to the nearest seen one")
        axes.set_ylabel("generated − pretrained, points")
        add_legend(figure, entries | {"mean of a bin": {"linestyle": "-", "color": TEXT, "linewidth": 2.4}})

    text = (
        "One mark a task; distance 1 is the mean between two seen tasks; bars are binned means with 95 % intervals. "
        "Rank correlation of the distance with fine-tuned − generated: "
        f"{correlation_text(spearman(distance, table[:, 3] - table[:, 2]))}."
    )
    return render(Caption("gain-against-distance", f"{heading}Gain against distance", text), 340, draw)


@dataclass(frozen=True)
class NoveltyMean:
    """Means of a source over tasks, of the means over samples and seeds."""

    source: str
    condition: str
    accuracy: float
    distance: float
    overlap: float


def novelty_means(memorisation: Memorisation, split: str) -> list[NoveltyMean]:
    """Every source and condition of a split, in the order of the points."""
    by_key: dict[Key, dict[str, list[NoveltyPoint]]] = {}
    for point in memorisation.points:
        if point.split == split:
            by_key.setdefault((point.source, point.condition), {}).setdefault(point.task, []).append(point)
    means = []
    for (source, condition), tasks in by_key.items():
        table = [
            np.mean([(point.accuracy, point.distance, point.overlap) for point in points], axis=0)
            for points in tasks.values()
        ]
        accuracy, distance, overlap = (float(value) for value in np.mean(table, axis=0))
        means.append(NoveltyMean(source, condition, accuracy, distance, overlap))
    return means


def novelty_figure(results: Results, styles: Styles, heading: str) -> ReportFigure | None:
    """Accuracy against novelty in weights and in errors (Zeng et al. 2025); None where novelty was not measured."""
    found = MEMORISATION.of(results)
    if found is None or not found.points:
        return None
    splits = sorted({point.split for point in found.points}, key=lambda split: (split != "unseen", split != "seen"))[:2]
    means = {split: novelty_means(found, split) for split in splits}
    order = [(row.source, row.condition) for row in results.summary]
    keys = {(mean.source, mean.condition) for own in means.values() for mean in own}
    ranked = sorted(keys, key=lambda key: order.index(key) if key in order else len(order))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, len(splits), squeeze=False, sharey="col", sharex="row")
        for split, (weights, errors) in zip(splits, panels.T, strict=True):
            weights.set_title(f"{split} tasks")
            weights.set_xscale("log")
            weights.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            weights.axvspan(SMALLEST / 2, max(found.within_run, SMALLEST), color=BAND, linewidth=0, zorder=0)
            weights.axvline(1, color=MUTED, linewidth=1.2, dashes=(3, 3))
            for mean in means[split]:
                mark = {"linestyle": "none", "markersize": 6, **marker(styles[mean.source], mean.condition)}
                weights.plot([max(mean.distance, SMALLEST)], [100 * mean.accuracy], **mark)
                errors.plot([100 * mean.overlap], [100 * mean.accuracy], **mark)
            weights.set_xlabel("distance to a checkpoint")
            errors.set_xlabel("overlap of errors, %")
        for axes in panels[:, 0]:
            axes.set_ylabel("accuracy, %")
        entries = {shorten(display_label(*key), 28): marker(styles[key[0]], key[1]) for key in ranked}
        add_legend(figure, entries)

    text = (
        f"{verdict_sentence(results) or ''} One mark a source, mean over tasks. Top: distance to the nearest stored "
        "checkpoint; 1 is that of a fine-tuned adapter to the nearest checkpoint of another run, the band ends at the "
        "distance within a run. Bottom: largest share of wrong predictions in common with a stored checkpoint."
    )
    height = 480 + 17 * -(-len(ranked) // 2)
    return render(Caption("accuracy-and-novelty", f"{heading}Accuracy and novelty", text), height, draw)


def latent_map_figure(results: Results, styles: Styles, heading: str) -> ReportFigure | None:
    """Latents of seen, unseen and generated adapters in a plane; None where they were not recorded."""
    found = LATENT_MAP.of(results)
    if found is None or not found.points:
        return None
    new = "unseen" if any(point.split == "unseen" for point in found.points) else "seen"
    tables: dict[tuple[str, str], dict[str, LatentPoint]] = {}
    for point in found.points:
        tables.setdefault((point.split, point.kind), {})[point.task] = point
    colours = {"generated": styles[GENERATED].colour, "fine-tuned": styles[FINETUNED].colour}
    marks: dict[tuple[str, str], Line] = {
        ("seen", "fine-tuned"): {"marker": "o", "color": OTHER, "markersize": 4},
        ("seen", "generated"): {"marker": "o", "color": colours["generated"], "markersize": 4, "alpha": 0.45},
        (new, "fine-tuned"): {"marker": "D", "color": colours["fine-tuned"], "markersize": 5},
        (new, "generated"): {"marker": "o", "color": colours["generated"], "markersize": 6},
    }
    present = {key: mark for key, mark in marks.items() if key in tables}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        tuned, made = tables.get((new, "fine-tuned"), {}), tables.get((new, "generated"), {})
        for task in made.keys() & tuned.keys():
            ends = (tuned[task], made[task])
            axes.plot([end.x for end in ends], [end.y for end in ends], color=MUTED, linewidth=0.8)
        for key, mark in present.items():
            points = tables[key].values()
            axes.plot([point.x for point in points], [point.y for point in points], linestyle="none", **mark)
        axes.set_xlabel(f"first component ({percentage(found.explained[0], 0)} of the variance)")
        axes.set_ylabel(f"second component ({percentage(found.explained[1], 0)})")
        add_legend(figure, {", ".join(key): mark for key, mark in present.items()})

    text = (
        "Mean adapter of each task on the first two principal components of the seen tasks' fine-tuned ones. A line "
        f"joins the generated and the fine-tuned adapter of one {new} task."
    )
    return render(Caption("latent-map", f"{heading}Map of the latents", text), 380, draw)


def interpolation_figure(interpolation: Interpolation) -> ReportFigure | None:
    """Share of the gain kept along the way, one panel a group of pairs; None where no path was measured."""
    ways = ways_of(interpolation)
    found = {(group, way): kept_curve(interpolation, way, group) for group in GROUPS for way in ways}
    curves = {key: curve for key, curve in found.items() if curve is not None}
    groups = [group for group in GROUPS if any(key[0] == group for key in curves)]
    if not groups:
        return None
    amounts = {group: sum(pair.group == group for pair in interpolation.pairs) for group in groups}

    def draw(figure: Figure) -> None:
        for axes, group in zip(figure.subplots(len(groups), sharex=True, squeeze=False)[:, 0], groups, strict=True):
            for line, way in zip(_SERIES, ways, strict=False):
                if (group, way) in curves:
                    _draw_kept(axes, curves[group, way], line)
            _reference_lines(axes)
            axes.set_title(f"{group} similarity, {count(amounts[group], 'pair')}")
            axes.set_ylabel("gain kept, %")
        axes.set_xlabel("way to the other task, %")
        lines = {way: {"linestyle": "-", **line} for line, way in zip(_SERIES, ways, strict=False)}
        add_legend(figure, lines, 3)

    text = (
        "Share of fine-tuning's gain that a task keeps while the adapter moves to another task; mean over both tasks "
        "of every pair, with 95 % intervals."
    )
    return render(Caption("interpolation", "Gain kept between tasks", text), 190 * len(groups) + 70, draw)


def _draw_kept(axes: Axes, curve: KeptCurve, line: Line) -> None:
    known = [(100 * x, gain) for x, gain in zip(curve.positions, curve.gains, strict=True) if gain.value is not None]
    for x, gain in known:
        if gain.interval is not None and np.isfinite(gain.interval).all():
            axes.vlines(x, *np.clip(100 * np.array(gain.interval), -200, 250), color=line["color"], alpha=0.6)
    values = np.clip([100 * (gain.value or 0.0) for _, gain in known], -200, 250)
    axes.plot([x for x, _ in known], values, markersize=4.5, linewidth=1.8, **line)


def _reference_lines(axes: Axes) -> None:
    for reference in (0, 100):
        axes.axhline(reference, color=MUTED, linewidth=1.2, dashes=(3, 3))


def correlation_text(value: RankCorrelation | None) -> str:
    """A rank correlation with its interval."""
    return "undefined" if value is None else f"{number(value.value)}{number_range(value.interval)}"


def alignment_figure(interpolation: Interpolation) -> ReportFigure | None:
    """Each alignment number against the gain kept half-way; None for fewer than four pairs."""
    ways = ways_of(interpolation)
    if not ways:
        return None
    middle = midpoint_kept(interpolation, ways[0])
    ranked = [(key, value) for key, value in middle.correlations.items() if value is not None]
    ranked = sorted(ranked, key=lambda entry: (entry[0] == SIMILARITY, -abs(entry[1].value)))[:MOST_PANELS]
    if not ranked:
        return None
    groups = [group for group in GROUPS if any(entry.pair.group == group for entry in middle.pairs)]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(-(-len(ranked) // 2), 2, sharey=True, squeeze=False).flatten()
        for unused in panels[len(ranked) :]:
            unused.axis("off")
        for axes, (key, value) in zip(panels, ranked, strict=False):
            for line, group in zip(_SERIES, groups, strict=False):
                own = [entry for entry in middle.pairs if entry.pair.group == group]
                xs = [-entry.pair.condition_distance if key == SIMILARITY else entry.pair.alignment.get(key, np.nan)
                      for entry in own]  # fmt: skip
                kept = np.clip([100 * entry.pooled for entry in own], -200, 250)
                axes.plot(xs, kept, linestyle="none", markersize=5, **line)
            _reference_lines(axes)
            axes.set_title(f"correlation {number(value.value)}")
            axes.set_xlabel(key.replace("_", " "))
        figure.supylabel("gain kept half-way, %", color=MUTED, fontsize=11.5)
        add_legend(figure, {f"{group} similarity": line for line, group in zip(_SERIES, groups, strict=False)}, 3)

    key, best = ranked[0]
    skipped = f" ({middle.skipped} without a gain to keep are left out)" if middle.skipped else ""
    text = (
        f"One mark a pair of tasks{skipped}, interpolating {middle.way}. Strongest rank correlation: "
        f"{key.replace('_', ' ')}, {correlation_text(best)}."
    )
    return render(Caption("alignment", "Alignment and interpolation", text), 200 * -(-len(ranked) // 2) + 60, draw)


def scaling_figure(scaling: Scaling) -> ReportFigure | None:
    """Recovered gain against the number of training tasks, one panel a diversity; None without the generator."""
    curves = scaling_curves(scaling)
    if not any(curve.source == GENERATED for curve in curves):
        return None
    most = max(curve.checkpoints for curve in curves)
    shown = [curve for curve in curves if curve.source == GENERATED or curve.checkpoints == most]
    depths = sorted({curve.checkpoints for curve in curves if curve.source == GENERATED}, reverse=True)
    others = list(dict.fromkeys(curve.source for curve in shown if curve.source != GENERATED))
    lines: dict[str, Line] = {
        f"generated, {count(depth, 'checkpoint')} a task": {"color": ACCENT, "marker": "o", "linestyle": dash}
        for dash, depth in zip(_DASHES * len(depths), depths, strict=False)
    }
    lines |= {
        source: {"linestyle": "-", "linewidth": 1.1, **line}
        for line, source in zip(_SERIES[1:] * len(others), others, strict=False)
    }
    panels = [diversity for diversity in ("wide", "narrow") if any(curve.diversity == diversity for curve in curves)]
    sizes = sorted({point.tasks for curve in curves for point in curve.points})

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, diversity in zip(rows, panels, strict=True):
            axes.set_xscale("log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.set_xticks([], minor=True)
            _reference_lines(axes)
            for curve in shown:
                if curve.diversity == diversity:
                    own = curve.source == GENERATED
                    label = f"generated, {count(curve.checkpoints, 'checkpoint')} a task" if own else curve.source
                    _draw_scaling(axes, curve, lines[label])
            words = "drawn from all tasks (wide)" if diversity == "wide" else "drawn from one half (narrow)"
            axes.set_title(words)
            axes.set_ylabel("recovered gain, %")
        axes.set_xlabel("training tasks")
        add_legend(figure, lines, 1)

    text = (
        f"{' '.join(scaling_sentences(scaling))} Always the same {count(len(scaling.unseen), 'unseen task')}; bars are "
        "95 % intervals over tasks and draws of the training tasks."
    )
    height = 240 * len(panels) + 18 * len(lines) + 30
    return render(Caption("scaling", "Gain against the number of training tasks", text), height, draw)


def _draw_scaling(axes: Axes, curve: ScalingCurve, line: Line) -> None:
    known = [point for point in curve.points if point.gain is not None]
    for point in known:
        if point.interval is not None and curve.source == GENERATED:
            axes.vlines(point.tasks, *np.clip(100 * np.array(point.interval), *GAIN_LIMITS), color=ACCENT, alpha=0.5)
    gains = np.clip([100 * (point.gain or 0.0) for point in known], *GAIN_LIMITS)
    axes.plot([point.tasks for point in known], gains, markersize=4.5, **line)


def calibration_lines(results: Results) -> list[Calibration]:
    """Calibration of pretrained, generated and fine-tuned, on unseen tasks where they were measured."""
    splits = [entry.split for entry in results.calibration]
    split = "unseen" if "unseen" in splits else splits[0] if splits else ""
    chosen = {
        entry.source: entry
        for entry in reversed(results.calibration)
        if entry.split == split and entry.condition in ("own", "none") and entry.bins
    }
    return [chosen[source] for source in (PRETRAINED, GENERATED, FINETUNED) if source in chosen]


def calibration_figure(results: Results, styles: Mapping[str, SourceStyle]) -> ReportFigure | None:
    """Reliability diagram (Guo et al. 2017); None where calibration was not measured."""
    lines = calibration_lines(results)
    if not lines:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, dashes=(4, 3))
        entries = {}
        for entry in lines:
            style = styles[entry.source]
            confidence, accuracy, sizes = np.array([(b.confidence, b.accuracy, b.count) for b in entry.bins]).T
            axes.plot(100 * confidence, 100 * accuracy, color=style.colour, linewidth=1.4)
            areas = 10 + 60 * sizes / sizes.max()
            axes.scatter(
                100 * confidence, 100 * accuracy, s=areas, c=style.colour, marker=style.marker, linewidths=0, zorder=3
            )
            entries[f"{entry.source}, error {percentage(entry.error)}"] = marker(style, "own")
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("accuracy, %")
        add_legend(figure, entries)

    text = (
        f"Accuracy against confidence of all predictions on {lines[0].split} tasks, in 15 bins (areas by size); error "
        "is the expected calibration error."
    )
    return render(Caption("calibration", "Calibration of the probabilities", text), 360, draw)
