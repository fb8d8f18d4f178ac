"""The report's sentences on accuracy: headline, controls, seeds, labels. Nothing is assumed to win."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wildpdiff.evaluate.results import ResultRow, SummaryRow
from wildpdiff.evaluate.statistics import Difference
from wildpdiff.evaluate.summary import FINETUNED, GENERATED, PRETRAINED
from wildpdiff.report.findings import OWN_SAMPLES, TIE, SplitFindings, compare
from wildpdiff.report.wording import (
    count,
    interval_text,
    listed,
    percentage,
    points,
    signed_points,
)


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
    if split.startswith("held-out "):
        return f"{count(amount, 'task')} of a {split}"
    return count(amount, f"{split} task")


def source_name(line: SummaryRow) -> str:
    """A source as the subject of a sentence."""
    named = {GENERATED: "generated adapters", PRETRAINED: "the pretrained model without any adapter"}
    return named.get(line.source, line.label) if line.condition in ("own", "none") else line.label


def headline(part: SplitFindings) -> Headline:
    """The result of a split in one or two sentences; names a baseline as the winner where it is one."""
    place = f"On {split_name(part.split, len(part.tasks))}, "
    generated, baseline, lead = part.generated, part.baseline, part.lead
    if part.winner is None:
        return Headline(f"{place}no source but references and those that use labels was evaluated.", "", "")
    if generated is None or baseline is None or lead is None:
        missing = "the generator" if generated is None else "a baseline"
        after = f" reaches {percentage(part.winner.accuracy)} accuracy; {missing} was not evaluated."
        return Headline(place, part.winner.label, after)
    margin = f"{points(lead.value)}{interval_text(_absolute(lead))}"
    open_question = "" if lead.decided else f", a difference that {_deciders(lead)} not decide"
    images = (
        ", which is given the task's unlabelled images beside the description"
        if part.family(baseline) == "unlabelled images"
        else ""
    )
    if part.winner is generated:
        labels = "" if part.split == "seen" else ", without a label of those tasks"
        after = (
            f" reach {percentage(generated.accuracy)} accuracy and {_gain_sentence(generated)}{labels}: "
            f"{margin} above the best baseline, {source_name(baseline)}{images}{open_question}."
        )
        return Headline(place, source_name(generated), after)
    after = (
        f"{images}{',' if images else ''} is ahead of the generator: {percentage(baseline.accuracy)} accuracy against "
        f"{percentage(generated.accuracy)}, a lead of {margin}{open_question}. "
        f"Generated adapters {_gain_sentence(generated)}."
    )
    return Headline(place, source_name(baseline), after)


def _gain_sentence(line: SummaryRow) -> str:
    """What a line recovers of fine-tuning's gain, as the end of a sentence."""
    if line.recovered_gain is None:
        return "no share of fine-tuning's gain can be given"
    interval = interval_text(line.recovered_gain_interval, 0)
    verb = "recover" if line.recovered_gain >= 0 else "fall below the pretrained model: they recover"
    return f"{verb} {percentage(line.recovered_gain, 0)}{interval} of fine-tuning's gain"


def _deciders(difference: Difference) -> str:
    return "one task does" if difference.tasks == 1 else "these tasks do"


def _absolute(lead: Difference) -> tuple[float, float] | None:
    """The interval of the lead, turned so that it reads as the winner's."""
    if lead.interval is None or lead.value >= 0:
        return lead.interval
    return (-lead.interval[1], -lead.interval[0])


def ahead_sentence(part: SplitFindings) -> str | None:
    """Which of the rivals are ahead of the generator, and whether the tasks decide it; None without a comparison."""
    rivals = [row for row in part.summary if part.is_rival(row) and part.difference(row) is not None]
    if part.generated is None or not rivals:
        return None
    ahead = [row for row in part.ahead if part.is_rival(row)]
    if not ahead:
        return f"None of the {count(len(rivals), 'source')} without labels is ahead of the generator."
    told = listed([f"{source_name(row)} ({_decision(part, row)})" for row in ahead])
    verb = "is" if len(ahead) == 1 else "are"
    return f"Ahead of the generator without labels {verb} {len(ahead)} of {len(rivals)} sources: {told}."


def _decision(part: SplitFindings, row: SummaryRow) -> str:
    difference = part.differences[row.source, row.condition]
    return f"by {points(difference.value)}" + ("" if difference.decided else ", undecided")


def labels_sentence(part: SplitFindings) -> str | None:
    """How sources that use the task's labels compare; they are no rivals, and are told apart from them."""
    lines = [
        row
        for row in part.summary
        if (part.family(row) == "labels" or row.source == FINETUNED) and row.source not in OWN_SAMPLES
    ]
    told = [(row, part.difference(row)) for row in lines]
    known = [(row, difference) for row, difference in told if difference is not None]
    if not known:
        return None
    ahead = [f"{row.label} (+{points(difference.value)})" for row, difference in known if part.is_ahead(row)]
    behind = [row.label for row, _ in known if not part.is_ahead(row)]
    sentences = []
    if ahead:
        sentences.append(f"ahead of the generator: {listed(ahead)}")
    if behind:
        sentences.append(f"not ahead of it: {listed(behind)}")
    return f"With labels of the task, which the generator does without, {'; '.join(sentences)}."


def samples_sentence(part: SplitFindings) -> str | None:
    """Which of the generator's own posterior samples, however chosen, is ahead of its estimate; None where none is."""
    known = [(row, part.difference(row)) for row in part.ahead if row.source in OWN_SAMPLES]
    named = [f"{row.label} (+{points(difference.value)})" for row, difference in known if difference is not None]
    return f"Of the generator's own samples, ahead of its estimate: {listed(named)}." if named else None


def table_sentences(part: SplitFindings) -> list[str]:
    """What stands below a table, in order."""
    found = (ahead_sentence(part), samples_sentence(part), finetuned_sentence(part), labels_sentence(part))
    return [sentence for sentence in found if sentence]


def finetuned_sentence(part: SplitFindings) -> str | None:
    """Which sources without labels of the task pass the adapters fine-tuned on them, and why; None where none does."""
    finetuned = part.of(FINETUNED)
    if finetuned is None:
        return None
    lines = [row for row in part.summary if part.is_rival(row) or row is part.generated]
    found = [(row, compare(part, row, finetuned)) for row in lines]
    ahead = [(row, lead) for row, lead in found if lead is not None and lead.value > TIE]
    if not ahead:
        return None
    ahead.sort(key=lambda entry: -entry[1].value)
    names = listed(
        [f"{source_name(row)} (by {points(lead.value)}{'' if lead.decided else ', undecided'})" for row, lead in ahead]
    )
    return (
        f"Fine-tuned adapters are no ceiling here: without a label of the task they are passed by {names}. An adapter "
        "fine-tuned on the few labels of one task also learns their chance errors, which sources that learn from all "
        "seen tasks average out."
    )


def control_sentences(part: SplitFindings) -> list[str]:
    """What the description contributes: own against shuffled and against random conditions."""
    sentences = []
    what = {
        "shuffled": "with the descriptions of other tasks",
        "random": "with descriptions put together from parts of many tasks",
    }
    for condition, words in what.items():
        control = part.of(GENERATED, condition)
        difference = compare(part, part.generated, control)
        if control is None or difference is None:
            continue
        size = f"{signed_points(difference.value)} points{interval_text(difference.interval)}"
        if difference.decided and difference.value > 0:
            verdict = "the generator uses what it is told"
        elif difference.decided:
            verdict = "the right description does harm, so the condition is not understood"
        else:
            verdict = f"{_deciders(difference)} not show that the description is used"
        sentences.append(
            f"Control: {words} the same generator reaches {percentage(control.accuracy)}. "
            f"The right description is worth {size}: {verdict}."
        )
    return sentences


def seeds_sentence(part: SplitFindings) -> str | None:
    """How much trained generators differ: mean accuracy for each generator seed."""
    by_seed: dict[int, list[ResultRow]] = {}
    for row in part.rows:
        if (row.source, row.condition) == (GENERATED, "own") and row.generator_seed is not None:
            by_seed.setdefault(row.generator_seed, []).append(row)
    if len(by_seed) < 2:
        return None
    means = [percentage(_mean(rows)) for _, rows in sorted(by_seed.items())]
    return f"Trained with {len(by_seed)} seeds, the generator reaches {listed(means)}."


def _mean(rows: Sequence[ResultRow]) -> float:
    return float(np.mean([row.accuracy for row in rows]))
