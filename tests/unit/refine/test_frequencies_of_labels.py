"""Offsets for labels that are no random sample: what they correct, and that they are right by Bayes' rule."""

import torch

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.refine.frequencies import class_frequencies, label_offsets


def test_offsets_turn_the_tasks_posterior_into_that_of_the_labels() -> None:
    frequencies = torch.tensor([0.9, 0.05, 0.05])
    likelihood = torch.tensor([0.2, 0.5, 0.3])  # of one image under each class
    labels = torch.arange(3).repeat(2000)  # as many of each class, so that smoothing is nothing
    task = (likelihood * frequencies).log()
    balanced = (task + label_offsets(labels, frequencies)).softmax(0)
    assert torch.allclose(balanced, likelihood / likelihood.sum(), atol=1e-3)


def test_labels_as_frequent_as_the_classes_are_not_corrected() -> None:
    labels = torch.tensor([0] * 6000 + [1] * 3000 + [2] * 1000)
    offsets = label_offsets(labels, torch.tensor([0.6, 0.3, 0.1]))
    assert float(offsets.abs().max()) < 2e-3


def test_a_class_without_labels_has_a_finite_offset() -> None:
    offsets = label_offsets(torch.tensor([0, 0, 1]), torch.tensor([0.5, 0.4, 0.1]))
    assert bool(torch.isfinite(offsets).all())


def test_frequencies_are_the_mean_of_the_models_probabilities(toy_backbone: Backbone) -> None:
    adapter = toys.random_adapter(toy_backbone, 1)
    features = toy_backbone.stem(toys.random_images(2000))
    frequencies = class_frequencies(toy_backbone, features, adapter.tensors)
    expected = toy_backbone.predict(features, adapter.tensors).softmax(1).mean(0)
    assert torch.allclose(frequencies, expected, atol=2e-3)
    assert abs(float(frequencies.sum()) - 1) < 1e-6
    assert not torch.allclose(frequencies, class_frequencies(toy_backbone, features), atol=1e-2)
