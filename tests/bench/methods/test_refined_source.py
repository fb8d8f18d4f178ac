"""A source refined on few labels: its labels, and its provenance."""

import pytest

import toys
from refusals import refused
from wildbench.methods.few_labels import few_labels
from wildbench.methods.refined import RefinedSource
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import LabelledData
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import Starts
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

FREE = FinetuneConfig(steps=10, batch=8, warmup=5, checkpoints=1, interval=1)
SHORT = RefineConfig(posterior=MapConfig(steps=10, batch=8), free=FREE)
NAMES = [task.name for task in toys.ToySuite().tasks("seen")]


@pytest.fixture(scope="module")
def data(toy_backbone: Backbone) -> FeatureCache:
    return FeatureCache(toy_backbone, toys.ToySuite().tasks("seen"), 1)


def source(data: LabelledData, backbone: Backbone, zoo: Zoo, k: int = 3, unlabelled: bool = True) -> RefinedSource:
    seen = SeenAdapters.of(list(zoo.task_adapters().values()))
    prior = RefinementPrior.of_errors(seen.layout, seen.vectors - seen.vectors.mean(0), "spread of the seen tasks")
    inner = MeanSource(list(zoo.task_adapters().values()))
    points = Starts(backbone, prior, ())
    return RefinedSource(inner, points, data, k, config=SHORT, unlabelled=unlabelled)


def test_name_and_provenance(data: FeatureCache, toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    refined = source(data, toy_backbone, toy_zoo)
    assert refined.name == "mean adapter, refined on 3 labels a class"
    assert source(data, toy_backbone, toy_zoo, 1).name == "mean adapter, refined on 1 label a class"
    provenance = refined.sample(Description(task_id=NAMES[1]), 1, seed=6)[0].provenance
    assert (provenance["source"], provenance["task"], provenance["seed"]) == (refined.name, NAMES[1], 6)
    few = len(few_labels(data(NAMES[1]), 3, 0).train["targets"])
    assert (provenance["labels"], provenance["labels_per_class"], provenance["unlabelled"]) == (few, 3, 48)
    assert provenance["refined_from"]["source"] == "mean adapter"


def test_prepared_together_or_alone(data: FeatureCache, toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    together, alone = source(data, toy_backbone, toy_zoo), source(data, toy_backbone, toy_zoo)
    together.prepare([Description(task_id=name) for name in NAMES])
    for name in NAMES[:2]:
        description = Description(task_id=name)
        assert together.sample(description, 1, 0)[0].distance(alone.sample(description, 1, 0)[0]) < 1e-4


class Random:
    """A random source of adapters."""

    name = "random"
    stochastic = True

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        return [toys.random_adapter(self.backbone, seed + number, 0.3) for number in range(n)]


def test_samples_of_a_random_source_are_further_starts(data: FeatureCache, toy_backbone: Backbone) -> None:
    points = Starts.without_generator(toy_backbone)
    refined = RefinedSource(Random(toy_backbone), points, data, 3, config=SHORT, further=Random(toy_backbone))
    provenance = refined.sample(Description(task_id=NAMES[0]), 1, 0)[0].provenance
    assert set(provenance["start_losses"]) == {
        "generated",
        "pretrained",
        *(f"sample {number}" for number in range(1, 9)),
    }
    assert provenance["start_losses"]["sample 1"] == provenance["start_losses"]["generated"]


def test_no_image_but_the_few_is_read(data: FeatureCache, toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    """All other images are blackened; where they are not used unlabelled either, nothing may change."""

    def blackened(name: str) -> TaskFeatures:
        task = data(name)
        few, maps = few_labels(task, 3, 0).train[toys.KEPT].flatten(1), task.train[toys.KEPT]
        kept = (maps.flatten(1)[:, None] == few[None]).all(2).any(1)
        images = maps * kept.view(-1, *[1] * (maps.ndim - 1))
        return TaskFeatures.of_few(name, toys.batch(images, task.train["targets"]))

    description = Description(task_id=NAMES[0])

    def distance(unlabelled: bool) -> float:
        makers = (data, blackened)
        first, second = (source(maker, toy_backbone, toy_zoo, 3, unlabelled) for maker in makers)
        return first.sample(description, 1, 0)[0].distance(second.sample(description, 1, 0)[0])

    assert distance(unlabelled=False) == 0.0
    assert distance(unlabelled=True) > 0.0


def test_refusals(data: FeatureCache, toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    with refused(DataError, 0):
        source(data, toy_backbone, toy_zoo, 0)
    with refused(DescriptionError, "elsewhere"):
        source(data, toy_backbone, toy_zoo).sample(Description(task_id="elsewhere"), 1, 0)
    with refused(DescriptionError):
        source(data, toy_backbone, toy_zoo).sample(Description(), 1, 0)
