"""Fine-tuning on few labels: how many are used, and that no other is."""

from collections import Counter

import pytest
import torch

import toys
from refusals import refused
from wildbench.methods.few_labels import FewLabelsSource, few_labels
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

FINETUNE = FinetuneConfig(
    steps=60, batch=8, learning_rate=0.03, warmup=3, checkpoints=1, optimizer="adam", train_factor_a=True
)
NAMES = [task.name for task in toys.ToySuite().tasks("seen")]


def planted(counts: dict[int, int]) -> TaskFeatures:
    """Images whose value is their row; the labels come in blocks."""
    labels = torch.cat([torch.full((count,), label) for label, count in counts.items()])
    images = torch.arange(len(labels)).float()[:, None]
    return TaskFeatures(
        "planted", toys.batch(images, labels), toys.batch(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    )


@pytest.fixture(scope="module")
def data(toy_backbone: Backbone) -> FeatureCache:
    return FeatureCache(toy_backbone, toys.ToySuite().tasks("seen"), 1)


def source(
    data: FeatureCache, backbone: Backbone, zoo: Zoo, k: int = 5, config: FinetuneConfig = FINETUNE, seed: int = 0
) -> FewLabelsSource:
    return FewLabelsSource(data, backbone, zoo.initial, labels_per_class=k, config=config, seed=seed)


def accuracy(backbone: Backbone, task: TaskFeatures, tensors: dict[str, torch.Tensor]) -> float:
    return float((backbone.predict(task.train, tensors).argmax(1) == task.train["targets"]).float().mean())


def test_so_many_of_each_class_and_all_where_there_are_fewer() -> None:
    few = few_labels(planted({0: 40, 1: 3, 4: 9}), 5, seed=0)
    assert Counter(few.train["targets"].tolist()) == {0: 5, 1: 3, 4: 5}


def test_images_keep_their_labels() -> None:
    task = planted({0: 40, 1: 3, 4: 9})
    few = few_labels(task, 5, seed=0)
    assert torch.equal(few.train["targets"], task.train["targets"][few.train["inputs"][:, 0].long()])
    assert len(few.train["inputs"].unique()) == few.train_size


def test_no_validation_label_is_left() -> None:
    few = few_labels(planted({0: 4, 1: 4}), 2, seed=0)
    assert few.validation is few.train


def test_more_labels_hold_the_fewer_and_the_seed_draws_others() -> None:
    task = planted({0: 40, 1: 40})
    five, twenty, other = few_labels(task, 5, seed=0), few_labels(task, 20, seed=0), few_labels(task, 5, seed=1)
    assert set(five.train["inputs"][:, 0].tolist()) < set(twenty.train["inputs"][:, 0].tolist())
    assert set(five.train["inputs"][:, 0].tolist()) != set(other.train["inputs"][:, 0].tolist())


@pytest.mark.parametrize("k", [0, -1])
def test_no_label_is_refused(data: FeatureCache, toy_backbone: Backbone, toy_zoo: Zoo, k: int) -> None:
    with refused(DataError, k):
        few_labels(planted({0: 4}), k, seed=0)
    with refused(DataError, k):
        source(data, toy_backbone, toy_zoo, k)


def test_a_task_without_images_is_refused() -> None:
    images, labels = torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)
    with refused(DataError, "bare"):
        few_labels(TaskFeatures.of_few("bare", toys.batch(images, labels)), 5, seed=0)


def test_images_beyond_the_few_are_not_read(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    whole = data(NAMES[0])
    few = few_labels(whole, 2, seed=0)
    maps = whole.train[toys.KEPT]
    chosen = (maps.flatten(1)[:, None] == few.train[toys.KEPT].flatten(1)[None]).all(2).any(1)
    assert int(chosen.sum()) == few.train_size < whole.train_size
    rest = torch.where(chosen[:, None, None, None], maps, torch.nan)
    nothing = torch.full_like(whole.validation[toys.KEPT], torch.nan)
    garbled = TaskFeatures(
        whole.name, toys.batch(rest, whole.train["targets"]), toys.batch(nothing, whole.validation["targets"])
    )
    description = Description(task_id=whole.name)
    expected = source(data, toy_backbone, toy_zoo, 2).sample(description, 1, 0)[0]
    found = source(lambda _: garbled, toy_backbone, toy_zoo, 2).sample(description, 1, 0)[0]
    assert expected.provenance["labels"] == few.train_size
    assert expected.distance(found) == 0.0


def test_it_fits_its_few_labels_and_more_labels_fit_the_task_better(
    toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache
) -> None:
    start = dict(toy_zoo.initial.tensors)
    few, many = source(data, toy_backbone, toy_zoo, 2), source(data, toy_backbone, toy_zoo, 20)
    few.prepare(NAMES)
    many.prepare(NAMES)
    fitted, gain = [], []
    for name in NAMES:
        description, task = Description(task_id=name), few_labels(data(name), 2, seed=0)
        tensors = dict(few.sample(description, 1, 0)[0].tensors)
        fitted.append(accuracy(toy_backbone, task, tensors) - accuracy(toy_backbone, task, start))
        more = dict(many.sample(description, 1, 0)[0].tensors)
        gain.append(accuracy(toy_backbone, data(name), more) - accuracy(toy_backbone, data(name), tensors))
    assert sum(fitted) / len(fitted) > 0.3
    assert sum(gain) / len(gain) > 0.02


def test_prepared_tasks_are_those_trained_one_by_one(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    together, alone = source(data, toy_backbone, toy_zoo), source(data, toy_backbone, toy_zoo)
    together.prepare(NAMES[:2])
    for name in NAMES[:2]:
        first, second = (each.sample(Description(task_id=name), 1, 0)[0] for each in (together, alone))
        for key in first.tensors:
            torch.testing.assert_close(first.tensors[key], second.tensors[key], rtol=1e-3, atol=1e-4)


def test_a_task_is_trained_once(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    loaded: list[str] = []

    def counting(name: str) -> TaskFeatures:
        loaded.append(name)
        return data(name)

    given = FewLabelsSource(counting, toy_backbone, toy_zoo.initial, labels_per_class=2, config=FINETUNE)
    given.prepare([NAMES[0], NAMES[1], NAMES[0]])
    given.sample(Description(task_id=NAMES[0]), 2, seed=3)
    assert loaded == NAMES[:2]


def test_factor_a_stays_unless_requested(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    config = FinetuneConfig(steps=5, batch=8, warmup=1, checkpoints=1)
    tensors = source(data, toy_backbone, toy_zoo, 2, config).sample(Description(task_id=NAMES[0]), 1, 0)[0].tensors
    moved = {name for name, value in tensors.items() if not torch.equal(value, toy_zoo.initial.tensors[name])}
    assert moved == {name for name in tensors if ".lora_A." not in name}


def test_the_number_of_labels_is_on_record(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    given = source(data, toy_backbone, toy_zoo, 1)
    assert given.name == "fine-tuned, 1 label a class"
    provenance = given.sample(Description(task_id=NAMES[0]), 1, 4)[0].provenance
    classes = len(set(data(NAMES[0]).train["targets"].tolist()))
    assert dict(provenance) == {
        "source": given.name, "seed": 4, "task": NAMES[0], "labels": classes, "labels_per_class": 1
    }  # fmt: skip


def test_an_unknown_task_is_refused(toy_backbone: Backbone, toy_zoo: Zoo, data: FeatureCache) -> None:
    with refused(DescriptionError, "nowhere"):
        source(data, toy_backbone, toy_zoo).sample(Description(task_id="nowhere"), 1, 0)
    with refused(DescriptionError, "metadata"):
        source(data, toy_backbone, toy_zoo).sample(Description(metadata={"level": 60.0}), 1, 0)
