from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import toys
from wildpdiff.adapters.layout import Layout
from wildpdiff.autoencoder.training import is_over
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.blend import Blend
from wildpdiff.conditional_mean.correction import Correction, TaskLossConfig, fit_correction, task_losses
from wildpdiff.conditional_mean.kernel import KernelMean
from wildpdiff.conditional_mean.kernel_fit import fit_kernel_mean
from wildpdiff.conditional_mean.mean import NETWORKS, ConditionalMean
from wildpdiff.conditional_mean.network import DescriptionNetwork, moved_values
from wildpdiff.conditional_mean.simple import fit_simple_estimators
from wildpdiff.conditional_mean.task_images import ImageBatch, TaskImages
from wildpdiff.conditional_mean.training import NetworkTraining, fit_ensemble, folds
from wildpdiff.conditions.base import ConditionSampler
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.errors import TrainingError
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.store import Zoo

SHORT = TaskLossConfig(steps=30, tasks=6, images=8, folds=3, hidden=12, directions=4, look_every=10)


def mean_of(world: World, correction: Correction) -> ConditionalMean:
    """The conditional mean that blends all families of networks alike."""
    kernel = world.kernel
    simple = fit_simple_estimators(world.encoder.sizes, torch.zeros(world.codec.size), kernel.seen, kernel.targets)
    names = tuple(NETWORKS[basis] for basis in correction.held_out)
    blend = Blend(names, (1.0 / len(names),) * len(names))
    held_out = torch.stack(list(correction.held_out.values())).mean(0)
    blends = (blend,) * (1 + int(correction.fold.max()))
    return ConditionalMean(kernel, simple, correction.members, blend, blends, held_out, correction.fold)


@dataclass(frozen=True)
class World:
    """The toy zoo's tasks three times over, so that there are enough of them to hold a part out."""

    kernel: KernelMean
    encoder: FusionEncoder
    sampler: ConditionSampler
    backbone: Backbone
    codec: Codec
    trained: Tensor
    features: list[TaskFeatures]

    def fit(self, config: TaskLossConfig, seed: int = 0, with_images: bool = True) -> Correction:
        return fit_correction(
            self.kernel,
            self.encoder,
            self.sampler,
            self.backbone,
            self.codec,
            self.trained,
            self.features if with_images else None,
            config,
            seed,
        )


@pytest.fixture(scope="module")
def world(toy_backbone: Backbone, toy_zoo: Zoo) -> World:
    suite = toys.ToySuite()
    stacked = toy_zoo.tensors(range(len(toy_zoo)))
    layout = Layout.of({name: value[0] for name, value in stacked.items()})
    raw = layout.flatten_many(stacked)
    codec = Codec.fit(layout, raw, "tensor")
    tasks = [task for task in suite.tasks("seen") if task.name in toy_zoo.tasks] * 3
    told = [task.description for task in tasks]
    encoder = fit_fusion(told, suite.metadata_schema, toy_backbone.image_features, components=2)
    own = torch.stack([codec.encode(raw[toy_zoo.rows_of(task.name)]).mean(0) for task in tasks])
    embeddings = torch.stack([encoder.encode(entry).values for entry in told])
    kernel = fit_kernel_mean(encoder, embeddings, own)
    kernel = kernel if kernel.terms else replace(kernel, terms=fit_kernel_mean(encoder, embeddings, embeddings).terms)
    features = [
        replace(task_features(toy_backbone, task, 8), name=f"{task.name}-{row}") for row, task in enumerate(tasks)
    ]
    moved = moved_values(raw, layout.flatten(toy_zoo.initial.tensors), layout.sizes)
    return World(kernel, encoder, encoder.sampler(told), toy_backbone, codec, moved, features)


def test_it_is_a_function_of_the_seed_and_of_nothing_else(world: World) -> None:
    first, second, other = world.fit(SHORT, 1), world.fit(SHORT, 1), world.fit(SHORT, 2)
    assert [(member.basis, member.fold) for member in first.members] == [
        (basis, fold) for fold in range(3) for basis in ("regression", "nothing")
    ]
    assert all(torch.equal(first.held_out[basis], second.held_out[basis]) for basis in SHORT.bases)
    assert torch.equal(first.losses, second.losses)
    assert not torch.equal(first.losses, other.losses)


def test_it_only_moves_what_fine_tuning_moves(world: World) -> None:
    still = torch.arange(world.codec.size) < 10
    fitted = replace(world, trained=~still).fit(SHORT)
    said = torch.stack([member.network.normalized(world.kernel.seen) for member in fitted.members])
    assert bool((said[..., still] == 0).all())
    assert bool((said[..., ~still] != 0).any())


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_hidden_units_start_as_sharp_as_asked(sharpness: float) -> None:
    reads = torch.zeros(400, 9, dtype=torch.bool)
    reads[:200, :1], reads[200:, 1:8], reads[:, 8] = True, True, True
    torch.manual_seed(0)
    network = DescriptionNetwork(torch.eye(3), torch.ones(3, dtype=torch.bool), reads, sharpness=sharpness)
    columns = torch.randn(2000, 9)
    columns[:, 8] = 0.0
    started = (columns @ (network.first.weight * network.reads).detach().T).std(0)
    for own in (started[:200], started[200:]):  # however many columns a unit reads
        assert float(own.square().mean().sqrt()) == pytest.approx(sharpness, rel=0.2)
    assert float(network.first.bias.detach().abs().max()) == pytest.approx(sharpness, rel=0.05)
    assert torch.equal(network.normalized(columns), torch.zeros(2000, 3))


def test_moved_values_are_those_of_whole_tensors() -> None:
    start = torch.tensor([1.0, 2.0, 3.0, 4.0])
    vectors = start + torch.tensor([[0.0, 0.0, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert moved_values(vectors, start, [2, 2]).tolist() == [False, False, True, True]


def test_what_is_held_out_comes_from_the_networks_that_never_saw_the_task(world: World) -> None:
    fitted = world.fit(SHORT)
    left_out = world.kernel.leave_one_out()
    for task in range(len(world.features)):
        own = world.kernel.seen[task : task + 1]
        first, second = (m.network.normalized(own)[0] for m in fitted.members if m.fold == fitted.fold[task])
        assert torch.allclose(fitted.held_out["regression"][task], left_out[task] + first, atol=1e-5)
        assert torch.allclose(fitted.held_out["nothing"][task], second, atol=1e-5)
    names = [task.name for task in world.features]
    assert torch.equal(fitted.fold, folds(names, SHORT.folds, 0, "conditional mean"))


@pytest.mark.parametrize("why", ["no images", "no updates", "few tasks"])
def test_without_what_it_needs_no_network_is_trained(world: World, why: str) -> None:
    config = replace(SHORT, steps=0) if why == "no updates" else SHORT
    if why == "few tasks":
        few = replace(
            world.kernel,
            **{name: getattr(world.kernel, name)[:6] for name in ("seen", "targets", "coefficients")},
        )
        world = replace(world, kernel=few, features=world.features[:6])
    fitted = world.fit(config, with_images=why != "no images")
    assert fitted.members == ()
    assert fitted.held_out == {}
    assert bool((fitted.fold == -1).all())


def test_more_folds_than_tasks_leave_out_one_task_each(world: World) -> None:
    fitted = world.fit(replace(SHORT, folds=50, steps=5, bases=("nothing",)))
    assert len(fitted.members) == len(world.features)
    assert sorted(fitted.fold.tolist()) == list(range(len(world.features)))


@pytest.mark.parametrize("bad", [{"folds": 1}, {"bases": ()}])
def test_networks_need_folds_and_a_basis(bad: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match="two folds"):
        replace(SHORT, **bad)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_is_named(world: World) -> None:
    dark = [replace(task, train=torch.full_like(task.train, torch.nan)) for task in world.features]
    broken = replace(world, features=dark)
    with pytest.raises(TrainingError, match="conditional mean diverged"):
        broken.fit(SHORT)


def test_the_mean_is_restored_to_the_same_bytes_and_leads_seen_tasks_to_their_own(world: World) -> None:
    mean = mean_of(world, world.fit(SHORT))
    again = ConditionalMean.from_state(mean.config, mean.tensors, world.encoder.sizes, world.codec, world.backbone)
    asked = torch.cat([mean.seen[:3], mean.seen[3:6] + 3.0])
    assert torch.equal(again(asked), mean(asked))
    assert torch.allclose(mean(mean.seen)[:4], mean.adapters[:4], atol=0.05 * float(mean.adapters.std()) + 0.02)
    far = mean.seen[3:6] + torch.where(torch.arange(mean.seen.shape[1]) < mean.seen.shape[1] - 2, 3.0, 0.0)
    assert torch.allclose(mean(far), mean.smooth(far), atol=1e-4)
    loose = replace(mean, anchor=0.0)
    assert torch.equal(loose(mean.seen), mean.smooth(mean.seen))


def test_hidden_parts_are_read_by_nothing_so_that_seen_tasks_are_theirs_however_they_are_described(
    world: World,
) -> None:
    mean = mean_of(world, world.fit(SHORT))
    tasks = list(toys.ToySuite().tasks("seen"))[:4]
    for hidden in world.encoder.parts:
        told = [replace(task.description, **{hidden: None}) for task in tasks]
        asked = torch.stack([world.encoder.encode(entry).values for entry in told])
        code = int(mean.kernel.code(asked)[0])
        assert torch.equal(mean.kernel.with_parts(code)[:4], asked)
        assert torch.allclose(mean(mean.kernel.with_parts(code))[:4], mean(asked), atol=1e-6)
    nothing = mean(world.encoder.null[None])
    assert torch.allclose(mean(mean.kernel.with_parts(0)), nothing.expand(len(mean.seen), -1), atol=1e-6)


def test_without_a_part_there_are_its_networks_on_the_regression_of_the_rest(world: World) -> None:
    mean = mean_of(world, world.fit(SHORT))
    asked = mean.seen[:4] + 0.3
    assert mean.folds == 3
    for fold in range(mean.folds):
        kept = mean.fold != fold
        left = mean.without(fold)
        assert torch.equal(left.seen, mean.seen[kept])
        first, second = (member.network.normalized(asked) for member in mean.members if member.fold == fold)
        expected = (world.kernel.without(~kept).smooth(asked) + first + second) / 2
        assert torch.allclose(left.smooth(asked), expected, atol=1e-5)


def test_networks_of_one_basis_can_be_asked_for(world: World) -> None:
    fitted = world.fit(replace(SHORT, bases=("nothing",)))
    assert {member.basis for member in fitted.members} == {"nothing"}
    mean = mean_of(world, fitted)
    said = torch.stack([member.network.normalized(mean.seen) for member in mean.members]).mean(0)
    assert torch.allclose(mean.smooth(mean.seen), said, atol=1e-6)


NAMES = tuple(f"task-{number}" for number in range(20))


class Shift:
    """A ``TaskProblem`` with a known answer: one number that half of the tasks want at 1 and half at ``other``."""

    def __init__(self, other: float) -> None:
        self.wanted = torch.tensor([1.0, other] * 10)

    def network(self, tasks: object) -> torch.nn.Linear:
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(network.weight)
        return network

    def groups(self, network: torch.nn.Linear) -> list[dict[str, object]]:
        return [{"params": list(network.parameters()), "lr": 0.05, "weight_decay": 0.0}]

    def loss(self, network: torch.nn.Linear, tasks: Tensor, draws: torch.Generator) -> Tensor:
        return (network(torch.ones(len(tasks), 1))[:, 0] - self.wanted[tasks]).square().mean()

    def held_out_loss(self, network: torch.nn.Linear, tasks: Tensor) -> Tensor:
        return (network(torch.ones(len(tasks), 1))[:, 0] - 0.5).square().mean()


def test_a_member_keeps_the_weights_of_its_best_look_and_not_the_last() -> None:
    config = NetworkTraining(steps=200, tasks=8, look_every=2, patience=50, averaging=0.0)
    fitted = fit_ensemble([Shift(1.0)], NAMES, 2, config, 0, "shift")  # type: ignore[arg-type]
    for network, steps in zip(fitted.networks, fitted.steps, strict=True):
        assert abs(float(network.weight) - 0.5) < 0.06
        assert steps < 200
    # Three looks, two updates apart, at each of which the loss is higher than before, end a training.
    assert len(fitted.losses) == sum(fitted.steps) + 2 * 6


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([1.0, 0.5, 0.6, 0.7, 0.8], True),
        ([1.0, 0.5, 0.51, 0.52, 0.53], False),  # higher each time, but hardly
        ([1.0, 0.5, 0.8, 0.7, 0.8], False),  # up and down
        ([1.0, 0.5, 0.51, 0.5, 0.52, 0.51, 0.52], True),  # nothing lower for five looks
        ([0.5], False),
        ([0.5, 0.6, 0.7], False),
    ],
)
def test_a_training_ends_where_the_held_out_loss_has_turned_or_falls_no_more(losses: list[float], over: bool) -> None:
    assert is_over(losses, patience=5) is over
    assert is_over([0.0, 1.0, 2.0, 3.0], patience=5)
    assert not is_over([3.0, 2.0, 1.0, -1.0], patience=5)


def test_the_first_evaluations_are_closer_together() -> None:
    assert NetworkTraining(steps=60, look_every=25).evaluation_steps == (0, 3, 6, 12, 25, 50)
    assert NetworkTraining(steps=5, look_every=25).evaluation_steps == (0, 3)
    assert NetworkTraining(steps=3, look_every=1).evaluation_steps == (0, 1, 2, 3)


def test_tensors_that_fine_tuning_leaves_alone_have_no_gradient_to_compute(world: World) -> None:
    layout = world.codec.layout
    batch = TaskImages(tuple(world.features), 0).fixed(torch.arange(3), 4)
    vectors = world.kernel.targets[:3].clone().requires_grad_()
    still = layout.names[0]
    grads = []
    for constant in ((), (still,)):
        losses = task_losses(world.backbone, world.codec, vectors, batch, constant)
        grads.append(layout.unflatten(torch.autograd.grad(losses.sum(), vectors)[0]))
    assert bool(grads[0][still].any())
    assert not bool(grads[1][still].any())
    for name in layout.names[1:]:
        assert torch.allclose(grads[0][name], grads[1][name], atol=1e-6)


def test_every_problem_is_trained_without_every_part() -> None:
    config = NetworkTraining(steps=100, tasks=8, look_every=5, patience=50, averaging=0.0)
    low = Shift(-9.0)
    low.held_out_loss = lambda network, tasks: (network(torch.ones(1, 1))[0, 0] + 2).square()  # type: ignore
    fitted = fit_ensemble([Shift(1.0), low], NAMES, 2, config, 0, "shift")  # type: ignore[list-item]
    found = [float(network.weight) for network in fitted.networks]
    assert [abs(value + 2) < 0.3 for value in found] == [False, True, False, True]
    some = fit_ensemble([Shift(1.0), low], NAMES, 2, config, 0, "shift", 1)  # type: ignore[list-item]
    assert [float(network.weight) for network in some.networks] == found[:2]
    assert sorted(set(some.fold.tolist())) == [-1, 0]


def test_folds_part_the_tasks_by_name_and_seed_and_further_tasks_change_nobodys() -> None:
    names = [f"task-{number}" for number in range(200)]
    fold = folds(names, 4, 3, "x")
    assert int(torch.bincount(fold, minlength=4).min()) >= 25
    assert torch.equal(folds(names[::-1], 4, 3, "x"), fold.flip(0))
    assert torch.equal(folds([*names, *(f"new-{number}" for number in range(50))], 4, 3, "x")[:200], fold)
    assert not torch.equal(fold, folds(names, 4, 4, "x"))


@pytest.mark.parametrize("count", [2, 5, 7, 12])
def test_few_tasks_are_dealt_out_so_that_no_part_is_empty(count: int) -> None:
    fold = folds([f"task-{number}" for number in range(count)], min(4, count), 0, "x")
    assert int(torch.bincount(fold, minlength=min(4, count)).min()) >= 1


def test_images_are_drawn_with_their_labels(world: World) -> None:
    batch = TaskImages(tuple(world.features), 0).draw(torch.tensor([0, 2]), 5, torch.Generator().manual_seed(0))
    assert isinstance(batch, ImageBatch)
    assert batch.labels.shape == (2, 5)
    for place, task in enumerate((0, 2)):
        own = world.features[task]
        for image, label in zip(batch.inputs[place], batch.labels[place], strict=True):
            rows = (own.train == image).flatten(1).all(1)
            assert label in own.train_labels[rows]
