"""Figure: reliability diagrams (Guo et al. 2017): accuracy of the predictions against their confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wildpdiff.evaluate.results import Results
from wildpdiff.evaluate.sections import Calibration
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.drawing import Canvas, ReportFigure, render
from wildpdiff.report.palette import THEME, SourceStyle
from wildpdiff.report.wording import count, listed, number, percentage, points

_MUTED = THEME["muted"].light
_TEXT = THEME["text"].light
_BAND = THEME["band"].light
SHOWN = (PRETRAINED, GENERATED, FINETUNED)


def calibration_lines(results: Results) -> list[Calibration]:
    """Calibration of the three sources of the figure, on unseen tasks where they were measured."""
    splits = list(dict.fromkeys(entry.split for entry in results.calibration))
    split = "unseen" if "unseen" in splits else splits[0] if splits else ""
    chosen = {
        entry.source: entry
        for entry in reversed(results.calibration)
        if entry.split == split and entry.condition in ("own", "none") and entry.bins
    }
    return [chosen[source] for source in SHOWN if source in chosen]


def calibration_figure(
    results: Results, styles: Mapping[str, SourceStyle], name: str, heading: str
) -> ReportFigure | None:
    """One panel a source; None where calibration was not measured."""
    lines = calibration_lines(results)
    if not lines:
        return None
    title = f"{heading}Can the probabilities be trusted?"
    images = sum(entry.count for entry in lines[0].bins)
    caption = (
        f"Test images of all {lines[0].split} tasks by the confidence of the prediction; on the diagonal a confidence "
        f"of 70 % is right in 70 %. Marks grow with the number of predictions ({count(images, 'prediction')} of the "
        f"{lines[0].source} model). "
    )
    errors = [f"{entry.source} {percentage(entry.error)}" for entry in lines]
    caption += f"Expected calibration error: {listed(errors)}"
    best = min(lines, key=lambda entry: entry.error)
    sure = [f"{entry.source} is too {_leaning(entry)}" for entry in lines if _leaning(entry)]
    caption += f". The best calibrated is {best.source}"
    caption += f"; {listed(sure)}." if sure else "; none is too sure or too unsure by more than a point."
    likelihood = [f"{entry.source} {number(entry.negative_log_likelihood)}" for entry in lines]
    caption += f" Negative log-likelihood, in nats: {listed(likelihood)}."
    drawing = render(lambda canvas: _draw(canvas, lines, styles), title)
    return ReportFigure(name, title, caption, drawing)


def _leaning(entry: Calibration) -> str:
    images = sum(part.count for part in entry.bins)
    bias = sum(part.count * (part.confidence - part.accuracy) for part in entry.bins) / images
    return f"sure by {points(bias)}" if bias > 0.01 else f"unsure by {points(bias)}" if bias < -0.01 else ""


def _draw(canvas: Canvas, lines: Sequence[Calibration], styles: Mapping[str, SourceStyle]) -> None:
    side, below, left, above = (250, 56, 48, 28) if canvas.narrow else (236, 50, 46, 28)
    rows = len(lines) if canvas.narrow else 1
    canvas.resize(rows * (above + side + below))
    for place, entry in enumerate(lines):
        start = left if canvas.narrow else left + place * (side + left + 24)
        top = above + (place * (above + side + below) if canvas.narrow else 0)
        axes = canvas.axes(start, top, side, side)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.grid()
        axes.set_title(f"{entry.source}", loc="left", fontsize=12.5, fontweight="bold", color=_TEXT, pad=8)
        axes.annotate(f"error {percentage(entry.error)}", (1, 1), (0, 8), xycoords="axes fraction", fontsize=11,
                      textcoords="offset points", ha="right", va="bottom", color=_MUTED)  # fmt: skip
        axes.plot([0, 100], [0, 100], color=_MUTED, linewidth=1.2, dashes=(4, 3))
        colour = styles[entry.source].colour.light
        confidence = [100 * part.confidence for part in entry.bins]
        accuracy = [100 * part.accuracy for part in entry.bins]
        axes.vlines(confidence, confidence, accuracy, color=colour, linewidth=1.0, alpha=0.5)
        axes.plot(confidence, accuracy, color=colour, linewidth=1.4)
        most = max(part.count for part in entry.bins)
        areas = [12 + 90 * part.count / most for part in entry.bins]
        axes.scatter(confidence, accuracy, s=areas, color=colour, linewidths=0, zorder=3, clip_on=False)
        ticks = [0, 25, 50, 75, 100]
        axes.set_xticks(ticks)
        axes.set_yticks(ticks)
        axes.tick_params(axis="y", labelcolor=_MUTED)
        axes.set_xlabel("confidence, %")
        if canvas.narrow or place == 0:
            axes.set_ylabel("accuracy, %")
