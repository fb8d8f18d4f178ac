"""Linear ridge regression from descriptions to adapters: a straight line through the seen tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.regression import Parts, RegressionChoice, RegressionSource, SubsetFit
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.tasks.description import Description

RIDGES = tuple(10.0 ** (power / 2) for power in range(-6, 13))
"""Candidate ridges, 1e-3 … 1e6, next to a sum of squares over tasks."""

Numbers = npt.NDArray[np.float64]


class LinearRidgeSource(RegressionSource):
    """Ridge regression with intercept (Hoerl & Kennard 1970) from the embedding of a description to the flat adapter.

    A linear model cannot read a part that is not there, and zeros instead would bend the line. So one regression
    is fitted for every subset of parts, on the seen tasks that have all of them and on the columns of the fused
    embedding that belong to them (the presence flags are then constant and left out). Its ridge is the one with the
    smallest exact leave-one-out error (Golub, Heath & Wahba 1979), on seen tasks only.
    """

    def __init__(
        self,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        adapters: Sequence[Adapter],
        features: Mapping[str, ImageFeatures] | None = None,
        *,
        ridges: Sequence[float] = RIDGES,
    ) -> None:
        """Choose and fit; ``features`` are image features of ``descriptions`` by part, where already known.

        Raises:
            DataError: not one adapter a description, or no part that three seen tasks have.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        seen = SeenAdapters.of(adapters, len(descriptions))
        tables = encoder.tables(descriptions, features)

        def fit(parts: tuple[str, ...], tasks: Tensor) -> SubsetFit:
            inputs = torch.cat([tables[part].values[tasks].double() for part in parts], dim=1).numpy()
            return _fit(parts, tasks, inputs, _scores(seen.vectors[tasks]), ridges=ridges)

        present = {part: table.present for part, table in tables.items()}
        super().__init__("linear ridge regression", encoder, seen, present=present, fit=fit)


def _fit(
    parts: tuple[str, ...], tasks: Tensor, inputs: Numbers, targets: Numbers, *, ridges: Sequence[float]
) -> SubsetFit:
    count = len(tasks)
    # The mean of the others misses a task by count / (count - 1) times the error of the mean of all.
    baseline = float(np.square(targets).sum()) * (count / (count - 1)) ** 2
    chosen = RidgeCV(alphas=np.asarray(ridges)).fit(inputs, targets)
    error = -float(chosen.best_score_) * targets.size
    choice = RegressionChoice(parts, float(chosen.alpha_), error / baseline if baseline > 0 else 1.0)
    # One-hot targets instead of adapters: the model then predicts the weights of the seen tasks.
    model = Ridge(alpha=choice.ridge).fit(inputs, np.eye(count))

    def predict(embeddings: Parts) -> Numbers:
        values = torch.cat([embeddings[part].double() for part in parts]).numpy()
        return np.asarray(model.predict(values[None])[0])

    return SubsetFit(choice, tasks, predict)


def _scores(vectors: Float[Tensor, "t d"]) -> Numbers:
    """Centred vectors in the coordinates of their own principal axes ``t t``: all distances kept, far fewer columns."""
    centred = vectors.double() - vectors.double().mean(0)
    values, axes = np.linalg.eigh((centred @ centred.T).numpy())
    return np.asarray(axes * np.sqrt(np.maximum(values, 0.0)))
