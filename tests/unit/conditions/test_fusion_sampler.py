import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description, Images, MetadataField, MetadataSchema

SCHEMA = MetadataSchema((MetadataField("x", "number"),))


def featurise(images: Images) -> Float[Tensor, "n f"]:
    return torch.from_numpy(images).float().flatten(1) / 255.0


def describe(index: int) -> Description:
    rng = np.random.default_rng(index)
    count = (5, 1, 2, 8)[index % 4]
    images = rng.integers(10 * index, 10 * index + 60, (count, 2, 2, 3)).astype(np.uint8)
    return Description(metadata={"x": float(index)} if index != 4 else None, backgrounds=images if index != 5 else None)


SEEN = [describe(index) for index in range(8)]
INDICES = torch.arange(8).repeat(400)


@pytest.fixture(scope="module")
def encoder() -> FusionEncoder:
    return fit_fusion(SEEN, SCHEMA, featurise, components=3)


def test_without_dropping_and_resampling_it_is_the_encoding(encoder: FusionEncoder) -> None:
    sampler = encoder.sampler(SEEN, drop_part=0.0, drop_all=0.0, smallest=1000)
    drawn = sampler(torch.arange(8), torch_generator(0))
    assert torch.allclose(drawn, torch.stack([encoder.encode(entry).values for entry in SEEN]), atol=1e-3)


def test_images_are_resampled_at_every_call(encoder: FusionEncoder) -> None:
    sampler = encoder.sampler(SEEN, drop_part=0.0, drop_all=0.0)
    generator = torch_generator(0)
    first, second = sampler(torch.arange(8), generator), sampler(torch.arange(8), generator)
    changed = (first != second).any(1)
    assert not changed[[1, 2, 5]].any()  # one image, two images, no images: there is one subset only
    assert changed[[3, 7]].any()


def test_same_generator_state_same_bytes(encoder: FusionEncoder) -> None:
    sampler = encoder.sampler(SEEN)
    draws = [sampler(INDICES, torch_generator(3)) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


def test_parts_are_dropped_at_the_given_rate_but_never_all(encoder: FusionEncoder) -> None:
    flags = encoder.sampler(SEEN, drop_part=0.4, drop_all=0.0)(INDICES, torch_generator(0))[:, -2:]
    assert bool((flags.sum(1) >= 1).all())
    both = flags[(INDICES != 4) & (INDICES != 5)]
    # One part alone is dropped with .4 * .6, both with .4²; of these one is kept at random.
    expected = 0.4 * 0.6 + 0.4**2 / 2
    assert both.mean(0).tolist() == pytest.approx([1 - expected] * 2, abs=0.03)
    assert flags[INDICES == 4].unique(dim=0).tolist() == [[0.0, 1.0]]
    assert flags[INDICES == 5].unique(dim=0).tolist() == [[1.0, 0.0]]


def test_everything_is_dropped_at_the_given_rate(encoder: FusionEncoder) -> None:
    drawn = encoder.sampler(SEEN, drop_part=0.0, drop_all=0.25)(INDICES, torch_generator(0))
    nothing = (drawn == encoder.null).all(1)
    assert float(nothing.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_values_are_zero_where_the_flag_is_zero(encoder: FusionEncoder) -> None:
    drawn = encoder.sampler(SEEN, drop_part=0.4, drop_all=0.1)(INDICES, torch_generator(0))
    assert not drawn[drawn[:, -2] == 0][:, :2].any()
    assert not drawn[drawn[:, -1] == 0][:, 2:-2].any()
