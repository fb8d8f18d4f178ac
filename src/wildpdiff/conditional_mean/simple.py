"""Estimators without training: the pretrained model, the mean adapter, the nearest task, and kernel ridge regression.

Baselines of every adapter from a description, and estimators that a generator may blend in. All but the first are
weighted sums of the seen adapters, so that leaving a task out is exact and costs no refit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wildpdiff.conditional_mean.kernel import Matrix, as_matrix, solve
from wildpdiff.conditional_mean.score_table import PRETRAINED
from wildpdiff.records import encode

MEAN = "mean adapter"
NEAREST = "nearest task"
KERNEL_RIDGE = "kernel ridge regression"
SIMPLE = (PRETRAINED, MEAN, NEAREST, KERNEL_RIDGE)
"""Names of the estimators, the simplest first."""

LENGTH_SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
"""Length scales of the kernel that are tried, in units of the root mean square distance between seen tasks."""
RIDGES = tuple(10.0 ** (power / 2) for power in range(-12, 4))
PART_STEPS = 4
"""Weights of the parts of a description are multiples of 1 / PART_STEPS that sum to 1."""
FEWEST_TASKS = 3
"""With fewer seen tasks kernel ridge regression is the mean adapter."""


@dataclass(frozen=True, eq=False)
class SimpleEstimators:
    """Fused embeddings of descriptions to normalised adapters, by each of :data:`SIMPLE`.

    Squared distances between descriptions are means over the parts that both have, of the squared distance in that part
    in units of its mean over seen pairs.

    Attributes:
        sizes: columns of each part of the embeddings; one presence flag a part follows them.
        units: mean squared distance between two seen tasks, by part.
        part_weights: of the kernel's squared distance, by part; chosen by leave-one-out error, as the next two.
        length_scale: of the kernel, in units of the root mean square distance.
        start: normalised adapter that leaves the pretrained model as it is.
    """

    sizes: tuple[int, ...]
    units: tuple[float, ...]
    part_weights: tuple[float, ...]
    length_scale: float
    ridge: float
    start: Float[Tensor, " d"]
    seen: Float[Tensor, "t e"]
    targets: Float[Tensor, "t d"]

    def predict(self, name: str, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """Normalised adapters by one of :data:`SIMPLE`; raises ``KeyError`` for another name."""
        if name == PRETRAINED:
            return self.start.expand(len(embeddings), -1).clone()
        if name == MEAN:
            return self.targets.mean(0).expand(len(embeddings), -1).clone()
        if name == NEAREST:
            overall = _combined(self._squared(embeddings), None)
            return self._nearest(overall, self.predict(MEAN, embeddings))
        if name == KERNEL_RIDGE:
            return self._regress(embeddings)
        raise KeyError(name)

    def leave_one_out(self) -> dict[str, Float[Tensor, "t d"]]:
        """For each of :data:`SIMPLE` the prediction for every seen task without it; one task alone has itself."""
        count = len(self.targets)
        if count < 2:
            return {PRETRAINED: self.start[None].clone(), **dict.fromkeys(SIMPLE[1:], self.targets.clone())}
        mean = (self.targets.double().sum(0) - self.targets) / (count - 1)
        overall = _combined(self._squared(self.seen), None)
        overall[range(count), range(count)] = np.inf
        regressed = mean
        if count > FEWEST_TASKS:
            inverse = np.linalg.inv(self._seen_kernel() + self.ridge * np.eye(count))
            sums = inverse.sum(0)
            projected = inverse - np.outer(sums, sums) / sums.sum()
            targets = as_matrix(self.targets)
            regressed = torch.from_numpy(targets - projected @ targets / np.diag(projected)[:, None])
        return {
            PRETRAINED: self.start.expand(count, -1).clone(),
            MEAN: mean.float(),
            NEAREST: self._nearest(overall, mean.float()),
            KERNEL_RIDGE: regressed.float(),
        }

    def without(self, rows: Bool[Tensor, " t"]) -> SimpleEstimators:
        """The same on the other seen tasks; units and choices are kept."""
        return replace(self, seen=self.seen[~rows], targets=self.targets[~rows])

    def _nearest(self, squared: Matrix, mean: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The adapter of the nearest task; the mean adapter where a description shares no part with any."""
        near = torch.from_numpy(np.isfinite(squared).any(1))
        return torch.where(near[:, None], self.targets[squared.argmin(1)], mean)

    def _squared(self, embeddings: Float[Tensor, "n e"]) -> list[Matrix]:
        return _part_distances(self.sizes, self.units, embeddings, self.seen)

    def _kernel(self, embeddings: Float[Tensor, "n e"]) -> Matrix:
        return _gaussian(_combined(self._squared(embeddings), self.part_weights), self.length_scale)

    def _seen_kernel(self) -> Matrix:
        return _with_itself(self._kernel(self.seen))

    def _regress(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        if len(self.targets) < FEWEST_TASKS:
            return self.predict(MEAN, embeddings)
        constant, coefficients = solve(self._seen_kernel(), as_matrix(self.targets), self.ridge)
        return torch.from_numpy(constant + self._kernel(embeddings) @ coefficients).float()

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with the seen tasks, restore the estimators."""
        return {name: encode(getattr(self, name)) for name in ("units", "part_weights", "length_scale", "ridge")}

    @classmethod
    def from_state(
        cls,
        config: Mapping[str, Any],
        sizes: tuple[int, ...],
        start: Float[Tensor, " d"],
        *,
        seen: Float[Tensor, "t e"],
        targets: Float[Tensor, "t d"],
    ) -> SimpleEstimators:
        """Restored from :attr:`config` and the tensors of the seen tasks."""
        units, weights = tuple(config["units"]), tuple(config["part_weights"])
        return cls(sizes, units, weights, config["length_scale"], config["ridge"], start, seen, targets)


def fit_simple_estimators(
    sizes: tuple[int, ...], start: Float[Tensor, " d"], seen: Float[Tensor, "t e"], targets: Float[Tensor, "t d"]
) -> SimpleEstimators:
    """The estimators of these tasks; the kernel is chosen by the exact leave-one-out error of normalised adapters."""
    raw = _part_distances(sizes, (1.0,) * len(sizes), seen, seen)
    units = tuple(_mean_of_pairs(squared) for squared in raw)
    squared = [own / unit for own, unit in zip(raw, units, strict=True)]
    centred = as_matrix(targets - targets.mean(0))
    gram = centred @ centred.T
    best = (float("inf"), (1.0 / len(sizes),) * len(sizes), 1.0, RIDGES[-1])
    if len(seen) > FEWEST_TASKS:
        for weights, scale in product(_simplex(len(sizes), PART_STEPS), LENGTH_SCALES):
            values, vectors = np.linalg.eigh(_with_itself(_gaussian(_combined(squared, weights), scale)))
            for ridge in RIDGES:
                error = _leave_one_out_error(values, vectors, gram, ridge)
                if error < best[0]:
                    best = (error, weights, scale, ridge)
    return SimpleEstimators(sizes, units, *best[1:], start, seen, targets)


def _leave_one_out_error(values: Matrix, vectors: Matrix, gram: Matrix, ridge: float) -> float:
    """Squared leave-one-out error of kernel ridge regression with intercept (Cawley & Talbot 2004)."""
    # Where parts are missing the kernel may have negative eigenvalues: they count as in the prediction.
    inverse = (vectors / (values + ridge)) @ vectors.T
    sums = inverse.sum(0)
    projected = inverse - np.outer(sums, sums) / sums.sum()
    return float((((projected @ gram) * projected).sum(1) / projected.diagonal() ** 2).sum())


def _part_distances(sizes: Sequence[int], units: Sequence[float], left: Tensor, right: Tensor) -> list[Matrix]:
    """Squared distances by part, nan where either lacks it."""
    found, start, flags = [], 0, sum(sizes)
    for part, (size, unit) in enumerate(zip(sizes, units, strict=True)):
        first, second = as_matrix(left[:, start : start + size]), as_matrix(right[:, start : start + size])
        # Differences first: the expanded square would lose small distances to cancellation.
        squared = np.stack([((row - second) ** 2).sum(1) for row in first]) / unit
        both = (as_matrix(left[:, flags + part]) > 0.5)[:, None] & (as_matrix(right[:, flags + part]) > 0.5)[None]
        found.append(np.where(both, squared, np.nan))
        start += size
    return found


def _combined(squared: Sequence[Matrix], weights: Sequence[float] | None) -> Matrix:
    """Weighted mean over the parts that both have; infinite where they share none of positive weight."""
    own = [1.0] * len(squared) if weights is None else list(weights)
    known = [weight * ~np.isnan(part) for weight, part in zip(own, squared, strict=True)]
    total = sum(weight * np.nan_to_num(part) for weight, part in zip(own, squared, strict=True))
    shared = np.asarray(sum(known))
    return np.asarray(np.where(shared > 0, total / np.maximum(shared, 1e-12), np.inf))


def _gaussian(squared: Matrix, length_scale: float) -> Matrix:
    return np.asarray(np.exp(-squared / (2 * length_scale**2)))


def _with_itself(kernel: Matrix) -> Matrix:
    """A kernel with ones on the diagonal, also where a task has no part of positive weight."""
    result = kernel.copy()
    np.fill_diagonal(result, 1.0)
    return result


def _mean_of_pairs(squared: Matrix) -> float:
    values = squared[~np.eye(len(squared), dtype=bool) & ~np.isnan(squared)]
    mean = float(values.mean()) if len(values) else 0.0
    return mean if mean > 1e-12 else 1.0


def _simplex(parts: int, steps: int) -> Iterator[tuple[float, ...]]:
    """All non-negative multiples of ``1 / steps`` that sum to 1."""
    for counts in product(range(steps + 1), repeat=parts):
        if sum(counts) == steps:
            yield tuple(count / steps for count in counts)
