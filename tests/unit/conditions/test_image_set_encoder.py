from typing import ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from refusals import refused
from wildpdiff.conditions.base import BlockFeaturiser
from wildpdiff.conditions.images import ImageFeatures, ImageSetEncoder
from wildpdiff.conditions.sampling import ImageSubsets
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, Images


def featurise(images: Images) -> Float[Tensor, "n f"]:
    pixels = torch.from_numpy(images).float().flatten(1) / 255.0
    return torch.cat([pixels, pixels.square(), torch.zeros(len(images), 1)], dim=1)


def descriptions(counts: tuple[int, ...], seed: int = 0) -> list[Description]:
    rng = np.random.default_rng(seed)
    result = []
    for count in counts:
        low = int(rng.integers(0, 120))
        images = rng.integers(low, low + int(rng.integers(20, 120)), (count, 2, 2, 3)).astype(np.uint8)
        result.append(Description(backgrounds=images))
    return result


SEEN = descriptions((6, 5, 7, 6, 4, 6, 8, 6))


def test_standardised_and_white_over_the_seen_tasks() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise, components=4)
    embeddings = torch.stack([encoder.encode(entry).values for entry in SEEN])
    assert embeddings.shape == (8, 4)
    assert torch.allclose(embeddings.mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(embeddings.T @ embeddings / 8, torch.eye(4), atol=1e-3)


def test_without_whitening_the_first_component_is_the_widest() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise, components=4, whiten=False)
    deviation = torch.stack([encoder.encode(entry).values for entry in SEEN]).std(0, correction=0)
    assert deviation[0] > 1.2 * deviation[3]
    assert deviation.square().mean() == pytest.approx(1.0, abs=1e-3)


def test_order_of_the_images_does_not_matter() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise)
    images = SEEN[0].backgrounds
    assert images is not None
    reversed_set = Description(backgrounds=images[::-1].copy())
    assert torch.allclose(encoder.encode(SEEN[0]).values, encoder.encode(reversed_set).values, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 20])
def test_any_number_of_images(count: int) -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise)
    embedding = encoder.encode(descriptions((count,), seed=3)[0])
    assert embedding.present
    assert embedding.values.shape == (7,)  # eight tasks determine seven directions
    assert bool(embedding.values.isfinite().all())


def test_a_single_image_counts_as_average_in_spread() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise)
    features = featurise(SEEN[0].backgrounds[:1])  # type: ignore[index]
    half = features.shape[1]
    summary = torch.cat([features[0], encoder.center[half:]])
    expected = ((summary - encoder.center) / encoder.scale) @ encoder.directions
    assert torch.allclose(encoder.encode_features(features), expected.clamp(-4, 4), atol=1e-5)


def test_sets_unlike_any_seen_are_clipped() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise)
    assert float(encoder.encode_features(torch.full((3, 25), 1e6)).abs().max()) == 4.0


@pytest.mark.parametrize("images", [None, np.zeros((0, 2, 2, 3), np.uint8)])
def test_no_images_are_absent(images: Images | None) -> None:
    embedding = ImageSetEncoder.fit(SEEN, "backgrounds", featurise).encode(Description(backgrounds=images, text="x"))
    assert not embedding.present
    assert not embedding.values.any()


def test_fit_from_known_features_is_the_same() -> None:
    features = ImageFeatures.of(SEEN, "backgrounds", featurise)
    first = ImageSetEncoder.fit(SEEN, "backgrounds", featurise)
    second = ImageSetEncoder.fit(SEEN, "backgrounds", featurise, features=features)
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert torch.equal(first.encode_features(features.row(2)), first.encode(SEEN[2]).values)


def test_one_task_with_images_is_too_few() -> None:
    with refused(DescriptionError, 1, "backgrounds"):
        ImageSetEncoder.fit([SEEN[0], Description(text="x")], "backgrounds", featurise)


def test_restoring_needs_the_featuriser() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise)
    with refused(DescriptionError, "backgrounds"):
        ImageSetEncoder.from_state(encoder.config, encoder.tensors)


class Blocks:
    """The pixels, and besides their brightness as a factor of its own."""

    identity = "pixels and brightness"
    blocks: ClassVar[dict[str, int]] = {"pixels": 12, "brightness": 1}
    factors = ("brightness",)

    def __call__(self, images: Images) -> Float[Tensor, "n f"]:
        pixels = torch.from_numpy(images).float().flatten(1) / 255.0
        return torch.cat([pixels, pixels.mean(1, keepdim=True)], dim=1)


def test_factors_of_the_featuriser_have_columns_of_their_own() -> None:
    assert isinstance(Blocks(), BlockFeaturiser)
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", Blocks(), components=5, whiten=False)
    # Mean and spread of the brightness are two numbers, so two components at most.
    assert (encoder.size, encoder.own) == (7, (2,))
    assert encoder.groups == ((0, 1, 2, 3, 4), (0, 1, 2, 3), (5, 6))
    others = [column for column in range(26) if column not in (12, 25)]
    assert float(encoder.directions[others, 5:].abs().max()) < 1e-6
    assert float(encoder.directions[[12, 25], 5:].abs().min()) > 1e-3


def test_one_number_weighs_as_much_as_twelve() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", Blocks())
    plain = ImageSetEncoder.fit(SEEN, "backgrounds", lambda images: Blocks()(images))
    weight = encoder.scale / plain.scale
    assert torch.allclose(weight[[0, 12, 13, 25]] / weight[12], torch.tensor([12**0.5, 1.0, 12**0.5, 1.0]))


def test_features_of_another_length_than_the_blocks_are_refused() -> None:
    known = ImageFeatures.of(SEEN, "backgrounds", featurise)
    with refused(DescriptionError, 25, 13, "pixels and brightness"):
        ImageSetEncoder.fit(SEEN, "backgrounds", Blocks(), features=known)


def test_its_state_keeps_factors_and_asks_for_the_same_featuriser() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", Blocks(), components=3)
    again = ImageSetEncoder.from_state(encoder.config, encoder.tensors, Blocks())
    assert again.groups == encoder.groups
    assert torch.equal(again.encode(SEEN[0]).values, encoder.encode(SEEN[0]).values)
    with refused(DescriptionError, "pixels and brightness", "another function"):
        ImageSetEncoder.from_state(encoder.config, encoder.tensors, featurise)


def test_a_state_of_the_first_version_takes_any_featuriser() -> None:
    encoder = ImageSetEncoder.fit(SEEN, "backgrounds", featurise, components=3)
    old = {"part": "backgrounds", "spread": True}
    for function in (featurise, Blocks()):
        again = ImageSetEncoder.from_state(old, encoder.tensors, function)
        assert (again.groups, again.identity) == (((0, 1, 2),), "")


def test_features_that_are_not_known_of_a_task_count_as_average_also_in_random_subsets() -> None:
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(6, 4, 3, generator=draws)
    values[2, :, 0] = torch.nan
    known = ImageFeatures(values, torch.ones(6, 4, dtype=torch.bool))
    descriptions = [Description(backgrounds=np.zeros((4, 2, 2, 3), np.uint8)) for _ in range(6)]
    encoder = ImageSetEncoder.fit(descriptions, "backgrounds", lambda images: values[0], components=3, features=known)
    found = encoder.encode_features(known.row(2))
    filled = values[2].clone()
    filled[:, 0] = encoder.center[0]
    summary = torch.cat([filled.mean(0), filled.std(0)])
    summary[3] = encoder.center[3]
    assert torch.allclose(found, ((summary - encoder.center) / encoder.scale) @ encoder.directions, atol=1e-5)
    drawn = ImageSubsets(encoder, known, 4).draw(torch.tensor([2, 3]), torch.Generator().manual_seed(1))
    assert bool(drawn.isfinite().all())
