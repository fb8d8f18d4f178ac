"""The pretrained model centred on a site's images, and nothing else about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import toys
from wildbench.methods.centred import CentredPretrainedSource
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import task_features
from wildpdiff.zoo.store import Zoo

BIAS = "base_model.model.classifier.bias"


def material(backbone: Backbone, zoo: Zoo, entries: list[Description]) -> SeenTasks:
    tasks = {task.name: task for task in toys.ToySuite().tasks("seen")}
    encoder = fit_fusion(entries, toys.SCHEMA, backbone.image_features, components=2)
    return SeenTasks(backbone, zoo, entries, encoder, {}, lambda name: task_features(backbone, tasks[name], 8), 0)


def descriptions() -> list[Description]:
    return [task.description for task in toys.ToySuite().tasks("seen")]


def test_its_classifier_reads_features_less_a_share_of_the_shift(toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    source = CentredPretrainedSource(material(toy_backbone, toy_zoo, descriptions()))
    assert source.centering is not None
    source.centering = replace(source.centering, strength=0.5)
    description = toys.ToySuite().tasks("unseen")[0].description
    adapter, initial = source.sample(description, 1, 0)[0], toy_zoo.initial
    weight = initial.tensors["base_model.model.classifier.weight"]
    expected = initial.tensors[BIAS] - 0.5 * weight @ source.centering.reader.of([description])[0]
    torch.testing.assert_close(adapter.tensors[BIAS], expected)
    assert all(torch.allclose(adapter.tensors[name], initial.tensors[name]) for name in initial.tensors if name != BIAS)
    without = replace(description, backgrounds=None)
    torch.testing.assert_close(source.sample(without, 1, 0)[0].tensors[BIAS], initial.tensors[BIAS])


@pytest.mark.parametrize("name", ["lora_A", "lora_B", "classifier"])
def test_without_images_in_the_descriptions_it_is_the_pretrained_model(
    toy_backbone: Backbone, toy_zoo: Zoo, name: str
) -> None:
    entries = [replace(entry, backgrounds=None) for entry in descriptions()]
    source = CentredPretrainedSource(material(toy_backbone, toy_zoo, entries))
    assert source.centering is None
    given = source.sample(entries[0], 1, 0)[0]
    same = [torch.equal(given.tensors[key], value) for key, value in toy_zoo.initial.tensors.items() if name in key]
    assert same
    assert all(same)
