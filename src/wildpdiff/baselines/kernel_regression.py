"""Kernel ridge regression from descriptions to adapters: the baseline that a generator has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.distances import SeenDistances
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.tasks.description import Description

LENGTH_SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
"""Length scales that are tried, in units of the root mean square distance between seen tasks."""

RIDGES = tuple(10.0 ** (power / 2) for power in range(-12, 4))
"""Ridges that are tried, 1e-6 … 30, beside a kernel whose diagonal is 1."""

STEPS = 6
"""Weights of parts are multiples of 1 / STEPS that sum to 1."""

FEWEST_TASKS = 3

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class KernelChoice:
    """What leave-one-out on the seen tasks chose for one set of parts.

    Attributes:
        parts: which parts are read.
        weights: weight of each part's squared distance, summing to 1.
        length_scale: of the kernel, in units of the root mean square distance between seen tasks.
        ridge: what is added to the kernel's diagonal.
        relative_error: squared leave-one-out error over that of the mean adapter; below 1 the description helps.
    """

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    length_scale: float
    ridge: float
    relative_error: float


@dataclass(frozen=True)
class _Fit:
    """A fitted regression: its choice, its tasks, and scikit-learn's model that predicts the weights of tasks."""

    choice: KernelChoice
    tasks: Tensor
    model: KernelRidge
    offset: Numbers


class KernelRegressionSource:
    """Kernel ridge regression with intercept (the least-squares support vector machine) on the seen tasks.

    The kernel is ``exp(-sum_p w_p d_p² / (2 l²))`` with the squared distance ``d_p²`` in each part. For every subset
    of parts, the part weights ``w``, the length scale ``l`` and the ridge are those with the smallest leave-one-out
    error of the flat adapter vectors, in closed form (Cawley & Talbot 2004, "Fast exact leave-one-out
    cross-validation of sparse least-squares support vector machines", section 3) and on seen tasks only. A
    description is answered by the subset with the smallest error among those whose parts it has, so missing parts
    are no special case, and parts that tell nothing about the adapter are not read.

    The prediction is linear in the adapters: a weighted sum of the seen ones, whose weights sum to 1.
    """

    name = "kernel ridge regression"
    stochastic = False

    def __init__(
        self,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        adapters: Sequence[Adapter],
        features: Mapping[str, ImageFeatures] | None = None,
        *,
        length_scales: Sequence[float] = LENGTH_SCALES,
        ridges: Sequence[float] = RIDGES,
    ) -> None:
        """Choose and fit.

        Args:
            encoder: fitted on the seen tasks.
            descriptions: of the seen tasks; some may lack parts.
            adapters: one a description.
            features: image features of ``descriptions`` by part, where they are already known.
            length_scales: that are tried.
            ridges: that are tried.

        Raises:
            DataError: not one adapter a description, or no part that three seen tasks have.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        self._encoder = encoder
        self._distances = SeenDistances.of(encoder, descriptions, features)
        self._fits: list[_Fit] = []
        for size in range(1, len(encoder.parts) + 1):
            for parts in combinations(encoder.parts, size):
                tasks = self._distances.present(parts).nonzero()[:, 0]
                if len(tasks) >= FEWEST_TASKS:
                    self._fits.append(self._fit(parts, tasks, length_scales, ridges))
        if not self._fits:
            raise DataError(
                f"No part of {', '.join(encoder.parts)} is present in {FEWEST_TASKS} of the {len(descriptions)} seen "
                "tasks; kernel regression needs that many. Describe more tasks, or use the mean adapter."
            )

    @property
    def choices(self) -> tuple[KernelChoice, ...]:
        """What was chosen for every set of parts, the smallest leave-one-out error first."""
        return tuple(sorted((fit.choice for fit in self._fits), key=lambda choice: choice.relative_error))

    def weights(self, description: Description) -> Float[Tensor, " t"]:
        """The weight of every seen adapter in the prediction; they sum to 1 and may be negative.

        Raises:
            DescriptionError: the description has no part, or no set of parts, that could be fitted.
        """
        parts = self._encoder.encode_parts(description)
        return self._weights(self._best(tuple(parts)), parts)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the predicted adapter; raises as :meth:`weights`."""
        parts = self._encoder.encode_parts(description)
        fit = self._best(tuple(parts))
        vector = (self._weights(fit, parts) @ self._seen.vectors.double()).float()
        adapter = self._seen.adapter(vector)
        return repeat_adapter(adapter, self.name, description, n, seed, parts_read=list(fit.choice.parts))

    def _weights(self, fit: _Fit, parts: Mapping[str, Tensor]) -> Tensor:
        choice = fit.choice
        squared = [self._distances.to(part, parts[part])[fit.tasks].numpy() for part in choice.parts]
        kernel = _kernel(squared, choice.weights, choice.length_scale)
        predicted = fit.model.predict(kernel[None])[0] + fit.offset
        result = torch.zeros(len(self._seen.vectors), dtype=torch.float64)
        result[fit.tasks] = torch.from_numpy(predicted)
        return result

    def _best(self, present: Sequence[str]) -> _Fit:
        usable = [fit for fit in self._fits if set(fit.choice.parts) <= set(present)]
        if not usable:
            known = ", ".join(sorted({part for fit in self._fits for part in fit.choice.parts}))
            raise DescriptionError(
                f"The description has {', '.join(present)}, which fewer than {FEWEST_TASKS} seen tasks have. "
                f"Give one of {known}."
            )
        return min(usable, key=lambda fit: fit.choice.relative_error)

    def _fit(
        self, parts: tuple[str, ...], tasks: Tensor, length_scales: Sequence[float], ridges: Sequence[float]
    ) -> _Fit:
        targets = self._seen.vectors[tasks].double()
        targets = targets - targets.mean(0)
        gram = (targets @ targets.T).numpy()
        count = len(tasks)
        # The mean of the others misses a task by count / (count - 1) times what the mean of all misses it by.
        baseline = float(gram.trace()) * (count / (count - 1)) ** 2
        squared = [self._distances.between(part)[tasks][:, tasks].numpy() for part in parts]
        candidates = []
        for weights in _simplex(len(parts), STEPS):
            for length_scale in length_scales:
                errors = _leave_one_out_errors(_kernel(squared, weights, length_scale), gram, ridges)
                best = int(errors.argmin())
                relative = float(errors[best]) / baseline if baseline > 0 else 1.0
                candidates.append(KernelChoice(parts, weights, length_scale, ridges[best], relative))
        choice = min(candidates, key=lambda entry: entry.relative_error)
        kernel = _kernel(squared, choice.weights, choice.length_scale)
        column = np.linalg.solve(kernel + choice.ridge * np.eye(count), np.ones(count))
        offset = column / column.sum()
        # One-hot targets instead of adapters: the model then predicts the weights of the seen tasks.
        model = KernelRidge(alpha=choice.ridge, kernel="precomputed").fit(kernel, np.eye(count) - offset)
        return _Fit(choice, tasks, model, offset)


def _kernel(squared: Sequence[Numbers], weights: Sequence[float], length_scale: float) -> Numbers:
    total = sum(weight * entry for weight, entry in zip(weights, squared, strict=True))
    return np.asarray(np.exp(-np.asarray(total) / (2 * length_scale**2)))


def _simplex(parts: int, steps: int) -> Iterator[tuple[float, ...]]:
    """All weights that are positive multiples of ``1 / steps`` and sum to 1."""
    steps = max(steps, parts)
    for cuts in combinations(range(1, steps), parts - 1):
        bounds = (0, *cuts, steps)
        yield tuple((bounds[i + 1] - bounds[i]) / steps for i in range(parts))


def _leave_one_out_errors(kernel: Numbers, gram: Numbers, ridges: Sequence[float]) -> Numbers:
    """Sum over tasks of the squared leave-one-out error ``[ridges]``, exactly and without refitting.

    With ``C`` the bordered matrix ``[[K + ridge I, 1], [1ᵀ, 0]]`` and ``P`` the upper left block of its inverse, the
    error at task i is ``(P Y)_i / P_ii`` (Cawley & Talbot 2004). Its norm needs the targets' Gram matrix alone.
    NumPy and not torch: on such small matrices torch spends most of its time on waking threads.
    """
    values, vectors = np.linalg.eigh(kernel)
    errors = np.empty(len(ridges))
    for index, ridge in enumerate(ridges):
        inverse = (vectors / (np.maximum(values, 0.0) + ridge)) @ vectors.T
        column = inverse.sum(0)
        projected = inverse - np.outer(column, column) / column.sum()
        squares = ((projected @ gram) * projected).sum(1)
        errors[index] = (squares / projected.diagonal() ** 2).sum()
    return errors
