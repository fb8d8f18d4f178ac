import pytest
import torch

from wildpdiff.conditions.reduction import Reduction, strongest


def vectors(seed: int = 0) -> torch.Tensor:
    """Forty columns that are all one style, and two that are another thing."""
    draws = torch.Generator().manual_seed(seed)
    style = torch.randn(20, 1, generator=draws) + 0.1 * torch.randn(20, 40, generator=draws)
    return torch.cat([style, torch.randn(20, 2, generator=draws)], dim=1).double()


def share_of_the_small_block(fitted: Reduction, values: torch.Tensor) -> float:
    """How much of the embedding's squared distances comes from the last two columns."""
    standardised = (values - fitted.center) / fitted.scale
    inside = torch.zeros_like(standardised)
    inside[:, 40:] = standardised[:, 40:]
    whole = (standardised @ fitted.directions).square().sum()
    return float((inside @ fitted.directions).square().sum() / whole)


def test_every_block_has_the_same_weight() -> None:
    values = vectors()
    one = Reduction.fit(values, components=8, whiten=False)
    two = Reduction.fit(values, components=8, whiten=False, blocks=[40, 2])
    assert share_of_the_small_block(one, values) < 0.1
    assert share_of_the_small_block(two, values) == pytest.approx(0.5, abs=0.05)


def test_constant_columns_take_nothing_from_their_block() -> None:
    values = vectors()
    padded = torch.cat([values, torch.full((20, 30), 7.0, dtype=torch.float64)], dim=1)
    plain = Reduction.fit(values, components=4, whiten=False, blocks=[40, 2])
    wider = Reduction.fit(padded, components=4, whiten=False, blocks=[40, 32])
    torch.testing.assert_close(wider.directions[:42], plain.directions, atol=1e-9, rtol=0)


def test_blocks_of_their_own_come_last_and_read_nothing_else() -> None:
    fitted = Reduction.fit(vectors(), components=5, whiten=False, blocks=[38, 2, 2], own=[[2], [1, 2]])
    assert fitted.sizes == (5, 2, 4)
    assert fitted.directions.shape == (42, 11)
    assert float(fitted.directions[:40, 5:7].abs().max()) < 1e-12
    assert bool((fitted.directions[40:, 5:7].abs().sum(0) > 0).all())
    assert float(fitted.directions[:38, 7:].abs().max()) < 1e-12


def test_unknown_values_count_as_the_mean() -> None:
    values = vectors()
    values[3, 41] = torch.nan
    fitted = Reduction.fit(values, components=3, whiten=True)
    known = values[torch.arange(20) != 3, 41]
    assert float(fitted.center[41]) == pytest.approx(float(known.mean()))
    assert bool(fitted.directions.isfinite().all())


def test_the_strongest_are_a_factor_where_there_are_more() -> None:
    assert strongest(range(6)) == ((0, 1, 2, 3, 4, 5), (0, 1, 2, 3))
    assert strongest(range(3)) == ((0, 1, 2),)
