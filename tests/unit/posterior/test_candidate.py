"""What samples are worth by a few labels is measured on images that did not choose."""

from __future__ import annotations

import pytest
import torch

from wildpdiff.posterior.fit import score_by_labels


@pytest.mark.parametrize("images", [1, 2, 3, 5, 8, 20])
def test_samples_of_chance_are_worth_chance_however_few_the_images(images: int) -> None:
    draws = torch.Generator().manual_seed(images)
    found = []
    for _ in range(600):
        right = (torch.rand(8, images, generator=draws) < 0.5).double()
        found.append(score_by_labels(1.0 - right, right, 5, draws))
    # Choosing by what is counted gives .9 with one image and .7 with five.
    assert float(torch.stack(found).mean()) == pytest.approx(0.5, abs=0.04)


def test_the_sample_that_is_right_is_found_by_its_labels() -> None:
    right = torch.zeros(8, 12, dtype=torch.float64)
    right[3] = 1.0
    assert float(score_by_labels(1.0 - right, right, 5, torch.Generator().manual_seed(0))) == 1.0
