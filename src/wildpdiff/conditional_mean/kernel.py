"""Additive kernel regression on the factors of a description: the part of the conditional mean in closed form.

A few dozen seen tasks cannot teach a network a smooth function of forty numbers, but they can teach a sum of
functions of one factor each. The kernel is ``k = Σ_g w_g exp(-d_g² / 2 l_g²)`` over *groups* of columns that belong
together (a place's coordinates, one metadata field, a set of images), its weights and length scales chosen by exact
leave-one-out error on the seen tasks. A narrow kernel over everything takes the place of the ridge: far from all seen
descriptions it adds nothing, so that unseen tasks get the smooth sum; at a seen description it lets the mean pass
through what is known of that task. Both regimes are one Gaussian process (Rasmussen & Williams 2006, chapter 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Matrix = npt.NDArray[np.float64]

FEWEST_TASKS = 4
"""With fewer seen tasks nothing is regressed."""


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
        squared = squared_distances(left[:, columns], right[:, columns]) / self.unit
        return np.asarray(np.exp(-squared / (2 * self.length_scale**2)))


@dataclass(frozen=True)
class _Solved:
    """The regression for descriptions that have the same parts.

    Attributes:
        terms: of the additive kernel that can be read.
        rows: of the seen tasks that have these parts.
        seen: their embeddings.
        constant, coefficients: of the smooth part.
        pull: what the narrow kernel is multiplied with to give each seen task's weight.
        columns: that the narrow kernel reads.
    """

    terms: Sequence[KernelGroup]
    rows: Sequence[int]
    seen: Matrix
    constant: Matrix
    coefficients: Matrix
    pull: Matrix
    columns: Sequence[int]


@dataclass(frozen=True, eq=False)
class KernelMean:
    """The fitted regression ``m + Σ_j k(c, c_j) a_j`` of fused embeddings, and the weights of the narrow kernel.

    Attributes:
        parts: of the description, in the order of the embedding's presence flags.
        sizes: columns of each part; they come first, in the same order.
        terms: of the additive kernel ``k``.
        ridge: that the leave-one-out error chose.
        width: length scale of the narrow kernel, in the embedding's units.
        seen: embeddings of the seen tasks, "t e".
        targets: what is known of each seen task, "t d": its normalised adapter, or anything else that is regressed.
        constant: ``m``, "d".
        coefficients: ``a``, "t d", for descriptions that have all parts.
        relative_error: squared leave-one-out error over that of the mean of all tasks; below 1 descriptions help.
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
        return {
            "parts": list(self.parts),
            "terms": [term.to_json() for term in self.terms],
            "ridge": self.ridge,
            "width": self.width,
            "relative_error": self.relative_error,
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The seen tasks' embeddings and targets, and what multiplies the kernel."""
        return {
            "seen": self.seen,
            "targets": self.targets,
            "constant": self.constant,
            "coefficients": self.coefficients,
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], sizes: tuple[int, ...]) -> KernelMean:
        """Restore from :attr:`config` and :attr:`tensors`, and the sizes of the encoder that gave the embeddings."""
        return cls(
            parts=tuple(config["parts"]),
            sizes=sizes,
            terms=tuple(KernelGroup.from_json(term) for term in config["terms"]),
            ridge=config["ridge"],
            width=config["width"],
            relative_error=config["relative_error"],
            **{name: tensors[name] for name in ("seen", "targets", "constant", "coefficients")},
        )

    def kernel(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n t"]:
        """The additive kernel between embeddings that have all parts and the seen tasks."""
        return self.kernel_between(embeddings, self.seen)

    def kernel_between(self, left: Float[Tensor, "n e"], right: Float[Tensor, "m e"]) -> Float[Tensor, "n m"]:
        """The additive kernel between embeddings that have all parts."""
        return torch.from_numpy(kernel_sum(self.terms, as_matrix(left), as_matrix(right))).float()

    def smooth(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """The regression; parts whose presence flag is 0 are left out of the kernel."""
        result = torch.empty(len(embeddings), self.targets.shape[1])
        for solved, rows in self._by_parts(embeddings):
            asked = as_matrix(embeddings[rows])
            found = solved.constant + kernel_sum(solved.terms, asked, solved.seen) @ solved.coefficients
            result[rows] = torch.from_numpy(found).float()
        return result

    def pull(self, embeddings: Float[Tensor, "n e"]) -> Float[Tensor, "n t"]:
        """How strongly the narrow kernel leads to each seen task: 1 at a task's own description, 0 far from all."""
        result = torch.zeros(len(embeddings), len(self.seen))
        for solved, rows in self._by_parts(embeddings):
            if len(solved.seen):
                near = self._narrow(as_matrix(embeddings[rows]), solved.seen, solved.columns) @ solved.pull
                result[rows.nonzero()[:, :1], torch.tensor(solved.rows)[None]] = torch.from_numpy(near).float()
        return result

    def without(self, rows: Bool[Tensor, " t"]) -> KernelMean:
        """The regression on the other tasks, its terms and ridge kept."""
        kept = ~rows
        seen, targets = self.seen[kept], self.targets[kept]
        values = as_matrix(seen)
        solved = solve(kernel_sum(self.terms, values, values), as_matrix(targets), self.ridge)
        constant, coefficients = (torch.from_numpy(value).float() for value in solved)
        return replace(self, seen=seen, targets=targets, constant=constant, coefficients=coefficients)

    def with_parts(self, code: int) -> Float[Tensor, "t e"]:
        """The seen tasks' embeddings as if only these parts were known, numbered as :meth:`code` does."""
        known = torch.tensor([bool(code >> place & 1) for place in range(len(self.parts))])
        columns = torch.cat([known.repeat_interleave(torch.tensor(self.sizes)), known])
        return torch.where(columns, self.seen, 0.0)

    def code(self, embeddings: Float[Tensor, "n e"]) -> Int[Tensor, " n"]:
        """The number of the subset of parts that each embedding has: its presence flags read as binary digits."""
        flags = (embeddings[:, -len(self.parts) :] > 0.5).long()
        return (flags << torch.arange(len(self.parts))).sum(1)

    def leave_one_out(self, code: int | None = None) -> Float[Tensor, "t d"]:
        """What the regression would say of each seen task had that task not been in it, its kernel and ridge kept.

        Exact and without refitting: the error at task i is ``(P y)_i / P_ii`` with ``P`` the upper left block of the
        inverse of the bordered kernel matrix (Cawley & Talbot 2004). Alone, a task has only itself.

        Args:
            code: the parts that are known, numbered as :meth:`code` does; all by default.
        """
        if len(self.seen) < 2:
            return self.targets.clone()
        known = [code is None or bool(code >> place & 1) for place in range(len(self.parts))]
        present = {part for part, there in zip(self.parts, known, strict=True) if there}
        seen = as_matrix(self.seen)
        projected = projected_inverse(
            kernel_sum([term for term in self.terms if term.part in present], seen, seen), self.ridge
        )
        targets = as_matrix(self.targets)
        return torch.from_numpy(targets - projected @ targets / np.diag(projected)[:, None]).float()

    def held_out(self) -> Float[Tensor, "t d"]:
        """What :meth:`smooth` would say of each seen task's description without that task.

        :meth:`leave_one_out` for tasks that have all parts; for the others, whose answer has no closed form, the
        regression is solved again without each.
        """
        result = self.leave_one_out()
        whole = (self.seen[:, -len(self.parts) :] > 0.5).all(1)
        # The constant answers where too few of the others have the same parts.
        again = ~whole if int(whole.sum()) > FEWEST_TASKS else torch.ones_like(whole)
        for row in again.nonzero()[:, 0].tolist() if len(self.seen) > 1 else ():
            left = self.without(torch.arange(len(self.seen)) == row)
            result[row] = left.smooth(self.seen[row : row + 1])[0]
        return result

    def _by_parts(self, embeddings: Tensor) -> Iterator[tuple[_Solved, Tensor]]:
        """The rows that have the same parts, with the regression for those parts."""
        flags = embeddings[:, -len(self.parts) :] > 0.5
        for pattern in torch.unique(flags, dim=0):
            key = tuple(bool(known) for known in pattern)
            if key not in self._solved:
                self._solved[key] = self._solve_for(pattern)
            yield self._solved[key], (flags == pattern).all(1)

    def _solve_for(self, pattern: Tensor) -> _Solved:
        """What the regression needs for descriptions with these parts; solved once and kept."""
        present = {part for part, known in zip(self.parts, pattern.tolist(), strict=True) if known}
        usable = ((self.seen[:, -len(self.parts) :] > 0.5) | ~pattern).all(1)
        terms = [term for term in self.terms if term.part in present]
        constant, coefficients = as_matrix(self.constant), as_matrix(self.coefficients)
        if not present or int(usable.sum()) < FEWEST_TASKS:
            nothing, empty = np.zeros((0, self.seen.shape[1])), np.zeros((0, self.targets.shape[1]))
            return _Solved([], [], nothing, constant, empty, np.zeros((0, 0)), [])
        if bool(pattern.all()):
            usable = torch.ones_like(usable)
        seen = as_matrix(self.seen[usable])
        if not bool(pattern.all()):
            # With fewer parts the best smooth answer is another one: regress what all parts together would say.
            targets = constant + kernel_sum(self.terms, seen, as_matrix(self.seen)) @ coefficients
            constant, coefficients = solve(kernel_sum(terms, seen, seen), targets, self.ridge)
        columns = sorted({column for term in terms for column in term.columns}) or list(range(seen.shape[1]))
        inner = self._narrow(seen, seen, columns) + 1e-3 * np.eye(len(seen))
        rows = usable.nonzero()[:, 0].tolist()
        return _Solved(terms, rows, seen, constant, coefficients, np.asarray(np.linalg.inv(inner)), columns)

    def _narrow(self, left: Matrix, right: Matrix, columns: Sequence[int]) -> Matrix:
        squared = squared_distances(left[:, list(columns)], right[:, list(columns)])
        return np.asarray(np.exp(-squared / (2 * self.width**2)))


def as_matrix(values: Tensor) -> Matrix:
    """In double precision, for linear algebra."""
    return np.asarray(values.double().numpy())


class Solution(NamedTuple):
    """Intercept "d" and coefficients "t d" of a kernel regression."""

    constant: Matrix
    coefficients: Matrix


def solve(kernel: Matrix, targets: Matrix, ridge: float) -> Solution:
    """Constant and coefficients of kernel ridge regression with intercept."""
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    # The intercept is the generalised least squares mean of the targets.
    constant = inverse.sum(0) @ targets / inverse.sum()
    return Solution(constant, inverse @ (targets - constant))


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
