"""Normal prior over adapters around a generated one, learned from its errors on held-out seen tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.layout import Layout
from wildpdiff.errors import DataError

DIRECTIONS = 80
"""Directions that are kept; 40 or 160 give the same accuracy to three tenths of a point."""


@dataclass(frozen=True)
class RefinementPrior:
    """A task's best adapter is the start plus ``w @ directions`` with ``w`` standard normal.

    The covariance ``directionsᵀ directions`` is that of the errors which predictions of seen tasks made while those
    tasks were held out, in their principal directions. Across them nothing moves.

    Attributes:
        of: description of the directions, in words.
    """

    layout: Layout
    directions: Float[Tensor, "m d"]
    of: str

    @classmethod
    def of_errors(
        cls, layout: Layout, errors: Float[Tensor, "t d"], of: str, directions: int = DIRECTIONS
    ) -> RefinementPrior:
        """The prior with the second moments of errors: differences of held-out tasks' adapters from the predicted.

        Raises:
            DataError: there are no errors, none is other than zero, or there is no direction.
        """
        if directions < 1:
            raise DataError(f"A prior of {directions} directions was configured; give at least 1.")
        if not len(errors) or not bool((errors != 0).any()):
            raise DataError("The held-out tasks show no errors to learn a prior from; give at least one that differs.")
        _, singular, axes = torch.linalg.svd(errors.double() / len(errors) ** 0.5, full_matrices=False)
        kept = min(directions, int((singular > 1e-6 * singular[0]).sum()))
        return cls(layout, (singular[:kept, None] * axes[:kept]).float(), of)
