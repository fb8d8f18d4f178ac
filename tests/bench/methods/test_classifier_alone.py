"""The classifier alone: LoRA's factors stay where they were, and the rest learns."""

from __future__ import annotations

import torch

import toys
from wildbench.methods.classifier_alone import CLASSIFIER_ALONE, classifier_alone
from wildpdiff.zoo.features import FeatureCache


def test_only_the_classifier_is_fine_tuned() -> None:
    backbone, suite = toys.backbone(), toys.ToySuite()
    tasks = suite.tasks("seen")[:3]
    cache = FeatureCache(backbone, tasks, toys.FINETUNE.batch)
    initial = backbone.initial_adapter(0)
    features = [cache(task.name) for task in tasks]
    source = classifier_alone(backbone, features, initial, config=toys.FINETUNE, seed=0)
    assert source.name == CLASSIFIER_ALONE
    for task, own in zip(tasks, features, strict=True):
        described = task.description.__class__(task_id=task.name)
        (adapter,) = source.sample(described, 1, 0)
        backbone.check(adapter)
        for name, value in initial.tensors.items():
            assert torch.equal(adapter.tensors[name], value) == (".lora_" in name), name
        before = torch.nn.functional.cross_entropy(backbone.predict(own.train), own.train["targets"])
        after = torch.nn.functional.cross_entropy(backbone.predict(own.train, adapter.tensors), own.train["targets"])
        assert after < before
