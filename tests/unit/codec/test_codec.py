from __future__ import annotations

import pytest
import torch

from refusals import refused
from wildpdiff.adapters.layout import Layout
from wildpdiff.codec.codec import Codec
from wildpdiff.errors import AdapterMismatchError, ArtifactError, TrainingError

LAYOUT = Layout((("a", (2, 3)), ("b", (2,))))


def test_order_is_that_of_the_sorted_names() -> None:
    tensors = {"z": torch.zeros(2), "a": torch.ones(3), "m": torch.tensor(5.0)}
    layout = Layout.of(tensors)
    assert layout.names == ("a", "m", "z")
    assert layout.sizes == (3, 1, 2)
    assert layout.flatten(tensors).tolist() == [1, 1, 1, 5, 0, 0]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a": torch.zeros(2, 3)}, ["'b'", "(2,)"]),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(3)}, ["'b'", "(3,)", "(2,)"]),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(2), "c": torch.zeros(1)}, ["'c'"]),
    ],
)
def test_a_mismatch_names_the_tensor_and_both_shapes(tensors: dict[str, torch.Tensor], words: list[str]) -> None:
    with refused(AdapterMismatchError, *words):
        LAYOUT.flatten(tensors)


def test_stacks_of_different_length_are_refused() -> None:
    with refused(AdapterMismatchError, [4, 5]):
        LAYOUT.flatten_many({"a": torch.zeros(4, 2, 3), "b": torch.zeros(5, 2)})


def test_vectors_of_another_length_are_refused() -> None:
    codec = Codec.fit(LAYOUT, torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    with refused(AdapterMismatchError, 7, 8):
        codec.decode(torch.zeros(1, 7))
    with refused(AdapterMismatchError, 7, 8):
        LAYOUT.unflatten(torch.zeros(7))
    with refused(AdapterMismatchError, 8, 7):
        Codec(LAYOUT, torch.zeros(7), torch.ones(7))


def test_half_precision_becomes_float32() -> None:
    assert LAYOUT.flatten({"a": torch.ones(2, 3).half(), "b": torch.ones(2).bfloat16()}).dtype == torch.float32


def test_constant_coordinates_are_not_divided_by_nothing() -> None:
    vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    vectors[:, 2] = 0.1
    vectors[:, 5] = 0.0
    codec = Codec.fit(LAYOUT, vectors)
    assert codec.scale[2].item() == 1.0
    assert codec.scale[5].item() == 1.0
    normalized = codec.encode(vectors)
    moving = [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(normalized[:, moving].std(0, correction=0), torch.ones(6))
    torch.testing.assert_close(normalized.mean(0), torch.zeros(8), atol=1e-6, rtol=0)


def test_one_scale_per_tensor_keeps_proportions() -> None:
    vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 9.0)
    scale = Codec.fit(LAYOUT, vectors, "tensor").scale
    assert len(set(scale[:6].tolist())) == 1
    assert scale[6].item() == scale[7].item() != scale[0].item()


def test_unusable_training_vectors_are_refused() -> None:
    broken = torch.zeros(3, 8)
    broken[1, 4] = float("nan")
    with refused(TrainingError, "coordinate 4"):
        Codec.fit(LAYOUT, broken)
    with refused(TrainingError):
        Codec.fit(LAYOUT, torch.zeros(0, 8))


def test_gradients_pass_through_decoding_to_named_tensors() -> None:
    codec = Codec.fit(LAYOUT, torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    z = torch.zeros(2, 8, requires_grad=True)
    LAYOUT.unflatten(codec.decode(z))["b"].sum().backward()
    expected = torch.cat([torch.zeros(6), codec.scale[6:]]).expand(2, 8)
    torch.testing.assert_close(z.grad, expected)


def test_codec_comes_back_from_storage() -> None:
    codec = Codec.fit(LAYOUT, torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    again = Codec.from_state(codec.state(), codec.config)
    assert again.layout == codec.layout
    assert torch.equal(again.mean, codec.mean)
    assert torch.equal(again.scale, codec.scale)
    with refused(ArtifactError, "scale"):
        Codec.from_state({"mean": torch.zeros(8)}, codec.config)
    with refused(ArtifactError, "layout"):
        Codec.from_state(codec.state(), {"layout": [["a"]]})
