"""Spearman's rank correlation with a bootstrap interval; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator

RESAMPLES = 2_000
CONFIDENCE = 0.95
FEWEST = 4
"""Pairs of values below which a rank correlation is not given: three are in some order by chance too often."""


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation.

    Attributes:
        value: −1 to 1.
        interval: 95 % bootstrap percentile interval over the pairs of values.
        count: how many pairs of values.
    """

    value: float
    interval: tuple[float, float] | None
    count: int


def spearman(x: Float[ndarray, " n"], y: Float[ndarray, " n"], *, seed: int = 0) -> RankCorrelation | None:
    """Correlation of the ranks, equal values sharing their mean rank (Spearman 1904); None where it is undefined.

    It is undefined for fewer than :data:`FEWEST` values and where one side does not vary. The interval draws the pairs
    again; resamples in which a side does not vary are left out.

    Raises:
        DataError: a value that is not finite.
    """
    columns = np.stack([x, y]).astype(np.float64)
    if not np.isfinite(columns).all():
        raise DataError("A rank correlation needs finite numbers. Leave out what was not measured.")
    if len(x) < FEWEST or (columns == columns[:, :1]).all(axis=1).any():
        return None
    generator = numpy_generator(seed, "bootstrap", "rank correlation")
    weights = generator.multinomial(len(x), np.full(len(x), 1 / len(x)), size=RESAMPLES).astype(np.float64)
    resampled = _correlations(columns, weights)
    known = resampled[np.isfinite(resampled)]
    tail = (1 - CONFIDENCE) / 2
    interval = None
    if len(known) > RESAMPLES // 2:
        interval = (float(np.quantile(known, tail)), float(np.quantile(known, 1 - tail)))
    value = float(_correlations(columns, np.ones((1, len(x))))[0])
    return RankCorrelation(value, interval, len(x))


def _correlations(columns: Float[ndarray, "2 n"], weights: Float[ndarray, "r n"]) -> Float[ndarray, " r"]:
    """Spearman's correlation of every resample, given how often each pair was drawn; NaN where a side does not vary."""
    ranks = [_ranks(column, weights) for column in columns]
    total = weights.sum(axis=1, keepdims=True)
    centred = [rank - (weights * rank).sum(axis=1, keepdims=True) / total for rank in ranks]
    first, second = ((weights * side**2).sum(axis=1) for side in centred)
    product = (weights * centred[0] * centred[1]).sum(axis=1)
    size = np.sqrt(first * second)
    correlations: ndarray = np.divide(product, size, out=np.full(len(weights), np.nan), where=size > 1e-9)
    return correlations


def _ranks(values: Float[ndarray, " n"], weights: Float[ndarray, "r n"]) -> Float[ndarray, "r n"]:
    """Rank of every value in each resample, from 1; equal values share the mean of theirs."""
    below = (values[:, None] < values[None, :]).astype(np.float64)
    equal = (values[:, None] == values[None, :]).astype(np.float64)
    ranks: ndarray = weights @ below + (weights @ equal + 1) / 2
    return ranks
