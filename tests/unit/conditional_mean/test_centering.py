"""Centering on a place's images: what it does to logits, how its strength is found, and when it is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toys
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean import centering
from wildpdiff.conditional_mean.centering import Centering, classifier_of, fit_centering
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.fit import Reading, SeenMaterial, fit_conditional_mean
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.task_images import TaskImages
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.store import Zoo

COUNT = 12
READING = Reading(("metadata", "backgrounds"), 2, False, 0.15, 0.0, "tensor")


@dataclass(frozen=True)
class Places:
    """Twelve toy tasks, their images, and random adapters of theirs."""

    backbone: Backbone
    told: list[Description]
    features: list[TaskFeatures]
    codec: Codec
    vectors: Tensor

    @property
    def centering(self) -> Centering:
        reader = FeatureShift.fit(self.told, self.backbone, ("metadata", "backgrounds"))
        found = Centering.of(reader, self.codec, self.told)
        assert found is not None
        return found

    @property
    def images(self) -> TaskImages:
        return TaskImages(tuple(self.features), 0)


@pytest.fixture(scope="module")
def places(toy_backbone: Backbone) -> Places:
    tasks = [toys.ToyTask(f"seen-{i}", 60.0 + 10 * i) for i in range(COUNT)]
    adapters = [toys.random_tensors(toy_backbone, i) for i in range(COUNT)]
    layout = Layout.of(adapters[0])
    raw = torch.stack([layout.flatten(entry) for entry in adapters])
    codec = Codec.fit(layout, raw, "tensor")
    features = [task_features(toy_backbone, task, 8) for task in tasks]
    return Places(toy_backbone, [task.description for task in tasks], features, codec, codec.encode(raw))


def logits(places: Places, vectors: Tensor, row: int) -> Tensor:
    tensors = places.codec.layout.unflatten(places.codec.decode(vectors))
    return places.backbone.logits(places.features[row].train, {name: value[row] for name, value in tensors.items()})


def test_features_less_a_share_of_the_shift_are_what_the_classifier_reads(places: Places) -> None:
    centering = replace(places.centering, strength=0.4)
    moved = centering(places.vectors, centering.seen)
    tensors = places.codec.layout.unflatten(places.codec.decode(places.vectors))
    for row in (0, 7):
        weight = tensors["base_model.model.classifier.weight"][row]
        expected = logits(places, places.vectors, row) - 0.4 * weight @ centering.seen[row]
        torch.testing.assert_close(logits(places, moved, row), expected, rtol=1e-4, atol=1e-4)


def test_nothing_but_the_bias_moves(places: Places) -> None:
    centering = replace(places.centering, strength=1.0)
    before = places.codec.layout.unflatten(places.vectors)
    after = places.codec.layout.unflatten(centering(places.vectors, centering.seen))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"base_model.model.classifier.bias"}


def test_the_seen_shifts_have_mean_zero_and_are_those_of_the_frozen_backbone(places: Places) -> None:
    centering = places.centering
    assert torch.allclose(centering.seen.mean(0), torch.zeros(5), atol=1e-5)
    images = places.told[3].backgrounds
    assert images is not None
    with torch.no_grad():
        own = places.backbone.module.embed(places.backbone.stem(images)).mean(0)  # type: ignore[operator]
    torch.testing.assert_close(centering.seen[3], own - centering.reader.center)


def test_a_description_without_images_is_not_moved(places: Places) -> None:
    reader = places.centering.reader
    empty = np.zeros((0, toys.SIZE, toys.SIZE, 3), dtype=np.uint8)
    told = [Description(metadata={"level": 90.0}), Description(metadata={"level": 90.0}, backgrounds=empty)]
    assert not reader.of(told).any()


@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_the_strength_is_found_again(places: Places, strength: float) -> None:
    # Labels are drawn by the adapters themselves after they were centred: the strength that is theirs is the best.
    drawn = torch.Generator().manual_seed(0)
    centering = replace(places.centering, seen=torch.randn(COUNT, 5, generator=drawn))
    small = 0.3 * places.vectors
    own = replace(centering, strength=strength)(small, centering.seen)
    features = []
    for row, entry in enumerate(places.features):
        probabilities = logits(places, own, row).softmax(1)
        rows = torch.arange(len(probabilities)).repeat(100)
        labels = torch.multinomial(probabilities[rows], 1, generator=drawn)[:, 0]
        features.append(TaskFeatures(entry.name, entry.train[rows], labels, entry.train[:0], labels[:0]))
    found = fit_centering(centering, places.backbone, small, TaskImages(tuple(features), 0), 4000)
    assert found.strength == pytest.approx(strength, abs=0.1)


def test_it_is_left_alone_where_places_do_not_differ(places: Places) -> None:
    same = replace(places.centering, seen=torch.zeros(COUNT, 5))
    assert fit_centering(same, places.backbone, places.vectors, places.images, 16).strength == 0.0


def test_the_classifier_is_the_one_linear_layer_of_that_width(places: Places) -> None:
    expected = ("base_model.model.classifier.weight", "base_model.model.classifier.bias")
    assert classifier_of(places.codec.layout, 5) == expected
    assert classifier_of(places.codec.layout, 7) is None
    two = Layout((("a.bias", (3,)), ("a.weight", (3, 5)), ("b.bias", (3,)), ("b.weight", (3, 5))))
    assert classifier_of(two, 5) is None


class NoEmbedding(nn.Module):
    """The toy network without a method ``embed``."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toys.network()

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.network(inputs)
        return result


def test_a_backbone_without_embed_is_not_centred_and_said_so_when_it_is_needed(places: Places) -> None:
    lora = replace(toys.LORA, target_modules=("network.body",), modules_to_save=("network.classifier",))
    plain = Backbone.wrap(NoEmbedding(), name="plain", classes=toys.CLASSES, image_size=toys.SIZE, lora=lora)
    assert FeatureShift.fit(places.told, plain, ("backgrounds",)) is None
    assert Centering.of(None, places.codec, places.told) is None
    with pytest.raises(DescriptionError, match="no method embed"):
        FeatureShift.restore("backgrounds", torch.zeros(5), plain)


def test_examples_are_read_where_there_are_no_backgrounds(places: Places) -> None:
    told = [Description(examples=entry.backgrounds) for entry in places.told]
    reader = FeatureShift.fit(told, places.backbone, ("backgrounds", "examples"))
    assert reader is not None
    assert reader.part == "examples"
    assert FeatureShift.fit(told, places.backbone, ("backgrounds",)) is None
    assert FeatureShift.fit(told[:1], places.backbone, ("examples",)) is None


@pytest.fixture(scope="module")
def material(toy_backbone: Backbone, toy_zoo: Zoo) -> SeenMaterial:
    """The toy zoo's tasks three times over, so that there are enough to learn from."""
    suite = toys.ToySuite()
    told = {task.name: task.description for task in suite.tasks("seen")}
    found = SeenMaterial.of(toy_zoo, told, suite.metadata_schema, toy_backbone, READING)
    assert found.centering is not None
    descriptions = [told[name] for name in toy_zoo.tasks] * 3
    return replace(
        found,
        tasks=tuple(f"{name}#{copy}" for copy in range(3) for name in found.tasks),
        embeddings=found.embeddings.repeat(3, 1),
        sampler=found.conditions.sampler(descriptions),
        normalized=found.normalized.repeat(3, 1),
        task_of=torch.cat([found.task_of + len(toy_zoo.tasks) * copy for copy in range(3)]),
        centering=replace(found.centering, seen=found.centering.seen.repeat(3, 1)),
    )


def fitted(material: SeenMaterial, **changes: object) -> ConditionalMean:
    tasks = {task.name: task for task in toys.ToySuite().tasks("seen")}
    config = replace(TaskLossConfig(steps=20, tasks=6, images=8, folds=3, hidden=12, directions=4), **changes)  # type: ignore[arg-type]

    def features(name: str) -> TaskFeatures:
        return replace(task_features(material.backbone, tasks[name.split("#")[0]], 8), name=name)

    return fit_conditional_mean(material, config, features, 0).mean


def test_the_mean_is_centred_and_seen_tasks_keep_their_own_adapters(material: SeenMaterial) -> None:
    mean = replace(fitted(material), centering=None)
    assert material.centering is not None
    strong = replace(mean, centering=replace(material.centering, strength=1.0))
    shifts = strong.seen_shifts()
    asked = strong.seen[:5]
    assert shifts is not None
    centred, plain = strong.smooth(asked, shifts[:5]), strong.smooth(asked)
    torch.testing.assert_close(centred, strong.centering(plain, shifts[:5]))  # type: ignore[misc]
    assert not torch.allclose(centred, plain)
    # At a seen task's own description the mean is its adapter, centred or not, where it is led there all the way.
    led, plain_led = replace(strong, anchor=1.0), replace(mean, anchor=1.0)
    torch.testing.assert_close(led(asked, shifts[:5]), plain_led(asked), atol=0.05, rtol=0.05)
    without_images = strong.kernel.code(torch.tensor([[*[0.0] * (strong.seen.shape[1] - 2), 1.0, 0.0]]))
    assert not strong.seen_shifts(int(without_images)).any()  # type: ignore[union-attr]


def test_it_is_restored_to_the_same_bytes(material: SeenMaterial) -> None:
    assert material.centering is not None
    mean = replace(fitted(material), centering=replace(material.centering, strength=0.35))
    again = ConditionalMean.from_state(
        mean.config, mean.tensors, material.conditions.sizes, material.codec, material.backbone
    )
    told = [task.description for task in toys.ToySuite().tasks("unseen")]
    asked = torch.stack([material.conditions.encode(entry).values for entry in told])
    first, second = mean(asked, mean.shifts(told)), again(asked, again.shifts(told))
    assert torch.equal(first, second)
    assert not torch.equal(first, mean(asked))
    left = mean.without(0)
    assert left.centering is not None
    assert torch.equal(left.centering.seen, mean.centering.seen[mean.fold != 0])  # type: ignore[union-attr]


def test_what_was_held_out_is_centred_too(material: SeenMaterial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centering, "STRENGTHS", (0.4,))
    mean = fitted(material, steps=0)
    assert mean.centering is not None
    # No networks: every estimator leaves out the task alone, and blends are chosen for parts of the tasks.
    estimates = {**mean.simple.leave_one_out(), "additive kernel regression": mean.kernel.leave_one_out()}
    stacked = torch.stack([estimates[name] for name in mean.blend.names])
    possible = [mean.centering(blend(stacked), mean.centering.seen) for blend in (*mean.fold_blends, mean.blend)]
    for task, found in enumerate(mean.held_out):
        assert any(torch.allclose(found, one[task], atol=1e-4) for one in possible)


def test_where_no_strength_helps_no_centering_is_kept(material: SeenMaterial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centering, "STRENGTHS", (0.0,))
    assert material.centering is not None
    assert fitted(material, steps=0).centering is None


def test_without_images_of_the_tasks_or_with_few_tasks_nothing_is_centred(material: SeenMaterial, toy_zoo: Zoo) -> None:
    assert fit_conditional_mean(material, TaskLossConfig(steps=0), None, 0).mean.centering is None
    suite = toys.ToySuite()
    tasks = {task.name: task for task in suite.tasks("seen")}
    told = {name: task.description for name, task in tasks.items()}
    few = SeenMaterial.of(toy_zoo, told, suite.metadata_schema, material.backbone, READING)
    data = {name: task_features(material.backbone, task, 8) for name, task in tasks.items()}
    assert fit_conditional_mean(few, TaskLossConfig(steps=0), data.__getitem__, 0).mean.centering is None
    off = SeenMaterial.of(toy_zoo, told, suite.metadata_schema, material.backbone, replace(READING, centering=False))
    assert off.centering is None
