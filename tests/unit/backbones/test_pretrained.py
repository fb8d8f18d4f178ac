"""Models of ``transformers``, made small and random here: from a folder or an object to adapters that PEFT reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.collate import ImageCollate, TensorCollate, TextCollate
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.errors import AdapterMismatchError, ArtifactError, DataError, TrainingError
from wildpdiff.fit import GeneratorConfig, fit_generator
from wildpdiff.generator import Generator
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema
from wildpdiff.tasks.objective import Classification, NextToken, Regression
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.features import FeatureCache
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.training_set import TrainingSet

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

CLASSES = ("dark", "bright")
SIZE = 16
LABELS = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}
ATTENTION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
FINETUNE = FinetuneConfig(steps=6, batch=4, learning_rate=0.05, warmup=1, checkpoints=1, interval=1)


def made(name: str, **settings: Any) -> nn.Module:
    kind = name.removesuffix("Config")
    config = getattr(transformers, name.split("For")[0] + "Config")(**settings, **LABELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, kind)(config)


def vit() -> nn.Module:
    return made("ViTForImageClassification", **ATTENTION, image_size=SIZE, patch_size=4)


def bert() -> nn.Module:
    return made("BertForSequenceClassification", **ATTENTION, vocab_size=20, max_position_embeddings=8)


def pictures(x: float, rng: np.random.Generator, n: int) -> Dataset:
    values = rng.integers(0, 256, n)
    values[:2] = (0, 255)
    images = np.broadcast_to(values[:, None, None, None], (n, SIZE, SIZE, 3)).astype(np.uint8)
    return Dataset(images, (values > 128 + 60 * x).astype(np.int64))


def tokens(x: float, rng: np.random.Generator, n: int) -> Dataset:
    ids = rng.integers(3, 20, (n, 8))
    ids[:2, 0] = (3, 19)
    return Dataset({"input_ids": ids, "attention_mask": np.ones_like(ids)}, (ids[:, 0] > 11 + 4 * x).astype(np.int64))


@dataclass(frozen=True)
class Case:
    """A model, the modules that get factors, and the examples of the task at a point."""

    module: Callable[[], nn.Module]
    targets: str
    examples: Callable[[float, np.random.Generator, int], Dataset] = pictures


SMALL_CLIP = {"vision_config": {**ATTENTION, "image_size": SIZE, "patch_size": 4}}
CASES = {
    "ViT": Case(vit, r".*\.1\..*(q_proj|query)"),
    "ResNet": Case(
        lambda: made("ResNetForImageClassification", embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]),
        r".*stages\.1.*convolution",
    ),
    "ConvNeXt": Case(
        lambda: made("ConvNextForImageClassification", num_stages=2, hidden_sizes=[4, 8], depths=[1, 1], patch_size=2),
        r".*stages\.1.*pwconv1",
    ),
    "CLIP": Case(lambda: made("CLIPForImageClassification", **SMALL_CLIP), r".*\.1\..*(q_proj|v_proj)"),
    "BERT": Case(bert, r".*\.1\..*(query|value)", tokens),
}


def suite_of(case: Case) -> PlainSuite:
    def task(x: float) -> PlainTask:
        sizes = {"train": 12, "validation": 6, "test": 8}
        splits = {part: case.examples(x, numpy_generator(0, str(x), part), n) for part, n in sizes.items()}
        return PlainTask(f"t{100 * x + 100:.0f}", splits, Description(metadata={"x": x}))  # type: ignore[arg-type]

    points, schema = np.linspace(-1, 1, 4), MetadataSchema((MetadataField("x", "number"),))
    return PlainSuite("small", [task(float(x)) for x in points], [task(0.1)], metadata_schema=schema)


def lora(targets: str) -> Any:
    return peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["classifier"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_from_a_zoo_to_an_adapter_that_gives_peft_s_logits(case: Case, tmp_path: Path) -> None:
    module, suite = case.module(), suite_of(case)
    collate = ImageCollate("pixel_values", SIZE) if case.examples is pictures else None
    backbone = Backbone.from_pretrained(module, lora=lora(case.targets), name="small", collate=collate)
    assert backbone.objective == Classification(CLASSES)
    features = FeatureCache(backbone, suite.tasks("seen"), 4)
    zoo = build_zoo(
        tmp_path / "zoo", backbone, suite.tasks("seen"), suite.fingerprint, config=FINETUNE, features=features
    )
    config = replace(toys.generator_config(), parts=("metadata",), centering=False)
    task_loss = replace(GeneratorConfig().task_loss, steps=0)
    found = fit_generator(TrainingSet.of(suite, backbone, zoo, features), replace(config, task_loss=task_loss))
    found.generator.save_pretrained(tmp_path / "generator")
    generator = Generator.from_pretrained(tmp_path / "generator")
    (task,) = suite.tasks("unseen")
    # Of an unseen task this tiny network may get the pretrained model, where the seen ones have nothing in common.
    (adapter,) = generator.sample(suite.tasks("seen")[0].description, n=1, seed=0)
    adapter.save(tmp_path / "adapter")
    inputs = task.data("test").inputs
    batch = generator.backbone.stem(inputs)
    assert any(name.startswith("prefix:") for name in batch)
    ours = generator.backbone.predict(batch, adapter.tensors)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(case.module()), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        theirs = model(**backbone.collate(inputs)).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, backbone.predict(batch), atol=1e-3)


def test_a_folder_of_images_gives_classes_size_and_scaling_and_is_saved_and_opened(tmp_path: Path) -> None:
    module = vit()
    module.save_pretrained(tmp_path / "vit")  # type: ignore[operator]
    processor = '{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": {"height": 16, "width": 16}}'
    (tmp_path / "vit" / "preprocessor_config.json").write_text(processor)
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    backbone = Backbone.from_pretrained(tmp_path / "vit", lora=settings)
    assert backbone.collate == ImageCollate("pixel_values", SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (backbone.classes, backbone.lora.modules_to_save) == (CLASSES, ("classifier",))
    save_backbone(backbone, tmp_path / "saved")
    again = load_backbone(tmp_path / "saved")
    assert (again.backbone_hash, again.collate, again.objective) == (
        backbone.backbone_hash,
        backbone.collate,
        backbone.objective,
    )
    assert again.adapter_config == backbone.adapter_config
    images = pictures(0.0, numpy_generator(0, "x"), 3).inputs
    tensors = toys.random_tensors(backbone, 0)
    assert torch.equal(again.predict(again.stem(images), tensors), backbone.predict(backbone.stem(images), tensors))


def test_other_classes_get_a_head_that_repeats_and_the_model_s_own_keep_theirs(tmp_path: Path) -> None:
    vit().save_pretrained(tmp_path / "vit")  # type: ignore[operator]
    three = Classification(("a", "b", "c"))
    one, two = (Backbone.from_pretrained(tmp_path / "vit", lora=lora("all-linear"), objective=three) for _ in range(2))
    assert one.module.classifier.out_features == 3  # type: ignore[union-attr]
    assert one.backbone_hash == two.backbone_hash
    turned = Classification(CLASSES[::-1])
    assert Backbone.from_pretrained(tmp_path / "vit", lora=lora("all-linear"), objective=turned).classes == CLASSES


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1, "a": 2, "lion": 3, "zebra": 4}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)


def test_a_folder_of_texts_has_its_tokenizer_and_is_saved_and_opened(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path / "bert")  # type: ignore[operator]
    tokenizer(tmp_path / "bert")
    backbone = Backbone.from_pretrained(tmp_path / "bert", lora=lora("all-linear"), length=4)
    assert isinstance(backbone.collate, TextCollate)
    batch = backbone.collate(["a lion", "a zebra a lion a"])
    assert batch["input_ids"].tolist() == [[2, 3, 0, 0], [2, 4, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    save_backbone(backbone, tmp_path / "saved")
    again, texts = load_backbone(tmp_path / "saved"), ["a zebra", "lion lion lion"]
    assert torch.equal(again.predict(again.stem(texts)), backbone.predict(backbone.stem(texts)))
    with refused(DataError, "texts"):
        backbone.collate([1, 2])
    longest = Backbone.from_pretrained(tmp_path / "bert", lora=lora("all-linear"))
    assert longest.stem(["a lion"])["attention_mask"].shape == (1, 8), "the positions that the model has"


def test_the_tokens_of_a_language_model_are_its_targets(tmp_path: Path) -> None:
    sizes = {"vocab_size": 5, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt")
    tokenizer(tmp_path / "gpt")
    targets = peft.LoraConfig(r=2, target_modules=["c_attn"])
    backbone = Backbone.from_pretrained(tmp_path / "gpt", lora=targets, length=3)
    assert backbone.objective == NextToken()
    batch = backbone.batch(Dataset(["a lion", "zebra"]))
    assert batch["targets"].tolist() == [[2, 3, -100], [4, -100, -100]]
    save_backbone(backbone, tmp_path / "saved")
    assert load_backbone(tmp_path / "saved").backbone_hash == backbone.backbone_hash


def own_module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_a_function_gives_a_module_and_its_objective_is_to_be_stated() -> None:
    targets = {"r": 1, "target_modules": ["2"]}
    text = f"{__name__}:own_module"
    backbone = Backbone.from_pretrained(text, lora=targets, objective=Regression(2))
    assert (backbone.name, backbone.collate) == (text, TensorCollate("input"))
    with refused(TrainingError, "Sequential"):
        Backbone.from_pretrained(own_module(), lora=targets)
    with refused(AdapterMismatchError, "target_modules"):
        Backbone.from_pretrained(own_module(), lora={}, objective=Regression(2))


@pytest.mark.parametrize("source", ["no/such-model", f"{__name__}:nothing", "no_such_module:make", "../up:make"])
def test_what_is_no_model_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with refused(ArtifactError, source):
        Backbone.from_pretrained(source, lora={"target_modules": "all-linear"})


def test_a_function_of_something_else_is_refused() -> None:
    with refused(TrainingError, "dict"):
        Backbone.from_pretrained("builtins:dict", lora={"target_modules": "all-linear"})
    with refused(TrainingError, "json:loads"):
        Backbone.from_pretrained("json:loads", lora={"target_modules": "all-linear"})


def test_language_models_need_logits_of_each_token() -> None:
    with refused(TrainingError, "each token"):
        backbone = Backbone.from_pretrained(bert(), lora=lora("all-linear"), objective=NextToken())
        backbone.stem({"input_ids": torch.ones(2, 4, dtype=torch.int64)})


def test_a_tokenizer_pads(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path / "bert")  # type: ignore[operator]
    tokenizer(tmp_path / "bert")
    path = tmp_path / "bert" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "pad_token": None}))
    with refused(TrainingError, "pad_token"):
        Backbone.from_pretrained(tmp_path / "bert", lora=lora("all-linear"))


def test_features_of_other_processes_serve_a_fit_in_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wildpdiff.parallel.allowed_threads", lambda: 2)
    suite = suite_of(CASES["BERT"])
    backbone = Backbone.from_pretrained(bert(), lora=lora(CASES["BERT"].targets))
    features = FeatureCache(backbone, suite.tasks("seen"), 4)
    settings: dict[str, Any] = {"features": features, "per_shard": 2}
    build_zoo(tmp_path / "zoo", backbone, suite.tasks("seen"), suite.fingerprint, config=FINETUNE, **settings)
    again = FeatureCache(Backbone.from_pretrained(bert(), lora=lora(CASES["BERT"].targets)), suite.tasks("seen"), 4)
    again.fill([task.name for task in suite.tasks("seen")])
    for cache in (features, again):
        batch = cache(suite.tasks("seen")[0].name).train
        assert torch.isfinite(cache._backbone.outputs(batch)).all()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("Gemma2", {"attn_logit_softcapping": 0.5, "head_dim": 8}),
        ("GptOss", {"num_local_experts": 2, "num_experts_per_tok": 1}),
    ],
)
def test_attention_has_the_caps_and_sinks_of_the_model(name: str, own: dict[str, Any]) -> None:
    sizes = {**ATTENTION, "num_key_value_heads": 1, "vocab_size": 20, "pad_token_id": 0, "head_dim": 8, **own}
    module = made(f"{name}ForSequenceClassification", **sizes).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(4)
    reference = copy.deepcopy(module)
    reference.set_attn_implementation("eager")  # type: ignore[operator]
    backbone = Backbone.from_pretrained(module, lora={"r": 2, "target_modules": ["q_proj"]})
    inputs = {key: torch.from_numpy(value) for key, value in tokens(0.0, numpy_generator(0, "x"), 4).inputs.items()}
    with torch.no_grad():
        wanted = reference(**inputs).logits
    torch.testing.assert_close(backbone.predict(backbone.stem(inputs)), wanted)


@pytest.mark.parametrize("targets", ["all-linear", ["query", "dense"]])
def test_modules_saved_whole_have_no_factors_inside(targets: Any) -> None:
    module = made("RobertaForSequenceClassification", **ATTENTION, vocab_size=20, max_position_embeddings=10)
    backbone = Backbone.from_pretrained(module, lora={"r": 2, "target_modules": targets})
    names = list(backbone.initial_adapter(0).tensors)
    assert any("attention" in name for name in names)
    assert not any("classifier" in name and "lora_" in name for name in names)


def test_half_precision_in_a_folder_is_read_as_single_and_refused_in_a_module(tmp_path: Path) -> None:
    vit().to(torch.bfloat16).save_pretrained(tmp_path / "vit")  # type: ignore[operator]
    backbone = Backbone.from_pretrained(tmp_path / "vit", lora=lora("all-linear"))
    images = pictures(0.0, numpy_generator(0, "x"), 3).inputs
    assert backbone.predict(backbone.stem(images), backbone.initial_adapter(0).tensors).dtype == torch.float32
    with refused(TrainingError, "ViT", torch.float16):
        Backbone.from_pretrained(vit().half(), lora=lora("all-linear"))


@pytest.mark.parametrize(("name", "most"), [("Bert", 8), ("Roberta", 6)])
def test_texts_are_cut_where_the_model_has_no_more_positions(name: str, most: int, tmp_path: Path) -> None:
    sizes = {**ATTENTION, "vocab_size": 20, "max_position_embeddings": 8}
    module = made(f"{name}ForSequenceClassification", **sizes, **({"pad_token_id": 1} if name == "Roberta" else {}))
    module.save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer(tmp_path)
    backbone = Backbone.from_pretrained(tmp_path, lora=lora("all-linear"))
    assert backbone.stem(["a lion " * 9, "a"])["input_ids"].shape == (2, most)


def test_a_classifier_of_the_last_token_knows_which_one_pads(tmp_path: Path) -> None:
    sizes = {"vocab_size": 5, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
    made("GPT2ForSequenceClassification", **sizes).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer(tmp_path)
    targets = {"r": 2, "target_modules": ["c_attn"]}
    short, long = (Backbone.from_pretrained(tmp_path, lora=targets, length=length) for length in (2, 6))
    torch.testing.assert_close(short.predict(short.stem(["a lion", "a"])), long.predict(long.stem(["a lion", "a"])))


def test_a_missing_and_another_model_s_tokenizer_are_refused(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)  # type: ignore[operator]
    with refused(ArtifactError, tmp_path):
        Backbone.from_pretrained(tmp_path, lora=lora("all-linear"))
    made("BertForSequenceClassification", **ATTENTION, vocab_size=3).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer(tmp_path)
    with refused(TrainingError, tmp_path, 5, 3):
        Backbone.from_pretrained(tmp_path, lora=lora("all-linear"))


@pytest.mark.parametrize(
    ("name", "target"), [("MobileNetV1", "25.convolution"), ("MobileNetV2", "conv_1x1.convolution")]
)
def test_a_model_that_reads_what_peft_s_layers_lack_is_refused_with_the_layer(name: str, target: str) -> None:
    """``transformers`` pads by a convolution's stride, which PEFT's layer around it has not."""
    import transformers
    from peft import LoraConfig, get_peft_model

    settings = getattr(transformers, f"{name}Config")(image_size=32, num_labels=3, depth_multiplier=0.25)
    module = getattr(transformers, f"{name}ForImageClassification")(settings)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    inputs = {"pixel_values": torch.zeros(1, 3, 32, 32)}
    with pytest.raises(AttributeError):
        get_peft_model(copy.deepcopy(module), LoraConfig(target_modules=[target])).eval()(**inputs)
    lora: dict[str, Any] = {"r": 2, "target_modules": [target]}
    with refused(TrainingError, target):
        Backbone.from_pretrained(module, lora=lora).stem(images)
    head = Backbone.from_pretrained(module, lora={**lora, "target_modules": ["classifier"], "modules_to_save": None})
    assert head.predict(head.stem(images), head.initial_adapter(0).tensors).shape == (2, 3)
