"""Additive kernel regression: the generator's conditional mean before the task loss, straight on adapter vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wildpdiff.adapters.adapter import Adapter
from wildpdiff.baselines.seen import SeenAdapters, repeat_adapter
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.kernel_fit import fit_kernel_mean
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.tasks.description import Description


class AdditiveKernelSource:
    """Kernel ridge regression whose kernel is a sum over the factors of a description.

    It stands beside the generator to tell what the autoencoder, the task loss and the diffusion add to it. Terms,
    weights and ridge are chosen by leave-one-out error on the seen tasks (:func:`fit_kernel_mean`).
    """

    name = "additive kernel regression"
    stochastic = False

    def __init__(
        self, encoder: FusionEncoder, descriptions: Sequence[Description], adapters: Sequence[Adapter]
    ) -> None:
        """Choose and fit.

        Args:
            encoder: fitted on the seen tasks.
            descriptions: of the seen tasks.
            adapters: one a description.

        Raises:
            DataError: not one adapter a description.
            AdapterMismatchError: the adapters are not of one zoo.
            DescriptionError: a description holds a bad value.
        """
        self._seen = SeenAdapters.of(adapters, len(descriptions))
        self._encoder = encoder
        embeddings = torch.stack([encoder.encode(entry).values for entry in descriptions])
        self._mean = fit_kernel_mean(encoder, embeddings, self._seen.vectors)

    @property
    def mean(self) -> KernelMean:
        """What was fitted."""
        return self._mean

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        """``n`` times the predicted adapter; raises :class:`DescriptionError` on an empty or bad description."""
        vector = self._mean.smooth(self._encoder.encode(description).values[None])[0]
        return repeat_adapter(self._seen.adapter(vector), self.name, description, n, seed)
