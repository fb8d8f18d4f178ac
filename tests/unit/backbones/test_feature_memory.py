from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.image_features import FeatureMemory


@pytest.fixture
def backbone() -> Backbone:
    """A fresh one, whose memory is empty."""
    return toys.backbone()


@pytest.fixture
def stem_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes how many images each run of the stem had."""
    runs: list[int] = []
    plain = Backbone.stem

    def counting(self: Backbone, images: np.ndarray) -> torch.Tensor:
        runs.append(len(images))
        return plain(self, images)

    monkeypatch.setattr(Backbone, "stem", counting)
    return runs


def test_images_seen_before_do_not_pass_the_stem_again(backbone: Backbone, stem_runs: list[int]) -> None:
    first = backbone.image_features(toys.random_images(4))
    again = backbone.image_features(toys.random_images(4))
    assert stem_runs == [4]
    assert torch.equal(first, again)
    backbone.image_features(toys.random_images(4, seed=1))
    backbone.image_features(toys.random_images(4)[:3])
    assert stem_runs == [4, 4, 3]


def test_other_adapter_places_share_what_is_known_and_other_weights_do_not(
    backbone: Backbone, stem_runs: list[int]
) -> None:
    images = toys.random_images(2)
    backbone.image_features(images)
    backbone.with_lora(LoraSpec(1, 1.0, ("body",))).image_features(images)
    assert stem_runs == [2]
    other = replace(backbone, module=toys.network(seed=1))
    assert not torch.equal(other.image_features(images), backbone.image_features(images))
    assert stem_runs == [2, 2]


def test_what_a_caller_does_to_features_does_not_reach_the_memory(backbone: Backbone) -> None:
    images = toys.random_images(2)
    first = backbone.image_features(images)
    kept = first.clone()
    first.zero_()
    second = backbone.image_features(images)
    assert torch.equal(second, kept)
    second.zero_()
    assert torch.equal(backbone.image_features(images), kept)


def features(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).float().mean((1, 2))


def test_the_longest_unused_makes_room() -> None:
    memory = FeatureMemory(most_bytes=2 * 12)  # two sets of one image, three floats each
    computed: list[int] = []

    def request(seed: int) -> None:
        def compute(images: np.ndarray) -> torch.Tensor:
            computed.append(seed)
            return features(images)

        assert torch.equal(memory(toys.random_images(1, seed), compute), features(toys.random_images(1, seed)))

    for seed in (0, 1, 0, 2, 0, 1):
        request(seed)
    assert computed == [0, 1, 2, 1]
    assert len(memory) == 2


def test_a_set_larger_than_the_memory_is_computed_and_not_kept() -> None:
    memory = FeatureMemory(most_bytes=12)
    assert memory(toys.random_images(2), features).shape == (2, 3)
    assert len(memory) == 0


def test_one_array_seen_as_another_shape_is_another_set() -> None:
    memory = FeatureMemory()
    tall = np.zeros((1, 4, 8, 3), np.uint8)
    assert memory(tall, features).shape == (1, 3)
    assert memory(tall.reshape(2, 4, 4, 3), features).shape == (2, 3)
