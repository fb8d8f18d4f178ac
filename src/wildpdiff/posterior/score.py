"""Scores of posteriors on held-out seen tasks; read without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PosteriorScore:
    """One posterior, or the estimate alone; accuracies in percent.

    Attributes:
        decoder: ``shift`` (the estimate plus errors like those of held-out tasks), ``network`` (of description and
            code), or ``estimate``.
        likelihood: mean over tasks of the logarithm of the mean probability of five labels, over samples, at the
            temperature of the logits that is best for all tasks together.
        one_sample: accuracy of a sample.
        best_of_8: accuracy of the one of eight samples that is chosen by five labels.
    """

    decoder: str
    density: str
    scale: float
    likelihood: float
    one_sample: float
    best_of_8: float


@dataclass(frozen=True)
class PosteriorSummary:
    """The scores of the estimate and of the chosen posterior, and the reason of the choice."""

    estimate: PosteriorScore
    chosen: PosteriorScore
    reason: str
