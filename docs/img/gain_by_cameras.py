"""Picture of the first page: recovered gain by the number of cameras that a generator was trained on.

python docs/img/gain_by_cameras.py runs/scaling/results.json [PNG]

The results are those of ``wildpdiff reproduce scaling``: the widest draws with most checkpoints of each camera.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from wildbench.report.scaling_summary import ScalingCurve, scaling_curves
from wildbench.sections import SCALING
from wildbench.study_sections import Scaling
from wildpdiff.errors import ArtifactError, WildpdiffError
from wildpdiff.evaluate.results import read_results

SHOWN = {
    "generated": ("generated", "#0072b2", "o", 2.4),
    "additive kernel regression": ("additive\nkernel regression", "#00805d", "s", 1.5),
    "mean adapter": ("mean adapter", "#a86400", "^", 1.5),
}
"""Sources with label, colour (of Okabe and Ito 2008, which the colour-blind can tell apart), marker and width."""

INK, MUTED, PAPER, HARM = "#22303c", "#5c6b78", "#fcfcfa", "#d55e00"
LOWEST, HIGHEST = -0.75, 1.06
"""Limits of the axis; what lies below is cut off, and marked."""


def curves_of(scaling: Scaling) -> list[ScalingCurve]:
    """The curve of each source that is shown: drawn from all cameras, most checkpoints first.

    Raises:
        ArtifactError: there is none with a gain.
    """
    found: dict[str, ScalingCurve] = {}
    for curve in scaling_curves(scaling):
        if curve.source in SHOWN and curve.diversity == "wide" and any(one.gain is not None for one in curve.points):
            found.setdefault(curve.source, curve)
    if not found:
        raise ArtifactError("These results have no curve of a generator or a baseline with a gain to recover.")
    return [found[source] for source in SHOWN if source in found]


def draw(scaling: Scaling, path: Path) -> None:
    """The picture as a PNG."""
    curves = curves_of(scaling)
    sizes = sorted({point.tasks for curve in curves for point in curve.points})
    figure, axes = plt.subplots(figsize=(7.6, 4.3), facecolor=PAPER)
    axes.set_facecolor(PAPER)
    points = [one for curve in curves for one in curve.points if one.gain is not None]
    ends = [end for one in points for end in (one.interval or (one.gain, one.gain)) if end is not None]
    low = max(LOWEST, min(-0.15, min(ends) - 0.05))
    axes.set(xscale="log", xlim=(sizes[0] * 0.84, sizes[-1] * 1.07), ylim=(low, max(HIGHEST, max(ends) + 0.05)))
    _zones(axes, low)
    for number, curve in enumerate(curves):
        _curve(axes, curve, 1 + 0.025 * (number - (len(curves) - 1) / 2), low)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(size) for size in sizes])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("cameras that the generator was trained on", color=INK)
    axes.tick_params(colors=MUTED, length=0)
    axes.grid(axis="y", color="#dfe3e6", linewidth=0.6, zorder=0)
    axes.spines[:].set_visible(False)
    title = "Share of the gain of fine-tuning that a new camera gets without a label"
    figure.suptitle(title, x=0.012, ha="left", color=INK, weight="bold", fontsize=12)
    _labels(axes, curves)
    figure.subplots_adjust(left=0.075, right=0.8, top=0.9, bottom=0.12)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    plt.close(figure)


def _zones(axes: Axes, low: float) -> None:
    """The zone of harm, the pretrained model at 0, and the fine-tuned one at 1."""
    axes.axhspan(low, 0, color=HARM, alpha=0.13, linewidth=0, zorder=0)
    axes.axhline(0, color=HARM, linewidth=1.2, zorder=1)
    axes.axhline(1, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    left, right = axes.get_xlim()
    axes.text(left * 1.02, 0.985, "fine-tuned on the camera's own labels", va="top", color=MUTED, fontsize=8.5)
    axes.text(right * 0.985, low * 0.88, "harm: worse than the pretrained model", ha="right", va="center",
              color="#a34700", fontsize=9)  # fmt: skip


def _curve(axes: Axes, curve: ScalingCurve, shift: float, low: float) -> None:
    """Gains with 95 % intervals, moved sideways so that those of several sources do not cover each other."""
    _, colour, marker, width = SHOWN[curve.source]
    points = [one for one in curve.points if one.gain is not None]
    across, gains = [one.tasks * shift for one in points], [one.gain for one in points]
    axes.plot(across, gains, color=colour, marker=marker, linewidth=width, markersize=5.5, zorder=4,
              markeredgecolor=PAPER, markeredgewidth=0.8)  # fmt: skip
    for at, one in zip(across, points, strict=True):
        if one.interval is not None:
            axes.vlines(
                at, max(one.interval[0], low), one.interval[1], color=colour, alpha=0.55, linewidth=1.4, zorder=3
            )
        if one.gain is not None and one.gain < low:
            axes.annotate(f"{100 * one.gain:.0f} %", (at, low), (0, 3), textcoords="offset points", ha="center",
                          color=colour, fontsize=8)  # fmt: skip


def _labels(axes: Axes, curves: Sequence[ScalingCurve]) -> None:
    """The name of each curve at its end, as far from the next as letters are high."""
    ends = sorted((curve.points[-1].gain or 0.0, curve.source) for curve in curves)
    height, above = axes.get_ylim()[1] - axes.get_ylim()[0], -float("inf")
    for gain, source in ends:
        above = max(gain, above + 0.075 * height)
        label, colour, _, width = SHOWN[source]
        axes.text(axes.get_xlim()[1] * 1.03, above, label, va="center", color=colour, fontsize=9.5,
                  weight="bold" if width > 2 else "normal", linespacing=1.05)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(arguments[1]) if len(arguments) > 1 else Path(__file__).with_name("gain_by_cameras.png")
    try:
        scaling = SCALING.of(read_results(Path(arguments[0])))
        if scaling is None:
            raise ArtifactError(f"{arguments[0]} has no scaling study. Run `wildpdiff reproduce scaling`.")
        draw(scaling, path)
    except WildpdiffError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
