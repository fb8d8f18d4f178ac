"""Cross-validation table of a generator: scores, images, wording."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import IMAGES, Planted, planted
from scipy import stats
from torch.nn.functional import cross_entropy

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.choice import (
    MOST_IMAGES,
    HeldOutScores,
    Scorer,
    tabulate,
)
from wildpdiff.conditional_mean.score_table import DELIVERED, FEW_TASKS, CrossValidation
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.records import decode, encode
from wildpdiff.tasks.batch import concatenate
from wildpdiff.tasks.objective import TEMPERATURES, Classification

METRIC = Classification(("a", "b")).metric


@pytest.fixture(scope="module")
def world(toy_backbone: Backbone) -> Planted:
    return planted(toy_backbone, 6)


def table(tasks: int, weights: dict[str, float] | None = None) -> CrossValidation:
    ones = torch.ones(tasks)
    scores = {
        "pretrained": HeldOutScores(1.5 * ones, 0.3 * ones, 20),
        "mean adapter": HeldOutScores(ones, torch.linspace(0.4, 0.6, tasks).flip(0), 20),
    }
    delivered = HeldOutScores(0.5 * ones, torch.linspace(0.6, 0.8, tasks), 20)
    return tabulate(scores, weights or {"pretrained": 0.0, "mean adapter": 1.0}, delivered, metric=METRIC)


def test_leads_are_means_over_tasks_of_paired_differences_with_student_intervals() -> None:
    found = table(40)
    assert [row.method for row in found.rows] == ["pretrained", "mean adapter", DELIVERED]
    differences = 100 * (np.linspace(0.6, 0.8, 40) - np.linspace(0.6, 0.4, 40))
    row = found.row("mean adapter")
    assert row is not None
    interval = stats.t.interval(0.95, 39, loc=differences.mean(), scale=stats.sem(differences))
    assert (row.low, row.high) == pytest.approx(interval, abs=1e-3)
    assert row.lead == pytest.approx(20.0, abs=1e-3)
    assert (row.accuracy, row.loss) == pytest.approx((50.0, 1.0), abs=1e-3)
    assert (found.delivered.lead, found.delivered.low, found.delivered.high) == (0.0, 0.0, 0.0)
    assert found.row("oracle") is None
    assert (found.tasks, found.images) == (40, 20)


def test_the_lead_on_one_task_is_unknown() -> None:
    row = table(1).row("pretrained")
    assert row is not None
    assert (row.low, row.high) == (-100.0, 100.0)


def test_the_composition_is_in_words_the_largest_share_first() -> None:
    assert table(40).composition == "mean adapter"
    both = table(40, {"pretrained": 0.25, "mean adapter": 0.75})
    assert both.composition == "mean adapter (75 %) and pretrained (25 %)"
    three = replace(both, rows=(*both.rows, replace(both.rows[0], method="nearest task", weight=0.5)))
    assert three.composition.startswith("mean adapter (75 %), ")
    assert three.composition.count(" and ") == 1


def test_a_blend_of_the_pretrained_model_alone_is_named() -> None:
    aligned = table(40, {"pretrained": 1.0, "mean adapter": 0.0})
    alone = replace(aligned, rows=(replace(aligned.rows[0], lead=0.0, low=-1.0, high=1.0), *aligned.rows[1:]))
    assert alone.unchanging
    assert alone.unchanging in alone.verdict
    assert alone.composition == "pretrained"
    # Held-out tasks gain for sure: nothing but the alignment of the classifier can have moved the pretrained model.
    assert not aligned.unchanging
    assert "aligned" in aligned.composition
    assert not table(40).unchanging
    assert not table(40, {"pretrained": 0.5, "mean adapter": 0.5}).unchanging


def test_the_verdict_names_both_and_calls_few_tasks_few() -> None:
    many, few = table(FEW_TASKS), table(FEW_TASKS - 1)
    assert many.best_alternative.method == "mean adapter"
    for found in (many, few):
        assert "reach 70.0 %; the best of the others is mean adapter with 50.0 %" in found.verdict
    assert not many.few
    assert "few" not in many.verdict
    assert few.few
    assert f"{FEW_TASKS - 1} seen tasks are few" in few.verdict


def test_the_table_survives_json() -> None:
    found = table(7, {"pretrained": 0.25, "mean adapter": 0.75})
    assert decode(CrossValidation, json.loads(json.dumps(encode(found))), "table") == found


def test_scores_are_those_of_each_task_s_own_adapter_on_its_own_images(world: Planted) -> None:
    tasks = [4, 1]
    found = Scorer(world.backbone, world.codec, world.images).scores(world.true, tasks)
    tensors = world.codec.layout.unflatten(world.codec.decode(world.true))
    for index, number in enumerate(tasks):
        own = world.images.tasks[number]
        batch = concatenate([own.train, own.validation])
        labels = batch["targets"]
        logits = world.backbone.outputs(batch, {name: value[number] for name, value in tensors.items()})
        assert float(found.loss[index]) == pytest.approx(float(cross_entropy(logits, labels)), rel=1e-4)
        assert float(found.score[index]) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert found.images == IMAGES < MOST_IMAGES


def shared(world: Planted) -> TaskExamples:
    """All tasks learn from the same training images, and these have wrong labels; validation images are their own."""
    tasks = []
    for number, task in enumerate(world.images.tasks):
        common = [f"common {row}".encode() for row in range(task.train_size)]
        own = [f"{number} {row}".encode() for row in range(task.validation_size)]
        tasks.append(replace(toys.relabelled(task, (task.train["targets"] + 1) % 3), keys=(*common, *own)))
    return TaskExamples(tuple(tasks), 0)


def test_images_that_other_tasks_learn_from_are_not_scored(world: Planted) -> None:
    every = torch.arange(len(world.true))
    own = Scorer(world.backbone, world.codec, world.images).scores(world.true, validation=True)
    found = Scorer(world.backbone, world.codec, shared(world)).scores(world.true)
    torch.testing.assert_close(found.loss, own.loss)
    assert torch.equal(found.score, own.score)
    assert found.images == IMAGES // 2
    tempered = Scorer(world.backbone, world.codec, shared(world)).tempered_losses(world.true, every, IMAGES // 2)
    torch.testing.assert_close(tempered[TEMPERATURES.index(1.0)], own.loss)
    # Without keys the same images count as each task's own, and their wrong labels are read.
    unkeyed = TaskExamples(tuple(replace(task, keys=()) for task in shared(world).tasks), 0)
    wrong = Scorer(world.backbone, world.codec, unkeyed).scores(world.true)
    assert float(wrong.score.mean()) < float(own.score.mean()) - 0.2


def test_validation_images_alone_are_scored_where_wanted(world: Planted) -> None:
    wrong = tuple(toys.relabelled(task, (task.train["targets"] + 1) % 3) for task in world.images.tasks)
    images = TaskExamples(wrong, 0)
    late = Scorer(world.backbone, world.codec, images).scores(world.true, validation=True)
    right = Scorer(world.backbone, world.codec, world.images).scores(world.true, validation=True)
    assert torch.equal(late.score, right.score)
    assert float(Scorer(world.backbone, world.codec, images).scores(world.true).score.mean()) < 0.7


def test_losses_are_compared_at_several_temperatures_of_the_same_logits(world: Planted) -> None:
    tasks = torch.tensor([3, 0])
    found = Scorer(world.backbone, world.codec, world.images).tempered_losses(world.true, tasks, 10)
    assert found.shape == (len(TEMPERATURES), 2)
    assert torch.equal(found, Scorer(world.backbone, world.codec, world.images).tempered_losses(world.true, tasks, 10))
    batch = world.images.fixed(tasks, 10)
    tensors = world.codec.layout.unflatten(world.codec.decode(world.true))
    for index, number in enumerate(tasks.tolist()):
        some = {name: value[index] for name, value in batch.items()}
        logits = world.backbone.outputs(some, {name: value[number] for name, value in tensors.items()})
        for row, temperature in enumerate(TEMPERATURES):
            expected = cross_entropy(logits / temperature, some["targets"])
            assert float(found[row, index]) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)
