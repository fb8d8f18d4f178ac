"""LoRA's freedom of basis, ``B A = (B R⁻¹)(R A)``, a form in which it is gone, and one layout for many adapters.

An update ``ΔW = B A`` of rank r has as many factors as there are invertible r x r matrices R. Two tasks whose updates
are alike may then have factors that are not, and averages or regressions of factors mean nothing. There are three ways
out: hold A fixed and equal for all tasks (the default of a zoo, ``FinetuneConfig.train_factor_a``), bring every
adapter to one form (here), or measure errors in ΔW.

Adapters of different ranks, targets and scalings meet in a common layout (:func:`common_spec`, :func:`in_common`): all
target modules of any of them, one rank, scaling 1, and of each module those factors that are nearest to a reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.adapters.spec import LARGEST_RANK, PEFT_PREFIX, AdapterSpec, ModuleSpec
from wildpdiff.errors import AdapterMismatchError

Gauge = Literal["raw", "canonical"]
"""Factors in a codec's vectors: those of the fine-tuning, or the canonical ones of the same updates."""

FACTOR_NAMES = ((".lora_A.", ".lora_B."), (".lora_embedding_A", ".lora_embedding_B"))
REFINEMENTS = 3
"""Rounds in which the mean of the aligned adapters replaces the medoid as reference."""


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
        for factor_a, factor_b in FACTOR_NAMES:
            other = name.replace(factor_a, factor_b)
            if factor_a in name and other in tensors:
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
        tensors: an adapter's tensors under PEFT's names; others than LoRA factors are passed through.
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


def common_spec(specs: Mapping[str, AdapterSpec], rank: int | None = None) -> AdapterSpec:
    """The spec of the common layout of many adapters: all their target modules, one rank, scaling 1.

    Args:
        specs: of each adapter, by its name in messages.
        rank: of all modules; the largest of the adapters by default.

    Raises:
        AdapterMismatchError: adapters of different base models, module shapes, or parameters replaced whole.
    """
    first_name, first = next(iter(specs.items()))
    modules: dict[str, ModuleSpec] = {}
    owner: dict[str, str] = {}
    for name, spec in specs.items():
        if spec.base_model != first.base_model:
            raise AdapterMismatchError(
                f"{first_name} is for the base model {first.base_model!r} and {name} for {spec.base_model!r}. Import "
                "adapters of one base model; where it has several names, write one into their adapter_config.json."
            )
        if dict(spec.saved) != dict(first.saved):
            changed = sorted(set(spec.saved.items()) ^ set(first.saved.items()))[0][0]
            raise AdapterMismatchError(
                f"{first_name} and {name} replace different parameters whole: {changed} has shape "
                f"{first.saved.get(changed, 'none')} and {spec.saved.get(changed, 'none')}. Import adapters that save "
                "the same ones, for example with the same classes."
            )
        for module, entry in spec.modules.items():
            known = modules.setdefault(module, entry)
            if known.shape != entry.shape:
                raise AdapterMismatchError(
                    f"Module {module!r} has updates of shape {known.shape} in {owner[module]} and {entry.shape} in "
                    f"{name}. Import adapters of one base model."
                )
            owner.setdefault(module, name)
    largest = max((entry.rank for spec in specs.values() for entry in spec.modules.values()), default=1)
    if rank is not None and not 1 <= rank <= LARGEST_RANK:
        raise AdapterMismatchError(f"The rank of the common layout is {rank}; give one from 1 to {LARGEST_RANK}.")
    common = {name: replace(modules[name], rank=rank or largest, scaling=1.0) for name in sorted(modules)}
    return replace(first, modules=common)


class Converted(NamedTuple):
    """Tensors in the common layout, and the share of the update's energy that a smaller rank has lost."""

    tensors: dict[str, Tensor]
    lost: float


def in_common(spec: AdapterSpec, tensors: Mapping[str, Tensor], common: AdapterSpec) -> Converted:
    """One adapter in the common layout, by balanced factors; not aligned yet.

    Args:
        spec: of the adapter.
        tensors: the adapter's, under PEFT's names.
        common: of the layout, see :func:`common_spec`.
    """
    result = {f"{PEFT_PREFIX}{name}": tensors[f"{PEFT_PREFIX}{name}"] for name in common.saved}
    full = kept = 0.0
    for name, entry in common.modules.items():
        (name_a, shape_a), (name_b, shape_b) = (
            (f"{PEFT_PREFIX}{name}.{own}", shape) for own, shape in entry.factors.items()
        )
        own = spec.modules.get(name)
        if own is None:
            result[name_a], result[name_b] = torch.zeros(shape_a), torch.zeros(shape_b)
            continue
        b, a = own.scaling * tensors[name_b].flatten(1), tensors[name_a].flatten(1)
        found = balanced_factors(b, a, entry.rank)
        full += float(_products(b, a, b, a))
        kept += float(_products(found.b, found.a, found.b, found.a))
        result[name_a], result[name_b] = found.a.reshape(shape_a), found.b.reshape(shape_b)
    return Converted(result, max(0.0, 1.0 - kept / full) if full else 0.0)


def alignment_reference(stacked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter that others are aligned to (:func:`aligned`): of every module the medoid, then means around it.

    The medoid is the update with the smallest sum of distances to the others (of those that have the module); in a few
    rounds of generalised Procrustes analysis (Gower 1975) the mean of the aligned factors replaces it.

    Args:
        stacked: adapters in the common layout, stacked on a leading axis.
    """
    reference = {name: value[0] for name, value in stacked.items()}
    for name_a, name_b in factor_pairs(stacked):
        a, b = stacked[name_a].flatten(2).double(), stacked[name_b].flatten(2).double()
        products = torch.einsum("nor,mos,nri,msi->nm", b, b, a, a)
        present = products.diagonal() > 0
        squares = products.diagonal()[:, None] + products.diagonal()[None] - 2 * products
        distances = squares.clamp_min(0).sqrt()[:, present].sum(1)
        row = int(torch.where(present, distances, torch.inf).argmin())
        reference[name_a], reference[name_b] = stacked[name_a][row], stacked[name_b][row]
        own = {name_a: stacked[name_a][present], name_b: stacked[name_b][present]}
        for _ in range(REFINEMENTS if bool(present.any()) else 0):
            turned = aligned(own, {name: reference[name] for name in own}, leading=1)
            reference |= {name: value.mean(0) for name, value in turned.items()}
    return reference


def squared_updates(stacked: Mapping[str, Tensor], other: Mapping[str, Tensor] | None = None) -> Float[Tensor, " n"]:
    """Squared norms of ``ΔW`` over all modules, or of the difference to others'; no product ``B A`` is formed.

    Args:
        stacked: adapters of scaling 1, stacked on a leading axis.
        other: as many, of any rank.
    """
    total = torch.zeros(len(next(iter(stacked.values()))), dtype=torch.float64)
    for name_a, name_b in factor_pairs(stacked):
        b, a = stacked[name_b].flatten(2).double(), stacked[name_a].flatten(2).double()
        if other is not None:
            b = torch.cat([b, -other[name_b].flatten(2).double()], 2)
            a = torch.cat([a, other[name_a].flatten(2).double()], 1)
        total += _products(b, a, b, a)
    return total


def _products(b: Tensor, a: Tensor, other_b: Tensor, other_a: Tensor) -> Tensor:
    """Inner products of the updates ``b @ a`` and ``other_b @ other_a``, from matrices of the ranks' sizes."""
    return ((b.mT.double() @ other_b.double()) * (a.double() @ other_a.mT.double())).sum((-2, -1))
