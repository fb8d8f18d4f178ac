from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wildpdiff.conditional_mean.choice import SHARES, BlendSearch, Weights
from wildpdiff.conditional_mean.mean import Blend

NAMES = ("bad", "good", "fair")
START = (8, 0, 0)


def search(losses: dict[str, Tensor]) -> BlendSearch:
    """Blends lose the weighted mean of what their estimators lose, at one temperature."""
    stacked = torch.stack([losses[name] for name in NAMES])

    def of(weights: Weights) -> Tensor:
        return (torch.tensor(weights).double() / SHARES @ stacked.double())[None]

    return BlendSearch(NAMES, of)


def noisy(center: float, seed: int, tasks: int = 40) -> Tensor:
    return center + 0.1 * torch.randn(tasks, generator=torch.Generator().manual_seed(seed))


EVERY = torch.ones(40, dtype=torch.bool)


def test_all_weight_goes_to_the_estimator_that_loses_least() -> None:
    found = search({"bad": noisy(2.0, 0), "good": noisy(0.5, 1), "fair": noisy(1.0, 2)}).search(START, EVERY)
    assert found.used == {"good": 1.0}


def test_within_noise_the_start_is_kept() -> None:
    alternating = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0)
    base, error = noisy(1.0, 0), 40**-0.5
    for gain, kept in ((0.3 * error, True), (0.8 * error, False)):  # in standard errors of the difference
        losses = {"bad": base, "good": base + alternating - gain, "fair": base + 0.5}
        assert (search(losses).search(START, EVERY).used == {"bad": 1.0}) is kept


def test_what_is_worse_is_never_moved_to() -> None:
    same = noisy(1.0, 0)
    losses = {"bad": same, "good": same + noisy(0.2, 3), "fair": same + noisy(0.3, 4)}
    assert search(losses).search(START, EVERY).used == {"bad": 1.0}


def test_a_worthless_estimator_loses_the_weight_that_it_starts_with() -> None:
    losses = {"bad": noisy(9.0, 0), "good": noisy(0.5, 1), "fair": noisy(0.5, 2)}
    found = search(losses).search((4, 4, 0), EVERY)
    assert "bad" not in found.used


def test_estimators_that_err_in_opposite_ways_are_mixed() -> None:
    errors = {"bad": torch.full((40,), 5.0), "good": torch.full((40,), 1.0), "fair": torch.full((40,), -1.0)}
    stacked = torch.stack([errors[name] for name in NAMES])

    def of(weights: Weights) -> Tensor:
        return (torch.tensor(weights) / SHARES @ stacked).square()[None]

    assert BlendSearch(NAMES, of).search(START, EVERY).used == {"good": 0.5, "fair": 0.5}


def test_only_the_tasks_that_count_are_read() -> None:
    half = torch.arange(40) < 20
    good_in_half = torch.where(half, torch.tensor(0.2), torch.tensor(5.0))
    losses = {"bad": noisy(1.0, 0), "good": good_in_half, "fair": noisy(1.1, 1)}
    assert search(losses).search(START, half).used == {"good": 1.0}
    assert "good" not in search(losses).search(START, ~half).used


def test_losses_of_tasks_that_do_not_count_may_be_anything() -> None:
    half = torch.arange(40) < 20
    losses = {"bad": noisy(1.0, 0), "good": noisy(0.5, 1), "fair": noisy(0.9, 2)}
    unknown = {name: torch.where(half, own, torch.nan) for name, own in losses.items()}
    assert search(unknown).search(START, half) == search(losses).search(START, half)


@pytest.mark.parametrize(("temperatures", "kept"), [((1.0,), False), ((1.0, 2.0, 4.0), True)])
def test_an_estimator_that_is_right_and_too_sure_is_not_shrunk_where_temperatures_are_tried(
    temperatures: tuple[float, ...], kept: bool
) -> None:
    draws = torch.Generator().manual_seed(0)
    true = torch.randn(40, 200, 3, generator=draws)
    labels = torch.distributions.Categorical(logits=true).probs.cumsum(2)  # type: ignore[no-untyped-call]
    labels = (torch.rand(40, 200, 1, generator=draws) > labels).sum(2)
    logits = {"bad": torch.zeros(40, 200, 3), "good": 4 * true, "fair": torch.randn(40, 200, 3, generator=draws)}
    stacked = torch.stack([logits[name] for name in NAMES])

    def of(weights: Weights) -> Tensor:
        mixed = torch.einsum("m,mtnc->tnc", torch.tensor(weights) / SHARES, stacked)
        found = [cross_entropy((mixed / value).transpose(1, 2), labels, reduction="none") for value in temperatures]
        return torch.stack(found).mean(2)

    found = BlendSearch(NAMES, of).search((0, 8, 0), EVERY)
    assert (found.used == {"good": 1.0}) is kept


def test_a_blend_is_the_weighted_mean_of_its_estimators() -> None:
    stacked = torch.arange(12.0).view(3, 2, 2)
    expected = 0.25 * stacked[0] + 0.75 * stacked[2]
    assert torch.equal(Blend(NAMES, (0.25, 0.0, 0.75))(stacked), expected)
