"""Choosing among adapters, by labels and without: each rule finds the planted one."""

import math

import pytest
import torch

import toys
from refusals import refused
from wildbench.methods.best_of import certainty, choose_by_labels, choose_by_unlabelled
from wildbench.methods.few_labels import few_labels
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, DataError
from wildpdiff.tasks.batch import take
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.store import Zoo

SEEN = toys.ToySuite().tasks("seen")
IMAGES = toys.random_images(12)


@pytest.fixture(scope="module")
def data(toy_backbone: Backbone) -> FeatureCache:
    return FeatureCache(toy_backbone, SEEN, 8)


def leaning(of: Backbone, bias: list[float]) -> Adapter:
    """The pretrained classifier with other biases."""
    tensors = {name: torch.zeros(shape) for name, shape in of.shapes.items()}
    bias_name = next(name for name in tensors if name.endswith("classifier.bias"))
    tensors[bias_name] = torch.tensor(bias)
    return Adapter(tensors, of.adapter_config, {"source": "leaning"})


def test_labels_choose_the_tasks_own_adapter(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    adapters = toy_zoo.task_adapters()
    candidates = [adapters[SEEN[0].name], adapters[SEEN[-1].name]]
    for index, task in ((0, SEEN[0]), (1, SEEN[-1])):
        assert choose_by_labels(toy_backbone, candidates, data(task.name)) == index


def test_unlabelled_images_correct_labels_that_are_no_random_sample(
    toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache
) -> None:
    """As many labels of each class; a model that expects nearly all images of one class, and one that knows nothing."""
    own = toy_zoo.task_adapters()[SEEN[2].name]
    bias = next(name for name in own.tensors if name.endswith("classifier.bias"))
    shifted = Adapter({**own.tensors, bias: own.tensors[bias] + torch.tensor([3.0, 0.0, 0.0])}, own.config, {})
    candidates = [shifted, leaning(toy_backbone, [0.0, 0.0, 0.0])]
    few = few_labels(data(SEEN[2].name), 5, 0)
    assert choose_by_labels(toy_backbone, candidates, few) == 1
    assert choose_by_labels(toy_backbone, candidates, few, data(SEEN[2].name).train) == 0


def test_images_alone_choose_the_certain_model_unless_it_sees_one_class_everywhere(
    toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache
) -> None:
    zoo = toy_zoo.task_adapters()[SEEN[2].name]
    sure = {name: 20 * value if "classifier" in name else value for name, value in zoo.tensors.items()}
    own = Adapter(sure, zoo.config, {})
    nothing, one_class = leaning(toy_backbone, [0.0, 0.0, 0.0]), leaning(toy_backbone, [9.0, 0.0, 0.0])
    candidates = [nothing, one_class, own]
    assert choose_by_unlabelled(toy_backbone, candidates, data(SEEN[2].name).train) == 2
    images = SEEN[2].data("train").images
    assert choose_by_unlabelled(toy_backbone, candidates, images) == 2


def test_certainty_of_known_predictions() -> None:
    """By hand: class frequencies of all three together are 2/3 and 1/3."""
    in_turn = torch.tensor([[30.0, 0.0], [0.0, 30.0]])
    logits = torch.stack([in_turn, torch.tensor([[30.0, 0.0]] * 2), torch.zeros(2, 2)])
    scores = certainty(logits)
    divergence = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert float(scores[0]) == pytest.approx(-divergence, abs=1e-6)
    assert float(scores[2]) == pytest.approx(-divergence - math.log(2), abs=1e-6)
    assert float(scores[1]) < -5


def test_an_adapter_that_is_not_finite_is_never_chosen(toy_backbone: Backbone, data: FeatureCache) -> None:
    task = data(SEEN[0].name)
    adapters = [leaning(toy_backbone, [float("nan"), 0.0, 0.0]), leaning(toy_backbone, [0.0, 0.0, 0.0])]
    assert choose_by_labels(toy_backbone, adapters, task) == 1
    assert choose_by_labels(toy_backbone, adapters, task, task.train) == 1
    assert choose_by_unlabelled(toy_backbone, adapters, task.train) == 1


def test_what_cannot_be_chosen_from_is_refused(toy_backbone: Backbone, data: FeatureCache) -> None:
    task = data(SEEN[0].name)
    adapter = toys.random_adapter(toy_backbone, 0)
    empty = TaskFeatures.of_few("t", take(task.train, slice(0)))
    with refused(DataError, empty.name):
        choose_by_labels(toy_backbone, [adapter], empty)
    with refused(DataError):
        choose_by_unlabelled(toy_backbone, [adapter], IMAGES[:0])
    foreign = [toys.random_adapter(toys.backbone(1), 0)]
    for adapters, error in (([], DataError), (foreign, AdapterMismatchError)):
        with pytest.raises(error):
            choose_by_labels(toy_backbone, adapters, task)
        with pytest.raises(error):
            choose_by_unlabelled(toy_backbone, adapters, IMAGES)
