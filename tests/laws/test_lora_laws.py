"""What is true of low-rank adapters whatever their values (Hu et al. 2021)."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toys
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone

IMAGES = toys.random_images(8)


@pytest.fixture(scope="module")
def backbone(toy_backbone: Backbone) -> Backbone:
    return toy_backbone


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_gauge_b_times_inverse_r_and_r_times_a_are_the_same_model(seed: int) -> None:
    backbone = toys.backbone()
    tensors = toys.random_tensors(backbone, seed)
    draws = torch.Generator().manual_seed(seed)
    turned = dict(tensors)
    for module in backbone.lora.target_modules:
        # A random rotation times a scale: every such R is well conditioned.
        rotation = torch.linalg.qr(torch.randn(2, 2, generator=draws)).Q
        mixing = rotation * torch.exp(torch.randn(2, generator=draws))
        a, b = f"{PEFT_PREFIX}{module}.lora_A.weight", f"{PEFT_PREFIX}{module}.lora_B.weight"
        turned[a] = torch.einsum("sr,r...->s...", mixing, tensors[a])
        turned[b] = torch.einsum("or...,rs->os...", tensors[b], torch.linalg.inv(mixing))
        assert not torch.allclose(turned[a], tensors[a], atol=1e-3)
    features = backbone.stem(IMAGES)
    assert torch.allclose(backbone.predict(features, turned), backbone.predict(features, tensors), atol=1e-3)


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_a_zero_factor_is_the_pretrained_model(backbone: Backbone, factor: str) -> None:
    tensors = toys.random_tensors(backbone, 0)
    base = dict(backbone.module.named_parameters())
    for name in tensors:
        if f".{factor}." in name:
            tensors[name] = torch.zeros_like(tensors[name])
        elif ".classifier." in name:
            tensors[name] = base[name.removeprefix(PEFT_PREFIX)]
    features = backbone.stem(IMAGES)
    assert torch.equal(backbone.predict(features, tensors), backbone.predict(features))


def test_the_update_is_linear_in_alpha(backbone: Backbone) -> None:
    tensors = toys.random_tensors(backbone, 0)
    doubled = {name: 2 * value if ".lora_B." in name else value for name, value in tensors.items()}
    lora = toys.LoraSpec(2, 2 * backbone.lora.alpha, backbone.lora.target_modules, backbone.lora.modules_to_save)
    features = backbone.stem(IMAGES)
    stronger = backbone.with_lora(lora).predict(features, tensors)
    assert torch.allclose(stronger, backbone.predict(features, doubled), atol=1e-5)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_merged_weights_are_the_model_that_peft_injects(seed: int) -> None:
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    backbone = toys.backbone()
    tensors = toys.random_tensors(backbone, seed)
    lora = backbone.lora
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules),
        modules_to_save=list(lora.modules_to_save),
    )
    injected = get_peft_model(copy.deepcopy(backbone.module), config)
    outcome = set_peft_model_state_dict(injected, dict(tensors))
    assert not outcome.unexpected_keys
    with torch.no_grad():
        theirs = injected.eval()(backbone.collate(IMAGES)["inputs"])
    ours = backbone.predict(backbone.stem(IMAGES), tensors)
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))
