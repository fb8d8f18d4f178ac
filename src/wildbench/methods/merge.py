"""Merging of the nearest adapters: retrieval that hedges over several seen tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.regression import SeenDistances
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageFeatures
from wildpdiff.errors import DataError
from wildpdiff.tasks.description import Description

COUNTS = tuple(range(1, 33))
"""Numbers of merged adapters that are tried."""

TEMPERATURES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 100.0)
"""Temperatures that are tried, in units of the mean squared distance between seen tasks; the last weighs all alike."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MergeChoice:
    """Choice of leave-one-out on the seen tasks for one set of parts.

    Attributes:
        parts: which parts are read.
        count: K, how many adapters are merged.
        temperature: of the softmax, in units of the mean squared distance between seen tasks.
        relative_error: squared leave-one-out error over that of the mean adapter; below 1 the description helps.
    """

    parts: tuple[str, ...]
    count: int
    temperature: float
    relative_error: float


class TopKMergeSource:
    """The weighted mean of the K nearest seen adapters, with weights ``softmax(-d² / T)``.

    It is the retrieval of SG-LoRA (2509.10535) without its generator; merging adapters by weights is LoraHub's
    (2307.13269). The squared distance d² is that of :class:`NearestTaskSource`: the mean, over the parts that both
    descriptions have, of the squared distance in that part in units of its mean over seen pairs. K and T are those
    with the smallest exact leave-one-out error of the flat adapter vectors, on seen tasks only: each seen task is
    merged from the others and compared with its own adapter. They are chosen for each set of parts that a description
    may have, when one first has it.
    """

    name = "top-K merge"
    stochastic = False

    def __init__(
        self,
        encoder: FusionEncoder,
        descriptions: Sequence[Description],
        adapters: Sequence[Adapter],
        features: Mapping[str, ImageFeatures] | None = None,
        *,
        counts: Sequence[int] = COUNTS,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> None:
        """Remember the seen tasks.

        Args:
            encoder: fitted on the seen tasks.
            descriptions: of the seen tasks; some may lack parts.
            adapters: one a description.
            features: image features of ``descriptions`` by part, where they are already known.
            counts: K that are tried; those above the number of other seen tasks are left out.
            temperatures: T that are tried.

        Raises:
            DataError: not one adapter a description, or no count or temperature that can be tried.
            AdapterMismatchError: the adapters are not of one zoo.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        if not counts or min(counts) < 1 or not temperatures or min(temperatures) <= 0:
            raise DataError(
                f"Top-K merge was given the counts {tuple(counts)} and temperatures {tuple(temperatures)}. "
                "Give at least one count of 1 or more and one temperature above 0."
            )
        self._encoder = encoder
        self._task_ids = [entry.task_id for entry in descriptions]
        self._distances = SeenDistances.of(encoder, descriptions, features)
        self._counts = tuple(counts)
        self._temperatures = tuple(temperatures)
        centred = self._seen.vectors.double().numpy()
        centred = centred - centred.mean(0)
        self._gram = centred @ centred.T
        self._choices: dict[tuple[str, ...], MergeChoice] = {}

    def choice(self, parts: Sequence[str]) -> MergeChoice:
        """K and T for descriptions that have these parts, of those that the encoder reads."""
        key = tuple(part for part in self._encoder.parts if part in parts)
        if key not in self._choices:
            self._choices[key] = self._choose(key)
        return self._choices[key]

    def weights(self, description: Description) -> Float[Tensor, " t"]:
        """The weight of every seen adapter in the answer: at most K are above 0, and they sum to 1.

        Raises:
            DescriptionError: no readable part is present, or no seen task shares one with the description.
        """
        parts = self._encoder.encode_parts(description)
        squared = self._distances.overall(parts).numpy()
        choice = self.choice(tuple(parts))
        return torch.from_numpy(_softmax_weights(squared[None], choice.count, choice.temperature)[0])

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the merged adapter; raises as :meth:`weights`."""
        weights = self.weights(description)
        adapter = self._seen.adapter((weights @ self._seen.vectors.double()).float())
        order = torch.argsort(weights, descending=True, stable=True)
        merged = [self._task_ids[int(index)] for index in order if float(weights[index]) > 0]
        return repeat_adapter(adapter, self.name, description, n=n, seed=seed, merged_tasks=merged)

    def _choose(self, parts: tuple[str, ...]) -> MergeChoice:
        squared = self._distances.overall_between(parts).numpy()
        np.fill_diagonal(squared, np.inf)
        # A task that shares no part with any other has nothing to be merged from and is no evidence on K and T.
        rows = np.isfinite(squared).any(1)
        others = len(squared) - 1
        if not bool(rows.any()):
            return MergeChoice(parts, min(self._counts), min(self._temperatures), 1.0)
        own = np.diag(self._gram)
        # The gram matrix is of centred vectors: the mean of the others misses task i by t / (t - 1) times its vector.
        baseline = float(own[rows].sum()) * ((others + 1) / others) ** 2
        tried = [count for count in self._counts if count <= others] or [min(self._counts)]
        candidates = []
        for temperature in self._temperatures:
            for count in tried:
                weights = _softmax_weights(squared[rows], count, temperature)
                errors = ((weights @ self._gram) * weights).sum(1) - 2 * (weights * self._gram[rows]).sum(1) + own[rows]
                relative = float(errors.sum()) / baseline if baseline > 0 else 1.0
                candidates.append(MergeChoice(parts, count, temperature, relative))
        return min(candidates, key=lambda entry: entry.relative_error)


def _softmax_weights(squared: Numbers, count: int, temperature: float) -> Numbers:
    """``softmax(-d² / T)`` over the ``count`` nearest of each row ``n t``, 0 elsewhere; each row has one finite d²."""
    order = np.argsort(squared, axis=1, kind="stable")[:, :count]
    nearest = np.take_along_axis(squared, order, axis=1)
    raw = np.exp((nearest[:, :1] - nearest) / temperature)
    weights = np.zeros_like(squared)
    np.put_along_axis(weights, order, raw / raw.sum(1, keepdims=True), axis=1)
    return weights
