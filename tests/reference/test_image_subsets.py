"""The sampler of conditions against a twin that goes one row at a time: which subset, its summary, its embedding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wildpdiff.conditions.images import ImageFeatures, ImageSetEncoder
from wildpdiff.conditions.sampling import ImageSubsets
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description


def embeddings_of_subsets(
    encoder: ImageSetEncoder, features: ImageFeatures, smallest: int, indices: Tensor, generator: torch.Generator
) -> Tensor:
    """What ``ImageSubsets.draw`` gives for the same generator."""
    luck = torch.rand(len(indices), generator=generator)
    order = torch.rand(len(indices), features.mask.shape[1], generator=generator)
    rows = []
    for row, task in enumerate(indices.tolist()):
        count = int(features.mask[task].sum())
        lowest = min(smallest, count)
        size = lowest + min(int(luck[row] * (count - lowest + 1)), count - lowest)
        columns = features.mask[task].nonzero()[:, 0]
        chosen = columns[order[row, columns].argsort()[:size]]
        rows.append(encoder.encode_features(features.values[task, chosen]))
    return torch.stack(rows)


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("smallest", [1, 2])
def test_subsets_equal_their_slow_twin(spread: bool, smallest: int) -> None:
    generator = torch_generator(1)
    sets = []
    for count in (5, 1, 2, 8, 6):
        level, width = torch.randn(12, generator=generator), torch.rand(12, generator=generator)
        sets.append(50.0 + 3.0 * level + width * torch.randn(count, 12, generator=generator))
    features = ImageFeatures.stack([*sets, None])
    encoder = ImageSetEncoder.fit(
        [Description()] * 6, "backgrounds", lambda images: torch.zeros(0, 12), spread=spread, features=features
    )
    indices = torch.randint(0, 5, (200,), generator=generator)
    fast = ImageSubsets(encoder, features, smallest).draw(indices, torch_generator(0))
    slow = embeddings_of_subsets(encoder, features, smallest, indices, torch_generator(0))
    assert torch.allclose(fast, slow, atol=1e-4)
