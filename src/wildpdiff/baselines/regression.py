"""Regression from descriptions to adapters: nearest task, kernel ridge, and additive kernel ridge regression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditional_mean.kernel import fit_kernel_mean
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.conditions.sampling import PartTable
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.tasks.description import Description

LENGTH_SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
"""Candidate length scales, in units of the root mean square distance between seen tasks."""

RIDGES = tuple(10.0 ** (power / 2) for power in range(-12, 4))
"""Candidate ridges, 1e-6 … 30, next to a kernel whose diagonal is 1."""

STEPS = 6
"""Weights of parts are multiples of 1 / STEPS that sum to 1."""

FEWEST_TASKS = 3

Numbers = npt.NDArray[np.float64]
Parts = Mapping[str, Float[Tensor, " _"]]
"""Embeddings of the present parts of a description."""


@dataclass(frozen=True)
class SeenDistances:
    """Squared distances between seen descriptions, and from a new one to them; 1 is the mean over seen pairs.

    Attributes:
        units: mean squared distance between two different seen tasks by part, 1 where they are all alike.
    """

    tables: Mapping[str, PartTable]
    units: Mapping[str, float]

    @classmethod
    def of(
        cls,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        features: Mapping[str, ImageFeatures] | None = None,
    ) -> SeenDistances:
        """Distances of seen descriptions; ``features`` are their image features by part, where already known."""
        tables = encoder.tables(descriptions, features)
        units = {}
        for part, table in tables.items():
            values = table.values[table.present].double()
            pairs = len(values) * (len(values) - 1)
            mean = float(_squared(values, values).sum()) / pairs if pairs else 0.0
            units[part] = mean if mean > 0 else 1.0
        return cls(tables, units)

    def present(self, parts: Sequence[str]) -> Bool[Tensor, " t"]:
        """Mask of the seen tasks with all these parts."""
        return torch.stack([self.tables[part].present for part in parts]).all(0)

    def between(self, part: str) -> Float[Tensor, "t t"]:
        """Squared distances between the seen tasks in one part; without meaning for tasks that lack it."""
        values = self.tables[part].values.double()
        return _squared(values, values) / self.units[part]

    def to(self, part: str, values: Float[Tensor, " s"]) -> Float[Tensor, " t"]:
        """Squared distances from an embedding of one part to the seen tasks; without meaning for those lacking it."""
        return _squared(values.double()[None], self.tables[part].values.double())[0] / self.units[part]

    def overall(self, parts: Parts) -> Float[Tensor, " t"]:
        """Squared distances from a description to the seen tasks: the mean over the parts that both have.

        Raises:
            DescriptionError: no seen task has any of the parts. Those that have none are infinitely far.
        """
        total = torch.zeros(len(next(iter(self.tables.values())).present), dtype=torch.float64)
        shared = torch.zeros_like(total)
        for part, values in parts.items():
            present = self.present([part])
            total += torch.where(present, self.to(part, values), 0.0)
            shared += present
        if not bool(shared.any()):
            raise DescriptionError(f"No seen task has {' or '.join(parts)}. Give another part of the description.")
        return torch.where(shared > 0, total / shared, torch.inf)

    def overall_between(self, parts: Sequence[str]) -> Float[Tensor, "t t"]:
        """The same between the seen tasks; infinite where two share none of the parts."""
        owners = {part: self.present([part]) for part in parts}
        shared = torch.stack([own[:, None] & own[None] for own in owners.values()])
        squared = torch.stack([self.between(part) for part in parts])
        total, counts = torch.where(shared, squared, 0.0).sum(0), shared.sum(0)
        return torch.where(counts > 0, total / counts, torch.inf)


def _squared(first: Float[Tensor, "n s"], second: Float[Tensor, "m s"]) -> Float[Tensor, "n m"]:
    # Differences first: the expanded square would lose the small distances to cancellation.
    return (first[:, None] - second[None]).square().sum(2)


class NearestTaskSource:
    """Adapter of the nearest seen task: every generator must beat this lookup.

    The distance is the mean, over the parts that both descriptions have, of the squared distance in that part
    divided by its mean over seen pairs, so that no part counts more because its embedding is longer.
    """

    name = "nearest task"
    stochastic = False

    def __init__(
        self,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        adapters: Sequence[Adapter],
        features: Mapping[str, ImageFeatures] | None = None,
    ) -> None:
        """``features`` are image features of ``descriptions`` by part, where they are already known.

        Raises:
            DataError: not one adapter a description.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        self._encoder = encoder
        self._task_ids = [entry.task_id for entry in descriptions]
        self._distances = SeenDistances.of(encoder, descriptions, features)

    def nearest(self, description: Description) -> int:
        """Index of the nearest seen task.

        Raises:
            DescriptionError: no readable part is present, or no seen task shares one with the description.
        """
        return int(self._distances.overall(self._encoder.encode_parts(description)).argmin())

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the nearest task's adapter; raises as :meth:`nearest`."""
        index = self.nearest(description)
        adapter = self._seen.adapter(self._seen.vectors[index])
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, nearest_task=self._task_ids[index])


class AdditiveKernelSource:
    """Kernel ridge regression whose kernel is a sum over the factors of a description.

    The generator's regression before the task loss: the difference to the generator is due to autoencoder, task loss
    and diffusion. Terms, weights and ridge have the least leave-one-out error on the seen tasks
    (:func:`fit_kernel_mean`).
    """

    name = "additive kernel regression"
    stochastic = False

    def __init__(
        self, encoder: FusionEncoder, descriptions: Sequence[Description], adapters: Sequence[Adapter]
    ) -> None:
        """Choose and fit.

        Raises:
            DataError: not one adapter a description.
            AdapterMismatchError: the adapters are not of one zoo.
            DescriptionError: a description holds a bad value.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        self._encoder = encoder
        embeddings = torch.stack([encoder.encode(entry).values for entry in descriptions])
        self.mean = fit_kernel_mean(encoder, embeddings, self._seen.vectors)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the predicted adapter; raises :class:`DescriptionError` on an empty or bad description."""
        vector = self.mean.predict(self._encoder.encode(description).values[None])[0]
        return repeat_adapter(self._seen.adapter(vector), self.name, description, n=n, seed=seed)


@dataclass(frozen=True)
class RegressionChoice:
    """Hyperparameters with the smallest leave-one-out error for one set of parts.

    Attributes:
        ridge: weight of the penalty.
        relative_error: squared leave-one-out error over that of the mean adapter; below 1 the description helps.
        weights: of a kernel, weight of each part's squared distance, summing to 1.
        length_scale: of a kernel, in units of the root mean square distance between seen tasks.
    """

    parts: tuple[str, ...]
    ridge: float
    relative_error: float
    weights: tuple[float, ...] = ()
    length_scale: float = 1.0


@dataclass(frozen=True)
class SubsetFit:
    """Regression on the seen tasks that have some parts.

    Attributes:
        tasks: indices of these tasks.
        predict: embeddings of a description's parts to the weights of these tasks.
    """

    choice: RegressionChoice
    tasks: Tensor
    predict: Callable[[Parts], Numbers]


class RegressionSource:
    """Weighted sum of the seen adapters by one regression for every set of parts; the weights sum to 1.

    The regression of a description is the one with the smallest leave-one-out error among those whose parts it has, so
    missing parts are no special case, and parts unrelated to the adapter are not read.
    """

    stochastic = False

    def __init__(
        self,
        name: str,
        encoder: FusionEncoder,
        seen: SeenAdapters,
        *,
        present: Mapping[str, Bool[Tensor, " t"]],
        fit: Callable[[tuple[str, ...], Tensor], SubsetFit],
    ) -> None:
        """Fit every set of parts.

        Args:
            present: by part, mask of the tasks that have it.
            fit: regression on the tasks, by index, that have these parts.

        Raises:
            DataError: no part that three seen tasks have.
        """
        self.name = name
        self._encoder = encoder
        self._seen = seen
        self._fits: list[SubsetFit] = []
        for size in range(1, len(encoder.parts) + 1):
            for parts in combinations(encoder.parts, size):
                tasks = torch.stack([present[part] for part in parts]).all(0).nonzero()[:, 0]
                if len(tasks) >= FEWEST_TASKS:
                    self._fits.append(fit(parts, tasks))
        if not self._fits:
            raise DataError(
                f"No part of {', '.join(encoder.parts)} is present in {FEWEST_TASKS} of the {len(seen.vectors)} seen "
                f"tasks; {name} needs that many. Describe more tasks, or use the mean adapter."
            )

    @property
    def choices(self) -> tuple[RegressionChoice, ...]:
        """Hyperparameters for every set of parts, the smallest leave-one-out error first."""
        return tuple(sorted((fit.choice for fit in self._fits), key=lambda choice: choice.relative_error))

    def weights(self, description: Description) -> Float[Tensor, " t"]:
        """Weight of every seen adapter in the prediction; they sum to 1 and may be negative.

        Raises:
            DescriptionError: the description has no part, or no set of parts, that could be fitted.
        """
        return self._predict(description)[1]

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the predicted adapter; raises as :meth:`weights`."""
        choice, weights = self._predict(description)
        adapter = self._seen.adapter((weights @ self._seen.vectors.double()).float())
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, parts_read=list(choice.parts))

    def _predict(self, description: Description) -> tuple[RegressionChoice, Float[Tensor, " t"]]:
        parts = self._encoder.encode_parts(description)
        usable = [fit for fit in self._fits if set(fit.choice.parts) <= set(parts)]
        if not usable:
            known = ", ".join(sorted({part for fit in self._fits for part in fit.choice.parts}))
            raise DescriptionError(
                f"The description has {', '.join(parts)}, which fewer than {FEWEST_TASKS} seen tasks have. "
                f"Give one of {known}."
            )
        best = min(usable, key=lambda fit: fit.choice.relative_error)
        weights = torch.zeros(len(self._seen.vectors), dtype=torch.float64)
        weights[best.tasks] = torch.from_numpy(best.predict(parts))
        return best.choice, weights


class KernelRegressionSource(RegressionSource):
    """Kernel ridge regression with intercept (the least-squares support vector machine) on the seen tasks.

    The kernel is ``exp(-sum_p w_p d_p² / (2 l²))`` with the squared distance ``d_p²`` in each part. For every subset
    of parts, the part weights ``w``, the length scale ``l`` and the ridge are those with the smallest leave-one-out
    error of the flat adapter vectors, in closed form (Cawley & Talbot 2004, "Fast exact leave-one-out
    cross-validation of sparse least-squares support vector machines", section 3) and on seen tasks only.
    """

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
        """Choose and fit; ``features`` are image features of ``descriptions`` by part, where already known.

        Raises:
            DataError: not one adapter a description, or no part that three seen tasks have.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        seen = SeenAdapters.of(adapters, len(descriptions))
        distances = SeenDistances.of(encoder, descriptions, features)

        def fit(parts: tuple[str, ...], tasks: Tensor) -> SubsetFit:
            return _fit_kernel(distances, seen.vectors, parts, tasks, grid=(length_scales, ridges))

        present = {part: table.present for part, table in distances.tables.items()}
        super().__init__("kernel ridge regression", encoder, seen, present=present, fit=fit)


def _fit_kernel(
    distances: SeenDistances,
    vectors: Float[Tensor, "t d"],
    parts: tuple[str, ...],
    tasks: Tensor,
    *,
    grid: tuple[Sequence[float], Sequence[float]],
) -> SubsetFit:
    """Kernel ridge regression on some parts, with the best length scale and ridge of the grid."""
    length_scales, ridges = grid
    targets = vectors[tasks].double()
    targets = targets - targets.mean(0)
    gram = (targets @ targets.T).numpy()
    count = len(tasks)
    # The mean of the others misses a task by count / (count - 1) times the error of the mean of all.
    baseline = float(gram.trace()) * (count / (count - 1)) ** 2
    squared = [distances.between(part)[tasks][:, tasks].numpy() for part in parts]
    candidates = []
    for weights in _simplex(len(parts), STEPS):
        for length_scale in length_scales:
            errors = _leave_one_out_errors(_kernel(squared, weights, length_scale), gram, ridges)
            best = int(errors.argmin())
            relative = float(errors[best]) / baseline if baseline > 0 else 1.0
            candidates.append(RegressionChoice(parts, ridges[best], relative, weights, length_scale))
    choice = min(candidates, key=lambda entry: entry.relative_error)
    kernel = _kernel(squared, choice.weights, choice.length_scale)
    column = np.linalg.solve(kernel + choice.ridge * np.eye(count), np.ones(count))
    offset = column / column.sum()
    # One-hot targets instead of adapters: the model then predicts the weights of the seen tasks.
    model = KernelRidge(alpha=choice.ridge, kernel="precomputed").fit(kernel, np.eye(count) - offset)

    def predict(embeddings: Parts) -> Numbers:
        to_seen = [distances.to(part, embeddings[part])[tasks].numpy() for part in parts]
        similarity = _kernel(to_seen, choice.weights, choice.length_scale)
        return np.asarray(model.predict(similarity[None])[0] + offset)

    return SubsetFit(choice, tasks, predict)


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
