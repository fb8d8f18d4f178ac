"""Additive kernel regression on the factors of a description: the part of the conditional mean in closed form.

A few dozen seen tasks cannot determine a smooth function of forty numbers, but they can determine a sum of functions of
one factor each. The kernel is ``k = Σ_g w_g exp(-d_g² / 2 l_g²)`` over *groups* of columns that belong
together (a site's coordinates, one metadata field, a set of images), its weights and length scales chosen by exact
leave-one-out error on the seen tasks. A narrow kernel over everything replaces the ridge: far from all seen
descriptions it adds nothing, so that unseen tasks get the smooth sum; at a seen description the mean interpolates that
task's own targets. Both regimes are one Gaussian process (Rasmussen & Williams 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.parallel import Tick, in_parallel
from wildpdiff.records import decode, encode

Matrix = npt.NDArray[np.float64]

FEWEST_TASKS = 4
"""With fewer seen tasks nothing is regressed."""
LENGTH_SCALES = (0.5, 1.0, 2.0)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
RIDGES = (0.3, 1.0, 3.0)
MOST_TERMS = 8
LEAST_GAIN = 5e-4
NARROW = 0.2
"""Length scale of the narrow kernel, in units of the median distance from a seen task to its nearest."""
TENSORS = ("seen", "targets", "constant", "coefficients")


@dataclass(frozen=True)
class KernelGroup:
    """One term of the kernel: a factor of the description with its length scale and weight.

    Attributes:
        unit: mean squared distance between seen tasks in these columns.
        length_scale: in units of the root of ``unit``.
    """

    part: str
    columns: tuple[int, ...]
    unit: float
    length_scale: float
    weight: float

    def matrix(self, left: Matrix, right: Matrix) -> Matrix:
        """The term without its weight, between embeddings "n e" and "m e"."""
        columns = list(self.columns)
        squared = squared_distances(left[:, columns], right[:, columns]) / self.unit
        return np.asarray(np.exp(-squared / (2 * self.length_scale**2)))


@dataclass(frozen=True)
class _Solved:
    """The regression for descriptions that have the same parts.

    Attributes:
        terms: of the additive kernel over these parts.
        rows: of the seen tasks that have these parts.
        constant, coefficients: of the smooth part.
        anchors: inverse of the narrow kernel between these tasks.
        columns: of the narrow kernel.
    """

    terms: Sequence[KernelGroup]
    rows: Sequence[int]
    seen: Matrix
    constant: Matrix
    coefficients: Matrix
    anchors: Matrix
    columns: Sequence[int]


@dataclass(frozen=True, eq=False)
class KernelMean:
    """The fitted regression ``m + Σ_j k(c, c_j) a_j`` of fused embeddings, and the weights of the narrow kernel.

    Attributes:
        parts: of the description, in the order of the embedding's presence flags.
        sizes: columns of each part; they come first, in the same order.
        width: length scale of the narrow kernel, in the embedding's units.
        targets: of the seen tasks, normalised adapters or anything else that is regressed.
        constant: ``m``.
        coefficients: ``a``, for descriptions that have all parts.
        relative_error: squared leave-one-out error over that of the mean of all tasks.
    """

    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    terms: tuple[KernelGroup, ...]
    ridge: float
    width: float
    seen: Float[Tensor, "t e"]
    targets: Float[Tensor, "t d"]
    constant: Float[Tensor, " d"]
    coefficients: Float[Tensor, "t d"]
    relative_error: float
    _solved: dict[tuple[bool, ...], _Solved] = field(default_factory=dict, init=False, repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the regression."""
        return {name: encode(getattr(self, name)) for name in ("parts", "terms", "ridge", "width", "relative_error")}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The seen tasks' embeddings and targets, intercept and coefficients."""
        return {name: getattr(self, name) for name in TENSORS}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], sizes: tuple[int, ...]) -> KernelMean:
        """Restored from :attr:`config` and :attr:`tensors`, and the sizes of the encoder of the embeddings."""
        given = {name: config[name] for name in ("ridge", "width", "relative_error")}
        terms = decode(tuple[KernelGroup, ...], config["terms"], "terms of the kernel")
        own: dict[str, Any] = {name: tensors[name] for name in TENSORS}
        return cls(parts=tuple(config["parts"]), sizes=sizes, terms=terms, **given, **own)

    def kernel_between(self, left: Float[Tensor, "n e"], right: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        """The additive kernel between embeddings that have all parts."""
        return torch.from_numpy(kernel_sum(self.terms, as_matrix(left), as_matrix(right))).float()

    def predict(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """The regression; parts whose presence flag is 0 are left out of the kernel."""
        result = torch.empty(len(embeddings), self.targets.shape[1])
        for solved, rows in self._by_parts(embeddings):
            kernel = kernel_sum(solved.terms, as_matrix(embeddings[rows]), solved.seen)
            result[rows] = torch.from_numpy(solved.constant + kernel @ solved.coefficients).float()
        return result

    def anchor_weights(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n t"]:
        """Interpolation weight of each seen task by the narrow kernel: 1 at its own description, 0 far from all."""
        result = torch.zeros(len(embeddings), len(self.seen))
        for solved, rows in self._by_parts(embeddings):
            if len(solved.seen):
                near = self._narrow(as_matrix(embeddings[rows]), solved.seen, solved.columns) @ solved.anchors
                result[rows.nonzero()[:, :1], torch.tensor(solved.rows)[None]] = torch.from_numpy(near).float()
        return result

    def without(self, rows: Bool[Tensor, " t"]) -> KernelMean:
        """The regression on the other tasks, its terms and ridge kept."""
        seen, targets = self.seen[~rows], self.targets[~rows]
        values = as_matrix(seen)
        solved = solve(kernel_sum(self.terms, values, values), as_matrix(targets), self.ridge)
        constant, coefficients = (torch.from_numpy(value).float() for value in solved)
        return replace(self, seen=seen, targets=targets, constant=constant, coefficients=coefficients)

    def presence_masks(self, embeddings: Float[Tensor, "n e"]) -> Int[Tensor, " n"]:
        """The parts that each embedding has, as bits of one number, the first part lowest."""
        flags = (embeddings[:, -len(self.parts) :] > 0.5).long()
        return (flags << torch.arange(len(self.parts))).sum(1)

    def masked_embeddings(self, mask: int) -> Float[Tensor, "t e"]:
        """The seen tasks' embeddings without the parts whose bit in the mask is 0."""
        known = torch.tensor(self._known(mask))
        columns = torch.cat([known.repeat_interleave(torch.tensor(self.sizes)), known])
        return torch.where(columns, self.seen, 0.0)

    def _known(self, mask: int) -> list[bool]:
        return [bool(mask >> bit & 1) for bit in range(len(self.parts))]

    def leave_one_out(self, mask: int = -1) -> Float[Tensor, "t d"]:
        """Exact leave-one-out predictions of the seen tasks, kernel and ridge kept; a single task has only itself.

        The error at task i is ``(P y)_i / P_ii`` with ``P`` the upper left block of the inverse of the bordered kernel
        matrix (Cawley & Talbot 2004). The mask is that of the known parts; all by default.
        """
        if len(self.seen) < 2:
            return self.targets.clone()
        terms = self._terms(self._known(mask))
        seen, targets = as_matrix(self.seen), as_matrix(self.targets)
        projected = projected_inverse(kernel_sum(terms, seen, seen), self.ridge)
        return torch.from_numpy(targets - projected @ targets / np.diag(projected)[:, None]).float()

    def held_out(self) -> Float[Tensor, "t d"]:
        """Predictions of :meth:`predict` for each seen task's own description, without that task.

        :meth:`leave_one_out` for tasks that have all parts; for the others, of which there is no closed form, the
        regression is solved again without each.
        """
        result = self.leave_one_out()
        whole = (self.seen[:, -len(self.parts) :] > 0.5).all(1)
        # The prediction is the constant where too few of the others have the same parts.
        again = ~whole if int(whole.sum()) > FEWEST_TASKS else torch.ones_like(whole)
        for row in again.nonzero()[:, 0].tolist() if len(self.seen) > 1 else ():
            left = self.without(torch.arange(len(self.seen)) == row)
            result[row] = left.predict(self.seen[row : row + 1])[0]
        return result

    def _terms(self, known: Sequence[bool]) -> list[KernelGroup]:
        present = {part for part, there in zip(self.parts, known, strict=True) if there}
        return [term for term in self.terms if term.part in present]

    def _by_parts(self, embeddings: Tensor) -> Iterator[tuple[_Solved, Tensor]]:
        """The rows that have the same parts, with the regression for those parts."""
        flags = embeddings[:, -len(self.parts) :] > 0.5
        for pattern in torch.unique(flags, dim=0):
            key = tuple(pattern.tolist())
            if key not in self._solved:
                self._solved[key] = self._solve_for(pattern)
            yield self._solved[key], (flags == pattern).all(1)

    def _solve_for(self, pattern: Tensor) -> _Solved:
        """The regression for descriptions with these parts."""
        terms, whole = self._terms(pattern.tolist()), bool(pattern.all())
        usable = ((self.seen[:, -len(self.parts) :] > 0.5) | ~pattern).all(1)
        constant, coefficients = as_matrix(self.constant), as_matrix(self.coefficients)
        if not pattern.any() or int(usable.sum()) < FEWEST_TASKS:
            nothing, empty = np.zeros((0, self.seen.shape[1])), np.zeros((0, self.targets.shape[1]))
            return _Solved([], [], nothing, constant, empty, np.zeros((0, 0)), [])
        if whole:
            usable = torch.ones_like(usable)
        seen = as_matrix(self.seen[usable])
        if not whole:
            # With fewer parts the best smooth function is another one: regress the predictions from all parts.
            targets = constant + kernel_sum(self.terms, seen, as_matrix(self.seen)) @ coefficients
            constant, coefficients = solve(kernel_sum(terms, seen, seen), targets, self.ridge)
        columns = _columns(terms, seen)
        inner = self._narrow(seen, seen, columns) + 1e-3 * np.eye(len(seen))
        rows = usable.nonzero()[:, 0].tolist()
        return _Solved(terms, rows, seen, constant, coefficients, np.asarray(np.linalg.inv(inner)), columns)

    def _narrow(self, left: Matrix, right: Matrix, columns: Sequence[int]) -> Matrix:
        squared = squared_distances(left[:, list(columns)], right[:, list(columns)])
        return np.asarray(np.exp(-squared / (2 * self.width**2)))


def as_matrix(values: Tensor) -> Matrix:
    """In double precision, for linear algebra."""
    return np.asarray(values.double().numpy())


def solve(kernel: Matrix, targets: Matrix, ridge: float) -> tuple[Matrix, Matrix]:
    """Intercept "d" and coefficients "t d" of kernel ridge regression."""
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    # The intercept is the generalised least squares mean of the targets.
    constant = inverse.sum(0) @ targets / inverse.sum()
    return constant, inverse @ (targets - constant)


def squared_distances(left: Matrix, right: Matrix) -> Matrix:
    """Between the rows "n e" and "m e", as "n m"."""
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0.0))


def kernel_sum(terms: Sequence[KernelGroup], left: Matrix, right: Matrix) -> Matrix:
    """The additive kernel between the rows "n e" and "m e", as "n m"."""
    total = np.zeros((len(left), len(right)))
    for term in terms:
        total += term.weight * term.matrix(left, right)
    return total


def projected_inverse(kernel: Matrix, ridge: float) -> Matrix:
    """``P``, the upper left block of the inverse of ``[[K + ridge I, 1], [1ᵀ, 0]]``."""
    # Symmetric and positive definite: by Cholesky at half the price.
    factor = torch.linalg.cholesky(torch.from_numpy(kernel + ridge * np.eye(len(kernel))))
    inverse = torch.cholesky_inverse(factor).numpy()
    sums = inverse.sum(0)
    return np.asarray(inverse - np.outer(sums, sums) / sums.sum())


def fit_kernel_mean(
    encoder: FusionEncoder,
    embeddings: Float[Tensor, "t e"],
    targets: Float[Tensor, "t d"],
    metric: Float[Tensor, "t m"] | None = None,
) -> KernelMean:
    """Additive kernel regression whose terms, weights and ridge are chosen greedily by leave-one-out error.

    With fewer than four tasks, or descriptions without information, there are no terms and the mean is constant. Errors
    are measured in the vectors ``metric`` of the tasks, by default the targets: whitened ones give directions that are
    mostly noise the same weight as those that are not, so raw adapters are better.
    """
    values = as_matrix(embeddings)
    terms, ridge, error = _choose(encoder, values, targets if metric is None else metric)
    solved = solve(kernel_sum(terms, values, values), as_matrix(targets), ridge)
    constant, coefficients = (torch.from_numpy(value).float() for value in solved)
    return KernelMean(
        parts=encoder.parts,
        sizes=encoder.sizes,
        terms=terms,
        ridge=ridge,
        width=_width(values, terms),
        seen=embeddings.clone(),
        targets=targets.clone(),
        constant=constant,
        coefficients=coefficients,
        relative_error=error,
    )


def _choose(encoder: FusionEncoder, values: Matrix, metric: Tensor) -> tuple[tuple[KernelGroup, ...], float, float]:
    """Terms, ridge and relative error of the greedy choice."""
    gram, count = _gram(metric), len(values)
    baseline = max(float(np.trace(gram)) * (count / max(1, count - 1)) ** 2, 1e-30)
    alike = float(np.trace(gram)) <= 1e-10 * max(1.0, float(metric.square().sum()))
    candidates = [] if alike or count < FEWEST_TASKS else _candidates(encoder, values)
    matrices = [term.matrix(values, values) for term in candidates]

    def error(kernel: Matrix, ridge: float) -> float:
        """Squared leave-one-out error of kernel regression with intercept, over that of the mean."""
        projected = projected_inverse(kernel, ridge)
        residual = projected / np.diag(projected)[:, None]
        return float((residual @ gram * residual).sum()) / baseline

    weights = np.zeros(len(candidates))
    best, ridge = 1.0, RIDGES[-1]
    for _ in range(MOST_TERMS if candidates else 0):
        kernel = np.tensordot(weights, matrices, axes=1)
        trials = [
            (term, weight)
            for term in range(len(candidates))
            for weight in WEIGHTS
            if weights[term] != weight and (weight > 0 or np.delete(weights, term).any())
        ]

        def changed(trial: tuple[int, float], _: Tick) -> float:
            term, weight = trial
            return error(kernel + (weight - weights[term]) * matrices[term], ridge)  # noqa: B023 (used at once)

        found = list(in_parallel(changed, trials))
        term, weight = trials[found.index(min(found))]
        tried = weights.copy()
        tried[term] = weight
        # The ridge follows the terms: trying all of them with every trial costs three times as much and changes little.
        kernel = np.tensordot(tried, matrices, axes=1)
        lowest, fitting = min((error(kernel, value), value) for value in RIDGES)
        if lowest >= best - LEAST_GAIN:
            break
        best, weights, ridge = lowest, tried, fitting
    chosen = zip(candidates, weights, strict=True)
    return tuple(replace(term, weight=float(weight)) for term, weight in chosen if weight > 0), ridge, best


def _gram(metric: Tensor) -> Matrix:
    centred = as_matrix(metric - metric.mean(0))
    return np.asarray(centred @ centred.T)


def _candidates(encoder: FusionEncoder, values: Matrix) -> list[KernelGroup]:
    found = []
    for part, columns in encoder.groups:
        squared = squared_distances(values[:, list(columns)], values[:, list(columns)])
        unit = float(squared.sum() / (len(values) * (len(values) - 1)))
        if unit > 1e-12:
            found += [KernelGroup(part, columns, unit, scale, 0.0) for scale in LENGTH_SCALES]
    return found


def _columns(terms: Sequence[KernelGroup], values: Matrix) -> list[int]:
    """Columns that some term reads; all without terms."""
    return sorted({column for term in terms for column in term.columns}) or list(range(values.shape[1]))


def _width(values: Matrix, terms: Sequence[KernelGroup]) -> float:
    if len(values) < 2:
        return 1.0
    columns = _columns(terms, values)
    squared = squared_distances(values[:, columns], values[:, columns])
    np.fill_diagonal(squared, np.inf)
    nearest = float(np.median(np.sqrt(squared.min(1))))
    return NARROW * nearest if nearest > 0 else 1.0
