"""Calibrated prediction of the gain from evidence: ridge regression, conformal intervals and a safe threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wildpdiff.errors import DataError

RIDGES = tuple(float(value) for value in np.logspace(0, 3, 7))
LIMIT = 4.0
"""Bound of standardised evidence: no extrapolation along a straight line far beyond what was measured."""
SMOOTHING = 0.3
"""Standard deviation, in units of the predicted scale, by which the residuals' distribution is smoothed."""
COVERAGE = 0.9
FEWEST_ROWS = 12
FLOOR = 0.005
"""Smallest scale of a prediction, half a point."""
LEAST_TRUE = 0.1
"""Share of the squared error that is never attributed to chance of the images."""
LEAST_SHARE = 0.15
"""Share of the mean squared error that every prediction has at least."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutGain:
    """Measured gain of a held-out seen task.

    Attributes:
        fold: name of the fold that it was held out with.
        extrapolation: whether the fold was a group of like tasks.
        partial: whether a part of the description was hidden.
        gain: accuracy with the generated adapter minus that of the pretrained model, on the task's labelled images.
        noise: variance of the measured gain due to their number.
        over_shuffled: accuracy with the generated adapters minus that with adapters for the description of another task
            of the fold; 0 for groups and partial descriptions, where it is not measured.
    """

    task: str
    fold: str
    extrapolation: bool
    partial: bool
    evidence: Mapping[str, float]
    gain: float
    images: int
    noise: float = 0.0
    over_shuffled: float = 0.0


@dataclass(frozen=True)
class GainPrediction:
    """Predicted gain, as a difference of accuracies from 0 to 1 (a point is 0.01).

    Attributes:
        low, high: 90 % interval of the gain as measured on as many images as the held-out tasks had.
        probability: of a positive gain, with the chance of the held-out tasks' images taken out of the errors.
        spread: standard deviation of the true gain around the expected one.
    """

    gain: float
    low: float
    high: float
    probability: float
    spread: float = 0.0


@dataclass(frozen=True)
class GainPredictor:
    """Ridge regression of the gain on the evidence, with the distribution of its errors.

    Attributes:
        center, scale: standardisation of the evidence.
        coefficients: of the standardised evidence.
        intercept: gain at average evidence.
        variance: non-negative coefficients of the squared error, a constant and one for each of ``spreading``.
        spreading: indices into ``names`` of the evidence that the size of the error depends on.
        residuals: errors on held-out tasks in units of the predicted scale, ascending.
        noise: mean variance of the held-out gains due to the number of images.
    """

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    variance: tuple[float, ...]
    spreading: tuple[int, ...]
    residuals: tuple[float, ...]
    noise: float = 0.0

    def predict(self, evidence: Mapping[str, float]) -> GainPrediction:
        """Prediction for one task; raises :class:`DataError` on missing evidence."""
        missing = [name for name in self.names if name not in evidence]
        if missing:
            raise DataError(f"The evidence lacks {missing[0]!r}; this model of trust reads {', '.join(self.names)}.")
        return self.predict_rows(np.array([[evidence[name] for name in self.names]]))[0]

    def predict_rows(self, rows: Matrix) -> list[GainPrediction]:
        """Predictions for evidence ``[n, names]``."""
        from scipy.special import ndtr  # late: reading a model of trust needs no scipy

        standardised = _standardised(rows, np.array(self.center), np.array(self.scale))
        gains = self.intercept + standardised @ np.array(self.coefficients)
        sizes = _sizes(_spread_design(rows, self.spreading), np.array(self.variance))
        own = np.array(self.residuals)
        found = []
        for gain, size in zip(gains, sizes, strict=True):
            low, high = (gain + size * _quantile(own, share) for share in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
            # Chance of the images is no doubt about the adapter.
            true = max(1.0 - self.noise / size**2, LEAST_TRUE) ** 0.5
            # Half a task on either side: no number of held-out tasks makes anything certain.
            probability = float((ndtr((gain / size + true * own) / (true * SMOOTHING)).sum() + 0.5) / (len(own) + 1))
            span = max(float(low), -1.0), min(float(high), 1.0)
            found.append(GainPrediction(float(gain), *span, probability, float(true * size)))
        return found


def fit_gain_predictor(rows: Sequence[HeldOutGain], spreading: Sequence[str] = ()) -> GainPredictor:
    """Regression on all held-out tasks, with the errors of predictions for held-out folds.

    The ridge has the smallest leave-one-fold-out error; a task that is in several folds is left out with each of them.
    Squared errors are then regressed on the evidence of ``spreading``, and the errors in units of the predicted scale
    are the distribution (normalised cross-conformal prediction; Vovk 2015, "Cross-conformal predictors"; Papadopoulos
    et al. 2008).

    Args:
        rows: all with the same evidence.
        spreading: names of non-negative evidence that the size of the errors depends on.

    Raises:
        DataError: fewer than twelve rows.
    """
    return _Design.of(rows, spreading).fit()


def held_out_predictions(rows: Sequence[HeldOutGain], spreading: Sequence[str] = ()) -> list[GainPrediction]:
    """Prediction for every row by a regression without the tasks of its fold.

    None of them is used, also not as part of another fold, unless fewer than twelve rows were left then.
    """
    design = _Design.of(rows, spreading)
    found: dict[int, GainPrediction] = {}
    for fold in sorted(set(design.folds)):
        inside = design.folds == fold
        kept = [row for row, other in zip(rows, design.others(fold), strict=True) if other]
        predictions = _Design.of(kept, spreading).fit().predict_rows(design.values[inside])
        found |= dict(zip(np.flatnonzero(inside).tolist(), predictions, strict=True))
    return [found[index] for index in range(len(rows))]


@dataclass(frozen=True)
class _Design:
    """Held-out gains as arrays."""

    names: tuple[str, ...]
    values: Matrix
    gains: Matrix
    folds: npt.NDArray[Any]
    tasks: npt.NDArray[Any]
    spreading: tuple[int, ...]
    noise: float

    @classmethod
    def of(cls, rows: Sequence[HeldOutGain], spreading: Sequence[str]) -> _Design:
        if len(rows) < FEWEST_ROWS:
            raise DataError(f"Trust needs {FEWEST_ROWS} held-out tasks; there are {len(rows)}. Use more seen tasks.")
        names = tuple(rows[0].evidence)
        return cls(
            names,
            np.array([[row.evidence[name] for name in names] for row in rows]),
            np.array([row.gain for row in rows]),
            np.array([row.fold for row in rows]),
            np.array([row.task for row in rows]),
            tuple(names.index(name) for name in spreading),
            float(np.mean([row.noise for row in rows])),
        )

    def others(self, fold: str) -> npt.NDArray[np.bool_]:
        """Rows of other folds whose tasks are not in this one; of other folds, where that leaves too few."""
        inside = self.folds == fold
        others = ~np.isin(self.tasks, self.tasks[inside])
        return others if others.sum() >= FEWEST_ROWS else ~inside

    def fit(self) -> GainPredictor:
        errors = {ridge: self._held_out_errors(ridge) for ridge in RIDGES}
        ridge = min(errors, key=lambda value: float((errors[value] ** 2).sum()))
        design = _spread_design(self.values, self.spreading)
        variance = _variance(design, errors[ridge])
        residuals = np.sort(errors[ridge] / _sizes(design, variance))
        center, scale = _moments(self.values)
        intercept, *coefficients = _ridge(_standardised(self.values, center, scale), self.gains, ridge).tolist()
        return GainPredictor(
            self.names,
            tuple(center.tolist()),
            tuple(scale.tolist()),
            tuple(coefficients),
            intercept,
            tuple(variance.tolist()),
            self.spreading,
            tuple(residuals.tolist()),
            self.noise,
        )

    def _held_out_errors(self, ridge: float) -> Matrix:
        errors = np.zeros(len(self.gains))
        for fold in sorted(set(self.folds)):
            inside, others = self.folds == fold, self.others(fold)
            values = _standardised(self.values, *_moments(self.values[others]))
            fitted = _ridge(values[others], self.gains[others], ridge)
            errors[inside] = self.gains[inside] - fitted[0] - values[inside] @ fitted[1:]
        return errors


def _moments(values: Matrix) -> tuple[Matrix, Matrix]:
    spread = values.std(0)
    # Evidence that never varied is all zero once it is centred, and the ridge gives it no coefficient.
    return values.mean(0), np.where(spread > 1e-9, spread, 1.0)


def _standardised(values: Matrix, center: Matrix, scale: Matrix) -> Matrix:
    return np.clip((values - center) / scale, -LIMIT, LIMIT)


def _ridge(values: Matrix, targets: Matrix, ridge: float) -> Matrix:
    """Intercept (not shrunk), then coefficients."""
    design = np.column_stack([np.ones(len(values)), values])
    penalty = ridge * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    return np.asarray(np.linalg.solve(design.T @ design + penalty, design.T @ targets))


def _spread_design(values: Matrix, spreading: Sequence[int]) -> Matrix:
    return np.column_stack([np.ones(len(values)), np.maximum(values[:, list(spreading)], 0.0)])


def _variance(design: Matrix, errors: Matrix) -> Matrix:
    """Non-negative regression of squared errors; winsorised, so that one wild task does not decide the scale.

    The constant holds a part of the mean: no task's gain is known almost exactly.
    """
    from scipy.optimize import nnls  # late, as above

    squares = np.minimum(errors**2, np.quantile(errors**2, 0.98))
    constant = max(LEAST_SHARE * float(squares.mean()), FLOOR**2)
    found, _ = nnls(design, np.maximum(squares - constant, 0.0))
    found[0] += constant
    return np.asarray(found)


def _sizes(design: Matrix, variance: Matrix) -> Matrix:
    return np.asarray(np.sqrt(design @ variance))


def _quantile(residuals: Matrix, share: float) -> float:
    """Conformal quantile: the order statistic that covers with probability ``share`` at least, on either side."""
    count = len(residuals)
    if share > 0.5:
        return float(residuals[min(int(np.ceil(share * (count + 1))), count) - 1])
    return float(residuals[max(int(np.floor(share * (count + 1))), 1) - 1])


def safe_threshold(trust: Matrix, harmed: Matrix, tasks: Sequence[str], risk: float) -> float:
    """Smallest threshold at which at most a share ``risk`` of all tasks is used and harmed, in expectation.

    Conformal risk control (Angelopoulos et al. 2022, theorem 1): a task's loss, the share of its rows that are used and
    harmed, never rises with the threshold, so ``(sum of losses + 1) / (n + 1) <= risk`` on n exchangeable tasks bounds
    its expectation.

    Args:
        harmed: probability, by row, that the gain was below what is tolerated; 0 or 1 where that is known.

    Returns:
        The threshold; 1, which nothing reaches, where the tasks are too few for any bound.
    """
    names, rows, counts = np.unique(np.array(tasks), return_inverse=True, return_counts=True)
    weights = harmed / counts[rows]
    for threshold in (0.0, *np.sort(trust)):
        if (float(weights[trust >= threshold].sum()) + 1) / (len(names) + 1) <= risk:
            return float(threshold)
    return float(np.nextafter(trust.max(), 1.0)) if 1 / (len(names) + 1) <= risk else 1.0
