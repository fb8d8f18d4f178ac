"""Figures of RQ2: what is kept on the way between two tasks, and whether alignment predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from wildbench.interpolation.interpolation_summary import (
    GROUPS,
    SIMILARITY,
    KeptCurve,
    Midpoint,
    kept_curve,
    midpoint_kept,
    ways_of,
)
from wildbench.interpolation.rank_correlation import RankCorrelation
from wildbench.study_sections import Interpolation
from wildpdiff.report.drawing import Canvas, ReportFigure, render
from wildpdiff.report.palette import THEME, family_colour
from wildpdiff.report.wording import capital, count, listed, number, number_range, percentage

_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light
_SURFACE = THEME["surface"].light
_BLUE = THEME["accent"].light

_WAY_LOOKS: dict[str, dict[str, Any]] = {
    "conditions": {"color": _BLUE, "marker": "o", "linestyle": "-"},
    "latents": {"color": family_colour("unlabelled images").light, "marker": "s", "linestyle": (0, (5, 2))},
    "adapters": {"color": family_colour("description").light, "marker": "^", "linestyle": (0, (1.5, 1.5))},
}
_GROUP_LOOKS: dict[str, dict[str, Any]] = {
    "high": {"color": _BLUE, "marker": "o"},
    "middle": {"color": family_colour("unlabelled images").light, "marker": "s"},
    "low": {"color": family_colour("description").light, "marker": "^"},
}
KEEPS = 0.9
"""Share of the recovered gain at the midpoint from which interpolation is said to work."""
MOST_PANELS = 4
STRONG, WEAK = 0.7, 0.3


def interpolation_figure(interpolation: Interpolation, name: str, heading: str) -> ReportFigure | None:
    """Share of the gain kept along the way, one panel a group of pairs; None where no path was measured."""
    ways = ways_of(interpolation)
    groups = [group for group in GROUPS if any(pair.group == group for pair in interpolation.pairs)]
    curves = {
        (group, way): curve
        for group in groups
        for way in ways
        if (curve := kept_curve(interpolation, way, group)) is not None
    }
    groups = [group for group in groups if any(key[0] == group for key in curves)]
    if not curves:
        return None
    title = f"{heading}What is kept on the way"
    amounts = {group: sum(pair.group == group for pair in interpolation.pairs) for group in groups}
    told = listed([f"{count(amounts[group], 'pair')} of {group} similarity" for group in groups])
    caption = (
        f"Share of fine-tuning's gain that a task keeps while the adapter moves to another task ({told}); mean over "
        "both tasks of every pair, bars are 95 % intervals. "
    )
    for group in groups:
        halves = [(way, _midway(curves[group, way])) for way in ways if (group, way) in curves]
        known = [(way, value) for way, value in halves if value is not None]
        if not known:
            continue
        shares = listed([f"{percentage(value, 0)} with {way}" for way, value in known])
        working = [way for way, value in known if value >= KEEPS]
        verdict = (
            f"interpolating {listed(working)} works"
            if working
            else f"interpolation keeps less than {percentage(KEEPS, 0)}"
        )
        caption += f"Half-way between tasks of {group} similarity a task keeps {shares}: {verdict}. "
    drawing = render(lambda canvas: _draw_curves(canvas, curves, groups, ways, amounts), title)
    return ReportFigure(name, title, caption.strip(), drawing)


def _midway(curve: KeptCurve) -> float | None:
    known = [
        (place, gain.value) for place, gain in zip(curve.places, curve.gains, strict=True) if gain.value is not None
    ]
    if not known:
        return None
    return float(np.interp(0.5, [place for place, _ in known], [value for _, value in known]))


def _draw_curves(
    canvas: Canvas,
    curves: dict[tuple[str, str], KeptCurve],
    groups: Sequence[str],
    ways: Sequence[str],
    amounts: dict[str, int],
) -> None:
    height, below, left, top = (190, 62, 60, 52) if canvas.narrow else (250, 56, 62, 56)
    rows = len(groups) if canvas.narrow else 1
    canvas.resize(top + rows * (height + below))
    width = canvas.width - left - 12 if canvas.narrow else (canvas.width - 12 - left * len(groups)) / len(groups)
    values = [
        100 * end
        for curve in curves.values()
        for gain in curve.gains
        if gain.value is not None
        for end in (gain.value, *(gain.interval or ()))
        if np.isfinite(end)
    ]
    low, high = max(-200.0, min(0.0, *values)) - 6, min(250.0, max(100.0, *values)) + 6
    for place, group in enumerate(groups):
        start = left if canvas.narrow else left + place * (width + left)
        axes = canvas.axes(start, top + (place * (height + below) if canvas.narrow else 0), width, height)
        axes.set_xlim(-3, 103)
        axes.set_ylim(low, high)
        axes.grid()
        for reference in (0, 100):
            axes.axhline(reference, color=_MUTED, linewidth=1.2, dashes=(3, 3))
        axes.set_title(f"{group} similarity, {count(amounts[group], 'pair')}", loc="left", fontsize=12.5,
                       fontweight="bold", color=_TEXT, pad=8)  # fmt: skip
        for shift, way in zip((-0.9, 0.0, 0.9), ways, strict=False):
            if (group, way) in curves:
                _draw_curve(axes, curves[group, way], way, shift)
        axes.tick_params(axis="y", labelcolor=_MUTED)
        axes.set_xlabel("way to the other task, %")
        if canvas.narrow or place == 0:
            axes.set_ylabel("gain kept, %")
    canvas.legend([(way, {**_WAY_LOOKS[way], "markersize": 5, "linewidth": 1.8}) for way in ways], 3, line=True)


def _draw_curve(axes: Axes, curve: KeptCurve, way: str, shift: float) -> None:
    known = [(100 * place + shift, gain) for place, gain in zip(curve.places, curve.gains, strict=True)
             if gain.value is not None]  # fmt: skip
    look = _WAY_LOOKS[way]
    for x, gain in known:
        if gain.interval is not None:
            axes.plot([x, x], [100 * end for end in gain.interval], color=look["color"], linewidth=1.1, alpha=0.6)
    axes.plot([x for x, _ in known], [100 * (gain.value or 0.0) for _, gain in known], markersize=4.5, linewidth=1.8,
              **look)  # fmt: skip


def correlation_words(value: RankCorrelation | None) -> str:
    """A rank correlation with its interval, for a sentence or a table."""
    return "undefined" if value is None else f"{number(value.value)}{number_range(value.interval)}"


def alignment_figure(interpolation: Interpolation, name: str, heading: str) -> ReportFigure | None:
    """Each alignment number against the gain kept half-way; None for fewer than four pairs."""
    ways = ways_of(interpolation)
    if not ways:
        return None
    middle = midpoint_kept(interpolation, ways[0])
    ranked = [(key, value) for key, value in middle.correlations.items() if value is not None]
    if not ranked:
        return None
    title = f"{heading}Does alignment predict interpolation?"
    chosen = sorted(ranked, key=lambda entry: (entry[0] == SIMILARITY, -abs(entry[1].value)))[:MOST_PANELS]
    names = [key for key, _ in chosen]
    drawing = render(lambda canvas: _draw_alignment(canvas, middle, names, ways[0]), title)
    return ReportFigure(name, title, alignment_caption(interpolation, middle), drawing)


def alignment_caption(interpolation: Interpolation, middle: Midpoint) -> str:
    """What the alignment figure shows, every rank correlation, and whether the strongest predicts anything."""
    ranked = [(key, value) for key, value in middle.correlations.items() if value is not None]
    own = [entry for entry in ranked if entry[0] != SIMILARITY]
    strongest, best = max(own or ranked, key=lambda entry: abs(entry[1].value))
    left_out = f"; {middle.skipped} without a gain to keep are left out" if middle.skipped else ""
    caption = (
        f"One mark a pair ({count(len(middle.pairs), 'pair')}{left_out}): how well the two tasks' adapters are aligned "
        "(right), and the share of fine-tuning's gain that both keep half-way when "
        f"{middle.way} are interpolated (up). "
    )
    told = [f"{key.replace('_', ' ')} {correlation_words(value)}" for key, value in ranked]
    caption += f"Rank correlations with 95 % intervals over pairs: {listed(told)}. "
    caption += f"The strongest, {strongest.replace('_', ' ')}, {_strength(best)}. "
    explained = [f"{key.replace('_', ' ')} is {text}" for key, text in interpolation.alignments.items()]
    if explained:
        caption += capital(f"{'; '.join(explained)}.").replace("..", ".")
    return caption.strip()


def _strength(best: RankCorrelation) -> str:
    if best.interval is None or best.interval[0] <= 0 <= best.interval[1]:
        return "is not shown to predict it: its interval holds zero"
    if best.value < 0:
        return "goes against it: better aligned pairs keep less"
    if best.value >= STRONG:
        return "predicts it well"
    return "predicts it in part" if best.value >= WEAK else "hardly predicts it"


def _number_of(key: str, middle: Midpoint, place: int) -> float | None:
    pair = middle.pairs[place].pair
    return -pair.condition_distance if key == SIMILARITY else pair.alignment.get(key)


def _draw_alignment(canvas: Canvas, middle: Midpoint, names: Sequence[str], way: str) -> None:
    columns = 1 if canvas.narrow else min(len(names), 2)
    rows = -(-len(names) // columns)
    height, below, left, top = (190, 66, 54, 54) if canvas.narrow else (240, 64, 56, 56)
    canvas.resize(top + rows * (height + below) - 14)
    width = (canvas.width - 14 - left * columns - 14 * (columns - 1)) / columns
    shares = [100 * entry.pooled for entry in middle.pairs]
    low, high = max(-200.0, min(0.0, *shares)), min(250.0, max(100.0, *shares))
    edge = 0.06 * (high - low)
    groups = [group for group in GROUPS if any(entry.pair.group == group for entry in middle.pairs)]
    for place, key in enumerate(names):
        start = left + (place % columns) * (width + left + 14)
        axes = canvas.axes(start, top + (place // columns) * (height + below), width, height)
        axes.set_ylim(low - edge, high + edge)
        axes.grid()
        for reference in (0, 100):
            axes.axhline(reference, color=_MUTED, linewidth=1.2, dashes=(3, 3))
        for group in groups:
            marks = [
                (value, min(max(share, low), high))
                for number_, (entry, share) in enumerate(zip(middle.pairs, shares, strict=True))
                if entry.pair.group == group and (value := _number_of(key, middle, number_)) is not None
            ]
            axes.plot(*np.array(marks).reshape(-1, 2).T, linestyle="none", markersize=6, markeredgecolor=_SURFACE,
                      markeredgewidth=0.6, **_GROUP_LOOKS[group])  # fmt: skip
        found = middle.correlations[key]
        axes.set_title(f"rank correlation {number(found.value) if found else '–'}", loc="left", fontsize=12,
                       fontweight="bold", color=_TEXT, pad=7)  # fmt: skip
        axes.tick_params(axis="y", labelcolor=_MUTED)
        axes.set_xlabel(key.replace("_", " "))
        if place % columns == 0:
            axes.set_ylabel("gain kept half-way, %")
    looks = [(f"{group} similarity", _GROUP_LOOKS[group]) for group in groups]
    canvas.legend(looks, 2 if canvas.narrow else 3)
