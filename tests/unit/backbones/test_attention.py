"""Fused attention against matrix products: outputs and gradients, one adapter or many at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wildpdiff.backbones.attention import fused_attention, is_plain
from wildpdiff.backbones.many import gradients_over_adapters
from wildpdiff.backbones.pretrained import FUSED, PLAIN, from_pretrained
from wildpdiff.tasks.task import LabelledImages

SCALE = 0.3


def by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    groups = query.shape[-3] // key.shape[-3]
    key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = SCALE * query @ key.mT
    return (scores if mask is None else scores + mask).softmax(-1) @ value


def drawn(adapters: int, heads: int = 4, shared: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(adapters, 2, heads, 5, 8, generator=draws)
    key, value = (torch.randn(adapters, 2, shared, 6, 8, generator=draws) for _ in range(2))
    return query, key, value


def padded() -> Tensor:
    mask = torch.zeros(2, 1, 5, 6)
    mask[1, :, :, 4:] = torch.finfo(torch.float32).min
    return mask


@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("mask", [None, padded()])
def test_outputs_and_gradients_are_those_of_matrix_products(shared: int, mask: Tensor | None) -> None:
    query, key, value = (entry[0].requires_grad_() for entry in drawn(1, shared=shared))
    found, expected = fused_attention(query, key, value, mask=mask, scale=SCALE), by_products(query, key, value, mask)
    assert torch.allclose(found, expected, atol=1e-6)
    own, theirs = (torch.autograd.grad(entry.sin().sum(), (query, key, value)) for entry in (found, expected))
    assert all(torch.allclose(left, right, atol=1e-6) for left, right in zip(own, theirs, strict=True))


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None), (None, 0, 1)])
@pytest.mark.parametrize("mask", [None, padded()])
def test_many_adapters_at_once_give_what_each_gives_alone(axes: tuple[Any, ...], mask: Tensor | None) -> None:
    many = drawn(3)
    given = [entry[0] if axis is None else entry.movedim(0, axis) for entry, axis in zip(many, axes, strict=True)]

    def loss(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return fused_attention(query, key, value, mask=mask, scale=SCALE).sin().sum()

    grads, losses = torch.vmap(torch.func.grad_and_value(loss, (0, 1, 2)), axes)(*given)
    for number in range(3):
        own = [entry if axis is None else entry.select(axis, number) for entry, axis in zip(given, axes, strict=True)]
        alone, value = torch.func.grad_and_value(lambda *entries: by_products(*entries, mask).sin().sum(), (0, 1, 2))(
            *own
        )
        assert torch.allclose(losses[number], value, atol=1e-5)
        assert all(torch.allclose(left[number], right, atol=1e-5) for left, right in zip(grads, alone, strict=True))


@pytest.mark.parametrize("shape", [(1, 1, 5, 6), (1, 4, 5, 6), (2, 1, 1, 6)])
@pytest.mark.parametrize("own", [False, True])
def test_a_mask_of_all_examples_is_one_of_each_adapters(shape: tuple[int, ...], own: bool) -> None:
    query, key, value = drawn(3)
    mask = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1)) if own else torch.randn(*shape)
    many = torch.vmap(
        lambda *given: fused_attention(*given[:3], mask=given[3], scale=SCALE), (0, 0, 0, 0 if own else None)
    )
    expected = by_products(query, key, value, mask if own else mask[None])
    assert torch.allclose(many(query, key, value, mask), expected, atol=1e-6)


def test_a_second_derivative_is_refused() -> None:
    query, key, value = (entry[0].requires_grad_() for entry in drawn(1))
    result = fused_attention(query, key, value, mask=None, scale=SCALE).square().sum()
    (slope,) = torch.autograd.grad(result, query, create_graph=True)
    with pytest.raises(NotImplementedError):
        torch.autograd.grad(slope.sum(), query)


def test_a_trained_bias_of_positions_in_the_mask_has_its_gradient() -> None:
    from transformers import BeitConfig, BeitForImageClassification

    small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 2}
    sizes = {"intermediate_size": 8, "image_size": 8, "patch_size": 4, "initializer_range": 1.0}
    config = BeitConfig(**small, **sizes, use_relative_position_bias=True)
    lora = {"target_modules": ["q_proj"], "modules_to_save": ["relative_position_bias"]}
    module = BeitForImageClassification(config)
    backbone = from_pretrained(module, lora=lora, objective=None, collate=None, name=None, length=8)
    assert module.config._attn_implementation == FUSED
    pictures = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
    batch = backbone.batch(LabelledImages(pictures, np.array([0, 1, 0, 1])))
    adapter = {name: value[None] for name, value in backbone.initial_adapter(0).tensors.items()}

    def slopes() -> dict[str, Tensor]:
        gradient = gradients_over_adapters(
            lambda own: backbone.objective.loss(backbone.outputs(batch, own), batch).mean()
        )
        return gradient(adapter)[0]

    found = slopes()
    for part in backbone._models.values():
        part.set_attn_implementation(PLAIN)  # type: ignore[operator]
    expected = slopes()
    (bias,) = (name for name in found if "bias_table" in name)
    assert expected[bias].abs().max() > 1e-5
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)


def test_a_gradient_through_the_vectorised_pass() -> None:
    query, key, value = (entry.requires_grad_() for entry in drawn(3))
    found = torch.vmap(lambda *entries: fused_attention(*entries, mask=None, scale=SCALE))(query, key, value)
    expected = by_products(query, key, value, None)
    own, theirs = (torch.autograd.grad(entry.sin().sum(), (query, key, value)) for entry in (found, expected))
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(torch.allclose(left, right, atol=1e-6) for left, right in zip(own, theirs, strict=True))


@pytest.mark.parametrize("named", [{"softcap": 50.0}, {"s_aux": torch.zeros(4)}, {"dropout": 0.1}, {"new": 1}])
def test_what_changes_the_attention_is_not_fused(named: dict[str, Any]) -> None:
    query, _, value = (entry[0] for entry in drawn(1))
    assert is_plain(query, value, {"scaling": 0.1, "dropout": 0.0, "softcap": None})
    assert not is_plain(query, value, {"scaling": 0.1, **named})
    assert not is_plain(query, value[..., :4], {"scaling": 0.1})


def test_models_whose_attention_is_fused_and_not() -> None:
    from transformers import Gemma2Config, Gemma2ForSequenceClassification, ViTConfig, ViTForImageClassification

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision = ViTForImageClassification(ViTConfig(**small, image_size=8, patch_size=4, num_labels=2))
    capped = Gemma2ForSequenceClassification(
        Gemma2Config(**small, num_key_value_heads=1, head_dim=8, vocab_size=20, num_labels=2, pad_token_id=0)
    )
    for module, expected in ((vision, FUSED), (capped, PLAIN)):
        from_pretrained(module, lora={"target_modules": ["q_proj"]}, objective=None, collate=None, name=None, length=8)
        assert module.config._attn_implementation == expected
