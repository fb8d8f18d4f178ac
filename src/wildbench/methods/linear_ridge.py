"""Linear ridge regression from descriptions to adapters: what a straight line through the seen tasks gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.conditions.sampling import PartTable
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.tasks.description import Description

RIDGES = tuple(10.0 ** (power / 2) for power in range(-6, 13))
"""Ridges that are tried, 1e-3 … 1e6, beside a sum of squares over tasks."""

FEWEST_TASKS = 3

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RidgeChoice:
    """What leave-one-out on the seen tasks chose for one set of parts.

    Attributes:
        parts: which parts are read.
        ridge: weight of the squared coefficients beside the sum of squared errors over the seen tasks.
        relative_error: squared leave-one-out error over that of the mean adapter; below 1 the description helps.
    """

    parts: tuple[str, ...]
    ridge: float
    relative_error: float


@dataclass(frozen=True)
class _Fit:
    """A fitted regression: its choice, its tasks, and scikit-learn's model that predicts the weights of tasks."""

    choice: RidgeChoice
    tasks: Tensor
    model: Ridge


class LinearRidgeSource:
    """Ridge regression with intercept (Hoerl & Kennard 1970) from the embedding of a description to the flat adapter.

    A linear model cannot read a part that is not there, and zeros in its place would bend the line. So one regression
    is fitted for every subset of parts, on the seen tasks that have all of them and on the columns of the fused
    embedding that belong to them (the presence flags are then constant and left out). Its ridge is the one with the
    smallest exact leave-one-out error (Golub, Heath & Wahba 1979), on seen tasks only. As in kernel ridge regression, a
    description is answered by the subset with the smallest error among those whose parts it has.

    The prediction is linear in the adapters: a weighted sum of the seen ones, whose weights sum to 1.
    """

    name = "linear ridge regression"
    stochastic = False

    def __init__(
        self,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        adapters: Sequence[Adapter],
        features: Mapping[str, ImageFeatures] | None = None,
        *,
        ridges: Sequence[float] = RIDGES,
    ) -> None:
        """Choose and fit.

        Args:
            encoder: fitted on the seen tasks.
            descriptions: of the seen tasks; some may lack parts.
            adapters: one a description.
            features: image features of ``descriptions`` by part, where they are already known.
            ridges: that are tried.

        Raises:
            DataError: not one adapter a description, or no part that three seen tasks have.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        self._encoder = encoder
        tables = encoder.tables(descriptions, features)
        self._fits: list[_Fit] = []
        for size in range(1, len(encoder.parts) + 1):
            for parts in combinations(encoder.parts, size):
                tasks = torch.stack([tables[part].present for part in parts]).all(0).nonzero()[:, 0]
                if len(tasks) >= FEWEST_TASKS:
                    self._fits.append(self._fit(parts, tasks, tables, ridges))
        if not self._fits:
            raise DataError(
                f"No part of {', '.join(encoder.parts)} is present in {FEWEST_TASKS} of the {len(descriptions)} seen "
                "tasks; linear regression needs that many. Describe more tasks, or use the mean adapter."
            )

    @property
    def choices(self) -> tuple[RidgeChoice, ...]:
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
        adapter = self._seen.adapter((self._weights(fit, parts) @ self._seen.vectors.double()).float())
        return repeat_adapter(adapter, self.name, description, n, seed, parts_read=list(fit.choice.parts))

    def _weights(self, fit: _Fit, parts: Mapping[str, Tensor]) -> Tensor:
        values = torch.cat([parts[part].double() for part in fit.choice.parts]).numpy()
        result = torch.zeros(len(self._seen.vectors), dtype=torch.float64)
        result[fit.tasks] = torch.from_numpy(np.asarray(fit.model.predict(values[None])[0]))
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
        self, parts: tuple[str, ...], tasks: Tensor, tables: Mapping[str, PartTable], ridges: Sequence[float]
    ) -> _Fit:
        inputs = torch.cat([tables[part].values[tasks].double() for part in parts], dim=1).numpy()
        count = len(tasks)
        targets = _scores(self._seen.vectors[tasks])
        # The mean of the others misses a task by count / (count - 1) times what the mean of all misses it by.
        baseline = float(np.square(targets).sum()) * (count / (count - 1)) ** 2
        chosen = RidgeCV(alphas=np.asarray(ridges)).fit(inputs, targets)
        error = -float(chosen.best_score_) * targets.size
        choice = RidgeChoice(parts, float(chosen.alpha_), error / baseline if baseline > 0 else 1.0)
        # One-hot targets instead of adapters: the model then predicts the weights of the seen tasks.
        return _Fit(choice, tasks, Ridge(alpha=choice.ridge).fit(inputs, np.eye(count)))


def _scores(vectors: Float[Tensor, "t d"]) -> Numbers:
    """Centred vectors in the coordinates of their own principal axes ``t t``: all distances kept, far fewer columns."""
    centred = vectors.double() - vectors.double().mean(0)
    values, axes = np.linalg.eigh((centred @ centred.T).numpy())
    return np.asarray(axes * np.sqrt(np.maximum(values, 0.0)))
