"""The report's sentences on accuracy: the result, the controls, the seeds. A baseline that wins is the subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wildpdiff.evaluate.results import SummaryRow
from wildpdiff.evaluate.statistics import Difference
from wildpdiff.evaluate.summary import GENERATED, PRETRAINED
from wildpdiff.report.findings import SplitFindings, compare
from wildpdiff.report.wording import capital, count, interval_text, listed, percentage


@dataclass(frozen=True)
class Headline:
    """The result in one sentence; ``winner`` is set in bold."""

    before: str
    winner: str
    after: str

    def __str__(self) -> str:
        return self.before + self.winner + self.after


def split_name(split: str, amount: int) -> str:
    """``30 unseen tasks``; ``24 tasks of a held-out habitat``."""
    return f"{count(amount, 'task')} of a {split}" if split.startswith("held-out ") else count(amount, f"{split} task")


def source_name(row: SummaryRow) -> str:
    """A source as the subject of a sentence."""
    named = {GENERATED: "generated adapters", PRETRAINED: "the pretrained model"}
    return named.get(row.source, row.label) if row.condition in ("own", "none") else row.label


def headline(part: SplitFindings) -> Headline:
    """The result of a split in one sentence."""
    before = f"On {split_name(part.split, len(part.tasks))}, "
    generated, baseline, lead, winner = part.generated, part.baseline, part.lead, part.winner
    if winner is None:
        return Headline(f"{before}only references and sources that use labels were evaluated.", "", "")
    if generated is None or baseline is None or lead is None:
        missing = "the generator" if generated is None else "a baseline"
        after = f" reaches {part.scores.text(winner.accuracy)} {part.metric.name}; {missing} was not evaluated."
        return Headline(before, winner.label, after)
    better = "above" if part.metric.higher_is_better else "better than"
    if winner is generated:
        gain = "" if generated.recovered_gain is None else (
            f" and recover {percentage(generated.recovered_gain, 0)}"
            f"{interval_text(generated.recovered_gain_interval, 0)} of fine-tuning's gain"
        )  # fmt: skip
        reached = f"{part.scores.text(generated.accuracy)} {part.metric.name}{gain}"
        after = f" reach {reached}, {_margin(part, lead)} {better} the best baseline, {source_name(baseline)}."
        return Headline(before, source_name(generated), after)
    reached = f"{part.scores.text(baseline.accuracy)} {part.metric.name}"
    after = f" reaches {reached}, {_margin(part, lead)} {better} generated adapters "
    return Headline(before, source_name(baseline), f"{after}({part.scores.text(generated.accuracy)}).")


def _margin(part: SplitFindings, lead: Difference) -> str:
    """Size and interval of the lead, from the winner's side."""
    interval = lead.interval
    if interval is not None and lead.value < 0:
        interval = (-interval[1], -interval[0])
    return f"{part.scores.size(lead.value)}{part.scores.interval(interval)}{'' if lead.decided else ' (undecided)'}"


def ahead_sentence(part: SplitFindings) -> str | None:
    """The rivals that are ahead of the generator; None without a comparison."""
    rivals = [row for row in part.summary if part.is_rival(row) and part.difference(row) is not None]
    if part.generated is None or not rivals:
        return None
    ahead = [source_name(row) for row in part.ahead if row in rivals]
    names = f": {listed(ahead)}" if ahead else ""
    return f"{len(ahead)} of {count(len(rivals), 'source')} without labels are ahead of the generator{names}."


def control_sentences(part: SplitFindings) -> list[str]:
    """Accuracy with shuffled and with random descriptions, and the difference to the task's own."""
    sentences, own = [], "own − control" if part.metric.higher_is_better else "the lead of its own"
    words = {"shuffled": "descriptions of other tasks", "random": "descriptions mixed from many tasks"}
    for condition, control in words.items():
        row = part.of(GENERATED, condition)
        difference = compare(part, part.generated, row)
        if row is not None and difference is not None:
            unit = part.metric.difference_unit
            lead = f"{part.scores.signed(difference.value)} {unit}{part.scores.interval(difference.interval)}"
            accuracy = part.scores.text(row.accuracy)
            sentences.append(f"Control: with {control}, the same generator reaches {accuracy}; {own} is {lead}.")
    return sentences


def seeds_sentence(part: SplitFindings) -> str | None:
    """Mean accuracy by seed of the generator's training; None for one seed."""
    by_seed: dict[int, list[float]] = {}
    for row in part.rows:
        if (row.source, row.condition) == (GENERATED, "own") and row.generator_seed is not None:
            by_seed.setdefault(row.generator_seed, []).append(row.accuracy)
    if len(by_seed) < 2:
        return None
    means = [part.scores.text(float(np.mean(values))) for _, values in sorted(by_seed.items())]
    return f"{capital(part.metric.name)} by seed of the generator's training: {listed(means)}."
