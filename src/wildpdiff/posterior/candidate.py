"""A candidate for the posterior: what its samples are worth on held-out tasks, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.posterior.decoder import Decoder
from wildpdiff.posterior.score import PosteriorScore

CHOICES = 4
"""Draws of a few labels over which the best of several samples is averaged."""


@dataclass(frozen=True)
class Candidate:
    """A distribution of adapters that was scored on the seen tasks that it was fitted without.

    Attributes:
        score: means over tasks, for the record.
        likelihoods: by task, log probability of a few labels, at the temperature that is best for all tasks together.
        accuracies: by task, of one sample.
        best_of_8: by task, of the sample that a few labels choose.
        decoder: codes to adapters; None for the estimate alone.
        codes: of the tasks.
    """

    score: PosteriorScore
    likelihoods: Float[Tensor, " s"]
    accuracies: Float[Tensor, " s"]
    best_of_8: Float[Tensor, " s"]
    decoder: Decoder | None = None
    codes: Float[Tensor, "s k"] | None = None


def accuracy_by_labels(losses: Tensor, right: Tensor, labels: int, draws: torch.Generator) -> Float[Tensor, ""]:
    """Accuracy, on the other images, of the sample that a few labelled ones choose; mean over draws of these.

    At most half of the images choose, so that none is counted that chose; of a single image, the mean over samples.
    """
    count = losses.shape[1]
    if count < 2:
        return right.mean()
    found = []
    for _ in range(CHOICES):
        order = torch.randperm(count, generator=draws)
        few, rest = order[: min(labels, count // 2)], order[min(labels, count // 2) :]
        found.append(right[losses[:, few].mean(1).argmin()][rest].mean())
    return torch.stack(found).mean()


def errors_ahead(candidate: Candidate, other: Candidate) -> float:
    """By how many standard errors of the mean over tasks labels are more probable under a candidate."""
    return _errors_above_zero(candidate.likelihoods - other.likelihoods)


def _errors_above_zero(gains: Float[Tensor, " s"]) -> float:
    """The mean of some tasks' gains in units of its standard error."""
    gains = gains.double()
    return float(gains.mean() / (gains.std() / len(gains) ** 0.5).clamp_min(1e-12))


def worth_choosing(candidate: Candidate, estimate: Candidate) -> bool:
    """Whether samples tell more of held-out tasks than the estimate.

    By the probability of labels, or by the accuracy of what a few labels choose: a few tasks whose labels are very
    improbable make the mean probability uncertain, and accuracies have no such tails.
    """
    ahead = errors_ahead(candidate, estimate)
    return ahead > 2.0 or (ahead > 1.0 and _errors_above_zero(candidate.best_of_8 - estimate.best_of_8) > 2.0)
