"""What a model of trust says of one generated adapter: numbers, reasons in words, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wildpdiff.trust.gain import GainPrediction
from wildpdiff.trust.space import DescriptionSpace, Novelty

FAR = 0.95
"""Percentile from which a factor is told of as far."""


@dataclass(frozen=True)
class HeldOutSummary:
    """What the calibration measured on seen tasks while they were held out. Gains are in points.

    Attributes:
        tasks: how many seen tasks were held out.
        images: labelled images a task, the median.
        random_gain: mean gain where random tasks were held out.
        group_gain: mean gain where groups of like tasks were; None where there were none.
        helped: share of the tasks, in random folds, whose accuracy rose.
        harmed: share of them that lost more than one point.
        coverage: share of all held-out tasks whose gain lies in the interval predicted without them.
        over_shuffled: by how many points generated adapters were ahead of those generated for the description of
            another task, in random folds, and the 95 % interval of it.
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
    def tells(self) -> bool:
        """Whether descriptions were shown to matter: adapters for another task's description are worse."""
        return self.over_shuffled[1] > 0

    def most(self, trust: float) -> float:
        """The trust that may be had: none where descriptions were not shown to matter to what is generated."""
        return trust if self.tells else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "over_shuffled": list(self.over_shuffled)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeldOutSummary:
        """The inverse of :meth:`to_json`."""
        return cls(**{**data, "over_shuffled": tuple(data["over_shuffled"])})


@dataclass(frozen=True)
class TrustReport:
    """How far a generated adapter may be relied on. Gains are in points of accuracy against the pretrained model.

    Attributes:
        trust: calibrated probability that the generated adapter beats the pretrained model on the task, 0 to 1; 0
            where descriptions were not shown to matter to what is generated, and where a site or a number lies outside
            of all that was seen.
        gain: expected gain.
        low, high: its 90 % interval (conformal, over held-out seen tasks).
        min_trust: below this the pretrained model is to be kept.
        basis: what could be looked at: ``examples``, ``backgrounds`` or the ``description`` alone.
        evidence: named numbers that the prediction read.
        reasons: sentences, the weightiest first.
        recommendation: one sentence.
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
        return {**vars(self), "evidence": dict(self.evidence), "reasons": list(self.reasons),
                "use": "generated" if self.use_generated else "pretrained"}  # fmt: skip

    @property
    def provenance(self) -> dict[str, Any]:
        """What an adapter's provenance keeps of it."""
        return {
            "value": round(self.trust, 4),
            "min_trust": round(self.min_trust, 4),
            "gain_points": round(self.gain, 2),
            "interval_points": [round(self.low, 2), round(self.high, 2)],
            "basis": self.basis,
            "use": "generated" if self.use_generated else "pretrained",
            "recommendation": self.recommendation,
        }


def recommendation(trust: float, min_trust: float, prediction: GainPrediction, outside: Sequence[str] = ()) -> str:
    """What to do, in one sentence; ``outside`` names what lies outside of all that was seen."""
    span = f"{100 * prediction.low:+.1f} to {100 * prediction.high:+.1f} points"
    if outside:
        named = _listed([name.replace("_", " ") for name in outside])
        return (
            f"Check the {named} of the description, or keep the pretrained model: so far from every seen task nothing "
            "is known of a generated adapter."
        )
    if trust >= min_trust:
        return f"Use the generated adapter: it beats the pretrained model with probability {trust:.2f} ({span})."
    if trust >= 0.5:
        return (
            f"Keep the pretrained model: that the generated adapter beats it has probability {trust:.2f} only, "
            f"{min_trust:.2f} is asked for ({span})."
        )
    return f"Keep the pretrained model: the generated adapter would hardly beat it (probability {trust:.2f}, {span})."


def reasons(
    novelty: Novelty, space: DescriptionSpace, evidence: Mapping[str, float], held_out: HeldOutSummary
) -> tuple[str, ...]:
    """What speaks for and against, in words: what is unknown, what is far, what is missing, what changes."""
    found = [f"{name} {value!r} was in no seen task" for name, value in novelty.unknown.items()]
    if not held_out.tells:
        ahead, low, high = held_out.over_shuffled
        found.insert(
            0,
            "descriptions were not shown to matter: on held-out seen tasks adapters for their own description were "
            f"{ahead:+.1f} points [{low:+.1f}, {high:+.1f}] ahead of adapters for another task's, so none is trusted",
        )
    far = {
        name: share
        for name, share in novelty.percentiles.items()
        if share >= FAR and name not in novelty.unknown and name != "overall"
    }
    for name, share in sorted(far.items(), key=lambda item: -item[1] * space.weights[item[0]]):
        kind = next(factor.kind for factor in space.factors if factor.name == name)
        if name in novelty.outside:
            found.insert(0, f"the {name.replace('_', ' ')} lies far outside of all that was seen")
        elif kind == "images":
            found.append(f"the {name} look less like those of the seen tasks than {_percent(share)} of these do")
        else:
            found.append(f"the {name.replace('_', ' ')} lies farther from the seen ones than {_percent(share)} of them")
    overall = novelty.percentiles["overall"]
    if not (novelty.unknown or far) and overall >= FAR:
        found.append(f"this combination lies farther from the seen ones than {_percent(overall)} of them")
    missing = sorted(novelty.missing, key=lambda name: -space.weights[name])
    if missing:
        found.append(f"nothing is told of {_listed([name.replace('_', ' ') for name in missing[:4]])}")
    if not (novelty.unknown or far or missing) and overall < FAR:
        found.append("the description lies well among the seen ones")
    if "changed" in evidence:
        found.append(f"the adapter changes {100 * evidence['changed']:.0f} % of the predictions on the images given")
    if evidence.get("samples_disagree", 0.0) > 0.05:
        found.append(f"samples disagree on {100 * evidence['samples_disagree']:.0f} % of the images")
    found.append(
        f"held-out seen tasks gained {held_out.random_gain:+.1f} points on average; {held_out.helped:.0%} gained, "
        f"{held_out.harmed:.0%} lost more than a point"
    )
    if held_out.group_gain is not None and (novelty.unknown or overall >= FAR):
        found.append(f"where whole groups of like tasks were held out, the gain was {held_out.group_gain:+.1f} points")
    return tuple(found)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 else "all"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
