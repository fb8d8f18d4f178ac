from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted_priors import UNSEEN, accuracy, planted, with_seed
from torch import Tensor
from torch.nn.functional import linear

import toys
from refusals import refused
from wildbench.methods.feature_prompt import (
    FeaturePromptConfig,
    FeaturePromptNetwork,
    FeaturePromptSource,
    image_columns,
)
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditional_mean.training import NetworkTraining
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.errors import AdapterMismatchError, DescriptionError, TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import Batch
from wildpdiff.tasks.description import Description

TRAINING = NetworkTraining(steps=60, tasks=6, warmup=5, evaluate_every=12, averaging=0.9)
CONFIG = FeaturePromptConfig(TRAINING, hidden=16, learning_rate=2e-2, images=8, base_rate=0.0)
SHORT = replace(CONFIG, training=replace(TRAINING, steps=4, evaluate_every=4), base_rate=0.1)
CLASSIFIER = ("base_model.model.classifier.weight", "base_model.model.classifier.bias")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> SeenTasks:
    return planted(tmp_path_factory.mktemp("feature prompt") / "zoo")


@pytest.fixture(scope="module")
def trained(seen: SeenTasks) -> FeaturePromptSource:
    return FeaturePromptSource(seen, CONFIG)


def tensors_of(source: FeaturePromptSource, description: Description = UNSEEN[0].description) -> dict[str, Tensor]:
    return dict(source.sample(description, 1, 0)[0].tensors)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return safetensors_bytes(first) == safetensors_bytes(second)


def test_the_classifier_it_writes_reads_scaled_and_shifted_features() -> None:
    backbone = toys.backbone()
    base = toys.random_adapter(backbone, 4)
    layout = Layout.of(base.tensors)
    vector = layout.flatten(base.tensors)
    reads = torch.ones(6, 3, dtype=torch.bool)
    network = FeaturePromptNetwork(
        layout, vector, torch.zeros_like(vector), classifier=CLASSIFIER, reads=reads, sharpness=1.0
    )
    draws = torch_generator(5, "prompt")
    for parameter in network.numbers.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draws)
    cond = torch.randn(1, 3, generator=draws)
    with torch.no_grad():
        own, shared = network(cond)
        scale, shift = network.numbers(cond)[0].chunk(2)
        inputs = backbone.stem(toys.random_images(7))
        weight, bias = (base.tensors[name] for name in CLASSIFIER)
        logits = backbone.outputs(inputs, {**shared, **{name: value[0] for name, value in own.items()}})
        features = embedded(backbone, base, inputs)
    expected = linear((1 + scale) * features + network.unit * shift, weight, bias)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, linear(features, weight, bias), atol=0.1)


def embedded(backbone: Backbone, adapter: Adapter, inputs: Batch) -> Tensor:
    """The features that the classifier reads, one by one: by classifiers of which each reads a single feature."""
    weight, bias = (adapter.tensors[name] for name in CLASSIFIER)
    columns = []
    for feature in range(weight.shape[1]):
        picked = torch.zeros_like(weight)
        picked[0, feature] = 1.0
        changed = {CLASSIFIER[0]: picked, CLASSIFIER[1]: torch.zeros_like(bias)}
        columns.append(backbone.outputs(inputs, {**adapter.tensors, **changed})[:, 0])
    return torch.stack(columns, dim=1)


def test_it_learns_from_the_images(seen: SeenTasks, trained: FeaturePromptSource) -> None:
    assert accuracy(seen, trained) > max(0.8, accuracy(seen, MeanSource(seen.adapters)) + 0.1)
    losses, held_out = trained.fit.losses, trained.fit.held_out_losses
    assert len(losses) == trained.fit.steps == TRAINING.evaluation_steps[int(held_out.argmin())] > 0
    assert held_out.min() < 0.9 * held_out[0]


def test_it_reads_the_images_alone(trained: FeaturePromptSource) -> None:
    dark, bright = UNSEEN[0].description, UNSEEN[-1].description
    assert same(tensors_of(trained, dark), tensors_of(trained, replace(dark, metadata={"level": 1.0})))
    assert same(tensors_of(trained, dark), tensors_of(trained, replace(dark, metadata=None)))
    assert not same(tensors_of(trained, dark), tensors_of(trained, replace(dark, backgrounds=bright.backgrounds)))


def test_without_images_in_the_encoder_it_reads_all(seen: SeenTasks) -> None:
    assert image_columns(seen.encoder).tolist() == [
        *([False] * seen.encoder.sizes[0]),
        *([True] * seen.encoder.sizes[1]),
        False,
        True,
    ]
    encoder = fit_fusion(seen.descriptions, toys.SCHEMA, seen.backbone.image_features, ("metadata",))
    source = FeaturePromptSource(replace(seen, encoder=encoder), replace(CONFIG, training=replace(TRAINING, steps=24)))
    dark, bright = (tensors_of(source, Description(metadata={"level": level})) for level in (-0.9, 0.9))
    bias = CLASSIFIER[1]
    # Class 1 is rarer where the level is low.
    assert dark[bias][1] - dark[bias][0] < bright[bias][1] - bright[bias][0]


@pytest.mark.parametrize("base", ["mean", "pretrained"])
def test_before_the_first_update_it_is_its_base(seen: SeenTasks, base: str) -> None:
    still = replace(SHORT, learning_rate=0.0, base_rate=0.0, base=base)  # type: ignore[arg-type]
    found = tensors_of(FeaturePromptSource(seen, still))
    expected = MeanSource(seen.adapters).sample(Description(), 1, 0)[0] if base == "mean" else seen.zoo.initial
    for name, value in found.items():
        torch.testing.assert_close(value, expected.tensors[name], rtol=1e-5, atol=1e-7)


def test_the_base_is_trained_along_where_fine_tuning_moves_it(seen: SeenTasks) -> None:
    few = replace(seen, zoo=seen.zoo.only(seen.zoo.tasks[:4]), descriptions=seen.descriptions[:4])
    fixed, moved = (FeaturePromptSource(few, replace(SHORT, base_rate=rate, base="pretrained")) for rate in (0.0, 0.1))
    initial = seen.zoo.initial.tensors
    for name, value in tensors_of(fixed).items():
        assert torch.equal(value, initial[name]) is (name not in CLASSIFIER)
    for name, value in tensors_of(moved).items():
        assert torch.equal(value, initial[name]) is (".lora_A." in name)


def test_the_seed_decides_the_bytes(seen: SeenTasks) -> None:
    first, again, other = (tensors_of(FeaturePromptSource(with_seed(seen, seed), SHORT)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_bad_input_is_refused(
    seen: SeenTasks, trained: FeaturePromptSource, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with refused(TrainingError, "feature prompt"):
        FeaturePromptSource(seen, replace(CONFIG, learning_rate=1e25))
    with refused(DescriptionError):
        trained.sample(Description(), 1, 0)
    bare = planted(tmp_path_factory.mktemp("bare") / "zoo", LoraSpec(2, 3.0, ("body", "classifier")), tasks=3)
    with refused(AdapterMismatchError, 3):
        FeaturePromptSource(bare, SHORT)
