"""What the numbers say, as sentences: the headline, the winner, the control. Nothing is assumed to win."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wildpdiff.evaluate.results import ResultRow, Results, SummaryRow
from wildpdiff.evaluate.statistics import Difference, paired_difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED, accuracy_per_task

__all__ = [
    "Headline",
    "SplitFindings",
    "compare",
    "findings",
    "headline",
    "percent",
    "percentage",
    "points",
    "signed_points",
]

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class SplitFindings:
    """One suite and split of the results, with accuracies per task and who won.

    Attributes:
        suite, split: which.
        summary: its lines of the table.
        rows: its scores.
        accuracy: accuracy per task (mean over samples and seeds) by source and condition.
        tasks: names, sorted by the accuracy of the pretrained model.
        generated: the generator's line, where there is one.
        baseline: the best line that is neither the generator's nor fine-tuning's nor a control's. The pretrained
            model counts: a source that does not beat it is of no use.
        winner: the better of the two.
        lead: generated − baseline over the tasks both have; None where either is missing.
    """

    suite: str
    split: str
    summary: tuple[SummaryRow, ...]
    rows: tuple[ResultRow, ...]
    accuracy: dict[tuple[str, str], dict[str, float]]
    tasks: tuple[str, ...]
    generated: SummaryRow | None
    baseline: SummaryRow | None
    winner: SummaryRow | None
    lead: Difference | None

    def of(self, source: str, condition: str = "own") -> SummaryRow | None:
        """The line of a source; the references and sources without a description count under any condition."""
        for row in self.summary:
            if row.source == source and (row.condition == condition or (condition, row.condition) == ("own", "none")):
                return row
        return None

    def per_task(self, row: SummaryRow) -> dict[str, float]:
        """Accuracy per task of a line of the table."""
        return self.accuracy[row.source, row.condition]


@dataclass(frozen=True)
class Headline:
    """The result in one sentence; ``winner`` is set in bold."""

    before: str
    winner: str
    after: str

    def __str__(self) -> str:
        return self.before + self.winner + self.after


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a number of percent, without the sign %."""
    text = f"{100 * value:.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


def percentage(value: float, digits: int = 1) -> str:
    """A fraction in percent with the sign, which never starts a line of its own."""
    return f"{percent(value, digits)}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    """The size of a difference of accuracies, in points."""
    return f"{percent(abs(value))} points"


def signed_points(value: float) -> str:
    """A difference of accuracies in points, with its sign."""
    text = percent(value)
    return text if text.startswith(MINUS) or text == "0.0" else f"+{text}"


def interval_text(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """An interval of fractions in percent, with a leading space, or nothing."""
    return f" [{percent(interval[0], digits)}, {percent(interval[1], digits)}]" if interval else ""


def compare(part: SplitFindings, a: SummaryRow | None, b: SummaryRow | None) -> Difference | None:
    """Paired difference of two lines over the tasks that both have."""
    if a is None or b is None:
        return None
    first, second = part.per_task(a), part.per_task(b)
    shared = [task for task in first if task in second]
    if not shared:
        return None
    return paired_difference(np.array([first[task] for task in shared]), np.array([second[task] for task in shared]))


def findings(results: Results) -> list[SplitFindings]:
    """One entry for each suite and split, in the order of the summary."""
    places = dict.fromkeys((row.suite, row.split) for row in results.summary)
    return [_split_findings(results, suite, split) for suite, split in places]


def _split_findings(results: Results, suite: str, split: str) -> SplitFindings:
    summary = tuple(row for row in results.summary if (row.suite, row.split) == (suite, split))
    rows = tuple(row for row in results.rows if (row.suite, row.split) == (suite, split))
    accuracy: dict[tuple[str, str], dict[str, float]] = {
        (line.source, line.condition): accuracy_per_task(
            rows, suite=suite, split=split, source=line.source, condition=line.condition
        )
        for line in summary
    }
    order = next((table for (source, _), table in accuracy.items() if source == PRETRAINED), {})
    names = dict.fromkeys(row.task for row in rows)
    tasks = tuple(sorted(names, key=lambda task: (order.get(task, 0.0), task)))
    generated = next((line for line in summary if (line.source, line.condition) == (GENERATED, "own")), None)
    rivals = [line for line in summary if line.source not in (GENERATED, FINETUNED) and line.condition != "shuffled"]
    baseline = max(rivals, key=lambda line: line.accuracy, default=None)
    competing = [line for line in (generated, baseline) if line is not None]
    part = SplitFindings(
        suite=suite,
        split=split,
        summary=summary,
        rows=rows,
        accuracy=accuracy,
        tasks=tasks,
        generated=generated,
        baseline=baseline,
        winner=max(competing, key=lambda line: line.accuracy, default=None),
        lead=None,
    )
    return SplitFindings(**{**vars(part), "lead": compare(part, generated, baseline)})


def count(number: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def source_name(line: SummaryRow) -> str:
    """A source as the subject of a sentence."""
    named = {GENERATED: "generated adapters", PRETRAINED: "the pretrained model without any adapter"}
    return named.get(line.source, line.label)


def gain_sentence(line: SummaryRow) -> str:
    """What a line recovers of fine-tuning's gain, as the end of a sentence."""
    if line.recovered_gain is None:
        return "no share of fine-tuning's gain can be given"
    interval = interval_text(line.recovered_gain_interval, 0)
    verb = "recover" if line.recovered_gain >= 0 else "fall below the pretrained model: they recover"
    return f"{verb} {percentage(line.recovered_gain, 0)}{interval} of fine-tuning's gain"


def headline(part: SplitFindings) -> Headline:
    """The result of a split in one or two sentences; names a baseline as the winner where it is one."""
    place = f"On {count(len(part.tasks), f'{part.split} task')}, "
    generated, baseline, lead = part.generated, part.baseline, part.lead
    if part.winner is None:
        return Headline(f"{place}no source but the reference was evaluated.", "", "")
    if generated is None or baseline is None or lead is None:
        missing = "the generator" if generated is None else "a baseline"
        after = f" reaches {percentage(part.winner.accuracy)} accuracy; {missing} was not evaluated."
        return Headline(place, part.winner.label, after)
    margin = f"{points(lead.value)}{interval_text(_absolute(lead))}"
    open_question = "" if lead.decided else f", a difference that {_deciders(lead)} not decide"
    if part.winner is generated:
        labels = ", without a label of those tasks" if part.split == "unseen" else ""
        after = (
            f" reach {percentage(generated.accuracy)} accuracy and {gain_sentence(generated)}{labels}: "
            f"{margin} above the best baseline, {source_name(baseline)}{open_question}."
        )
        return Headline(place, source_name(generated), after)
    after = (
        f" is ahead of the generator: {percentage(baseline.accuracy)} accuracy against "
        f"{percentage(generated.accuracy)}, a lead of {margin}{open_question}. "
        f"Generated adapters {gain_sentence(generated)}."
    )
    return Headline(place, source_name(baseline), after)


def _deciders(difference: Difference) -> str:
    return "one task does" if difference.tasks == 1 else "these tasks do"


def _absolute(lead: Difference) -> tuple[float, float] | None:
    """The interval of the lead, turned so that it reads as the winner's."""
    if lead.interval is None or lead.value >= 0:
        return lead.interval
    return (-lead.interval[1], -lead.interval[0])


def control_sentence(part: SplitFindings) -> str | None:
    """What the description contributes: own against shuffled conditions."""
    control = part.of(GENERATED, "shuffled")
    difference = compare(part, part.generated, control)
    if control is None or difference is None:
        return None
    size = f"{signed_points(difference.value)} points{interval_text(difference.interval)}"
    if difference.decided and difference.value > 0:
        verdict = "the generator uses what it is told"
    elif difference.decided:
        verdict = "the right description does harm, so the condition is not understood"
    else:
        verdict = f"{_deciders(difference)} not show that the description is used"
    return (
        f"Control: with the descriptions of other tasks the same generator reaches {percentage(control.accuracy)}. "
        f"The right description is worth {size}: {verdict}."
    )


def seeds_sentence(part: SplitFindings) -> str | None:
    """How much trained generators differ: mean accuracy for each generator seed."""
    by_seed: dict[int, list[ResultRow]] = {}
    for row in part.rows:
        if (row.source, row.condition) == (GENERATED, "own") and row.generator_seed is not None:
            by_seed.setdefault(row.generator_seed, []).append(row)
    if len(by_seed) < 2:
        return None
    means = ", ".join(
        f"{percentage(float(np.mean([row.accuracy for row in rows])))}" for _, rows in sorted(by_seed.items())
    )
    return f"Trained with {len(by_seed)} seeds, the generator reaches {means}."
