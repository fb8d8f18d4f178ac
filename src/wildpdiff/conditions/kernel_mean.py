"""The conditional mean of the latents: additive kernel regression on the factors of a description.

A few dozen seen tasks cannot teach a network a smooth function of forty numbers, but they can teach a sum of
functions of one factor each. The kernel is ``k = Σ_g w_g exp(-d_g² / 2 l_g²)`` over *groups* of columns that belong
together (a place's coordinates, one metadata field, a set of images), its weights and length scales chosen by exact
leave-one-out error on the seen tasks. A narrow kernel over everything takes the place of the ridge: far from all seen
descriptions it adds nothing, so that unseen tasks get the smooth sum; at a seen description it lets the mean pass
through that task's own latents. Both regimes are one Gaussian process (Rasmussen & Williams 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from wildpdiff.conditions.fusion import FusionEncoder

__all__ = ["KernelGroup", "KernelMean", "fit_kernel_mean"]

Matrix = npt.NDArray[np.float64]

LENGTH_SCALES = (0.5, 1.0, 2.0)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
RIDGES = (0.3, 1.0, 3.0)
MOST_TERMS = 8
FEWEST_TASKS = 4
LEAST_GAIN = 5e-4
NARROW = 0.2
"""Length scale of the narrow kernel, in units of the median distance from a seen task to its nearest."""


@dataclass(frozen=True)
class KernelGroup:
    """Columns of the fused embedding that are one factor, with the chosen length scale and weight.

    Attributes:
        part: the part of the description that the columns belong to.
        columns: of the fused embedding.
        unit: mean squared distance between seen tasks in these columns.
        length_scale: in units of the root of ``unit``.
        weight: of the term.
    """

    part: str
    columns: tuple[int, ...]
    unit: float
    length_scale: float
    weight: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.__dict__, "columns": list(self.columns)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KernelGroup:
        """The inverse of :meth:`to_json`."""
        return cls(**{**data, "columns": tuple(data["columns"])})

    def matrix(self, left: Matrix, right: Matrix) -> Matrix:
        """The term without its weight, between embeddings "n e" and "m e"."""
        columns = list(self.columns)
        squared = _squared(left[:, columns], right[:, columns]) / self.unit
        return np.asarray(np.exp(-squared / (2 * self.length_scale**2)))


@dataclass(frozen=True)
class _Solved:
    """The regression for descriptions that have the same parts.

    Attributes:
        terms: of the additive kernel that can be read.
        seen: embeddings of the seen tasks that have these parts.
        constant, coefficients: of the smooth part.
        own: coefficients of the narrow kernel.
        columns: that the narrow kernel reads.
    """

    terms: Sequence[KernelGroup]
    seen: Matrix
    constant: Matrix
    coefficients: Matrix
    own: Matrix
    columns: Sequence[int]


@dataclass(frozen=True, eq=False)
class KernelMean:
    """The fitted conditional mean: fused embeddings to latents, ``m + Σ_j k(c, c_j) a_j + Σ_j n(c, c_j) r_j``.

    Attributes:
        parts: of the description, in the order of the embedding's presence flags.
        terms: of the additive kernel ``k``.
        ridge: that the leave-one-out error chose.
        width: length scale of the narrow kernel ``n``, in the embedding's units.
        seen: embeddings of the seen tasks, "t e".
        latents: the mean latents of each seen task, "t l"; what the narrow kernel leads back to.
        constant: ``m``, "l".
        coefficients: ``a``, "t l", for descriptions that have all parts.
        relative_error: squared leave-one-out error over that of the mean of all tasks; below 1 descriptions help.
    """

    parts: tuple[str, ...]
    terms: tuple[KernelGroup, ...]
    ridge: float
    width: float
    seen: Float[Tensor, "t e"]
    latents: Float[Tensor, "t l"]
    constant: Float[Tensor, " l"]
    coefficients: Float[Tensor, "t l"]
    relative_error: float
    _solved: dict[tuple[bool, ...], _Solved] = field(default_factory=dict, init=False, repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the mean."""
        return {
            "parts": list(self.parts),
            "terms": [term.to_json() for term in self.terms],
            "ridge": self.ridge,
            "width": self.width,
            "relative_error": self.relative_error,
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The seen tasks' embeddings and latents, and what multiplies the kernel."""
        return {
            "seen": self.seen,
            "latents": self.latents,
            "constant": self.constant,
            "coefficients": self.coefficients,
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> KernelMean:
        """Restore from :attr:`config` and :attr:`tensors`."""
        return cls(
            parts=tuple(config["parts"]),
            terms=tuple(KernelGroup.from_json(term) for term in config["terms"]),
            ridge=config["ridge"],
            width=config["width"],
            relative_error=config["relative_error"],
            **{name: tensors[name] for name in ("seen", "latents", "constant", "coefficients")},
        )

    def kernel(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n t"]:
        """The additive kernel between embeddings that have all parts and the seen tasks."""
        return self.kernel_between(embeddings, self.seen)

    def kernel_between(self, left: Float[Tensor, "n e"], right: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        """The additive kernel between embeddings that have all parts."""
        return torch.from_numpy(_sum(self.terms, _numpy(left), _numpy(right))).float()

    def smooth(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n l"]:
        """The mean without the narrow kernel: what an unseen task would get, also at the seen ones."""
        return self._mean(embeddings, narrow=False)

    def __call__(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n l"]:
        """Mean latents for fused embeddings; parts whose presence flag is 0 are left out of the kernel."""
        return self._mean(embeddings, narrow=True)

    def table(self) -> Float[Tensor, "s t l"]:
        """The mean of every seen task for every subset of its parts, numbered as :meth:`code` does."""
        flags = len(self.parts)
        subsets = []
        for code in range(2**flags):
            known = torch.tensor([bool(code >> place & 1) for place in range(flags)])
            reduced = self.seen.clone()
            reduced[:, -flags:] = reduced[:, -flags:] * known
            subsets.append(self(reduced))
        return torch.stack(subsets)

    def code(self, embeddings: Float[Tensor, "n e"]) -> Int[Tensor, " n"]:
        """The number of the subset of parts that each embedding has: its presence flags read as binary digits."""
        flags = (embeddings[:, -len(self.parts) :] > 0.5).long()
        return (flags << torch.arange(len(self.parts))).sum(1)

    def _mean(self, embeddings: Tensor, narrow: bool) -> Tensor:
        flags = embeddings[:, -len(self.parts) :] > 0.5
        result = torch.empty(len(embeddings), self.latents.shape[1])
        for pattern in torch.unique(flags, dim=0):
            rows = (flags == pattern).all(1)
            result[rows] = self._predict(embeddings[rows], pattern, narrow)
        return result

    def _predict(self, embeddings: Tensor, pattern: Tensor, narrow: bool) -> Tensor:
        """The mean for embeddings that all have the same parts."""
        key = tuple(bool(known) for known in pattern)
        if key not in self._solved:
            self._solved[key] = self._solve_for(pattern)
        solved = self._solved[key]
        asked = _numpy(embeddings)
        found = solved.constant + _sum(solved.terms, asked, solved.seen) @ solved.coefficients
        if narrow and len(solved.seen):
            found = found + self._narrow(asked, solved.seen, solved.columns) @ solved.own
        return torch.from_numpy(found).float()

    def _solve_for(self, pattern: Tensor) -> _Solved:
        """What the mean needs for descriptions with these parts; solved once and kept."""
        present = {part for part, known in zip(self.parts, pattern.tolist(), strict=True) if known}
        usable = ((self.seen[:, -len(self.parts) :] > 0.5) | ~pattern).all(1)
        terms = [term for term in self.terms if term.part in present]
        constant, coefficients = _numpy(self.constant), _numpy(self.coefficients)
        if not present or int(usable.sum()) < FEWEST_TASKS:
            nothing = np.zeros((0, self.seen.shape[1]))
            empty = np.zeros((0, self.latents.shape[1]))
            return _Solved([], nothing, constant, empty, empty, [])
        seen = _numpy(self.seen[usable])
        if bool(pattern.all()):
            usable = torch.ones_like(usable)
            seen = _numpy(self.seen)
        else:
            # With fewer parts the best smooth answer is another one: regress what all parts together would say.
            targets = constant + _sum(self.terms, seen, _numpy(self.seen)) @ coefficients
            constant, coefficients = _solve(_sum(terms, seen, seen), targets, self.ridge)
        rest = _numpy(self.latents[usable]) - (constant + _sum(terms, seen, seen) @ coefficients)
        columns = sorted({column for term in terms for column in term.columns}) or list(range(seen.shape[1]))
        inner = self._narrow(seen, seen, columns) + 1e-3 * np.eye(len(seen))
        return _Solved(terms, seen, constant, coefficients, np.asarray(np.linalg.solve(inner, rest)), columns)

    def _narrow(self, left: Matrix, right: Matrix, columns: Sequence[int]) -> Matrix:
        squared = _squared(left[:, list(columns)], right[:, list(columns)])
        return np.asarray(np.exp(-squared / (2 * self.width**2)))


def _numpy(values: Tensor) -> Matrix:
    return np.asarray(values.double().numpy())


class _Solution(NamedTuple):
    constant: Matrix
    coefficients: Matrix


def _solve(kernel: Matrix, targets: Matrix, ridge: float) -> _Solution:
    """Constant and coefficients of kernel ridge regression with intercept."""
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    # The intercept is the generalised least squares mean of the targets.
    constant = inverse.sum(0) @ targets / inverse.sum()
    return _Solution(constant, inverse @ (targets - constant))


def _squared(left: Matrix, right: Matrix) -> Matrix:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0.0))


def _sum(terms: Sequence[KernelGroup], left: Matrix, right: Matrix) -> Matrix:
    total = np.zeros((len(left), len(right)))
    for term in terms:
        total += term.weight * term.matrix(left, right)
    return total


def _leave_one_out(kernel: Matrix, gram: Matrix, ridge: float) -> float:
    """Squared leave-one-out error of kernel regression with intercept, from inner products of the centred targets."""
    count = len(kernel)
    inverse = np.linalg.inv(kernel + ridge * np.eye(count))
    sums = inverse.sum(0)
    projected = inverse - np.outer(sums, sums) / sums.sum()
    residual = projected / np.diag(projected)[:, None]
    return float((residual @ gram * residual).sum())


def fit_kernel_mean(
    encoder: FusionEncoder,
    embeddings: Float[Tensor, "t e"],
    latents: Float[Tensor, "t l"],
    metric: Float[Tensor, "t d"] | None = None,
) -> KernelMean:
    """Choose terms, weights, length scales and ridge greedily by leave-one-out error, on seen tasks only.

    Args:
        encoder: fused; names the groups of columns.
        embeddings: of the seen tasks, all their parts.
        latents: mean latents of each seen task.
        metric: vectors of the same tasks in which errors are measured; the latents by default. Whitened latents give
            directions that are mostly noise the same weight as those that are not, so the adapters are better.

    With fewer than four tasks, or descriptions that tell nothing, there are no terms and the mean is constant.
    """
    values = embeddings.double().numpy()
    measured = latents if metric is None else metric
    centred = (measured - measured.mean(0)).double().numpy()
    gram = centred @ centred.T
    count = len(values)
    baseline = max(float(np.trace(gram)) * (count / max(1, count - 1)) ** 2, 1e-30)
    alike = float(np.trace(gram)) <= 1e-10 * max(1.0, float(measured.square().sum()))
    candidates = [] if alike or count < FEWEST_TASKS else _candidates(encoder, values)
    matrices = [term.matrix(values, values) for term in candidates]
    weights = np.zeros(len(candidates))
    best, ridge = 1.0, RIDGES[-1]
    for _ in range(MOST_TERMS):
        step = None
        for place in range(len(candidates)):
            for weight in WEIGHTS:
                if weights[place] == weight:
                    continue
                trial = weights.copy()
                trial[place] = weight
                if not trial.any():
                    continue
                kernel = np.tensordot(trial, matrices, axes=1)
                for value in RIDGES:
                    error = _leave_one_out(kernel, gram, value) / baseline
                    if error < best - LEAST_GAIN and (step is None or error < step[0]):
                        step = (error, trial, value)
        if step is None:
            break
        best, weights, ridge = step
    terms = tuple(
        KernelGroup(term.part, term.columns, term.unit, term.length_scale, float(weight))
        for term, weight in zip(candidates, weights, strict=True)
        if weight > 0
    )
    constant, coefficients = _solve(_sum(terms, values, values), latents.double().numpy(), ridge)
    return KernelMean(
        parts=encoder.parts,
        terms=terms,
        ridge=ridge,
        width=_width(values, terms),
        seen=embeddings.clone(),
        latents=latents.clone(),
        constant=torch.from_numpy(constant).float(),
        coefficients=torch.from_numpy(coefficients).float(),
        relative_error=best,
    )


def _candidates(encoder: FusionEncoder, values: Matrix) -> list[KernelGroup]:
    found = []
    for part, columns in encoder.groups:
        squared = _squared(values[:, list(columns)], values[:, list(columns)])
        unit = float(squared.sum() / (len(values) * (len(values) - 1)))
        if unit > 1e-12:
            found += [KernelGroup(part, columns, unit, scale, 0.0) for scale in LENGTH_SCALES]
    return found


def _width(values: Matrix, terms: Sequence[KernelGroup]) -> float:
    if len(values) < 2:
        return 1.0
    columns = sorted({column for term in terms for column in term.columns}) or list(range(values.shape[1]))
    squared = _squared(values[:, columns], values[:, columns])
    np.fill_diagonal(squared, np.inf)
    nearest = float(np.median(np.sqrt(squared.min(1))))
    return NARROW * nearest if nearest > 0 else 1.0
