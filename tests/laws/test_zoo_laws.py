"""A zoo of one task gives back that task."""

from dataclasses import replace

import torch

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.fit import fit_generator
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.store import Zoo
from wildpdiff.zoo.training_set import TrainingSet


def test_a_zoo_of_one_task_gives_back_that_task(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    zoo = toy_zoo.only(["seen-2"])
    config = replace(toys.generator_config(), parts=("task_id",), drop_all=0.0)
    described = {"seen-2": Description(task_id="seen-2")}
    generator = fit_generator(TrainingSet(zoo, described, toys.SCHEMA, toy_backbone), config).generator
    layout = generator.codec.layout
    checkpoints = layout.flatten_many(zoo.tensors(range(len(zoo))))
    center = checkpoints.mean(0)
    spread = (checkpoints - center).norm(dim=1).max()
    samples = torch.stack([layout.flatten(entry.tensors) for entry in generator.sample(described["seen-2"], 8, seed=0)])
    assert float((samples - center).norm(dim=1).mean()) <= 2.0 * float(spread)
    # Another task is farther away than anything that was generated.
    other = layout.flatten(toy_zoo.task_adapters()["seen-4"].tensors)
    assert float((samples - center).norm(dim=1).max()) < float((other - center).norm())


def test_a_zoo_of_one_task_predicts_what_that_task_predicts(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    zoo = toy_zoo.only(["seen-2"])
    config = replace(toys.generator_config(), parts=("metadata",), drop_all=0.0)
    task = toys.ToySuite().tasks("seen")[2]
    generator = fit_generator(TrainingSet.of(toys.ToySuite(), toy_backbone, zoo), config).generator
    features = toy_backbone.stem(task.data("test").images)
    own = toy_backbone.predict(features, zoo.task_adapters()[task.name].tensors).argmax(1)
    for adapter in generator.sample(task.description, 4, seed=1):
        assert float((toy_backbone.predict(features, adapter.tensors).argmax(1) == own).float().mean()) >= 0.75
