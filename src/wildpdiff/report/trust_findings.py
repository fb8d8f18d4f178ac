"""What became of trust, as sentences and as a table by world: told before a label was read, judged by labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wildpdiff.evaluate.statistics import Estimate
from wildpdiff.evaluate.trust_points import TrustPoint, TrustSection, TrustSummary, summarise_trust, worlds_of
from wildpdiff.report.blocks import Cell, DataTable, TableRow
from wildpdiff.report.wording import (
    capital,
    count,
    interval_text,
    listed,
    number,
    number_range,
    percent,
    percent_range,
    percentage,
    signed,
)

PROMISED = 0.9
"""Share of the measured gains that the intervals are to hold."""


@dataclass(frozen=True)
class TrustLine:
    """A line of the table: a world and split, or all that count together."""

    name: str
    small: str
    summary: TrustSummary


def judged_points(section: TrustSection) -> tuple[TrustPoint, ...]:
    """The points by which trust is judged: tasks that the generator was not fitted to, where there are any."""
    return tuple(point for point in section.points if point.split != "seen") or section.points


def tasks_text(points: Sequence[TrustPoint]) -> str:
    """``150 unseen tasks of 5 worlds``."""
    tasks = len({(point.world, point.split, point.task) for point in points})
    splits = list(dict.fromkeys(point.split for point in points))
    worlds = worlds_of(points)
    kind = f"{splits[0]} task" if len(splits) == 1 else "task"
    text = count(tasks, kind) + ("" if len(splits) == 1 else f" ({listed(splits)})")
    return text + (f" of {count(len(worlds), 'world')}" if len(worlds) > 1 else "")


def trust_lines(section: TrustSection) -> list[TrustLine]:
    """One line a world and split in their order, then all that trust is judged by, where that is more than one."""
    places = list(dict.fromkeys((point.world, point.split) for point in section.points))
    lines = []
    for world, split in places:
        own = [point for point in section.points if (point.world, point.split) == (world, split)]
        lines.append(TrustLine(world, split, summarise_trust(own)))
    judged = judged_points(section)
    together = {(point.world, point.split) for point in judged}
    if len(together) > 1:
        small = "without seen tasks" if len(together) < len(places) else ""
        lines.append(TrustLine("all together", small, summarise_trust(judged)))
    return lines


def trust_sentences(section: TrustSection) -> list[str]:
    """What trust kept back and whether rightly, what that was worth, whether it ranks, and whether it is calibrated."""
    points = judged_points(section)
    summary = summarise_trust(points)
    return [
        _kept_sentence(points, summary),
        _worth_sentence(summary),
        _rank_sentence(points, summary),
        _held_sentence(summary),
    ]


def _kept_sentence(points: Sequence[TrustPoint], summary: TrustSummary) -> str:
    kept = [point for point in points if not point.used]
    place = tasks_text(points)
    if summary.generators > 1:
        place = f"{len(points)} pairs of a task and a generator ({place}, {count(summary.generators, 'generator')})"
    if not kept:
        return f"Trust kept back none of {place}: every generated adapter was used."
    text = f"Trust kept back {len(kept)} of {place} and left them to the pretrained model; of those, "
    lost = [point for point in kept if point.gain < -1e-7]
    won = [point for point in kept if point.helped]
    parts = []
    if lost:
        harmed = sum(point.harmed for point in lost)
        parts.append(f"{len(lost)} would have lost with the generated adapter ({harmed} of them more than a point)")
    if won:
        missed = float(np.mean([point.gain for point in won]))
        verb = f"{len(won)} would have gained" + ("" if lost else " with the generated adapter")
        parts.append(f"{verb}, {number(missed, 1)} points{' on average' if len(won) > 1 else ''}")
    same = len(kept) - len(lost) - len(won)
    if same:
        parts.append(f"{same} would have stayed as they were")
    return text + f"{listed(parts)}."


def _worth_sentence(summary: TrustSummary) -> str:
    with_, without = summary.harmed_with, summary.harmed_without
    text = (
        f"More than a point is lost on {percentage(with_.value)}{interval_text(with_.interval)} of all tasks with "
        f"trust and on {percentage(without.value)}{interval_text(without.interval)} without; the mean gain is "
        f"{_points(summary.gain_with)} points with and {_points(summary.gain_without)} without"
    )
    fewer, less = without.value - with_.value, summary.gain_without.value - summary.gain_with.value
    if fewer <= 0 and less >= 0.05:
        return f"{text}: here trust only cost gain."
    if fewer > 0 and less >= 0.05:
        return f"{text}: safety cost {number(less, 1)} points of gain."
    return f"{text}."


def _rank_sentence(points: Sequence[TrustPoint], summary: TrustSummary) -> str:
    area = summary.auroc
    if area is None:
        which = "helped on every" if points[0].helped else "helped on no"
        return f"The generated adapter {which} task, so whether trust tells them apart cannot be seen."
    text = f"Trust is higher where the generated adapter helps than where it does not in {percentage(area.value, 0)}"
    text += f"{interval_text(area.interval, 0)} of pairs of tasks (area under the curve)"
    if area.interval is None:
        return f"{text}; too few tasks for an interval."
    if area.interval[0] > 0.5:
        return f"{text}: it tells them apart."
    return f"{text}: it does not tell them apart." if area.value <= 0.5 else f"{text}: these tasks do not decide it."


def _held_sentence(summary: TrustSummary) -> str:
    held = summary.coverage
    text = (
        f"The intervals, made to hold {percentage(PROMISED, 0)} of the measured gains, hold {percentage(held.value, 0)}"
    )
    text += interval_text(held.interval, 0)
    if held.interval is not None and held.interval[1] < PROMISED:
        return f"{text}: they are too narrow here."
    if held.interval is not None and held.interval[0] > PROMISED:
        return f"{text}: they are wider than they need be."
    return f"{text}."


def trust_table(section: TrustSection) -> DataTable:
    """Every world and split: gain and harm with and without trust, what is kept back, ranking, coverage."""
    lines = trust_lines(section)
    several = len({line.small for line in lines}) > 1
    rows = []
    for line in lines:
        own = line.summary
        small = [line.small if several else "", count(own.tasks, "task")]
        small += [count(own.generators, "generator")] if own.generators > 1 else []
        kept = 1 - own.used_share.value
        cells = (
            Cell(_points(own.gain_without), _range(own.gain_without)),
            Cell(_points(own.gain_with), _range(own.gain_with)),
            _share(own.harmed_without),
            _share(own.harmed_with),
            Cell(percent(kept, 0)),
            Cell("–") if own.auroc is None else Cell(number(own.auroc.value), number_range(own.auroc.interval).strip()),
            _share(own.coverage, 0),
        )
        tone = {"own"} if line.name == "all together" else set()
        rows.append(TableRow(capital(line.name), cells, frozenset(tone), ", ".join(text for text in small if text)))
    columns = (
        "World",
        "Gain without trust, points",
        "Gain with trust, points",
        "Harmed without, %",
        "Harmed with, %",
        "Kept back, %",
        "Area under the curve",
        "Held by intervals, %",
    )
    note = (
        "Harmed: share of all tasks that lose more than a point against the pretrained model. With trust, the "
        "pretrained model is kept below the threshold that was chosen on held-out seen tasks. Area under the curve: "
        "how often trust is higher where the generated adapter helps than where it does not; – where only one of the "
        "two happened. Intervals are 95 % bootstrap intervals over tasks."
    )
    return DataTable("Trust, world by world", columns, tuple(rows), note)


def _points(estimate: Estimate) -> str:
    return signed(number(estimate.value, 1))


def _range(estimate: Estimate) -> str:
    ends = estimate.interval
    return "no interval" if ends is None else f"{signed(number(ends[0], 1))} to {signed(number(ends[1], 1))}"


def _share(estimate: Estimate, digits: int = 1) -> Cell:
    return Cell(percent(estimate.value, digits), percent_range(estimate.interval, digits))
