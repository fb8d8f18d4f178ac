"""Choice of the conditional mean in a small problem with a known solution."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from planted import IMAGES, Planted, planted
from torch import Tensor

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean import choice
from wildpdiff.conditional_mean.choice import (
    BLEND_FOLDS,
    HeldOutScores,
    Scorer,
    cross_validated,
    without_images,
)
from wildpdiff.conditional_mean.correction import Basis
from wildpdiff.conditional_mean.mean import ADDITIVE, DIRECT, RESIDUAL, ConditionalMean
from wildpdiff.conditional_mean.score_table import DELIVERED, PRETRAINED, CrossValidation
from wildpdiff.conditional_mean.simple import MEAN, SIMPLE
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import folds
from wildpdiff.tasks.batch import take
from wildpdiff.tasks.objective import TEMPERATURES

COUNT = 24
EVALUATION_IMAGES = 32


@pytest.fixture(scope="module")
def world(toy_backbone: Backbone) -> Planted:
    return planted(toy_backbone, COUNT)


def noise(world: Planted, seed: int) -> Tensor:
    return 0.5 * torch.randn(world.true.shape, generator=torch.Generator().manual_seed(seed))


def chosen(
    world: Planted,
    networks: dict[Basis, Tensor] | None = None,
    own: Tensor | None = None,
    images: TaskExamples | None = None,
) -> tuple[ConditionalMean, CrossValidation]:
    estimators = world.estimators(networks, own=own)
    return cross_validated(
        estimators, Scorer(world.backbone, world.codec, images or world.images), None, EVALUATION_IMAGES
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_where_networks_are_ruined_the_mean_is_as_good_as_the_best_alternative(world: Planted, seed: int) -> None:
    mean, table = chosen(world, {"regression": noise(world, seed), "nothing": noise(world, seed + 10)})
    assert not {RESIDUAL, DIRECT} & set(mean.blend.used)
    assert all(not {RESIDUAL, DIRECT} & set(blend.used) for blend in mean.fold_blends)
    best, ruined = table.best_alternative, table.row(RESIDUAL)
    assert best.method not in (RESIDUAL, DIRECT)
    assert best.high >= 0, "not behind by more than chance"
    assert best.lead > -2
    assert ruined is not None
    assert ruined.low > 20


def test_where_own_adapters_are_noise_networks_count_alone_and_seen_tasks_stay_with_the_estimate(
    world: Planted,
) -> None:
    mean, table = chosen(world, {"regression": world.true, "nothing": world.true}, own=noise(world, 3))
    assert set(mean.blend.used) <= {RESIDUAL, DIRECT}
    assert mean.anchor == 0.0
    assert table.row(ADDITIVE).low > 20  # type: ignore[union-attr]


def test_without_information_in_descriptions_seen_tasks_get_their_own_adapters(world: Planted) -> None:
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(4))
    mean, table = chosen(replace(world, embeddings=world.embeddings[order]))
    assert mean.anchor == 1.0
    assert table.delivered.accuracy < chosen(world)[1].delivered.accuracy - 20


def test_training_images_that_own_adapters_know_do_not_draw_seen_tasks_to_them(world: Planted) -> None:
    # As after overfitting: own adapters are right on the images that they were trained on, and on no others.
    other = world.true.roll(1, 0)
    tensors = world.codec.layout.unflatten(world.codec.decode(other))
    tasks = []
    for number, task in enumerate(world.images.tasks):
        train = take(task.train, slice(10))
        logits = world.backbone.outputs(train, {name: value[number] for name, value in tensors.items()})
        tasks.append(toys.relabelled(replace(task, train=train), logits.argmax(1)))
    images = TaskExamples(tuple(tasks), 0)
    mean, _ = chosen(world, {"regression": world.true, "nothing": world.true}, own=other, images=images)
    assert mean.anchor == 0.0


def test_networks_of_one_basis_alone_can_be_blended(world: Planted) -> None:
    mean, table = chosen(world, {"nothing": world.true}, own=noise(world, 5))
    assert mean.blend.used == {DIRECT: 1.0}
    assert table.row(RESIDUAL) is None


def test_labels_of_a_fold_do_not_affect_its_own_predictions(world: Planted) -> None:
    before, table = chosen(world)
    estimates = world.estimators().held_out()
    stacked = torch.stack(list(estimates.values()))
    fold = folds(world.names, BLEND_FOLDS, world.images.seed, "blend")
    elsewhere = []
    for part in range(2):
        rows = fold == part
        assert torch.equal(before.held_out[rows], before.fold_blends[part](stacked[:, rows]))
        after, changed = chosen(world, images=world.relabelled(rows, part))
        assert torch.equal(after.held_out[rows], before.held_out[rows])
        assert after.fold_blends[part] == before.fold_blends[part]
        assert changed.delivered.loss > table.delivered.loss + 0.05, "the labels of the fold are wrong now"
        elsewhere.append((after.fold_blends, after.blend) != (before.fold_blends, before.blend))
    assert any(elsewhere), "labels do decide elsewhere"


class TwoBasins(Scorer):
    """Adapters ``c`` and ``-c`` are as good as each other (factors of opposite sign), and their mean is not."""

    def tempered_losses(self, vectors: Tensor, tasks: Tensor, most: int) -> Tensor:
        c = torch.ones(vectors.shape[1])
        losses = torch.minimum((vectors - c).square().mean(1), (vectors + c).square().mean(1))
        return losses[tasks].expand(len(TEMPERATURES), -1)


@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (1, -1, 1, -1), (1, 1, 1, -1)])
def test_networks_whose_mean_is_worse_than_one_of_them_are_not_averaged(
    world: Planted, signs: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "FEW_TASKS", 2)  # else the pretrained model, by accuracies that are not those losses
    estimators = world.estimators({"nothing": torch.ones_like(world.true)})
    members = []
    for member, sign in zip(estimators.correction.members, signs, strict=True):
        network = copy.deepcopy(member.network)
        network.mean.data.fill_(sign)
        members.append(replace(member, network=network))
    estimators = replace(estimators, correction=replace(estimators.correction, members=tuple(members)))
    scorer = TwoBasins(world.backbone, world.codec, world.images)
    mean, _ = cross_validated(estimators, scorer, None, EVALUATION_IMAGES)
    assert mean.blend.used == {DIRECT: 1.0}
    assert (mean.delivered_fold is None) == (len(set(signs)) == 1)
    delivered = mean.predict(world.embeddings)
    assert bool((delivered.abs() == 1).all()), "one of the networks, or their mean where they agree"
    assert mean.without(1).delivered_fold is None
    again = ConditionalMean.from_state(
        mean.config, mean.tensors, world.encoder.sizes, codec=world.codec, backbone=world.backbone
    )
    assert torch.equal(again.predict(world.embeddings), delivered)


def test_the_table_is_of_what_is_held_out(world: Planted) -> None:
    mean, table = chosen(world)
    assert [row.method for row in table.rows] == [*SIMPLE, ADDITIVE, DELIVERED]
    for name, vectors in {**world.estimators().held_out(), DELIVERED: mean.held_out}.items():
        row, scores = table.row(name), Scorer(world.backbone, world.codec, world.images).scores(vectors)
        assert row is not None
        assert row.accuracy == pytest.approx(100 * float(scores.score.double().mean()))
        assert row.loss == pytest.approx(float(scores.loss.double().mean()))
    assert {row.method: row.weight for row in table.rows if row.weight} == mean.blend.used
    assert table.tasks == COUNT
    assert table.images == IMAGES


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_few_tasks_are_blended_and_scored_too(toy_backbone: Backbone, count: int) -> None:
    few = planted(toy_backbone, count)
    mean, table = chosen(few)
    assert table.few
    assert table.tasks == count
    assert torch.isfinite(mean.held_out).all()
    assert torch.isfinite(mean(few.embeddings)).all()
    assert mean.folds == 0
    assert sum(mean.blend.weights) == 1.0


def test_without_images_and_updates_additive_regression_is_all(world: Planted) -> None:
    mean = without_images(world.estimators(), world.codec, world.images.names)
    assert mean.blend.used == {ADDITIVE: 1.0}
    assert torch.equal(mean.held_out, mean.kernel.leave_one_out())
    assert torch.equal(mean.predict(mean.seen), mean.kernel.predict(mean.seen))


def test_it_is_restored_with_its_blends(world: Planted) -> None:
    mean, _ = chosen(world, {"regression": world.true, "nothing": noise(world, 6)})
    again = ConditionalMean.from_state(
        mean.config, mean.tensors, world.encoder.sizes, codec=world.codec, backbone=world.backbone
    )
    assert (again.blend, again.fold_blends, again.anchor) == (mean.blend, mean.fold_blends, mean.anchor)
    assert torch.equal(again(mean.seen), mean(mean.seen))
    for name in (*SIMPLE, ADDITIVE, RESIDUAL, DIRECT):
        assert torch.equal(again.estimate(name, mean.seen), mean.estimate(name, mean.seen))
    with pytest.raises(KeyError):
        without_images(world.estimators(), world.codec, world.images.names).estimate(DIRECT, mean.seen)


def test_of_few_tasks_the_better_of_pretrained_and_mean_is_delivered_where_the_blend_is_right_less_often(
    toy_backbone: Backbone,
) -> None:
    few = planted(toy_backbone, 6)
    mean, table = chosen(few)
    plain = max(table.row(name).accuracy for name in (PRETRAINED, MEAN))  # type: ignore[union-attr]
    assert table.delivered.accuracy >= plain
    worse = choice._plain_instead(
        {
            name: HeldOutScores(torch.zeros(6), torch.full((6,), value), 8)
            for name, value in ((PRETRAINED, 0.5), (MEAN, 0.4))
        },
        HeldOutScores(torch.zeros(6), torch.full((6,), 0.45), 8),
        1,
    )
    assert worse == PRETRAINED
    many = HeldOutScores(torch.zeros(30), torch.full((30,), 0.45), 8)
    assert choice._plain_instead({PRETRAINED: replace(many, score=many.score + 0.2), MEAN: many}, many, 1) is None
    assert torch.isfinite(mean(few.embeddings)).all()
