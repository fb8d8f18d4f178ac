"""The best of several samples, by five labels or by unlabelled images alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

import toys
from refusals import refused
from wildbench.methods.best_of import BEST_BY_IMAGES, BEST_BY_LABELS, CANDIDATES, BestOfSource
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DescriptionError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.store import Zoo

TASKS = toys.ToySuite().tasks("seen")
DESCRIPTION = Description(metadata={"level": 90.0}, task_id=TASKS[1].name)


@dataclass(frozen=True)
class OneGood:
    """Of every eight samples one, at a random number, is the task's own adapter; the others answer at random."""

    good: Adapter
    backbone: Backbone
    name: str = "one good"
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        row = int(torch.randint(n, (1,), generator=torch_generator(seed, "good")))
        found = []
        for number in range(n):
            own = self.good if number == row else toys.random_adapter(self.backbone, seed % 10_000 + number)
            found.append(Adapter(own.tensors, own.config, {"source": self.name, "good": number == row, "seed": seed}))
        return found


@dataclass
class Images:
    """Gives a task's images, and remembers of which task they were."""

    features: dict[str, TaskFeatures]

    def __call__(self, name: str) -> TaskFeatures:
        return self.features[name]


@pytest.fixture(scope="module")
def images(toy_backbone: Backbone) -> Images:
    return Images({task.name: task_features(toy_backbone, task, 8) for task in TASKS})


@pytest.fixture(scope="module")
def source(toy_zoo: Zoo, toy_backbone: Backbone) -> OneGood:
    return OneGood(toy_zoo.task_adapters()[TASKS[1].name], toy_backbone)


def share_good(adapters: list[Adapter]) -> float:
    return sum(bool(adapter.provenance["good"]) for adapter in adapters) / len(adapters)


def test_five_labels_find_the_good_one(source: OneGood, images: Images, toy_backbone: Backbone) -> None:
    best = BestOfSource(source, toy_backbone, images, by_labels=True)
    assert best.name == BEST_BY_LABELS
    assert share_good(best.sample(DESCRIPTION, 12, 0)) > 0.7
    assert 1 / CANDIDATES < 0.2, "which is what chance finds"


def test_labels_of_another_task_find_it_less_often(source: OneGood, images: Images, toy_backbone: Backbone) -> None:
    """Labels that are exchanged are no help: it is by them that is chosen, not by the images alone."""
    own = images(TASKS[1].name)
    wrong = toys.relabelled(own, (own.train["targets"] + 1) % 3)
    best = BestOfSource(source, toy_backbone, lambda name: wrong, by_labels=True)
    assert share_good(best.sample(DESCRIPTION, 12, 0)) < 0.4


def test_without_labels_neither_labels_nor_validation_images_are_read(
    source: OneGood, images: Images, toy_backbone: Backbone
) -> None:
    own = images(TASKS[1].name)
    nothing = {name: value.new_full(value.shape, -7) for name, value in own.validation.items()}
    spoilt = replace(toys.relabelled(own, torch.full_like(own.train["targets"], -7)), validation=nothing)
    first, second = (
        BestOfSource(source, toy_backbone, lambda name, data=data: data, by_labels=False).sample(DESCRIPTION, 4, 3)
        for data in (own, spoilt)
    )
    assert [safetensors_bytes(one.tensors) for one in first] == [safetensors_bytes(one.tensors) for one in second]
    assert {adapter.provenance["source"] for adapter in first} == {BEST_BY_IMAGES}


def test_test_or_validation_labels_never_decide(source: OneGood, images: Images, toy_backbone: Backbone) -> None:
    own = images(TASKS[1].name)
    spoilt = toys.relabelled(own, validation=(own.validation["targets"] + 1) % 3)
    first, second = (
        BestOfSource(source, toy_backbone, lambda name, data=data: data, by_labels=True).sample(DESCRIPTION, 4, 3)
        for data in (own, spoilt)
    )
    assert [safetensors_bytes(one.tensors) for one in first] == [safetensors_bytes(one.tensors) for one in second]


def test_a_description_must_name_its_task(source: OneGood, images: Images, toy_backbone: Backbone) -> None:
    with refused(DescriptionError, "metadata", "task_id"):
        BestOfSource(source, toy_backbone, images, by_labels=True).sample(replace(DESCRIPTION, task_id=None), 1, 0)
