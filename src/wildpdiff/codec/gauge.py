"""LoRA's freedom of basis, ``B A = (B R⁻¹)(R A)``, and a form in which it is gone.

An update ``ΔW = B A`` of rank r has as many factors as there are invertible r x r matrices R. Two tasks whose updates
are alike may then have factors that are not, and averages or regressions of factors mean nothing. There are three ways
out: hold A fixed and equal for all tasks (what a zoo does by default, ``FinetuneConfig.train_factor_a``), bring every
adapter to one form (here), or measure errors in ΔW.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Gauge = Literal["raw", "canonical"]
"""Which of the equivalent factors stand in a codec's vectors: those of the fine-tuning, or the canonical ones."""

FACTOR_A, FACTOR_B = ".lora_A.", ".lora_B."


@dataclass(frozen=True)
class Factors:
    """Factors of updates ``ΔW = b @ a``.

    Attributes:
        b: columns.
        a: rows.
    """

    b: Float[Tensor, "*batch out r"]
    a: Float[Tensor, "*batch r in"]


def factor_pairs(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Names of the A and the B factor of every adapted layer, under PEFT's names."""
    for name in sorted(tensors):
        other = name.replace(FACTOR_A, FACTOR_B)
        if FACTOR_A in name and other in tensors:
            yield name, other


def balanced_factors(b: Float[Tensor, "*batch out k"], a: Float[Tensor, "*batch k in"], rank: int) -> Factors:
    """The balanced factors ``U √S`` and ``√S Vᵀ`` of the truncated singular value decomposition of ``b @ a``.

    Of all factors of the nearest rank-``rank`` matrix (Eckart & Young 1936) these have the smallest sum of squares
    (Srebro et al. 2004), the same Gram matrix ``bᵀ b = a aᵀ = S``, singular values falling, and in every column of b
    its entry of largest magnitude positive. Missing ranks are filled with zeros. Computed in float64 from the QR
    decompositions of both factors, so that the product itself is never formed.
    """
    left, inner_b = torch.linalg.qr(b.double())
    right, inner_a = torch.linalg.qr(a.double().mT)
    u, singular, vh = torch.linalg.svd(inner_b @ inner_a.mT, full_matrices=False)
    kept = min(rank, singular.shape[-1])
    root = singular[..., :kept].sqrt()
    new_b = (left @ u[..., :kept]) * root[..., None, :]
    new_a = root[..., :, None] * (vh[..., :kept, :] @ right.mT)
    largest = new_b.gather(-2, new_b.abs().argmax(-2, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(new_b.dtype)
    new_b, new_a = new_b * sign, new_a * sign.mT
    missing = rank - kept
    if missing:
        new_b = torch.nn.functional.pad(new_b, (0, missing))
        new_a = torch.nn.functional.pad(new_a, (0, 0, 0, missing))
    return Factors(new_b.to(b.dtype), new_a.to(a.dtype))


def canonical(tensors: Mapping[str, Tensor], leading: int = 0) -> dict[str, Tensor]:
    """The same adapter with balanced singular factors; the updates ``ΔW = B A`` stay as they are.

    All factors of one update have one canonical form, as long as its singular values differ. **Near-ties**: where two
    singular values are almost equal, their directions may turn into one another, and where two entries of a column
    are almost equally large, its sign may flip: then two almost equal updates have canonical forms that are far
    apart, though each still gives its own update. No rule that is continuous everywhere exists.

    Args:
        tensors: an adapter's tensors under PEFT's names; what is not a LoRA factor is passed through.
        leading: stacked axes before the tensors' own.
    """
    result = dict(tensors)
    for name_a, name_b in factor_pairs(tensors):
        a, b = tensors[name_a], tensors[name_b]
        found = balanced_factors(b.flatten(leading + 1), a.flatten(leading + 1), a.shape[leading])
        result[name_a], result[name_b] = found.a.reshape(a.shape), found.b.reshape(b.shape)
    return result


def aligned(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor], leading: int = 0) -> dict[str, Tensor]:
    """The same adapter with those balanced factors that are nearest to a reference's; ``ΔW = B A`` stays as it is.

    Balanced factors are unique up to an orthogonal matrix; the one that brings them nearest to the reference's factors
    is the orthogonal Procrustes solution (Schönemann 1966). Unlike the signs and the order of singular values it does
    not jump where singular values meet, only where the adapter and the reference have nothing in common.

    Args:
        tensors: as in :func:`canonical`.
        reference: one adapter's tensors, best in balanced form.
        leading: stacked axes before the tensors' own.
    """
    result = canonical(tensors, leading)
    for name_a, name_b in factor_pairs(tensors):
        a, b = result[name_a], result[name_b]
        flat_a, flat_b = a.flatten(leading + 1).double(), b.flatten(leading + 1).double()
        target_a, target_b = reference[name_a].flatten(1).double(), reference[name_b].flatten(1).double()
        u, _, vh = torch.linalg.svd(flat_b.mT @ target_b + flat_a @ target_a.mT)
        turn = u @ vh
        result[name_a] = (turn.mT @ flat_a).to(a.dtype).reshape(a.shape)
        result[name_b] = (flat_b @ turn).to(b.dtype).reshape(b.shape)
    return result
