"""What is true of canonical and aligned LoRA factors whatever their values."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wildpdiff.adapters.canonical import aligned, canonical

A, B = "base_model.model.layer.lora_A.weight", "base_model.model.layer.lora_B.weight"


def factors(rank: int, rows: int, columns: tuple[int, ...], seed: int, scale: float) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    ones = (1,) * (len(columns) - 1)
    return {
        A: scale * torch.randn(rank, *columns, generator=draws),
        B: torch.randn(rows, rank, *ones, generator=draws),
    }


def update(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return tensors[B].flatten(1) @ tensors[A].flatten(1)


sizes = {
    "rank": st.integers(1, 6),
    "rows": st.integers(1, 9),
    "columns": st.sampled_from([(1,), (4,), (9,), (2, 3, 3), (5, 1, 1)]),
    "seed": st.integers(0, 2**31),
    "scale": st.sampled_from([1e-4, 1.0, 30.0]),
}


@given(**sizes)
@settings(max_examples=60, deadline=None)
def test_the_update_stays_as_it_is(rank: int, rows: int, columns: tuple[int, ...], seed: int, scale: float) -> None:
    tensors = factors(rank, rows, columns, seed, scale)
    reference = canonical(factors(rank, rows, columns, seed + 1, 1.0))
    before = update(tensors)
    for found in (canonical(tensors), aligned(tensors, reference)):
        assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in tensors.items()}
        torch.testing.assert_close(update(found), before, atol=1e-5 * max(1.0, float(before.abs().max())), rtol=0)


@given(**sizes)
@settings(max_examples=60, deadline=None)
def test_all_factors_of_one_update_have_one_canonical_form(
    rank: int, rows: int, columns: tuple[int, ...], seed: int, scale: float
) -> None:
    tensors = factors(rank, rows, columns, seed, scale)
    singular = torch.linalg.svdvals(update(tensors).double())[: min(rank, rows)]
    gaps = torch.cat([singular, torch.zeros(1)]).diff().abs()
    assume(float(gaps.min()) > 1e-2 * float(singular[0]))
    ordered = canonical(tensors)[B].flatten(1).abs().sort(0).values
    # A sign needs a largest entry that stands out.
    assume(rows == 1 or bool((ordered[-1] - ordered[-2] > 1e-2 * ordered[-1])[: len(singular)].all()))
    draws = torch.Generator().manual_seed(seed + 2)
    mixing = torch.linalg.qr(torch.randn(rank, rank, generator=draws)).Q * torch.exp(torch.randn(rank, generator=draws))
    other = {
        A: torch.einsum("sr,r...->s...", mixing, tensors[A]),
        B: torch.einsum("or...,rs->os...", tensors[B], torch.linalg.inv(mixing)),
    }
    root = float(singular[0]) ** 0.5
    for name, value in canonical(tensors).items():
        torch.testing.assert_close(canonical(other)[name], value, atol=2e-3 * root, rtol=0)
        torch.testing.assert_close(canonical(canonical(tensors))[name], value, atol=2e-3 * root, rtol=0)
