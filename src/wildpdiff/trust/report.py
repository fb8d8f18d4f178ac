"""Report on one task's generated adapters: numbers, reasons in words, and a recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wildpdiff.records import encode
from wildpdiff.trust.gain import GainPrediction
from wildpdiff.trust.space import DescriptionSpace, Novelty

FAR = 0.95
"""Percentile from which a factor is reported as far."""


@dataclass(frozen=True)
class HeldOutSummary:
    """Measurements of the calibration on held-out seen tasks. Gains are in points.

    Attributes:
        tasks: number of seen tasks held out.
        images: labelled images a task, the median.
        random_gain: mean gain where random tasks were held out.
        group_gain: mean gain where groups of like tasks were; None where there were none.
        helped: share of the tasks, in random folds, whose accuracy rose.
        harmed: share of them that lost more than one point.
        coverage: share of all held-out tasks whose gain lies in the interval predicted without them.
        over_shuffled: lead of generated adapters over those generated for the description of another task, in random
            folds, and its 95 % interval.
    """

    tasks: int
    images: int
    random_gain: float
    group_gain: float | None
    helped: float
    harmed: float
    coverage: float
    over_shuffled: tuple[float, float, float]

    @property
    def descriptions_matter(self) -> bool:
        """Whether descriptions matter: adapters for another task's description are significantly worse."""
        return self.over_shuffled[1] > 0


@dataclass(frozen=True)
class TrustReport:
    """Trust in the generated adapters of one task. Gains against the pretrained model are in points.

    A point is one of accuracy, or for a metric without bounds a hundredth of the pretrained model's mean score.

    Attributes:
        trust: calibrated probability that the generated adapter beats the pretrained model on the task, 0 to 1; 0
            where descriptions were not shown to matter, and where a site or a number lies outside the seen range.
        low, high: its 90 % interval (conformal, over held-out seen tasks).
        min_trust: threshold below which the pretrained model is to be kept.
        basis: available evidence: ``examples``, ``backgrounds`` or the ``description`` alone.
        reasons: sentences, the weightiest first.
    """

    trust: float
    gain: float
    low: float
    high: float
    min_trust: float
    basis: str
    evidence: Mapping[str, float]
    reasons: tuple[str, ...]
    recommendation: str

    @property
    def use_generated(self) -> bool:
        """Whether the generated adapter is recommended; otherwise the pretrained model is."""
        return self.trust >= self.min_trust

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**encode(self), "use": self._use}

    @property
    def provenance(self) -> dict[str, Any]:
        """Entry for the provenance of an adapter."""
        return {
            "value": round(self.trust, 4),
            "min_trust": round(self.min_trust, 4),
            "gain_points": round(self.gain, 2),
            "interval_points": [round(self.low, 2), round(self.high, 2)],
            "basis": self.basis,
            "use": self._use,
            "recommendation": self.recommendation,
        }

    @property
    def _use(self) -> str:
        return "generated" if self.use_generated else "pretrained"


def recommendation(trust: float, min_trust: float, prediction: GainPrediction, outside: Sequence[str] = ()) -> str:
    """One sentence; ``outside`` are the names of factors outside the seen range."""
    if outside:
        return (
            f"Check the {_listed(outside)} of the description, or keep the pretrained model: so far from every seen "
            "task nothing is known of a generated adapter."
        )
    odds = f"probability {trust:.2f} ({100 * prediction.low:+.1f} to {100 * prediction.high:+.1f} points)"
    if trust >= min_trust:
        return f"Use the generated adapter: it beats the pretrained model with {odds}."
    return f"Keep the pretrained model: the generated adapter beats it with {odds}, below the {min_trust:.2f} required."


def reasons(
    novelty: Novelty, space: DescriptionSpace, evidence: Mapping[str, float], held_out: HeldOutSummary
) -> tuple[str, ...]:
    """Sentences on unknown, far and missing factors, on changed predictions, and on held-out gains."""
    overall = novelty.percentiles["overall"]
    kinds = {factor.name: factor.kind for factor in space.factors}
    far = [name for name in kinds if novelty.percentiles.get(name, 0.0) >= FAR and name not in novelty.unknown]
    far.sort(key=lambda name: -novelty.percentiles[name] * space.weights[name])
    missing = sorted(novelty.missing, key=lambda name: -space.weights[name])
    found = [f"the {_plain(name)} lies far outside the range of the seen tasks" for name in novelty.outside]
    if not held_out.descriptions_matter:
        ahead, low, high = held_out.over_shuffled
        found.append(
            "descriptions were not shown to matter: on held-out seen tasks adapters for their own description were "
            f"{ahead:+.1f} points [{low:+.1f}, {high:+.1f}] ahead of adapters for another task's, so none is trusted"
        )
    found += [f"{name} {value!r} was in no seen task" for name, value in novelty.unknown.items()]
    for name in far:
        share = _percent(novelty.percentiles[name])
        if kinds[name] == "images":
            found.append(f"the {name} are less like those of the seen tasks than {share} of these are")
        elif name not in novelty.outside:
            found.append(f"the {_plain(name)} lies farther from the seen ones than {share} of them")
    if not (novelty.unknown or far) and overall >= FAR:
        found.append(f"this combination lies farther from the seen ones than {_percent(overall)} of them")
    if missing:
        found.append(f"the description lacks {_listed(missing[:4])}")
    if not (novelty.unknown or far or missing) and overall < FAR:
        found.append("the description lies well among the seen ones")
    if "changed" in evidence and "confidence_change" in evidence:
        found.append(f"the adapter changes {100 * evidence['changed']:.0f} % of the predictions on the examples given")
    elif "changed" in evidence:
        found.append(f"the adapter changes the outputs by {100 * evidence['changed']:.0f} % of their spread")
    if evidence.get("samples_disagree", 0.0) > 0.05:
        found.append(f"samples disagree on {100 * evidence['samples_disagree']:.0f} % of the examples")
    found.append(
        f"held-out seen tasks gained {held_out.random_gain:+.1f} points on average; {held_out.helped:.0%} gained, "
        f"{held_out.harmed:.0%} lost more than a point"
    )
    if held_out.group_gain is not None and (novelty.unknown or overall >= FAR):
        found.append(f"where whole groups of like tasks were held out, the gain was {held_out.group_gain:+.1f} points")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 else "all"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _listed(names: Sequence[str]) -> str:
    *others, last = [_plain(name) for name in names]
    return f"{', '.join(others)} and {last}" if others else last
