"""The weights of the estimators in what is delivered, chosen by the task loss on seen tasks that each was made without.

Adapters are averaged (a weighted soup, Wortsman et al. 2022), so that one adapter comes out. Weights are chosen by
cross-validation of the estimators, not of their inputs (stacking, Wolpert 1992), and are non-negative and sum to one
(Breiman 1996, "Stacked regressions"): a blend cannot be far worse than its best estimator on tasks like the seen ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildpdiff.parallel import in_parallel

Weights = tuple[int, ...]
"""Non-negative counts of each estimator that sum to :data:`SHARES`."""

SHARES = 8
MOVES = (8, 4, 2, 1)
"""Shares that are moved from one estimator to another, coarse to fine."""
ERRORS = 0.5
"""A blend replaces a better-founded one where its mean loss is lower by this many standard errors of the difference."""


@dataclass(frozen=True)
class Blend:
    """Estimators and their weights, which sum to 1."""

    names: tuple[str, ...]
    weights: tuple[float, ...]

    def __call__(self, predictions: Float[Tensor, "m n d"]) -> Float[Tensor, "n d"]:
        """The weighted mean of the estimators' normalised adapters, in the order of the names."""
        return torch.einsum("m,mnd->nd", torch.tensor(self.weights), predictions)

    @property
    def used(self) -> dict[str, float]:
        """The estimators that count, the largest weight first."""
        pairs = sorted(zip(self.names, self.weights, strict=True), key=lambda pair: -pair[1])
        return {name: weight for name, weight in pairs if weight > 0}


@dataclass
class BlendSearch:
    """Coordinate search over blends; losses of a blend are computed once and shared by all searches.

    Attributes:
        names: of the estimators.
        losses: gives the mean loss of every task with a blend of predictions that were made without it, at several
            temperatures of the logits, "k t". A blend counts at its best temperature, so that no estimator is chosen
            for making answers less sure: a single network of a fold is too sure, their mean is not.
    """

    names: tuple[str, ...]
    losses: Callable[[Weights], Float[Tensor, "k t"]]
    _known: dict[Weights, Tensor] = field(default_factory=dict, init=False, repr=False)

    def of(self, weights: Weights, tasks: Bool[Tensor, " t"]) -> Float[Tensor, " s"]:
        """The loss of some tasks at the temperature that is best for them together."""
        self._learn([weights])
        own = self._known[weights][:, tasks]
        return own[own.mean(1).argmin()]

    def search(self, start: Weights, tasks: Bool[Tensor, " t"]) -> Blend:
        """The blend with the lowest mean loss over some tasks that moves of shares from a start lead to.

        Args:
            start: where the search begins; kept where nothing is clearly better.
            tasks: which count.
        """
        best = start
        for size in MOVES:
            while True:
                moved = [self._moved(best, giver, taker, size) for giver, taker in self._pairs()]
                tried = [entry for entry in moved if entry is not None]
                if not tried:
                    break
                self._learn(tried)
                found = min(tried, key=lambda entry: float(self.of(entry, tasks).mean()))
                if not self._better(found, best, tasks):
                    break
                best = found
        return Blend(self.names, tuple(count / SHARES for count in best))

    def _learn(self, blends: Sequence[Weights]) -> None:
        """Compute the losses of those blends that are not known yet."""
        missing = [weights for weights in dict.fromkeys(blends) if weights not in self._known]
        for weights, found in zip(missing, in_parallel(lambda entry, _: self.losses(entry), missing), strict=True):
            self._known[weights] = found.double()

    def _pairs(self) -> list[tuple[int, int]]:
        count = len(self.names)
        return [(giver, taker) for giver in range(count) for taker in range(count) if giver != taker]

    @staticmethod
    def _moved(weights: Weights, giver: int, taker: int, size: int) -> Weights | None:
        moved = min(size, weights[giver])
        if moved == 0 or (moved < size and size != MOVES[0]):
            return None
        result = list(weights)
        result[giver] -= moved
        result[taker] += moved
        return tuple(result)

    def _better(self, left: Weights, right: Weights, tasks: Bool[Tensor, " t"]) -> bool:
        difference = self.of(right, tasks) - self.of(left, tasks)
        error = float(difference.std()) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
        return float(difference.mean()) > ERRORS * error and float(difference.mean()) > 0


def start_weights(names: Sequence[str], wanted: Mapping[str, int]) -> Weights:
    """Counts in the order of the names; raises ``ValueError`` where they do not sum to :data:`SHARES`."""
    counts = tuple(wanted.get(name, 0) for name in names)
    if sum(counts) != SHARES:
        raise ValueError(f"The shares {counts} do not sum to {SHARES}.")
    return counts
