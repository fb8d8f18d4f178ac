"""Targets on unseen tasks, row by row, against the results of the variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wildbench.report.wording import number_range
from wildbench.trust_summary import summarise_trust, summarise_worlds
from wildpdiff.evaluate.results import Results, TrustPoint
from wildpdiff.evaluate.statistics import Estimate, recovered_gain
from wildpdiff.evaluate.summary import GENERATED, PRETRAINED
from wildpdiff.report.findings import SplitFindings, findings
from wildpdiff.report.wording import (
    count,
    interval_text,
    listed,
    number,
    percentage,
    signed,
    signed_points,
)

RIVALS = ("multi-task adapter with description", "hypernetwork, task loss", "top-K merge", "nearest task")
KERNELS = ("kernel ridge regression", "additive kernel regression")
REFINED = "generated, refined on 5 labels a class"
FEW = "fine-tuned, "
LABELS_A_CLASS = " labels a class"


@dataclass(frozen=True)
class Target:
    """A requirement on the study's results, with its verdict.

    Attributes:
        what: the variant or the property.
        required: the target in words; empty where a row is for comparison only.
        measured: what was measured, in words.
        met: whether it is reached; None without a target or where it was not measured.
    """

    what: str
    required: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``not measured``, or nothing where no target was set."""
        if self.met is None:
            return "not measured" if self.required else ""
        return "met" if self.met else "missed"


def judge_variants(found: Mapping[str, Results]) -> tuple[Target, ...]:
    """Every row, in a fixed order, judged by these variants; rows of missing variants are not measured.

    Args:
        found: results by the name of the variant.
    """
    both, points = _split(found.get("both"), "unseen"), _points(found)
    held_out = found.get("extrapolation")
    return (
        _gain("both: recovered gain on unseen tasks", 0.95, both),
        *(_against_kernel(name, both) for name in KERNELS),
        _rivals(both),
        _gain("metadata only: recovered gain", None, _split(found.get("metadata only"), "unseen")),
        _gain("backgrounds only: recovered gain", 0.60, _split(found.get("backgrounds only"), "unseen")),
        _extrapolation("habitat", held_out, judged=True),
        *(_extrapolation(kind, held_out, judged=False) for kind in ("region", "camera_model")),
        _shuffled(both),
        *_no_information(_split(found.get("no information"), "unseen"), _of(points, "no information")),
        _ranking(points),
        _coverage(points),
        _selective_use(points),
        _few_labels(both),
    )


def _split(results: Results | None, split: str) -> SplitFindings | None:
    """One split of a variant; None where it was not measured or no generator took part."""
    if results is None:
        return None
    part = next((entry for entry in findings(results) if entry.split == split), None)
    return part if part is not None and part.generated is not None else None


def _points(found: Mapping[str, Results]) -> list[TrustPoint]:
    """Trust on all tasks that no generator was fitted to."""
    kept = [results.trust.points for results in found.values() if results.trust is not None]
    return [point for part in kept for point in part if point.split != "seen"]


def _of(points: Sequence[TrustPoint], variant: str) -> list[TrustPoint]:
    return [point for point in points if point.world == variant]


def _missing(what: str, required: str, why: str = "this variant was not run") -> Target:
    return Target(what, required, f"not measured: {why}", None)


NO_TRUST = "no trust was assessed"


def _basis(part: SplitFindings) -> str:
    line = part.generated
    seeds = 0 if line is None else line.seeds
    return f"{count(len(part.tasks), 'task')}, {count(seeds, 'generator')}"


def _gain_text(part: SplitFindings) -> str:
    line = part.generated
    if line is None or line.recovered_gain is None:
        return "fine-tuning gains nothing here, so there is no gain to recover"
    return f"{percentage(line.recovered_gain, 0)}{interval_text(line.recovered_gain_interval, 0)} ({_basis(part)})"


def _gain(what: str, least: float | None, part: SplitFindings | None) -> Target:
    required = "" if least is None else f"at least {percentage(least, 0)}"
    if part is None or part.generated is None:
        return _missing(what, required)
    value = part.generated.recovered_gain
    return Target(what, required, _gain_text(part), None if least is None or value is None else value >= least)


def _against_kernel(name: str, part: SplitFindings | None) -> Target:
    what, required = f"both: generated {_DASH} {name}", "paired interval not below zero"
    line = None if part is None else part.of(name)
    lead = None if part is None or line is None else part.difference(line)
    if lead is None:
        return _missing(what, required)
    text = f"{signed_points(lead.value)} points{_signed_interval(lead.interval)}; "
    text += f"better on {lead.wins}, worse on {lead.losses} of {count(lead.tasks, 'task')}"
    return Target(what, required, text, None if lead.interval is None else lead.interval[1] >= 0)


def _rivals(part: SplitFindings | None) -> Target:
    what, required = "both: generated against what else reads the description", f"above {listed(RIVALS)}"
    lines = {} if part is None else {name: part.of(name) for name in RIVALS}
    leads = {
        name: lead
        for name, line in lines.items()
        if part is not None and line is not None and (lead := part.difference(line)) is not None
    }
    if len(leads) < len(RIVALS):
        return _missing(what, required, "not every rival was scored")
    parts = [f"{name} {signed_points(lead.value)}{_signed_interval(lead.interval)}" for name, lead in leads.items()]
    text = f"points ahead of {'; '.join(parts)}"
    return Target(what, required, text, all(lead.value > 0 for lead in leads.values()))


def _extrapolation(kind: str, results: Results | None, judged: bool) -> Target:
    what = f"extrapolation: a {kind.replace('_', ' ')} never seen"
    target = "recovered gain at least 40 %, or trust abstains on at least 90 % of the tasks" if judged else ""
    part = _split(results, f"held-out {kind}")
    if part is None or part.generated is None or results is None:
        return _missing(what, target, "it was not held out")
    points = [point for point in _points({"": results}) if point.split == part.split]
    text, refused = _gain_text(part), False
    if points:
        summary = summarise_trust(points)
        refused = summary.used_share.value <= 0.1
        text += f"; trust abstains on {percentage(1 - summary.used_share.value, 0)}, and with it "
        text += f"{_points_text(summary.gain_with)} points are gained, without {_points_text(summary.gain_without)}"
    else:
        text += f"; {NO_TRUST}"
    value = part.generated.recovered_gain
    return Target(what, target, text, (refused or (value is not None and value >= 0.4)) if judged else None)


def _shuffled(part: SplitFindings | None) -> Target:
    what, required = "both: gain with shuffled descriptions", "at most 30 % of the unshuffled gain"
    lines = [] if part is None else [part.of(GENERATED, "shuffled"), part.of(PRETRAINED), part.generated]
    columns = None if part is None else part.columns(lines)
    if columns is None:
        return _missing(what, required)
    share = recovered_gain(*columns.accuracy)
    if share.value is None:
        text = "the generator gains nothing with the tasks' own descriptions, so there is no share of it"
        return Target(what, required, text, None)
    return Target(what, required, f"{percentage(share.value, 0)}{interval_text(share.interval, 0)}", share.value <= 0.3)


def _no_information(part: SplitFindings | None, points: Sequence[TrustPoint]) -> tuple[Target, Target]:
    first = ("no information: generated with trust, against pretrained", "within 0.5 points")
    second = ("no information: tasks with trust below its threshold", "at least 90 %")
    if part is None:
        return _missing(*first), _missing(*second)
    raw = _without_trust(part)
    if not points:
        return _missing(*first, f"{NO_TRUST}; {raw}"), _missing(*second, NO_TRUST)
    summary = summarise_trust(points)
    abstained = 1 - summary.used_share.value
    text = f"{_points_text(summary.gain_with)} points{_point_range(summary.gain_with)}; {raw}"
    low = summary.used_share
    ends = None if low.interval is None else (1 - low.interval[1], 1 - low.interval[0])
    share = f"{percentage(abstained, 0)}{interval_text(ends, 0)} of {count(summary.tasks, 'task')}"
    return (
        Target(*first, text, abs(summary.gain_with.value) <= 0.5),
        Target(*second, share, abstained >= 0.9 - _ROUNDING),
    )


def _without_trust(part: SplitFindings) -> str:
    """Gains of the generator and of the mean of the seen adapters, which needs no description, without trust."""
    line, mean = part.of(PRETRAINED), part.of("mean adapter")
    lead = None if line is None else part.difference(line)
    if line is None or lead is None:
        return _gain_text(part)
    text = f"{signed_points(lead.value)} points without trust"
    return text if mean is None else f"{text}, mean adapter {signed_points(mean.accuracy - line.accuracy)}"


def _ranking(points: Sequence[TrustPoint]) -> Target:
    what, required = 'trust: area under the curve for "generated beats pretrained", all variants', "at least 0.85"
    if not points:
        return _missing(what, required, NO_TRUST)
    area = summarise_trust(points).auroc
    if area is None:
        return _missing(what, required, "the generated adapter helped on all tasks, or on none")
    inside = {variant: entry.auroc for variant, entry in summarise_worlds(points).items()}
    alone = [f"{variant} {number(own.value)}" for variant, own in inside.items() if own is not None and len(inside) > 1]
    text = f"{number(area.value)}{number_range(area.interval)} over {_over(points)}"
    text += f"; alone {', '.join(alone)}" if alone else ""
    return Target(what, required, text, area.value >= 0.85)


def _coverage(points: Sequence[TrustPoint]) -> Target:
    what, required = "trust: measured gains inside the 90 % intervals", "85 to 95 %"
    if not points:
        return _missing(what, required, NO_TRUST)
    held = summarise_trust(points).coverage
    variants = [
        f"{variant} {percentage(entry.coverage.value, 0)}" for variant, entry in summarise_worlds(points).items()
    ]
    text = f"{percentage(held.value, 0)}{interval_text(held.interval, 0)}; {', '.join(variants)}"
    return Target(what, required, text, 0.85 - _ROUNDING <= held.value <= 0.95 + _ROUNDING)


def _selective_use(points: Sequence[TrustPoint]) -> Target:
    what = "selective use: unseen tasks that lose more than a point with trust on"
    required = "at most 5 %"
    unseen = [point for point in points if point.split == "unseen"]
    if not unseen:
        return _missing(what, required, NO_TRUST)
    summary = summarise_trust(unseen)
    text = f"{percentage(summary.harmed_with.value)}{interval_text(summary.harmed_with.interval)}, without trust "
    text += f"{percentage(summary.harmed_without.value)}, over {_over(unseen)}"
    variants = [
        f"{variant} {percentage(entry.harmed_with.value)}" for variant, entry in summarise_worlds(unseen).items()
    ]
    held_out = [point for point in points if point.split != "unseen"]
    if held_out:
        variants.append(f"held-out groups {percentage(summarise_trust(held_out).harmed_with.value)}")
    return Target(what, required, f"{text}; {', '.join(variants)}", summary.harmed_with.value <= 0.05 + _ROUNDING)


def _few_labels(part: SplitFindings | None) -> Target:
    what = "both: labels a class from the pretrained model to reach generated + 5 labels a class"
    required = "at least 20"
    own = None if part is None else part.of(REFINED)
    if part is None or own is None:
        return _missing(what, required, "nothing was refined")
    counts = {
        int(line.source.removeprefix(FEW).removesuffix(LABELS_A_CLASS)): line
        for line in part.summary
        if line.source.startswith(FEW) and line.source.endswith(LABELS_A_CLASS)
    }
    if not any(labels < 20 for labels in counts):
        return _missing(what, required, "no fine-tuning on fewer than 20 labels a class was scored")
    order = sorted(counts)
    reaching = [labels for labels in order if _reaches(part, counts[labels].source, REFINED)]
    parts = [f"{labels}: {percentage(counts[labels].accuracy)}" for labels in order]
    below = [labels for labels in order if not reaching or labels < reaching[0]]
    needed = [f"{reaching[0]} reach it"] if reaching else []
    needed += [f"{below[-1]} do not"] if below else []
    text = f"{', '.join(needed)}; generated + 5: {percentage(own.accuracy)}, fine-tuned on {', '.join(parts)}"
    # Not reached by fewer than 20 alone does not decide about 20.
    met = reaching[0] >= 20 if reaching else (True if order[-1] >= 20 else None)
    return Target(what, required, text, met)


def _reaches(part: SplitFindings, source: str, other: str) -> bool:
    columns = part.columns([part.of(source), part.of(other)])
    return columns is not None and bool(np.subtract(*columns.accuracy.mean(1)) >= -_ROUNDING)


_ROUNDING = 1e-9
"""Shares that are equal but for the order of a sum."""
_DASH = "\N{MINUS SIGN}"


def _over(points: Sequence[TrustPoint]) -> str:
    tasks = {(point.world, point.split, point.task) for point in points}
    variants = dict.fromkeys(point.world for point in points)
    generators = len({point.generator for point in points})
    return f"{count(len(tasks), 'task')} of {count(len(variants), 'variant')}, {count(generators, 'generator')}"


def _signed_interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{signed_points(interval[0])}, {signed_points(interval[1])}]"


def _signed(value: float) -> str:
    return signed(number(value, 1))


def _points_text(estimate: Estimate) -> str:
    return _signed(estimate.value)


def _point_range(estimate: Estimate) -> str:
    ends = estimate.interval
    return "" if ends is None else f" [{_signed(ends[0])}, {_signed(ends[1])}]"
