"""Table of a generator's cross-validation: accuracies, leads and weights; read without torch."""

from __future__ import annotations

from dataclasses import dataclass

from wildpdiff.errors import ArtifactError
from wildpdiff.tasks.metric import ACCURACY, Metric

DELIVERED = "generated"
"""Name of the row of the delivered estimate."""

PRETRAINED = "pretrained"
"""Name of the pretrained model among the estimators."""

FEW_TASKS = 30
"""With fewer seen tasks, cross-validation is little evidence about a new one."""


@dataclass(frozen=True)
class MethodScore:
    """One row of the table; scores in the metric's unit, for classifiers accuracies in percent; means over tasks.

    Attributes:
        accuracy: score on examples of a task that no other task is trained on.
        loss: mean loss on the same examples.
        lead: of the delivered estimate over the method, in the metric's unit; positive where it is better.
        low, high: 95 % interval of the lead (Student's, over tasks).
        weight: of the method in the delivered blend; None where it is no part of it.
    """

    method: str
    accuracy: float
    loss: float
    lead: float
    low: float
    high: float
    weight: float | None = None


@dataclass(frozen=True)
class CrossValidation:
    """Scores of the delivered estimate and its alternatives on held-out seen tasks.

    Attributes:
        rows: one a method, the delivered one last.
        images: examples a task that were scored, the median.
        metric: of the scores.
    """

    rows: tuple[MethodScore, ...]
    tasks: int
    images: int
    metric: Metric = ACCURACY

    def __post_init__(self) -> None:
        methods = [row.method for row in self.rows]
        if methods.count(DELIVERED) != 1 or len(methods) < 2:
            raise ArtifactError(
                f"A cross-validation has the rows {', '.join(methods) or '(none)'}; one {DELIVERED!r} and at least one "
                "other are needed. Fit the generator again, or evaluate again."
            )

    @property
    def few(self) -> bool:
        """Whether the tasks are too few for the table to be evidence about a new one."""
        return self.tasks < FEW_TASKS

    def row(self, method: str) -> MethodScore | None:
        """The row of a method; None where it was not scored."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def delivered(self) -> MethodScore:
        """The row of the delivered estimate."""
        found = self.row(DELIVERED)
        assert found is not None
        return found

    @property
    def best_alternative(self) -> MethodScore:
        """The alternative with the best score; raises ``ValueError`` where there is none."""
        return max(
            (row for row in self.rows if row.method != DELIVERED), key=lambda row: self.metric.sign * row.accuracy
        )

    @property
    def composition(self) -> str:
        """Composition of the delivered blend, in words: ``direct networks (75 %) and nearest task (25 %)``."""
        used = sorted((row for row in self.rows if row.weight), key=lambda row: -(row.weight or 0))
        if len(used) == 1:
            return used[0].method + (", its classifier aligned with the description" if self._aligned else "")
        *first, last = (f"{row.method} ({100 * (row.weight or 0):.0f} %)" for row in used)
        return f"{', '.join(first)} and {last}"

    @property
    def _aligned(self) -> bool:
        """Whether the pretrained model alone is blended and what is delivered is surely better: only by alignment."""
        alone = [row for row in self.rows if row.weight]
        return [row.method for row in alone] == [PRETRAINED] and alone[0].low > 0

    def shown(self, score: float) -> str:
        """A score with its unit; of other metrics than accuracy with the name."""
        if self.metric == ACCURACY:
            return f"{score:.1f} %"
        return f"{score:.3g} {self.metric.unit}".rstrip() + f" of {self.metric.name}"

    @property
    def unchanging(self) -> str:
        """A sentence where the pretrained model alone is delivered; else empty."""
        if {row.method for row in self.rows if row.weight} != {PRETRAINED} or self._aligned:
            return ""
        return "On held-out tasks nothing was better than the pretrained model, which is all of the blend."

    @property
    def verdict(self) -> str:
        """Summary of the table, in two or three sentences."""
        own, other = self.delivered, self.best_alternative
        text = (
            f"On {self.tasks} seen tasks, each held out, generated adapters reach {self.shown(own.accuracy)}; "
            f"the best of the others is {other.method} with {self.shown(other.accuracy)}. "
            f"The blend: {self.composition}. {self.unchanging}".rstrip()
        )
        if self.few:
            text += (
                f" {self.tasks} seen tasks are few: with fewer than {FEW_TASKS} this is little evidence about a new "
                "task, and no trust can be calibrated. Fine-tune more tasks, and check adapters on labelled examples."
            )
        return text
