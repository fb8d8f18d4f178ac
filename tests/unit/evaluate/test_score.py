import numpy as np
import pytest
import torch

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import AdapterMismatchError, DataError
from wildpdiff.evaluate.score import mean_scores, test_set

TASK = toys.ToySuite().tasks("unseen")[0]


def test_accuracies_are_counted_one_by_one(toy_backbone: Backbone) -> None:
    adapters = [toys.random_adapter(toy_backbone, seed, scale=2.0) for seed in range(3)]
    data = TASK.data("test")
    expected = []
    for adapter in adapters:
        predicted = toy_backbone.predict(toy_backbone.stem(data.images), adapter.tensors).argmax(1).numpy()
        expected.append(sum(int(p == t) for p, t in zip(predicted, data.labels, strict=True)) / len(data))
    assert mean_scores(toy_backbone, test_set(toy_backbone, TASK), adapters) == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_a_test_set_names_its_task_to_sources_that_need_it(toy_backbone: Backbone) -> None:
    made = test_set(toy_backbone, TASK)
    assert TASK.description.task_id is None
    assert (made.task, made.description.task_id) == (TASK.name, TASK.name)
    assert made.description.metadata == TASK.description.metadata
    assert torch.equal(made.batch[toys.KEPT], toy_backbone.stem(TASK.data("test").images)[toys.KEPT])


def test_a_task_without_test_images_is_named(toy_backbone: Backbone) -> None:
    with refused(DataError, "'empty'"):
        test_set(toy_backbone, toys.FixedTask("empty", toys.random_images(0), np.zeros(0)))


def test_an_adapter_of_another_backbone_is_refused(toy_backbone: Backbone) -> None:
    other = toys.random_adapter(toys.backbone(seed=1), 0)
    with pytest.raises(AdapterMismatchError):
        mean_scores(toy_backbone, test_set(toy_backbone, TASK), [toys.random_adapter(toy_backbone, 0), other])
