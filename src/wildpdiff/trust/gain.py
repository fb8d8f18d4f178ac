"""From evidence to a calibrated prediction of the gain: ridge regression and cross-conformal residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls
from scipy.special import ndtr

from wildpdiff.errors import DataError

RIDGES = tuple(float(value) for value in np.logspace(0, 3, 7))
LIMIT = 4.0
"""Standardised evidence is clipped to ±LIMIT: a straight line must not be followed far beyond what was measured."""
SMOOTHING = 0.3
"""Standard deviation, in units of the predicted scale, by which the residuals' distribution is smoothed."""
COVERAGE = 0.9
FEWEST_ROWS = 12
FLOOR = 0.005
"""Smallest scale of a prediction, half a point."""
LEAST_TRUE = 0.1
"""Share of the squared error that is never taken for chance of the images."""
LEAST_SHARE = 0.15
"""Share of the mean squared error that every prediction has at least."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutGain:
    """What was measured on a seen task while it was held out.

    Attributes:
        task: its name.
        fold: which tasks were held out together.
        extrapolation: whether the fold was a whole group of like tasks instead of random ones.
        partial: whether a part of the description was hidden, to measure what a poorer one is worth.
        evidence: named numbers.
        gain: accuracy with the generated adapter minus that of the pretrained model, on the task's labelled images.
        images: how many labelled images that was measured on.
        noise: variance of the measured gain that comes from their number alone.
    """

    task: str
    fold: str
    extrapolation: bool
    partial: bool
    evidence: Mapping[str, float]
    gain: float
    images: int
    noise: float = 0.0


@dataclass(frozen=True)
class GainPrediction:
    """The gain to expect, as accuracies between 0 and 1 (a point is 0.01).

    Attributes:
        gain: expected.
        low, high: ends of the 90 % interval of the gain as measured on as many images as the held-out tasks had.
        probability: that the generated adapter beats the pretrained model, with the chance of the images that held-out
            gains were measured on taken out of the errors.
        spread: standard deviation of the true gain around the expected one.
    """

    gain: float
    low: float
    high: float
    probability: float
    spread: float = 0.0


@dataclass(frozen=True)
class GainPredictor:
    """A fitted regression of the gain on the evidence, with the distribution of its errors.

    Attributes:
        names: of the evidence that is read, in order.
        center, scale: what the evidence is standardised by.
        coefficients: of the standardised evidence.
        intercept: gain at average evidence.
        variance: non-negative coefficients of the squared error, a constant and then one for each of ``spreading``.
        spreading: places in ``names`` of the evidence on which the size of the error depends.
        residuals: errors on held-out tasks in units of the predicted scale, ascending.
        noise: mean variance of the held-out gains that comes from the number of images alone.
    """

    names: tuple[str, ...]
    center: Matrix
    scale: Matrix
    coefficients: Matrix
    intercept: float
    variance: Matrix
    spreading: tuple[int, ...]
    residuals: Matrix
    noise: float = 0.0

    def predict(self, evidence: Mapping[str, float]) -> GainPrediction:
        """The gain to expect from one task's evidence; raises :class:`DataError` where some of it is missing."""
        missing = [name for name in self.names if name not in evidence]
        if missing:
            raise DataError(f"The evidence lacks {missing[0]!r}; this model of trust reads {', '.join(self.names)}.")
        row = np.array([[evidence[name] for name in self.names]])
        return self._predictions(row, [self.residuals])[0]

    def contributions(self, evidence: Mapping[str, float]) -> dict[str, float]:
        """By how much each piece of evidence moves the expected gain away from that of average evidence."""
        row = self._standardised(np.array([[evidence[name] for name in self.names]]))[0]
        return {name: float(value) for name, value in zip(self.names, row * self.coefficients, strict=True)}

    def _standardised(self, rows: Matrix) -> Matrix:
        return np.asarray(np.clip((rows - self.center) / self.scale, -LIMIT, LIMIT))

    def _expected(self, rows: Matrix) -> Matrix:
        return np.asarray(self.intercept + self._standardised(rows) @ self.coefficients)

    def _sizes(self, rows: Matrix) -> Matrix:
        return _sizes(_spread_design(rows, self.spreading), self.variance)

    def _predictions(self, rows: Matrix, residuals: Sequence[Matrix]) -> list[GainPrediction]:
        found = []
        for gain, size, own in zip(self._expected(rows), self._sizes(rows), residuals, strict=True):
            low, high = (gain + size * _quantile(own, share) for share in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
            # Half a task on either side: no number of held-out tasks makes anything certain.
            # What is asked is whether the adapter is better, not whether a handful of images show it.
            true = max(1.0 - self.noise / size**2, LEAST_TRUE) ** 0.5
            probability = float((ndtr((gain / size + true * own) / (true * SMOOTHING)).sum() + 0.5) / (len(own) + 1))
            span = max(float(low), -1.0), min(float(high), 1.0)
            found.append(GainPrediction(float(gain), *span, probability, float(true * size)))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(self).items()}
        return {**plain, "names": list(self.names), "spreading": list(self.spreading)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GainPredictor:
        """The inverse of :meth:`to_json`."""
        arrays = {key: np.array(data[key]) for key in ("center", "scale", "coefficients", "variance", "residuals")}
        places = tuple(int(place) for place in data["spreading"])
        intercept, noise = float(data["intercept"]), float(data.get("noise", 0.0))
        return cls(names=tuple(data["names"]), intercept=intercept, spreading=places, noise=noise, **arrays)


def fit_gain_predictor(rows: Sequence[HeldOutGain], spreading: Sequence[str] = ()) -> GainPredictor:
    """Fit the regression to all held-out tasks, its errors to predictions for folds that it had not seen.

    The ridge is the one with the smallest leave-one-fold-out error; a task that is in several folds is left out with
    each of them. Squared errors are then regressed on the evidence of ``spreading``, and the errors in units of the
    predicted scale make the distribution (normalised cross-conformal prediction; Vovk 2015, "Cross-conformal
    predictors"; Papadopoulos et al. 2008).

    Args:
        rows: all with the same evidence.
        spreading: names of non-negative evidence on which the size of the errors depends.

    Raises:
        DataError: fewer than twelve rows.
    """
    design = _Design.of(rows, spreading)
    return design.predictor(design.held_out_errors())


def held_out_predictions(rows: Sequence[HeldOutGain], spreading: Sequence[str] = ()) -> list[GainPrediction]:
    """For every row what would have been predicted had its fold's tasks not been there.

    None of them is used, also not as part of another fold, unless fewer than twelve rows were left then.
    """
    design = _Design.of(rows, spreading)
    found: list[GainPrediction | None] = [None] * len(rows)
    for fold in sorted(set(design.folds)):
        inside = design.folds == fold
        others = design.without(fold)
        reduced = _Design.of([row for row, kept in zip(rows, others, strict=True) if kept], spreading)
        predictor = reduced.predictor(reduced.held_out_errors())
        made = predictor._predictions(design.values[inside], [predictor.residuals] * int(inside.sum()))
        for place, prediction in zip(np.flatnonzero(inside), made, strict=True):
            found[place] = prediction
    return [prediction for prediction in found if prediction is not None]


@dataclass(frozen=True)
class _Errors:
    """Ridge and scale that leave-one-fold-out chose, and every row's error in units of its scale."""

    ridge: float
    variance: Matrix
    normalised: Matrix


@dataclass(frozen=True)
class _Design:
    """The rows as arrays."""

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
            raise DataError(
                f"Trust can be calibrated on {len(rows)} held-out tasks only; at least {FEWEST_ROWS} are needed. "
                "Use more seen tasks."
            )
        names = tuple(rows[0].evidence)
        values = np.array([[row.evidence[name] for name in names] for row in rows])
        return cls(
            names,
            values,
            np.array([row.gain for row in rows]),
            np.array([row.fold for row in rows]),
            np.array([row.task for row in rows]),
            tuple(names.index(name) for name in spreading),
            float(np.mean([row.noise for row in rows])),
        )

    def without(self, fold: str) -> npt.NDArray[np.bool_]:
        """Rows of other folds whose tasks are not in this one; of other folds, where that leaves too few."""
        inside = self.folds == fold
        others = ~np.isin(self.tasks, self.tasks[inside])
        return others if others.sum() >= FEWEST_ROWS else ~inside

    def held_out_errors(self) -> _Errors:
        tried = {value: self._leave_fold_out(value) for value in RIDGES}
        ridge = min(tried, key=lambda value: float((tried[value] ** 2).sum()))
        design = _spread_design(self.values, self.spreading)
        variance = _variance(design, tried[ridge])
        return _Errors(ridge, variance, tried[ridge] / _sizes(design, variance))

    def predictor(self, errors: _Errors) -> GainPredictor:
        center, scale = _standard(self.values)
        fitted = _ridge(np.clip((self.values - center) / scale, -LIMIT, LIMIT), self.gains, errors.ridge)
        return GainPredictor(
            self.names,
            center,
            scale,
            fitted[1:],
            float(fitted[0]),
            errors.variance,
            self.spreading,
            np.sort(errors.normalised),
            self.noise,
        )

    def _leave_fold_out(self, ridge: float) -> Matrix:
        errors = np.zeros(len(self.gains))
        for fold in sorted(set(self.folds)):
            inside, others = self.folds == fold, self.without(fold)
            center, scale = _standard(self.values[others])
            standardised = np.clip((self.values - center) / scale, -LIMIT, LIMIT)
            fitted = _ridge(standardised[others], self.gains[others], ridge)
            errors[inside] = self.gains[inside] - fitted[0] - standardised[inside] @ fitted[1:]
        return errors


def _standard(values: Matrix) -> tuple[Matrix, Matrix]:
    spread = values.std(0)
    # Evidence that never varied is all zero once it is centred, and the ridge gives it no coefficient.
    return values.mean(0), np.where(spread > 1e-9, spread, 1.0)


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

    A part of the mean is put into the constant: no task's gain is known almost exactly.
    """
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
