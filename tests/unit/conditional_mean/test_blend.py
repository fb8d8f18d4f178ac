from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildpdiff.conditional_mean.blend import SHARES, Blend, BlendSearch, Weights, start_weights
from wildpdiff.conditional_mean.cross_validation import DELIVERED, HeldOutScores, tabulate
from wildpdiff.conditional_mean.score_table import CrossValidation

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
    same = noisy(1.0, 0)
    found = search({"bad": same, "good": same - 1e-9, "fair": same + 0.1}).search(START, EVERY)
    assert found.used["bad"] == 1.0 or found.used.get("good", 0) > 0  # equal losses: nothing is worse than the start
    worse = search({"bad": same, "good": same + noisy(0.2, 3), "fair": same + noisy(0.3, 4)}).search(START, EVERY)
    assert worse.used == {"bad": 1.0}


def test_only_the_tasks_that_count_are_read() -> None:
    half = torch.arange(40) < 20
    good_in_half = torch.where(half, torch.tensor(0.2), torch.tensor(5.0))
    losses = {"bad": noisy(1.0, 0), "good": good_in_half, "fair": noisy(1.1, 1)}
    assert search(losses).search(START, half).used == {"good": 1.0}
    assert "good" not in search(losses).search(START, ~half).used


def test_an_estimator_that_is_right_and_too_sure_is_not_shrunk() -> None:
    def of(weights: Weights) -> Tensor:
        sure, shrunk = 2.0 * weights[1] / SHARES, 0.6
        # At temperature 1 the pure estimator loses more than a blend with "bad"; at the right one it loses least.
        mixed = weights[0] / SHARES
        return torch.stack([torch.full((40,), sure + mixed), torch.full((40,), shrunk + mixed)])

    assert BlendSearch(NAMES, of).search((4, 4, 0), EVERY).used.get("bad", 0.0) == 0.0


def test_a_blend_is_the_weighted_mean_of_its_estimators() -> None:
    stacked = torch.arange(12.0).view(3, 2, 2)
    expected = 0.25 * stacked[0] + 0.75 * stacked[2]
    assert torch.equal(Blend(NAMES, (0.25, 0.0, 0.75))(stacked), expected)
    with pytest.raises(ValueError, match="sum to 8"):
        start_weights(NAMES, {"good": 3})


def table(tasks: int) -> CrossValidation:
    ones = torch.ones(tasks)
    scores = {"pretrained": HeldOutScores(ones, 0.3 * ones, 20), "mean adapter": HeldOutScores(ones, 0.5 * ones, 20)}
    delivered = HeldOutScores(0.5 * ones, torch.linspace(0.6, 0.8, tasks), 20)
    return tabulate(scores, {"pretrained": 0.0, "mean adapter": 1.0}, delivered)


def test_the_table_says_how_far_what_is_delivered_is_ahead() -> None:
    found = table(40)
    assert [row.method for row in found.rows] == ["pretrained", "mean adapter", DELIVERED]
    assert found.rows[0].lead == pytest.approx(40.0, abs=1e-3)
    assert found.rows[0].low < 40.0 < found.rows[0].high
    assert found.best_alternative.method == "mean adapter"
    assert found.composition == "mean adapter"
    assert not found.few
    assert "few" not in found.verdict
    assert CrossValidation.from_json(found.to_json()) == found


def test_few_tasks_are_said_to_be_few() -> None:
    assert table(6).few
    assert "6 seen tasks are few" in table(6).verdict
