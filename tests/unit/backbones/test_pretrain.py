from itertools import pairwise

import numpy as np
import torch

import toys
from refusals import refused
from wildpdiff.backbones.pretrain import PretrainConfig, pretrain_savanna_cnn
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.tasks.task import LabelledImages, SplitName


def tasks(images: int = 64, count: int = 2) -> list[toys.ToyTask]:
    sizes = {"train": images, "validation": 0, "test": 40}
    return [toys.ToyTask(f"pretraining-{i}", 120.0, sizes=sizes) for i in range(count)]


def train(**changes: object):  # type: ignore[no-untyped-def]
    settings: dict = {"tasks": tasks(), "classes": toys.CLASSES, "image_size": toys.SIZE}
    length = {name: changes.pop(name) for name in ("epochs", "batch", "learning_rate", "seed") if name in changes}
    config = PretrainConfig(**{"epochs": 2, "batch": 16, **length})  # type: ignore[arg-type]
    return pretrain_savanna_cnn(**{**settings, **changes}, config=config)


def test_pretraining_learns_and_freezes() -> None:
    done: list[tuple[int, int]] = []
    made = train(epochs=8, progress=lambda step, total: done.append((step, total)))
    assert made.steps == 8 * 8
    assert done == [(step, 64) for step in range(1, 65)]
    assert len(made.losses) == 8
    assert made.losses[-1] < 0.6 * made.losses[0]
    data = tasks()[0].data("test")
    predicted = made.backbone.predict(made.backbone.stem(data.images)).argmax(1)
    assert float((predicted == torch.from_numpy(data.labels)).float().mean()) > 0.7
    assert not made.backbone.module.training
    assert not any(value.requires_grad for value in made.backbone.module.parameters())


def test_the_same_seed_gives_the_same_weights_and_another_other_ones() -> None:
    hashes = [train(epochs=1, seed=seed).backbone.backbone_hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_weights_are_stored_as_others_are() -> None:
    assert all(value.is_contiguous() for value in train(epochs=1).backbone.module.state_dict().values())


def test_fewer_images_than_a_batch_still_train() -> None:
    made = train(tasks=tasks(images=12, count=1), batch=500)
    assert made.steps == 2
    assert all(later < earlier for earlier, later in pairwise(made.losses))


def test_no_tasks_are_refused() -> None:
    with refused(DataError, "pretraining tasks"):
        train(tasks=[])


def test_a_class_without_an_image_has_a_logit_that_is_never_the_largest() -> None:
    made = train(classes=(*toys.CLASSES, "leopard"))
    logits = made.backbone.predict(made.backbone.stem(tasks()[0].data("test").images))
    assert logits.shape[1] == len(toys.CLASSES) + 1
    assert int((logits.argmax(1) == len(toys.CLASSES)).sum()) == 0


def test_images_of_one_class_are_refused() -> None:
    class OneClass(toys.ToyTask):
        def data(self, split: SplitName) -> LabelledImages:
            found = super().data(split)
            return LabelledImages(found.images, np.zeros_like(found.labels))

    with refused(DataError, "two classes"):
        train(tasks=[OneClass("pretraining-0", 120.0)])


def test_a_loss_that_is_no_number_is_refused() -> None:
    with refused(TrainingError, "backbone", "step"):
        train(learning_rate=1e30)
