import dataclasses

import pytest
import torch
from torch import nn

import toys
from wildpdiff.adapter import PEFT_PREFIX, AdapterConfig
from wildpdiff.backbones.lora import expected_shapes, initial_adapter, merged_parameters
from wildpdiff.errors import AdapterMismatchError, TrainingError

CONFIG = AdapterConfig("toy", "0" * 64, toys.CLASSES, 2, 3.0, ("conv3", "conv1", "body"), ("classifier",))


def test_shapes_of_every_kind_of_layer() -> None:
    assert {n.removeprefix(PEFT_PREFIX): s for n, s in expected_shapes(toys.network(), CONFIG).items()} == {
        "conv3.lora_A.weight": (2, 4, 3, 3),
        "conv3.lora_B.weight": (4, 2, 1, 1),
        "conv1.lora_A.weight": (2, 4, 1, 1),
        "conv1.lora_B.weight": (6, 2, 1, 1),
        "body.lora_A.weight": (2, 6),
        "body.lora_B.weight": (5, 2),
        "classifier.weight": (3, 5),
        "classifier.bias": (3,),
    }


@pytest.mark.parametrize("places", [{"target_modules": ("tail",)}, {"modules_to_save": ("tail",)}])
def test_unknown_modules_are_refused(places: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(TrainingError, match=r"no module 'tail'.*named_modules"):
        expected_shapes(toys.network(), dataclasses.replace(CONFIG, **places))


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Conv1d(4, 4, 1)])
def test_layers_that_lora_cannot_take_are_refused(layer: nn.Module) -> None:
    config = dataclasses.replace(CONFIG, target_modules=("0",), modules_to_save=())
    with pytest.raises(TrainingError, match=rf"'0' is a {type(layer).__name__}; LoRA goes into"):
        expected_shapes(nn.Sequential(layer), config)


def test_only_what_differs_is_merged() -> None:
    backbone = toys.backbone()
    merged = merged_parameters(
        dict(backbone.module.named_parameters()), toys.random_tensors(backbone, 0), backbone.adapter_config
    )
    assert sorted(merged) == ["body.weight", "classifier.bias", "classifier.weight", "conv1.weight", "conv3.weight"]


@pytest.mark.parametrize("name", ["conv3", "conv1"])
def test_the_update_of_a_convolution_is_the_two_convolutions_in_turn(name: str) -> None:
    backbone = toys.backbone()
    tensors = toys.random_tensors(backbone, 0)
    base = dict(backbone.module.named_parameters())
    merged = merged_parameters(base, tensors, backbone.adapter_config)[f"{name}.weight"]
    maps = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    inner = nn.functional.conv2d(maps, tensors[f"{PEFT_PREFIX}{name}.lora_A.weight"])
    outer = nn.functional.conv2d(inner, tensors[f"{PEFT_PREFIX}{name}.lora_B.weight"])
    expected = nn.functional.conv2d(maps, base[f"{name}.weight"]) + 3.0 / 2 * outer
    assert torch.allclose(nn.functional.conv2d(maps, merged), expected, atol=1e-5)


def test_the_initial_adapter_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    initial_adapter(toys.network(), CONFIG, 0)
    assert torch.rand(2).tolist() == expected


def test_the_initial_adapter_has_a_random_and_b_zero_and_the_classifier_as_it_is() -> None:
    module = toys.network()
    tensors = initial_adapter(module, CONFIG, 0)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == expected_shapes(module, CONFIG)
    for name, value in tensors.items():
        if ".lora_" in name:
            assert bool(value.any()) is (".lora_A." in name)
    assert torch.equal(tensors[f"{PEFT_PREFIX}classifier.weight"], module.classifier.weight)


def test_a_short_name_that_peft_would_match_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(2, 2)
            self.inner = nn.Sequential()
            self.inner.body = nn.Linear(2, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner.body(self.body(inputs))

    config = dataclasses.replace(CONFIG, target_modules=("body",), modules_to_save=())
    with pytest.raises(AdapterMismatchError, match=r"inner.body.lora_A.weight.*Name the target modules in full"):
        initial_adapter(Twice(), config, 0)
