"""Cross-validation of starts: folds, what a fold learns, and the rule of choice."""

import math

import pytest
import torch

import toys
from refusals import refused
from wildbench.methods.few_labels import few_labels
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import TrainingError
from wildpdiff.posterior.maximum_a_posteriori import MapConfig
from wildpdiff.posterior.prior import RefinementPrior
from wildpdiff.refine.cross_validation import LEFT_OUT, TaskStarts, held_out_losses, label_folds, preferred
from wildpdiff.refine.runs import RefineConfig, Run, refine_runs
from wildpdiff.refine.starts import Start, pretrained_adapter
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import take
from wildpdiff.zoo.features import FeatureCache, TaskFeatures
from wildpdiff.zoo.steps import FinetuneConfig

SHORT = RefineConfig(
    posterior=MapConfig(steps=12, batch=12),
    free=FinetuneConfig(steps=20, batch=8, learning_rate=0.01, warmup=5, checkpoints=1, interval=1),
)


@pytest.fixture(scope="module")
def few(toy_backbone: Backbone) -> TaskFeatures:
    tasks = toys.ToySuite().tasks("unseen")
    return few_labels(FeatureCache(toy_backbone, tasks, 8)("unseen-0"), 4, 0)


@pytest.fixture(scope="module")
def points(toy_backbone: Backbone) -> list[Start]:
    layout = Layout.of(toys.random_adapter(toy_backbone, 0).tensors)
    errors = 0.1 * torch.randn(6, layout.size, generator=torch_generator(5, "errors"))
    prior = RefinementPrior.of_errors(layout, errors, "test")
    adapters = [toys.random_adapter(toy_backbone, seed, 0.1) for seed in range(2)]
    return [Start("generated", adapters[0], prior), Start("pretrained", adapters[1], None)]


def test_folds_spread_every_class_and_all_labels() -> None:
    labels = torch.tensor([0] * 10 + [1] * 7 + [2] * 5)
    fold = label_folds(labels, 5, 0, "t")
    for label in range(3):
        counts = torch.bincount(fold[labels == label], minlength=5)
        assert int(counts.max() - counts.min()) <= 1
    counts = torch.bincount(fold, minlength=5)
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(fold, label_folds(labels, 5, 0, "t"))
    assert not torch.equal(fold, label_folds(labels, 5, 1, "t"))


def test_few_labels_are_left_out_one_by_one() -> None:
    assert label_folds(torch.tensor([2, 0, 1]), 5, 0, "t").sort().values.tolist() == [0, 1, 2]


def test_a_class_that_only_the_fold_lacks_is_left_out_of_the_softmax(
    few: TaskFeatures, points: list[Start], toy_backbone: Backbone
) -> None:
    starts = TaskStarts.of(toy_backbone, few, points, None)
    assert starts.offsets(0, few.train["targets"]).tolist() == [0.0, 0.0, 0.0]
    assert starts.offsets(0, few.train["targets"][few.train["targets"] != 1]).tolist() == [0.0, LEFT_OUT, 0.0]
    informed = TaskStarts.of(toy_backbone, few, points, few.train)
    offsets = informed.offsets(0, few.train["targets"][few.train["targets"] == 2])
    assert offsets[:2].tolist() == [LEFT_OUT, LEFT_OUT]
    assert math.isfinite(float(offsets[2]))


def test_the_loss_of_a_label_is_that_of_a_refinement_without_its_fold(
    few: TaskFeatures, points: list[Start], toy_backbone: Backbone
) -> None:
    """By hand: one fold of one start, refined alone."""
    starts = TaskStarts.of(toy_backbone, few, points, None)
    losses = held_out_losses(toy_backbone, [starts], SHORT, seed=3)[0]
    assert losses.shape == (2, few.train_size)
    fold = label_folds(few.train["targets"], SHORT.folds, 3, few.name)
    kept, held = fold != 2, fold == 2
    rest = TaskFeatures.of_few(few.name, take(few.train, kept))
    for index, point in enumerate(points):
        tensors = refine_runs(toy_backbone, [Run(rest, point, torch.zeros(3))], SHORT.shorter, seed=3)[0]
        logs = toy_backbone.predict(take(few.train, held), tensors).log_softmax(1)
        expected = -logs[torch.arange(int(held.sum())), few.train["targets"][held]]
        assert torch.allclose(losses[index, held], expected, atol=1e-3)


def test_tasks_together_or_alone(few: TaskFeatures, points: list[Start], toy_backbone: Backbone) -> None:
    other = TaskFeatures.of_few("u", take(few.train, slice(7)))
    both = [TaskStarts.of(toy_backbone, task, points, None) for task in (few, other)]
    together = held_out_losses(toy_backbone, both, SHORT, seed=0)
    for one, found in zip(both, together, strict=True):
        assert torch.allclose(held_out_losses(toy_backbone, [one], SHORT, seed=0)[0], found, atol=1e-3)


def test_a_start_that_is_not_finite_is_out_and_the_others_are_not(
    few: TaskFeatures, points: list[Start], toy_backbone: Backbone
) -> None:
    tensors = {name: torch.full_like(value, math.inf) for name, value in points[0].adapter.tensors.items()}
    broken = Start("broken", Adapter(tensors, toy_backbone.adapter_config), points[0].prior)
    losses = held_out_losses(toy_backbone, [TaskStarts.of(toy_backbone, few, [broken, *points], None)], SHORT, seed=0)[
        0
    ]
    assert bool(torch.isinf(losses[0]).all())
    assert bool(torch.isfinite(losses[1:]).all())
    assert preferred(losses, 3, 1.0) > 0
    with refused(TrainingError, few.name):
        held_out_losses(toy_backbone, [TaskStarts.of(toy_backbone, few, [broken], None)], SHORT, seed=0)


def test_the_first_start_stays_within_the_margin() -> None:
    """Ahead by .3 on average, with a standard error of .1: beyond 2 of them, within 4."""
    draws = torch.randn(100, generator=torch_generator(0, "noise"))
    noise = (draws - draws.mean()) / draws.std()
    losses = torch.stack([torch.full((100,), 1.0), 0.7 + 0.001 * noise, torch.full((100,), 0.9)])
    assert preferred(losses, 10, 2.0) == 1
    noisy = torch.stack([losses[0], losses[1] + noise.clamp(-0.6, 3.0)])
    assert preferred(noisy, 10, 0.0) == 1
    assert preferred(noisy, 10, 8.0) == 0
    assert preferred(losses.flip(0), 10, 0.0) == 1
    assert preferred(losses[:1], 10, 0.0) == 0


def test_one_label_that_was_thought_impossible_does_not_decide_alone() -> None:
    sure = torch.full((50,), 0.1)
    sure[0] = 40.0
    assert preferred(torch.stack([sure, torch.full((50,), 0.6)]), 10, 0.0) == 0
    assert float(sure.mean()) > 0.6


def test_the_pretrained_model_next_to_a_bad_start(few: TaskFeatures, toy_backbone: Backbone) -> None:
    bad = toys.random_adapter(toy_backbone, 3, 5.0)
    pretrained = pretrained_adapter(toy_backbone, toys.random_adapter(toy_backbone, 0, 0.1))
    starts = [Start("generated", bad, None), Start("pretrained", pretrained, None)]
    losses = held_out_losses(toy_backbone, [TaskStarts.of(toy_backbone, few, starts, None)], SHORT, seed=0)[0]
    assert preferred(losses, 3, 1.0) == 1
