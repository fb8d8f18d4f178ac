"""Long vectors of features to a few numbers: standardised over the seen tasks, then their principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STRONGEST = 4


@dataclass(frozen=True)
class Reduction:
    """A linear map ``((x - center) / scale) @ directions``, fitted on seen tasks.

    Attributes:
        center: mean over the seen tasks, ``float64``.
        scale: standard deviation over the seen tasks, 1 where constant, times what gives every block equal weight.
        directions: principal directions, divided by the standard deviation along them (or by one common value).
        sizes: how many of the directions are of the whole, and of each set of blocks that has its own.
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

        A vector of several blocks (kinds of features) is weighed so that each block has the same total variance:
        else a thousand statistics of style would outvote seven class probabilities.

        Args:
            vectors: one a seen task, two or more; nan where a value is not known.
            components: most principal components to keep; never more than the tasks can determine.
            whiten: give every component unit variance over the tasks; else all share one factor.
            blocks: lengths of the blocks, summing to ``s``; one block by default.
            own: sets of blocks, by number, that get components of their own besides, after those of the whole.
        """
        lengths = [vectors.shape[1]] if blocks is None else list(blocks)
        moments = _moments(vectors.double())
        scale = moments.deviation.clone()
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        for start, length in zip(starts, lengths, strict=True):
            varying = int((~moments.constant[start : start + length]).sum())
            if len(lengths) > 1:
                scale[start : start + length] *= max(1, varying) ** 0.5
        standardised = ((vectors - moments.center) / scale).nan_to_num(0.0)
        found = [_principal(standardised, components, whiten)]
        for numbers in own:
            inside = torch.zeros_like(standardised)
            for number in numbers:
                span = slice(starts[number], starts[number] + lengths[number])
                inside[:, span] = standardised[:, span]
            found.append(_principal(inside, components, whiten))
        return cls(moments.center, scale, torch.cat(found, dim=1), tuple(entry.shape[1] for entry in found))


def strongest(columns: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Principal components as factors of a regression: all together, and the four strongest by themselves."""
    together = tuple(columns)
    return (together, together[:STRONGEST]) if len(together) > STRONGEST else (together,)


@dataclass(frozen=True)
class _Moments:
    center: Float[Tensor, " s"]
    deviation: Float[Tensor, " s"]
    constant: Bool[Tensor, " s"]


def _moments(vectors: Float[Tensor, "t s"]) -> _Moments:
    """Mean and standard deviation over the tasks; unknown values (nan) are left out, constant ones get deviation 1."""
    known = ~vectors.isnan()
    count = known.sum(0).clamp_min(1)
    center = vectors.nan_to_num(0.0).sum(0) / count
    deviation = ((vectors - center).nan_to_num(0.0).square().sum(0) / count).sqrt()
    # Features that never vary (dead units) have a deviation of rounding errors only.
    constant = deviation < 1e-6 * (1.0 + center.abs())
    return _Moments(center, torch.where(constant, torch.ones_like(deviation), deviation), constant)


def _principal(standardised: Float[Tensor, "t s"], components: int, whiten: bool) -> Float[Tensor, "s c"]:
    count = len(standardised)
    _, singular, axes = torch.linalg.svd(standardised, full_matrices=False)
    kept = int((singular > 1e-6 * singular[0].clamp_min(1e-12)).sum())
    kept = max(1, min(components, kept, count - 1))
    directions = axes[:kept].T
    # The sign of a singular vector is arbitrary: fix it, so that every machine gives the same embedding.
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    deviation = singular[:kept] / count**0.5
    common = deviation.square().mean().sqrt()
    unit: Tensor = directions / (deviation if whiten else common).clamp_min(1e-12)
    return unit
