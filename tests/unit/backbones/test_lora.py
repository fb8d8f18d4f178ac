import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn

import toys
from refusals import refused
from wildpdiff.adapters.adapter import AdapterConfig
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.lora import branch_parameters, initial_adapter, run_adapted, spec_of, with_branches
from wildpdiff.errors import AdapterMismatchError, TrainingError
from wildpdiff.tasks.objective import Regression, Unknown

CONFIG = AdapterConfig("toy", "0" * 64, toys.CLASSES, 2, 3.0, ("conv3", "conv1", "body"), ("classifier",))


def test_shapes_of_every_kind_of_layer() -> None:
    assert {n.removeprefix(PEFT_PREFIX): s for n, s in spec_of(toys.network(), CONFIG).shapes.items()} == {
        "conv3.lora_A.weight": (2, 4, 3, 3),
        "conv3.lora_B.weight": (4, 2, 1, 1),
        "conv1.lora_A.weight": (2, 4, 1, 1),
        "conv1.lora_B.weight": (6, 2, 1, 1),
        "body.lora_A.weight": (2, 6),
        "body.lora_B.weight": (5, 2),
        "classifier.weight": (3, 5),
        "classifier.bias": (3,),
    }


@pytest.mark.parametrize("sites", [{"target_modules": ("tail",)}, {"modules_to_save": ("tail",)}])
def test_unknown_modules_are_refused(sites: dict[str, tuple[str, ...]]) -> None:
    with refused(TrainingError, "tail"):
        spec_of(toys.network(), dataclasses.replace(CONFIG, **sites))


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Conv1d(4, 4, 1)])
def test_layers_that_lora_cannot_take_are_refused(layer: nn.Module) -> None:
    config = dataclasses.replace(CONFIG, target_modules=("0",), modules_to_save=())
    with refused(TrainingError, "'0'", type(layer).__name__):
        spec_of(nn.Sequential(layer), config)


def merged(backbone: Backbone, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The slow twin: every target's dense weight ``W + s B A``, and the saved modules as they are."""
    base = dict(backbone.module.named_parameters())
    found = {}
    for name in backbone.lora.target_modules:
        a, b = (tensors[f"{PEFT_PREFIX}{name}.lora_{factor}.weight"] for factor in "AB")
        update = (b.flatten(1) @ a.flatten(1)).view_as(base[f"{name}.weight"])
        found[f"{name}.weight"] = base[f"{name}.weight"] + backbone.adapter_config.scaling * update
    for name in backbone.lora.modules_to_save:
        own = {key.removeprefix(PEFT_PREFIX): value for key, value in tensors.items() if f".{name}." in key}
        found |= own
    return found


def test_only_what_the_adapter_holds_is_given() -> None:
    backbone = toys.backbone()
    tensors = toys.random_tensors(backbone, 0)
    given = branch_parameters({**tensors, f"{PEFT_PREFIX}other.weight": torch.ones(1)}, backbone.spec)
    layers = ("body", "conv1", "conv3")
    factors = [f"{layer}.{factor}" for layer in layers for factor in ("factor_a", "factor_b")]
    assert sorted(given) == sorted([*factors, "classifier.bias", "classifier.weight"])


@pytest.mark.parametrize("together", [False, True])
def test_branches_are_merged_weights_in_value_and_gradient(together: bool) -> None:
    backbone = toys.backbone()
    images = backbone.collate(toys.random_images(8))["inputs"].unflatten(0, (2, 4))
    each = [toys.random_tensors(backbone, seed) for seed in (1, 2)]
    stacked = {name: torch.stack([own[name] for own in each]).requires_grad_() for name in each[0]}

    def dense(inputs: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(backbone.module, merged(backbone, tensors), (inputs,))

    def branches(inputs: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return backbone.outputs({"inputs": inputs}, tensors)

    results = []
    for logits in (dense, branches):
        if together:
            values = torch.func.vmap(logits)(images, stacked)
        else:
            own = [{name: value[row] for name, value in stacked.items()} for row in range(2)]
            values = torch.stack([logits(x, tensors) for x, tensors in zip(images, own, strict=True)])
        results.append((values, torch.autograd.grad(values.square().sum(), list(stacked.values()))))
    (ours, gradients), (theirs, wanted) = results
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for found, expected in zip(gradients, wanted, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


class Doubled(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(inputs)


class Scaled(nn.Embedding):
    embed_scale = 3.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.embed_scale * super().forward(inputs)


class Padded(nn.Conv2d):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(inputs, (1, 1, 1, 1)))


class Standardised(nn.Conv2d):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(inputs, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 6, (1, 3), bias=False, padding="same"),
        nn.Conv2d(4, 6, 1, dilation=2),
        nn.Linear(7, 3, bias=False),
        Doubled(7, 3),
        Scaled(9, 3),
    ],
)
def test_any_layer_with_a_branch_gives_what_peft_gives(layer: nn.Module, tmp_path: Path) -> None:
    module = nn.Sequential(layer).eval().requires_grad_(False)
    backbone = Backbone.from_pretrained(module, lora=LoraConfig(r=2, target_modules=["0"]), objective=Unknown())
    adapter = toys.random_adapter(backbone, 0)
    model = PeftModel.from_pretrained(copy.deepcopy(module), str(adapter.save(tmp_path / "adapter")))
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 4, 7, 7, generator=draws)
    inputs = inputs.abs().long() if isinstance(layer, nn.Embedding) else inputs
    adapted = with_branches(backbone.module, backbone.spec)
    found = run_adapted(adapted, backbone.spec, adapter.tensors, inputs)
    assert torch.allclose(found, model(inputs), atol=1e-5)
    assert not torch.allclose(found, module(inputs), atol=1e-2)
    assert adapted[0].frozen is layer.weight, "the pretrained weights are shared, not copied"


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, dilation=2),
        Padded(4, 6, 3),
        Standardised(4, 6, 3),
        nn.Conv1d(4, 6, 3),
        nn.Embedding(9, 3, max_norm=1.0),
        nn.MultiheadAttention(4, 2),
    ],
)
def test_layers_that_peft_would_adapt_in_another_way_are_refused_by_name(layer: nn.Module) -> None:
    with refused(AdapterMismatchError, "'0'", type(layer).__name__):
        LoraSpec.from_peft(LoraConfig(r=2, target_modules=["0"]), nn.Sequential(layer))


class Reads(nn.Module):
    """Words that are embedded and whose weights are read again for logits, as in PEFT without their factors."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body, self.attention = nn.Embedding(5, 4), nn.Linear(4, 4), nn.MultiheadAttention(4, 2)
        self.known = [self.body]  # not reached by PEFT

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.known[0](self.body(self.words(inputs).mean(1)))[:, None]
        return self.attention(hidden, hidden, hidden)[0][:, 0] @ self.words.weight.T


def test_a_weight_that_is_read_is_the_pretrained_one_and_a_layer_that_is_never_called_is_refused(
    tmp_path: Path,
) -> None:
    targets = LoraConfig(r=2, target_modules=["words", "body"])
    module, objective = Reads().eval(), Regression(5)
    backbone = Backbone.from_pretrained(module, lora=targets, objective=objective)
    adapter = toys.random_adapter(backbone, 0)
    model = PeftModel.from_pretrained(copy.deepcopy(module), str(adapter.save(tmp_path / "adapter")))
    inputs = torch.tensor([[0, 1, 2], [4, 4, 3]])
    found = backbone.predict(backbone.stem(inputs), adapter.tensors)
    assert torch.allclose(found, model(inputs), atol=1e-5)
    everything = Backbone.from_pretrained(module, lora=LoraConfig(target_modules="all-linear"), objective=objective)
    adapter = toys.random_adapter(everything, 0)
    model = PeftModel.from_pretrained(copy.deepcopy(module), str(adapter.save(tmp_path / "all")))
    assert torch.allclose(everything.predict(everything.stem(inputs), adapter.tensors), model(inputs), atol=1e-5)
    useless = Backbone.from_pretrained(module, lora=LoraConfig(target_modules=["out_proj"]), objective=objective)
    with refused(TrainingError, "attention.out_proj"):
        useless.stem(inputs)
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    fast = Backbone.from_pretrained(encoder, lora=LoraConfig(target_modules=["linear1"]), objective=Regression(12))
    with refused(TrainingError, "linear1"):
        fast.stem(torch.zeros(2, 3, 4))
    excluded = LoraConfig(target_modules="all-linear", exclude_modules=["out_proj"])
    assert list(LoraSpec.from_peft(excluded, module).target_modules) == ["body"]


def test_the_initial_adapter_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    initial_adapter(toys.network(), CONFIG, 0)
    assert torch.rand(2).tolist() == expected


def test_the_initial_adapter_has_a_random_and_b_zero_and_the_classifier_as_it_is() -> None:
    module = toys.network()
    tensors = initial_adapter(module, CONFIG, 0)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == spec_of(module, CONFIG).shapes
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
    with refused(AdapterMismatchError, "inner.body.lora_A.weight"):
        initial_adapter(Twice(), config, 0)


def test_a_backbone_takes_peft_settings_of_any_kind() -> None:
    config = LoraConfig(
        target_modules=["conv3", "body"],
        r=2,
        rank_pattern={"body": 4},
        alpha_pattern={"conv3": 3},
        use_rslora=True,
        bias="lora_only",
        modules_to_save=["classifier"],
    )
    backbone = toys.backbone(lora=LoraSpec.from_peft(config, toys.network()))
    assert {name: entry.rank for name, entry in backbone.spec.modules.items()} == {"body": 4, "conv3": 2}
    features = backbone.stem(toys.random_images(6))
    initial = backbone.initial_adapter(0)
    assert torch.equal(backbone.outputs(features, initial.tensors), backbone.outputs(features))
    each = [toys.random_tensors(backbone, seed) for seed in (1, 2)]
    together = backbone.predict_many(features, {name: torch.stack([own[name] for own in each]) for name in each[0]})
    for row, own in enumerate(each):
        assert torch.allclose(together[row], backbone.outputs(features, own), atol=1e-5)
        assert not torch.allclose(together[row], backbone.outputs(features), atol=1e-2)
    every = toys.backbone(lora=LoraSpec.from_peft(LoraConfig(target_modules=["body"], bias="all"), toys.network()))
    assert list(every.stem(toys.random_images(2))) == ["inputs"]
