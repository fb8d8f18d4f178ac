"""Calibration of a source's probabilities: reliability bins, expected calibration error, log-likelihood."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.errors import DataError
from wildpdiff.evaluate.results import Calibration, CalibrationBin
from wildpdiff.evaluate.run import Scored


class CalibrationObserver:
    """Confidence and correctness of every prediction (Guo et al. 2017, On Calibration of Modern Networks).

    Every sample of a stochastic source counts with its own predictions: no probabilities are averaged, because a user
    gets one adapter, not the mean of several.
    """

    section = "calibration"

    def __init__(self, bins: int = 15) -> None:
        """Empty bins of equal width over confidences from 0 to 1; raises :class:`DataError` for less than one."""
        if bins < 1:
            raise DataError(f"{bins} bins of confidence; at least 1 is needed.")
        self._bins = bins
        self._sums: dict[tuple[str, str, str], Float[Tensor, "3 bins"]] = {}
        self._log_losses: dict[tuple[str, str, str], float] = {}

    def observe(self, scored: Scored) -> None:
        """Count every prediction of a method on a task."""
        key = (scored.split, scored.method.source.name, scored.method.condition)
        sums = self._sums.setdefault(key, torch.zeros(3, self._bins, dtype=torch.float64))
        labels = scored.test.labels
        for logits in scored.outputs:
            log_probabilities = logits.double().log_softmax(1)
            log_loss = float(log_probabilities.gather(1, labels[:, None]).sum())
            self._log_losses[key] = self._log_losses.get(key, 0.0) - log_loss
            confidence, predicted = log_probabilities.exp().max(1)
            # Bin m is ((m − 1) / M, m / M], as in Guo et al.; rounding may push a probability of 1 a hair above.
            bins = (confidence * self._bins).ceil().long().clamp(1, self._bins) - 1
            values = torch.stack([torch.ones_like(confidence), confidence, (predicted == labels).double()])
            sums.index_add_(1, bins, values)

    def result(self) -> tuple[Calibration, ...]:
        """Calibration of each split, source and condition, in the order in which they were observed."""
        return tuple(_calibration(*key, sums, log_loss=self._log_losses[key]) for key, sums in self._sums.items())


def _calibration(
    split: str, source: str, condition: str, sums: Float[Tensor, "3 b"], *, log_loss: float
) -> Calibration:
    total = float(sums[0].sum())
    bins = tuple(
        CalibrationBin(int(count), confidence / count, right / count)
        for count, confidence, right in sums.T.tolist()
        if count
    )
    error = sum(entry.count * abs(entry.accuracy - entry.confidence) for entry in bins) / total
    return Calibration(split, source, condition, bins, error, log_loss / total)
