"""Whether a source's probabilities can be trusted: reliability bins, expected calibration error, log-likelihood."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.errors import DataError
from wildpdiff.evaluate.run import Scored
from wildpdiff.evaluate.sections import Calibration, CalibrationBin


class _Tally:
    """Sums over predictions, by bin: nothing else is kept of them."""

    def __init__(self, bins: int) -> None:
        self.count = torch.zeros(bins, dtype=torch.float64)
        self.confidence = torch.zeros(bins, dtype=torch.float64)
        self.right = torch.zeros(bins, dtype=torch.float64)
        self.log_loss = 0.0

    def add(self, logits: Float[Tensor, "n c"], labels: Tensor) -> None:
        """Count the predictions of one adapter."""
        bins = len(self.count)
        log_probabilities = logits.double().log_softmax(1)
        self.log_loss -= float(log_probabilities.gather(1, labels[:, None]).sum())
        confidence, answer = log_probabilities.exp().max(1)
        # Bin m is ((m − 1) / M, m / M], as Guo et al. have it; rounding may push a probability of 1 a hair above.
        place = (confidence * bins).ceil().long().clamp(1, bins) - 1
        right = (answer == labels).double()
        for total, values in ((self.count, torch.ones_like(right)), (self.confidence, confidence), (self.right, right)):
            total.index_add_(0, place, values)


class CalibrationObserver:
    """Gathers confidence and correctness of every prediction (Guo et al. 2017, On Calibration of Modern Networks).

    Every sample of a stochastic source counts with its own predictions: no probabilities are averaged, because a user
    gets one adapter, not the mean of several.
    """

    def __init__(self, bins: int = 15) -> None:
        """Start with nothing.

        Args:
            bins: of equal width, over confidences from 0 to 1.

        Raises:
            DataError: there is no bin.
        """
        if bins < 1:
            raise DataError(f"{bins} bins were asked for; at least 1 is needed.")
        self._bins = bins
        self._tallies: dict[tuple[str, str, str], _Tally] = {}

    def observe(self, scored: Scored) -> None:
        """Count every prediction of an entrant on a task."""
        key = (scored.split, scored.entrant.source.name, scored.entrant.condition)
        tally = self._tallies.setdefault(key, _Tally(self._bins))
        for logits in scored.logits:
            tally.add(logits, scored.test.labels)

    def result(self) -> tuple[Calibration, ...]:
        """One for each split, source and condition, in the order in which they were observed."""
        return tuple(_calibration(*key, tally) for key, tally in self._tallies.items())


def _calibration(split: str, source: str, condition: str, tally: _Tally) -> Calibration:
    total = float(tally.count.sum())
    entries = zip(tally.count.tolist(), tally.confidence.tolist(), tally.right.tolist(), strict=True)
    bins = tuple(
        CalibrationBin(int(count), confidence / count, right / count) for count, confidence, right in entries if count
    )
    error = sum(entry.count * abs(entry.accuracy - entry.confidence) for entry in bins) / total
    return Calibration(split, source, condition, bins, error, tally.log_loss / total)
