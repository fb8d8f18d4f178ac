"""Refining: labels are learned, the prior holds, the better start is taken, and the provenance is complete."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import toys
from refusals import refused
from wildbench.methods.few_labels import few_labels
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.seen import SeenAdapters
from wildpdiff.errors import AdapterMismatchError, DataError, TrainingError
from wildpdiff.posterior.maximum_a_posteriori import MapConfig, maximum_a_posteriori
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.refine.refining import LabelledTask, refine, refine_tasks
from wildpdiff.refine.runs import RefineConfig
from wildpdiff.refine.starts import FREE, Start, Starts, pretrained_adapter
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import take
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

SHORT = RefineConfig(
    posterior=MapConfig(steps=30, batch=12),
    free=FinetuneConfig(steps=20, batch=8, learning_rate=0.02, warmup=5, checkpoints=1, interval=1),
)
TASKS = toys.ToySuite().tasks("unseen")


@pytest.fixture(scope="module")
def data(toy_backbone: Backbone) -> dict[str, TaskFeatures]:
    cache = FeatureCache(toy_backbone, TASKS, 8)
    return {task.name: cache(task.name) for task in TASKS}


@pytest.fixture(scope="module")
def points(toy_backbone: Backbone, toy_zoo: Zoo) -> Starts:
    seen = SeenAdapters.of(list(toy_zoo.task_adapters().values()))
    neighbours = seen.vectors.roll(1, 0)
    found = Starts.of_seen_tasks(toy_backbone, seen.layout, seen.vectors, neighbours)
    return replace(found, fewest_directions=1)


def accuracy(backbone: Backbone, task: TaskFeatures, adapter: Adapter) -> float:
    return float((backbone.predict(task.train, adapter.tensors).argmax(1) == task.train["targets"]).float().mean())


def random_prior(backbone: Backbone, scale: float = 0.1, count: int = 6) -> RefinementPrior:
    layout = Layout.of(toys.random_adapter(backbone, 0).tensors)
    errors = scale * torch.randn(count, layout.size, generator=torch_generator(5, "errors"))
    return RefinementPrior.of_errors(layout, errors, "test")


def test_labels_make_a_wrong_start_better(toy_backbone: Backbone, toy_zoo: Zoo, data: dict[str, TaskFeatures]) -> None:
    task = data["unseen-0"]
    seen = SeenAdapters.of(list(toy_zoo.task_adapters().values()))
    wrong = seen.adapter(seen.vectors[4])  # of the brightest seen task; the task is dark
    prior = RefinementPrior.of_errors(seen.layout, seen.vectors[:4] - seen.vectors[4], "test")
    posterior = MapConfig(steps=40, batch=18, learning_rate=0.5, strength=0.01)
    config = RefineConfig(posterior=posterior)
    points = Starts(toy_backbone, prior, (), fewest_directions=1)
    few = few_labels(task, 6, seed=0)
    (found,) = refine_tasks(toy_backbone, [LabelledTask(few, points(wrong)[:1])], config)
    assert found.start == "generated"
    logits = toy_backbone.predict(few.train, found.adapter.tensors)
    assert float(cross_entropy(logits, few.train["targets"])) < 0.7 * found.losses["generated"]


def test_the_most_probable_adapter_is_where_the_gradient_vanishes(toy_backbone: Backbone) -> None:
    """A quadratic twin: at the optimum, the labels' pull is the prior's, direction by direction."""
    prior = random_prior(toy_backbone)
    start = prior.layout.flatten(toys.random_adapter(toy_backbone, 1).tensors)
    features = toy_backbone.stem(toys.random_images(10))
    labels = torch.arange(10) % 3
    task = TaskFeatures.of_few("t", toys.batch(features, labels))
    offsets = torch.tensor([[0.5, -0.5, 0.0]])
    config = MapConfig(steps=120, batch=10, learning_rate=0.1, strength=2.0)
    best = maximum_a_posteriori(toy_backbone, start[None], prior, [task], offsets=offsets, config=config, seed=0)[0]
    moved = (best - start) @ prior.directions.T / prior.directions.square().sum(1)
    weights = moved.clone().requires_grad_(True)
    logits = toy_backbone.outputs(features, prior.layout.unflatten(start + weights @ prior.directions)) + offsets[0]
    loss = cross_entropy(logits, labels, reduction="sum") + weights.square().sum()
    (slope,) = torch.autograd.grad(loss, weights)
    assert float(moved.norm()) > 0.05
    assert float(slope.norm()) < 0.02


def test_a_stronger_prior_moves_less(toy_backbone: Backbone, data: dict[str, TaskFeatures]) -> None:
    prior, start = random_prior(toy_backbone), toys.random_adapter(toy_backbone, 1)
    points = Starts(toy_backbone, prior, (), fewest_directions=1)
    moves = []
    for strength in (1.0, 100.0):
        config = RefineConfig(MapConfig(steps=30, batch=12, strength=strength))
        only = LabelledTask(few_labels(data["unseen-0"], 2, 0), points(start)[:1])
        (found,) = refine_tasks(toy_backbone, [only], config)
        moves.append(found.adapter.distance(start))
    assert 0 < moves[1] < 0.3 * moves[0]


def test_tasks_in_one_pass_get_what_each_gets_alone(
    toy_backbone: Backbone, data: dict[str, TaskFeatures], points: Starts
) -> None:
    starts = [toys.random_adapter(toy_backbone, seed, 0.1) for seed in range(3)]
    labelled = [
        LabelledTask(few_labels(task, count, 0), points(start), task.train)
        for task, count, start in zip(data.values(), (1, 3, 8), starts, strict=True)
    ]
    together = refine_tasks(toy_backbone, labelled, SHORT)
    for one, of_many in zip(labelled, together, strict=True):
        alone = refine_tasks(toy_backbone, [one], SHORT)[0]
        assert alone.start == of_many.start
        assert alone.adapter.distance(of_many.adapter) < 1e-3


def test_a_bad_start_is_rejected_by_the_labels(
    toy_backbone: Backbone, data: dict[str, TaskFeatures], points: Starts
) -> None:
    bad = toys.random_adapter(toy_backbone, 3, 3.0)
    few = few_labels(data["unseen-1"], 5, 0)
    found = refine(toy_backbone, bad, few, SHORT, points=points)
    assert found.start in ("mean adapter", "pretrained")
    assert found.cross_validated[found.start] < found.cross_validated["generated"]
    provenance = found.adapter.provenance
    assert provenance["start"] == found.start
    assert provenance["cross_validated_losses"] == found.cross_validated
    assert set(provenance["start_losses"]) == {"generated", FREE, "mean adapter", "pretrained"}
    assert provenance["refined_from"] == {"source": "random", "seed": 3}
    (forced,) = refine_tasks(toy_backbone, [LabelledTask(few, points(bad)[:1])], SHORT)
    assert (forced.start, forced.cross_validated) == ("generated", {})
    task = data["unseen-1"]
    assert accuracy(toy_backbone, task, found.adapter) > accuracy(toy_backbone, task, forced.adapter)


def test_a_good_start_is_kept(toy_backbone: Backbone, toy_zoo: Zoo, points: Starts) -> None:
    """The adapter that was fine-tuned on all labels of the task, next to the mean of all."""
    name = toys.ToySuite().tasks("seen")[0].name
    task = FeatureCache(toy_backbone, toys.ToySuite().tasks("seen"), 8)(name)
    found = refine(toy_backbone, toy_zoo.task_adapters()[name], few_labels(task, 5, 0), SHORT, points=points)
    assert found.start in ("generated", FREE)


def test_of_many_samples_the_most_probable_take_part(
    toy_backbone: Backbone, data: dict[str, TaskFeatures], toy_zoo: Zoo, points: Starts
) -> None:
    few = few_labels(data["unseen-0"], 5, 0)
    bad = [toys.random_adapter(toy_backbone, seed, 3.0) for seed in range(4)]
    good = next(iter(toy_zoo.task_adapters().values()))
    several = replace(points, candidates=(*bad[1:], good))
    config = replace(SHORT, finalists=1)
    found = refine(toy_backbone, bad[0], few, config, points=several)
    assert set(found.losses) >= {"sample 1", "sample 2", "sample 3", "sample 4"}
    best = min((f"sample {number}" for number in range(1, 5)), key=found.losses.__getitem__)
    assert {name for name in found.cross_validated if name.startswith("sample")} == {best} == {"sample 4"}
    assert found.start != "generated"


def test_the_choice_is_that_of_the_seed(toy_backbone: Backbone, data: dict[str, TaskFeatures], points: Starts) -> None:
    few, start = few_labels(data["unseen-1"], 2, 0), toys.random_adapter(toy_backbone, 1, 0.3)
    first, second = (refine(toy_backbone, start, few, SHORT, points=points, seed=4) for _ in range(2))
    assert first.cross_validated == second.cross_validated
    assert first.adapter.distance(second.adapter) == 0.0
    assert refine(toy_backbone, start, few, SHORT, points=points, seed=5).cross_validated != first.cross_validated


def test_one_label_chooses_nothing(toy_backbone: Backbone, data: dict[str, TaskFeatures], points: Starts) -> None:
    task = data["unseen-1"]
    one = TaskFeatures.of_few("t", take(task.train, slice(1)))
    found = refine(toy_backbone, toys.random_adapter(toy_backbone, 1), one, SHORT, points=points)
    assert (found.start, found.cross_validated) == ("generated", {})


def test_without_a_generator_a_short_fine_tuning(toy_backbone: Backbone, data: dict[str, TaskFeatures]) -> None:
    start = pretrained_adapter(toy_backbone, toys.random_adapter(toy_backbone, 0))
    task = data["unseen-2"]
    free = FinetuneConfig(
        steps=60, batch=8, learning_rate=0.03, checkpoints=1, warmup=3, optimizer="adam", train_factor_a=True
    )
    config = RefineConfig(free=free)
    found = refine(toy_backbone, start, few_labels(task, 8, 0), config)
    assert found.adapter.provenance["steps"] == 60
    assert found.adapter.provenance["prior"] is None
    assert accuracy(toy_backbone, task, found.adapter) > accuracy(toy_backbone, task, start)


def test_provenance_has_start_labels_and_steps(
    toy_backbone: Backbone, data: dict[str, TaskFeatures], points: Starts
) -> None:
    task = data["unseen-0"]
    start = toys.random_adapter(toy_backbone, 1)
    few = few_labels(task, 2, 0)
    config = replace(SHORT, margin=100.0)
    provenance = refine(toy_backbone, start, few, config, points=points, unlabelled=task.train).adapter.provenance
    assert (provenance["source"], provenance["labels"], provenance["start"]) == (
        "refined",
        few.train_size,
        "generated",
    )
    assert provenance["steps"] == 30
    assert (provenance["classes_labelled"], provenance["unlabelled"]) == (3, task.train_size)


def test_what_cannot_be_refined_is_refused(
    toy_backbone: Backbone, data: dict[str, TaskFeatures], points: Starts
) -> None:
    task = data["unseen-0"]
    start = toys.random_adapter(toy_backbone, 1)
    none = TaskFeatures.of_few("t", take(task.train, slice(0)))
    with refused(DataError, "'t'"):
        refine(toy_backbone, start, none, SHORT, points=points)
    other = toys.relabelled(task, task.train["targets"] + 5)
    with refused(DataError, task.name, int(other.train["targets"].max()), 3):
        refine(toy_backbone, start, other, SHORT, points=points)
    with refused(AdapterMismatchError, toy_backbone.backbone_hash[:12]):
        refine(toy_backbone, toys.random_adapter(toys.backbone(1), 0), task, SHORT, points=points)
    nothing = LabelledTask(task, ())
    with refused(DataError, task.name):
        refine_tasks(toy_backbone, [nothing], SHORT)
    with refused(TrainingError, 0):
        MapConfig(strength=0.0)
    with refused(TrainingError, 1):
        RefineConfig(folds=1)


def test_a_loss_that_is_not_finite_is_refused(toy_backbone: Backbone, data: dict[str, TaskFeatures]) -> None:
    prior = random_prior(toy_backbone)
    broken = {name: value.clone() for name, value in toys.random_adapter(toy_backbone, 1).tensors.items()}
    next(iter(broken.values())).fill_(float("nan"))
    start = Start("generated", Adapter(broken, toy_backbone.adapter_config), prior)
    with refused(TrainingError, "unseen-0", 1):
        refine_tasks(toy_backbone, [LabelledTask(data["unseen-0"], [start])], SHORT)
