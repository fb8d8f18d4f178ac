"""Alignment with a site's images: its effect on logits, the choice of its strength, and where it is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toys
from refusals import refused
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean import centering
from wildpdiff.conditional_mean.centering import FeatureAlignment, classifier_of
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.conditional_mean.encoding import EncodedTasks, EncodingConfig
from wildpdiff.conditional_mean.fit import fit_conditional_mean
from wildpdiff.conditional_mean.mean import ConditionalMean
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditions.shift import FeatureShift
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.batch import take
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet

COUNT = 12
ENCODING = EncodingConfig(("metadata", "backgrounds"), 2, False, 0.15, 0.0, "tensor")


@dataclass(frozen=True)
class Sites:
    """Twelve toy tasks, their images, and random adapters of theirs."""

    backbone: Backbone
    descriptions: list[Description]
    features: list[TaskFeatures]
    codec: Codec
    vectors: Tensor

    @property
    def centering(self) -> FeatureAlignment:
        reader = FeatureShift.fit(self.descriptions, self.backbone, ("metadata", "backgrounds"))
        found = FeatureAlignment.of(reader, self.codec, self.descriptions)
        assert found is not None
        return found

    @property
    def images(self) -> TaskExamples:
        return TaskExamples(tuple(self.features), 0)


@pytest.fixture(scope="module")
def sites(toy_backbone: Backbone) -> Sites:
    tasks = [toys.ToyTask(f"seen-{i}", 60.0 + 10 * i) for i in range(COUNT)]
    adapters = [toys.random_tensors(toy_backbone, i) for i in range(COUNT)]
    layout = Layout.of(adapters[0])
    raw = torch.stack([layout.flatten(entry) for entry in adapters])
    codec = Codec.fit(layout, raw, "tensor")
    features = [task_features(toy_backbone, task, 8) for task in tasks]
    return Sites(toy_backbone, [task.description for task in tasks], features, codec, codec.encode(raw))


def logits(sites: Sites, vectors: Tensor, row: int) -> Tensor:
    tensors = sites.codec.layout.unflatten(sites.codec.decode(vectors))
    return sites.backbone.outputs(sites.features[row].train, {name: value[row] for name, value in tensors.items()})


def test_features_less_a_share_of_the_shift_are_what_the_classifier_reads(sites: Sites) -> None:
    centering = replace(sites.centering, strength=0.4)
    moved = centering(sites.vectors, centering.seen)
    tensors = sites.codec.layout.unflatten(sites.codec.decode(sites.vectors))
    for row in (0, 7):
        weight = tensors["base_model.model.classifier.weight"][row]
        expected = logits(sites, sites.vectors, row) - 0.4 * weight @ centering.seen[row]
        torch.testing.assert_close(logits(sites, moved, row), expected, rtol=1e-4, atol=1e-4)


def test_nothing_but_the_bias_moves(sites: Sites) -> None:
    centering = replace(sites.centering, strength=1.0)
    before = sites.codec.layout.unflatten(sites.vectors)
    after = sites.codec.layout.unflatten(centering(sites.vectors, centering.seen))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"base_model.model.classifier.bias"}


def test_the_seen_shifts_have_mean_zero_and_are_those_of_the_frozen_backbone(sites: Sites) -> None:
    centering = sites.centering
    assert torch.allclose(centering.seen.mean(0), torch.zeros(5), atol=1e-5)
    images = sites.descriptions[3].backgrounds
    assert images is not None
    own = sites.backbone.embedding(sites.backbone.stem(images))
    assert own is not None
    torch.testing.assert_close(centering.seen[3], own.mean(0) - centering.reader.center)


def test_a_description_without_images_is_not_moved(sites: Sites) -> None:
    reader = sites.centering.reader
    empty = np.zeros((0, toys.SIZE, toys.SIZE, 3), dtype=np.uint8)
    described = [Description(metadata={"level": 90.0}), Description(metadata={"level": 90.0}, backgrounds=empty)]
    assert not reader.of(described).any()


@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_the_strength_is_found_again(sites: Sites, strength: float) -> None:
    # Labels are drawn by the adapters themselves after they were centred: the strength that is theirs is the best.
    drawn = torch.Generator().manual_seed(0)
    centering = replace(sites.centering, seen=torch.randn(COUNT, 5, generator=drawn))
    small = 0.3 * sites.vectors
    own = replace(centering, strength=strength)(small, centering.seen)
    features = []
    for row, entry in enumerate(sites.features):
        probabilities = logits(sites, own, row).softmax(1)
        rows = torch.arange(len(probabilities)).repeat(100)
        labels = torch.multinomial(probabilities[rows], 1, generator=drawn)[:, 0]
        batch = toys.batch(take(entry.train, rows), labels)
        features.append(TaskFeatures(entry.name, batch, take(batch, slice(0))))
    found = centering.fitted(sites.backbone, small, TaskExamples(tuple(features), 0), 4000)
    assert found.strength == pytest.approx(strength, abs=0.1)


def test_it_is_left_alone_where_sites_do_not_differ(sites: Sites) -> None:
    same = replace(sites.centering, seen=torch.zeros(COUNT, 5))
    assert same.fitted(sites.backbone, sites.vectors, sites.images, 16).strength == 0.0


def test_the_classifier_is_the_one_linear_layer_of_that_width(sites: Sites) -> None:
    expected = ("base_model.model.classifier.weight", "base_model.model.classifier.bias")
    assert classifier_of(sites.codec.layout, 5) == expected
    assert classifier_of(sites.codec.layout, 7) is None
    two = Layout((("a.bias", (3,)), ("a.weight", (3, 5)), ("b.bias", (3,)), ("b.weight", (3, 5))))
    assert classifier_of(two, 5) is None


class NoEmbedding(nn.Module):
    """The toy network, and something behind its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.network = toys.network()

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = 1.0 * self.network(inputs)
        return result


def test_a_backbone_without_an_embedding_is_not_centred_and_restoring_an_alignment_for_it_is_refused(
    sites: Sites,
) -> None:
    lora = replace(toys.LORA, target_modules=("network.body",), modules_to_save=("network.classifier",))
    plain = Backbone.wrap(NoEmbedding(), name="plain", classes=toys.CLASSES, image_size=toys.SIZE, lora=lora)
    assert FeatureShift.fit(sites.descriptions, plain, ("backgrounds",)) is None
    assert FeatureAlignment.of(None, sites.codec, sites.descriptions) is None
    with refused(DescriptionError, "plain", "linear"):
        FeatureShift.restore("backgrounds", torch.zeros(5), plain)


def test_examples_are_read_where_there_are_no_backgrounds(sites: Sites) -> None:
    described = [Description(examples=entry.backgrounds) for entry in sites.descriptions]
    reader = FeatureShift.fit(described, sites.backbone, ("backgrounds", "examples"))
    assert reader is not None
    assert reader.part == "examples"
    assert FeatureShift.fit(described, sites.backbone, ("backgrounds",)) is None
    assert FeatureShift.fit(described[:1], sites.backbone, ("examples",)) is None


@pytest.fixture(scope="module")
def encoded(toy_backbone: Backbone, toy_zoo: Zoo) -> EncodedTasks:
    """The toy zoo's tasks three times over, so that there are enough to learn from."""
    suite = toys.ToySuite()
    found = EncodedTasks.of(TrainingSet.of(suite, toy_backbone, toy_zoo), ENCODING)
    assert found.centering is not None
    descriptions = [task.description for task in suite.tasks("seen")] * 3
    return replace(
        found,
        tasks=tuple(f"{name}#{copy}" for copy in range(3) for name in found.tasks),
        embeddings=found.embeddings.repeat(3, 1),
        sampler=found.conditions.sampler(descriptions),
        normalized=found.normalized.repeat(3, 1),
        task_of=torch.cat([found.task_of + len(toy_zoo.tasks) * copy for copy in range(3)]),
        centering=replace(found.centering, seen=found.centering.seen.repeat(3, 1)),
    )


def fitted(encoded: EncodedTasks, **changes: object) -> ConditionalMean:
    tasks = {task.name: task for task in toys.ToySuite().tasks("seen")}
    config = replace(TaskLossConfig(steps=20, tasks=6, images=8, folds=3, hidden=12, directions=4), **changes)  # type: ignore[arg-type]

    def features(name: str) -> TaskFeatures:
        return replace(task_features(encoded.backbone, tasks[name.split("#")[0]], 8), name=name)

    return fit_conditional_mean(replace(encoded, features=features), config, 0).mean


def test_the_mean_is_centred_and_seen_tasks_keep_their_own_adapters(encoded: EncodedTasks) -> None:
    mean = replace(fitted(encoded), centering=None)
    assert encoded.centering is not None
    strong = replace(mean, centering=replace(encoded.centering, strength=1.0))
    shifts = strong.seen_shifts()
    query = strong.seen[:5]
    assert shifts is not None
    centred, plain = strong.predict(query, shifts[:5]), strong.predict(query)
    torch.testing.assert_close(centred, strong.centering(plain, shifts[:5]))  # type: ignore[misc]
    assert not torch.allclose(centred, plain)
    # At a seen task's own description the mean is its adapter, centred or not, where it is led there all the way.
    led, plain_led = replace(strong, anchor=1.0), replace(mean, anchor=1.0)
    torch.testing.assert_close(led(query, shifts[:5]), plain_led(query), atol=0.05, rtol=0.05)
    without_images = strong.kernel.presence_masks(torch.tensor([[*[0.0] * (strong.seen.shape[1] - 2), 1.0, 0.0]]))
    assert not strong.seen_shifts(int(without_images)).any()  # type: ignore[union-attr]


def test_it_is_restored_to_the_same_bytes(encoded: EncodedTasks) -> None:
    assert encoded.centering is not None
    mean = replace(fitted(encoded), centering=replace(encoded.centering, strength=0.35))
    again = ConditionalMean.from_state(
        mean.config, mean.tensors, encoded.conditions.sizes, codec=encoded.codec, backbone=encoded.backbone
    )
    described = [task.description for task in toys.ToySuite().tasks("unseen")]
    query = torch.stack([encoded.conditions.encode(entry).values for entry in described])
    first, second = mean(query, mean.shifts(described)), again(query, again.shifts(described))
    assert torch.equal(first, second)
    assert not torch.equal(first, mean(query))
    left = mean.without(0)
    assert left.centering is not None
    assert torch.equal(left.centering.seen, mean.centering.seen[mean.fold != 0])  # type: ignore[union-attr]


def test_what_was_held_out_is_centred_too(encoded: EncodedTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centering, "STRENGTHS", (0.4,))
    mean = fitted(encoded, steps=0)
    assert mean.centering is not None
    # No networks: every estimator leaves out the task alone, and blends are chosen for parts of the tasks.
    estimates = {**mean.simple.leave_one_out(), "additive kernel regression": mean.kernel.leave_one_out()}
    stacked = torch.stack([estimates[name] for name in mean.blend.names])
    possible = [mean.centering(blend(stacked), mean.centering.seen) for blend in (*mean.fold_blends, mean.blend)]
    for task, found in enumerate(mean.held_out):
        assert any(torch.allclose(found, one[task], atol=1e-4) for one in possible)


def test_where_no_strength_helps_no_centering_is_kept(encoded: EncodedTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centering, "STRENGTHS", (0.0,))
    assert encoded.centering is not None
    assert fitted(encoded, steps=0).centering is None


def test_without_images_of_the_tasks_or_with_few_tasks_nothing_is_centred(encoded: EncodedTasks, toy_zoo: Zoo) -> None:
    assert fit_conditional_mean(encoded, TaskLossConfig(steps=0), 0).mean.centering is None
    suite = toys.ToySuite()
    tasks = {task.name: task for task in suite.tasks("seen")}
    data = {name: task_features(encoded.backbone, task, 8) for name, task in tasks.items()}
    few = TrainingSet.of(suite, encoded.backbone, toy_zoo, data.__getitem__)
    assert fit_conditional_mean(EncodedTasks.of(few, ENCODING), TaskLossConfig(steps=0), 0).mean.centering is None
    off = EncodedTasks.of(few, replace(ENCODING, centering=False))
    assert off.centering is None
