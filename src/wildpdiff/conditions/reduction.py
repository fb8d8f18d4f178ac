"""Reduction of long feature vectors: standardised over the seen tasks, then their principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STRONGEST = 4


@dataclass(frozen=True)
class Reduction:
    """A linear map ``((x - center) / scale) @ directions``, fitted on seen tasks.

    Attributes:
        center: mean over the seen tasks, ``float64``.
        scale: standard deviation over the seen tasks, 1 where constant, times the block's weight.
        directions: principal directions, divided by the standard deviation along them (or by one common value).
        sizes: number of directions of the whole, and of each set of blocks that has its own.
    """

    center: Float[Tensor, " s"]
    scale: Float[Tensor, " s"]
    directions: Float[Tensor, "s c"]
    sizes: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        vectors: Float[Tensor, "t s"],
        *,
        components: int,
        whiten: bool,
        blocks: Sequence[int] | None = None,
        own: Sequence[Sequence[int]] = (),
    ) -> Reduction:
        """Standardise and reduce.

        Each of several blocks (kinds of features) is weighed to the same total variance: else a thousand statistics of
        style would outvote seven class probabilities.

        Args:
            vectors: one a seen task, two or more; nan where a value is not known.
            components: most principal components to keep; never more than the tasks can determine.
            whiten: give every component unit variance over the tasks; else all share one factor.
            blocks: lengths of the blocks, summing to ``s``; one block by default.
            own: sets of blocks, by index, that get components of their own, after those of the whole.
        """
        center, scale, constant = _moments(vectors.double())
        lengths = [vectors.shape[1]] if blocks is None else list(blocks)
        spans = [slice(sum(lengths[:index]), sum(lengths[: index + 1])) for index in range(len(lengths))]
        if len(spans) > 1:
            for span in spans:
                scale[span] *= max(1, int((~constant[span]).sum())) ** 0.5
        standardised = ((vectors - center) / scale).nan_to_num(0.0)
        found = [_principal(standardised, components, whiten)]
        for indices in own:
            inside = torch.zeros_like(standardised)
            for index in indices:
                inside[:, spans[index]] = standardised[:, spans[index]]
            found.append(_principal(inside, components, whiten))
        return cls(center, scale, torch.cat(found, dim=1), tuple(entry.shape[1] for entry in found))


def strongest(columns: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Principal components as factors of a regression: all together, and the four strongest alone."""
    together = tuple(columns)
    return (together, together[:STRONGEST]) if len(together) > STRONGEST else (together,)


def _moments(vectors: Float[Tensor, "t s"]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation (1 where constant) and constancy; unknown values (nan) are left out."""
    count = (~vectors.isnan()).sum(0).clamp_min(1)
    center = vectors.nan_to_num(0.0).sum(0) / count
    deviation = ((vectors - center).nan_to_num(0.0).square().sum(0) / count).sqrt()
    # Features that never vary (dead units) have a deviation of rounding errors only.
    constant = deviation < 1e-6 * (1.0 + center.abs())
    return center, torch.where(constant, torch.ones_like(deviation), deviation), constant


def _principal(standardised: Float[Tensor, "t s"], components: int, whiten: bool) -> Float[Tensor, "s c"]:
    count = len(standardised)
    _, singular, axes = torch.linalg.svd(standardised, full_matrices=False)
    kept = int((singular > 1e-6 * singular[0].clamp_min(1e-12)).sum())
    kept = max(1, min(components, kept, count - 1))
    directions = axes[:kept].T
    # The sign of a singular vector is arbitrary: fix it, so that every machine gives the same embedding.
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    deviation = singular[:kept] / count**0.5
    unit: Tensor = directions / (deviation if whiten else deviation.square().mean().sqrt()).clamp_min(1e-12)
    return unit
