"""Configurations of PEFT: loaded, saved and opened by PEFT they give the same logits, as do our branches."""

import copy
import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils.hotswap import hotswap_adapter, hotswap_adapter_from_state_dict
from torch import Tensor, nn

from refusals import refused
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.adapters.canonical import aligned, alignment_reference, common_spec, in_common
from wildpdiff.adapters.spec import AdapterSpec
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.collate import TensorCollate
from wildpdiff.backbones.lora import run_adapted, with_branches
from wildpdiff.errors import AdapterMismatchError, ArtifactError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.objective import NextToken
from wildpdiff.zoo.importing import TaskDescriptions, import_adapters


class Blocks(nn.Module):
    """Strided and padded convolutions, an embedding, numbered blocks, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.words = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(6, 9), "down": nn.Linear(9, 6)}) for _ in range(3))
        self.norm = nn.LayerNorm(6)
        self.up = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        hidden = self.conv(pixels).flatten(2).mean(2) + self.words(ids).mean(1)
        for layer in self.layers:
            hidden = hidden + layer["down"](torch.relu(layer["up"](hidden)))
        return self.head(self.norm(self.up(hidden)))


def blocks() -> tuple[nn.Module, dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(0)
    return Blocks(), {
        "pixels": torch.randn(5, 3, 8, 8, generator=draws),
        "ids": torch.randint(0, 11, (5, 4), generator=draws),
    }


def vit() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8,
        num_labels=3, attn_implementation="eager",
    )  # fmt: skip
    return ViTForImageClassification(config), {"pixel_values": torch.randn(4, 3, 16, 16)}


def distilbert() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=30, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=12, num_labels=3,
        attn_implementation="eager",
    )  # fmt: skip
    ids = torch.randint(1, 30, (4, 7))
    return DistilBertForSequenceClassification(config), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def gpt2() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=12, attn_implementation="eager", use_cache=False
    )
    return GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 30, (4, 7))}


def resnet() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3, num_channels=3
    )
    return ResNetForImageClassification(config), {"pixel_values": torch.randn(4, 3, 32, 32)}


class Nested(Blocks):
    """A head of several modules, with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))


def nested() -> tuple[nn.Module, dict[str, Tensor]]:
    return Nested(), blocks()[1]


def llama() -> tuple[nn.Module, dict[str, Tensor]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=12, attn_implementation="eager", use_cache=False,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config), {"input_ids": torch.randint(3, 30, (4, 7))}


class Case(NamedTuple):
    make: Callable[[], tuple[nn.Module, dict[str, Tensor]]]
    settings: dict[str, Any]


CASES = {
    "names, alpha": Case(blocks, {"target_modules": ["up", "down"], "r": 2, "lora_alpha": 6}),
    "rank_pattern, alpha_pattern": Case(
        blocks,
        {
            "target_modules": ["up", "down", "conv", "words"],
            "r": 2,
            "rank_pattern": {"layers.1.up": 5, "^up": 3, "conv": 4},
            "alpha_pattern": {r"layers\.[12]\.down": 16, "words": 1},
        },
    ),
    "use_rslora": Case(blocks, {"target_modules": ["up"], "r": 3, "use_rslora": True, "rank_pattern": {"^up": 5}}),
    "regex": Case(blocks, {"target_modules": r"layers\.(0|2)\.(up|down)", "r": 2}),
    "layers_to_transform, layers_pattern": Case(
        blocks, {"target_modules": ["up"], "layers_to_transform": [0, 2], "layers_pattern": "layers", "r": 2}
    ),
    "exclude_modules": Case(blocks, {"target_modules": ["up", "down"], "exclude_modules": ["layers.1.up"], "r": 2}),
    "bias all": Case(blocks, {"target_modules": ["up", "conv"], "bias": "all", "modules_to_save": ["head"], "r": 2}),
    "bias lora_only, gaussian": Case(
        blocks, {"target_modules": ["down", "conv"], "bias": "lora_only", "init_lora_weights": "gaussian", "r": 2}
    ),
    "convolution and embedding": Case(blocks, {"target_modules": ["conv", "words"], "r": 3, "lora_alpha": 5}),
    "vit": Case(
        vit, {"target_modules": ["q_proj", "v_proj", "query", "value"], "modules_to_save": ["classifier"], "r": 2}
    ),
    "distilbert, all-linear": Case(distilbert, {"target_modules": "all-linear", "r": 2, "lora_alpha": 3}),
    "distilbert, task type": Case(distilbert, {"target_modules": ["q_lin", "v_lin"], "task_type": "SEQ_CLS", "r": 2}),
    "gpt2, fan_in_fan_out": Case(
        gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "r": 2, "bias": "lora_only"}
    ),
    "gpt2, tied embedding and head": Case(
        gpt2, {"target_modules": ["wte", "c_fc"], "modules_to_save": ["lm_head"], "r": 2}
    ),
    "nested head": Case(nested, {"target_modules": ["down"], "bias": "all", "modules_to_save": ["head"], "r": 2}),
    "all-linear, exclude_modules": Case(
        blocks, {"target_modules": "all-linear", "exclude_modules": r"layers\.1\..*|head", "r": 2}
    ),
    "gpt2, PEFT's own targets": Case(gpt2, {"task_type": "CAUSAL_LM", "fan_in_fan_out": True, "r": 2}),
    "resnet": Case(resnet, {"target_modules": ["convolution"], "modules_to_save": ["classifier"], "r": 2}),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def logits_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def base_of(case: Case, seed: int = 0) -> tuple[nn.Module, dict[str, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, inputs = case.make()
    return module.eval().requires_grad_(False), inputs


def trained(module: nn.Module, config: LoraConfig, folder: Path, seed: int = 1) -> PeftModel:
    """A PEFT model with random weights wherever the adapter may differ from the base model, saved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(copy.deepcopy(module), config).eval()
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value.add_(0.3 * torch.randn(value.shape))
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize("name", CASES)
def test_loaded_and_saved_again_it_is_the_same_adapter_to_peft_and_to_our_branches(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    module, inputs = base_of(case)
    config = LoraConfig(**case.settings)
    expected = logits_of(trained(module, config, tmp_path / "theirs")(**inputs))

    adapter = Adapter.load(tmp_path / "theirs")
    assert adapter.spec.shapes == {key: tuple(value.shape) for key, value in adapter.tensors.items()}
    assert AdapterSpec.from_peft(LoraConfig(**case.settings), module).shapes == adapter.spec.shapes
    ours = Adapter.load(adapter.save(tmp_path / "ours"))
    assert (ours.config, ours.distance(adapter)) == (adapter.config, 0.0)
    again = PeftModel.from_pretrained(copy.deepcopy(module), str(tmp_path / "ours")).eval()
    assert float((logits_of(again(**inputs)) - expected).abs().max()) <= 1e-5
    assert float((logits_of(module(**inputs)) - expected).abs().max()) > 1e-2

    branches = with_branches(module, adapter.spec)
    found = logits_of(run_adapted(branches, adapter.spec, adapter.tensors, **inputs))
    assert float((found - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_branches_vectorise_over_adapters(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    module, inputs = base_of(case)
    adapters = []
    for seed in (1, 2):
        trained(module, LoraConfig(**case.settings), tmp_path / str(seed), seed)
        adapters.append(Adapter.load(tmp_path / str(seed)))
    spec = adapters[0].spec
    branches = with_branches(module, spec)

    def logits(tensors: dict[str, Tensor]) -> Tensor:
        return logits_of(run_adapted(branches, spec, tensors, **inputs))

    stacked = {key: torch.stack([entry.tensors[key] for entry in adapters]) for key in adapters[0].tensors}
    together = torch.func.vmap(logits)(stacked)
    for row, entry in enumerate(adapters):
        assert torch.allclose(together[row], logits(dict(entry.tensors)), atol=1e-5)
    for entry in spec.modules:
        layer, original = branches.get_submodule(entry), module.get_submodule(entry)
        assert layer.frozen is original.weight, "the pretrained weights are shared, not copied"


@pytest.mark.parametrize("name", CASES)
def test_in_the_common_layout_it_is_the_same_adapter_to_peft(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    module, inputs = base_of(case)
    expected = logits_of(trained(module, LoraConfig(**case.settings), tmp_path / "theirs")(**inputs))
    adapter = Adapter.load(tmp_path / "theirs")
    fewer = dict(list(adapter.spec.modules.items())[:1])
    common = common_spec({"it": adapter.spec, "other": dataclasses.replace(adapter.spec, modules=fewer)}, rank=6)
    converted = in_common(adapter.spec, adapter.tensors, common)
    assert {key: tuple(value.shape) for key, value in converted.tensors.items()} == common.shapes
    assert converted.lost < 1e-6
    turned = aligned(converted.tensors, alignment_reference({k: v[None] for k, v in converted.tensors.items()}))
    Adapter(turned, AdapterConfig.of(common)).save(tmp_path / "ours")
    again = PeftModel.from_pretrained(copy.deepcopy(module), str(tmp_path / "ours")).eval()
    assert torch.allclose(logits_of(again(**inputs)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_spec_goes_to_peft_and_back(name: str) -> None:
    case = CASES[name]
    module, _ = base_of(case)
    spec = AdapterSpec.from_peft(LoraConfig(**case.settings), module)
    config = LoraConfig(**{key: value for key, value in spec.to_peft().items() if key != "inference_mode"})
    again = AdapterSpec.from_peft(config, module)
    assert (again.shapes, again.saved) == (spec.shapes, spec.saved)
    for name, entry in spec.modules.items():
        assert again.modules[name].scaling == pytest.approx(entry.scaling, rel=1e-6)


def test_weights_of_the_base_model_next_to_factors_of_embeddings_are_no_part_of_the_adapter(tmp_path: Path) -> None:
    case = Case(llama, {"target_modules": ["q_proj", "lm_head"], "r": 2})
    module, inputs = base_of(case)
    expected = logits_of(trained(module, LoraConfig(**case.settings), tmp_path / "a")(**inputs))
    trained(module, LoraConfig(**case.settings), tmp_path / "b", seed=2)
    adapter = Adapter.load(tmp_path / "a")
    (extra,) = (name for name in adapter.tensors if "base_layer" in name)
    lora = LoraConfig(**case.settings)
    backbone = Backbone.from_pretrained(module, lora=lora, objective=NextToken(), collate=TensorCollate("input_ids"))
    backbone.check(adapter)
    backbone.check(backbone.initial_adapter(0))
    found = backbone.predict(backbone.stem(inputs["input_ids"]), adapter.tensors)
    assert torch.allclose(found, expected, atol=1e-5)
    with refused(AdapterMismatchError, extra):
        backbone.check(dataclasses.replace(adapter, tensors={**adapter.tensors, extra: adapter.tensors[extra] + 1}))
    described = {name: Description(metadata={"x": x}) for name, x in (("a", 0.0), ("b", 1.0))}
    schema = MetadataSchema((MetadataField("x", "number"),))
    zoo = import_adapters([tmp_path / "a", tmp_path / "b"], TaskDescriptions(schema, described), tmp_path / "zoo")
    assert sorted(zoo.initial.tensors) == sorted(set(adapter.tensors) - {extra})


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "use_dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
    "init_lora_weights": {"init_lora_weights": "pissa"},
    "trainable_token_indices": {"trainable_token_indices": {"words": [1]}},
    "layer_replication": {"layer_replication": [[0, 2]]},
    "target_parameters": {"target_parameters": ["up.weight"]},
    "peft_type": {"peft_type": "IA3"},
    "a_setting_of_a_later_version": {"a_setting_of_a_later_version": 3},
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_settings_that_are_not_supported_are_refused_by_name(key: str, tmp_path: Path) -> None:
    module, _ = base_of(CASES["names, alpha"])
    trained(module, LoraConfig(target_modules=["up"], r=2), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **UNSUPPORTED[key]}))
    with refused(AdapterMismatchError, tmp_path / "a", key, repr(UNSUPPORTED[key][key])):
        Adapter.load(tmp_path / "a")


@pytest.mark.parametrize("kind", ["prompt", "ia3", "dora"])
def test_adapters_of_other_kinds_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    import peft

    module, _ = base_of(CASES["gpt2, fan_in_fan_out"])
    configs = {
        "prompt": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        "ia3": peft.IA3Config(target_modules=["c_attn"], feedforward_modules=[]),
        "dora": LoraConfig(target_modules=["c_attn"], use_dora=True),
    }
    values = {"prompt": ("peft_type", "PREFIX_TUNING"), "ia3": ("peft_type", "IA3"), "dora": ("use_dora", True)}
    get_peft_model(module, configs[kind]).save_pretrained(str(tmp_path / "a"))
    with refused(AdapterMismatchError, *values[kind]):
        Adapter.load(tmp_path / "a")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    module, _ = base_of(CASES["names, alpha"])
    model = trained(module, LoraConfig(target_modules=["up"], r=2), tmp_path / "a")
    model.save_pretrained(str(tmp_path / "b"), safe_serialization=False)
    with refused(ArtifactError, tmp_path / "b" / "adapter_model.bin", "pickle"):
        Adapter.load(tmp_path / "b")


@pytest.mark.parametrize("changes", [{"r": 3}, {"r": "two"}, {"rank_pattern": {"up": 4}}])
def test_a_configuration_of_another_rank_than_the_tensors_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    module, _ = base_of(CASES["names, alpha"])
    trained(module, LoraConfig(target_modules=["layers.0.up"], r=2), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    with refused(AdapterMismatchError, "layers.0.up"):
        Adapter.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rank_pattern": 3}, "rank_pattern"),
        ({"modules_to_save": 3}, "modules_to_save"),
        ({"target_modules": [3]}, "target_modules"),
        ({"layers_to_transform": "x"}, "layers_to_transform"),
        ({"alpha_pattern": {"(": 2}}, "'('"),
        ({"r": 10**9}, "1000000000"),
        ({"lora_alpha": 0}, "lora_alpha"),
    ],
)
def test_a_broken_configuration_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    module, _ = base_of(CASES["names, alpha"])
    trained(module, LoraConfig(target_modules=["up"], r=2), tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    with refused(AdapterMismatchError, tmp_path / "a", named):
        Adapter.load(tmp_path / "a")


def test_modules_that_take_no_factors_are_refused_by_name() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with refused(AdapterMismatchError, "'0'", "Conv2d"):
        AdapterSpec.from_peft(LoraConfig(target_modules=["0"], r=2), module)
    with refused(AdapterMismatchError, "tail"):
        AdapterSpec.from_peft(LoraConfig(target_modules=["tail"], r=2), module)


def test_an_adapter_without_more_than_one_rank_needs_no_configuration_of_its_own(tmp_path: Path) -> None:
    module, _ = base_of(CASES["names, alpha"])
    trained(module, LoraConfig(target_modules=["layers.0.up", "layers.1.up"], r=2, lora_alpha=3), tmp_path / "a")
    config = Adapter.load(tmp_path / "a").config
    names = ("layers.0.up", "layers.1.up")
    assert config == AdapterConfig("", "", (), 2, 3.0, names, ())


def test_state_dict_is_taken_by_peft_and_by_its_hot_swap(tmp_path: Path) -> None:
    module, inputs = base_of(CASES["convolution and embedding"])
    settings = {**CASES["convolution and embedding"].settings, "modules_to_save": ["head"]}
    first = trained(module, LoraConfig(**settings), tmp_path / "first", 1)
    other = trained(module, LoraConfig(**settings), tmp_path / "other", 2)
    wanted = logits_of(other(**inputs))
    adapter = Adapter.load(tmp_path / "other")
    result = set_peft_model_state_dict(first, adapter.state_dict())
    assert result.unexpected_keys == []
    assert torch.allclose(logits_of(first(**inputs)), wanted, atol=1e-6)

    settings = {"target_modules": ["down", "conv"], "r": 2}  # PEFT's hot swap knows no embeddings
    first = trained(module, LoraConfig(**settings), tmp_path / "third", 3)
    other = trained(module, LoraConfig(**settings, lora_alpha=9), tmp_path / "fourth", 4)
    adapter = Adapter.load(tmp_path / "fourth")
    config = LoraConfig.from_pretrained(str(tmp_path / "fourth"))
    hotswap_adapter_from_state_dict(first, adapter.state_dict("default"), "default", config)
    assert torch.allclose(logits_of(first(**inputs)), logits_of(other(**inputs)), atol=1e-6)

    first = trained(module, LoraConfig(**settings), tmp_path / "fifth", 5)
    hotswap_adapter(first, str(adapter.save(tmp_path / "ours")), "default")
    assert torch.allclose(logits_of(first(**inputs)), logits_of(other(**inputs)), atol=1e-6)
