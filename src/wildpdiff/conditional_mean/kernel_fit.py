"""Choosing the factors of a description that a kernel regression reads, by exact leave-one-out error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditional_mean.kernel import (
    FEWEST_TASKS,
    KernelGroup,
    KernelMean,
    Matrix,
    kernel_sum,
    projected_inverse,
    solve,
    squared_distances,
)
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.parallel import Tick, in_parallel

LENGTH_SCALES = (0.5, 1.0, 2.0)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
RIDGES = (0.3, 1.0, 3.0)
MOST_TERMS = 8
LEAST_GAIN = 5e-4
NARROW = 0.2
"""Length scale of the narrow kernel, in units of the median distance from a seen task to its nearest."""


def _leave_one_out(kernel: Matrix, gram: Matrix, ridge: float) -> float:
    """Squared leave-one-out error of kernel regression with intercept, from inner products of the centred targets."""
    projected = projected_inverse(kernel, ridge)
    residual = projected / np.diag(projected)[:, None]
    return float((residual @ gram * residual).sum())


def _with(weights: Matrix, place: int, weight: float) -> Matrix:
    changed = weights.copy()
    changed[place] = weight
    return changed


def fit_kernel_mean(
    encoder: FusionEncoder,
    embeddings: Float[Tensor, "t e"],
    targets: Float[Tensor, "t d"],
    metric: Float[Tensor, "t m"] | None = None,
) -> KernelMean:
    """Choose terms, weights, length scales and ridge greedily by leave-one-out error, on seen tasks only.

    Args:
        encoder: fused; names the groups of columns.
        embeddings: of the seen tasks, all their parts.
        targets: what is known of each seen task.
        metric: vectors of the same tasks in which errors are measured; the targets by default. Whitened ones give
            directions that are mostly noise the same weight as those that are not, so raw adapters are better.

    With fewer than four tasks, or descriptions that tell nothing, there are no terms and the mean is constant.
    """
    values = embeddings.double().numpy()
    measured = targets if metric is None else metric
    centred = (measured - measured.mean(0)).double().numpy()
    gram = centred @ centred.T
    count = len(values)
    baseline = max(float(np.trace(gram)) * (count / max(1, count - 1)) ** 2, 1e-30)
    alike = float(np.trace(gram)) <= 1e-10 * max(1.0, float(measured.square().sum()))
    candidates = [] if alike or count < FEWEST_TASKS else _candidates(encoder, values)
    matrices = [term.matrix(values, values) for term in candidates]

    def errors(start: Matrix, ridge: float, trials: Sequence[Matrix]) -> Iterator[float]:
        """Of weights that differ from ``start`` in one term each."""
        chosen = np.tensordot(start, matrices, axes=1) if len(candidates) else np.zeros((count, count))

        def error(trial: Matrix, _: Tick) -> float:
            place = int(np.flatnonzero(trial != start)[0])
            changed = chosen + (trial[place] - start[place]) * matrices[place]
            return _leave_one_out(changed, gram, ridge) / baseline

        return in_parallel(error, trials)

    weights = np.zeros(len(candidates))
    best, ridge = 1.0, RIDGES[-1]
    for _ in range(MOST_TERMS):
        trials = [
            trial
            for place in range(len(candidates))
            for weight in WEIGHTS
            if weights[place] != weight and (trial := _with(weights, place, weight)).any()
        ]
        step = min(zip(errors(weights, ridge, trials), trials, strict=True), key=lambda pair: pair[0], default=None)
        if step is None:
            break
        # The ridge follows the terms: trying all of them with every trial costs three times as much and changes little.
        kernel = np.tensordot(step[1], matrices, axes=1)
        error, fitting = min((_leave_one_out(kernel, gram, value) / baseline, value) for value in RIDGES)
        if error >= best - LEAST_GAIN:
            break
        best, weights, ridge = error, step[1], fitting
    terms = tuple(
        KernelGroup(term.part, term.columns, term.unit, term.length_scale, float(weight))
        for term, weight in zip(candidates, weights, strict=True)
        if weight > 0
    )
    constant, coefficients = solve(kernel_sum(terms, values, values), targets.double().numpy(), ridge)
    return KernelMean(
        parts=encoder.parts,
        sizes=encoder.sizes,
        terms=terms,
        ridge=ridge,
        width=_width(values, terms),
        seen=embeddings.clone(),
        targets=targets.clone(),
        constant=torch.from_numpy(constant).float(),
        coefficients=torch.from_numpy(coefficients).float(),
        relative_error=best,
    )


def _candidates(encoder: FusionEncoder, values: Matrix) -> list[KernelGroup]:
    found = []
    for part, columns in encoder.groups:
        squared = squared_distances(values[:, list(columns)], values[:, list(columns)])
        unit = float(squared.sum() / (len(values) * (len(values) - 1)))
        if unit > 1e-12:
            found += [KernelGroup(part, columns, unit, scale, 0.0) for scale in LENGTH_SCALES]
    return found


def _width(values: Matrix, terms: Sequence[KernelGroup]) -> float:
    if len(values) < 2:
        return 1.0
    columns = sorted({column for term in terms for column in term.columns}) or list(range(values.shape[1]))
    squared = squared_distances(values[:, columns], values[:, columns])
    np.fill_diagonal(squared, np.inf)
    nearest = float(np.median(np.sqrt(squared.min(1))))
    return NARROW * nearest if nearest > 0 else 1.0
