from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import toys
from refusals import refused
from wildpdiff.adapters.layout import Layout
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.codec.codec import Codec
from wildpdiff.conditional_mean.correction import HypernetworkEnsemble, TaskLossConfig, fit_hypernetworks, task_losses
from wildpdiff.conditional_mean.encoding import EncodedTasks
from wildpdiff.conditional_mean.kernel import KernelMean, fit_kernel_mean
from wildpdiff.conditional_mean.mean import NETWORKS, Blend, ConditionalMean
from wildpdiff.conditional_mean.network import DescriptionNetwork, moved_values
from wildpdiff.conditional_mean.simple import fit_simple_estimators
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.conditional_mean.training import NetworkTraining, fit_ensemble, folds
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.errors import TrainingError
from wildpdiff.zoo.features import TaskFeatures, task_features
from wildpdiff.zoo.store import Zoo

SHORT = TaskLossConfig(steps=30, tasks=6, images=8, folds=3, hidden=12, directions=4, evaluate_every=10)


def mean_of(world: World, correction: HypernetworkEnsemble) -> ConditionalMean:
    """The conditional mean that blends all families of networks alike."""
    kernel = world.kernel
    simple = fit_simple_estimators(
        world.encoder.sizes, torch.zeros(world.encoded.codec.size), kernel.seen, kernel.targets
    )
    names = tuple(NETWORKS[basis] for basis in correction.held_out)
    blend = Blend(names, (1.0 / len(names),) * len(names))
    held_out = torch.stack(list(correction.held_out.values())).mean(0)
    blends = (blend,) * (1 + int(correction.fold.max()))
    return ConditionalMean(kernel, simple, correction.members, blend, blends, held_out, correction.fold)


@dataclass(frozen=True)
class World:
    """The toy zoo's tasks three times over, so that there are enough of them to hold a part out."""

    kernel: KernelMean
    encoded: EncodedTasks
    features: list[TaskFeatures]

    @property
    def encoder(self) -> FusionEncoder:
        return self.encoded.conditions

    def fit(self, config: TaskLossConfig, seed: int = 0, with_images: bool = True) -> HypernetworkEnsemble:
        by_name = {task.name: task for task in self.features}
        encoded = replace(self.encoded, features=by_name.__getitem__ if with_images else None, tasks=tuple(by_name))
        return fit_hypernetworks(encoded, self.kernel, config, seed=seed)


@pytest.fixture(scope="module")
def world(toy_backbone: Backbone, toy_zoo: Zoo) -> World:
    suite = toys.ToySuite()
    stacked = toy_zoo.tensors(range(len(toy_zoo)))
    layout = Layout.of({name: value[0] for name, value in stacked.items()})
    raw = layout.flatten_many(stacked)
    codec = Codec.fit(layout, raw, "tensor")
    tasks = [task for task in suite.tasks("seen") if task.name in toy_zoo.tasks] * 3
    described = [task.description for task in tasks]
    encoder = fit_fusion(described, suite.metadata_schema, toy_backbone.image_features, components=2)
    own = torch.stack([codec.encode(raw[toy_zoo.rows_of(task.name)]).mean(0) for task in tasks])
    embeddings = torch.stack([encoder.encode(entry).values for entry in described])
    kernel = fit_kernel_mean(encoder, embeddings, own)
    kernel = kernel if kernel.terms else replace(kernel, terms=fit_kernel_mean(encoder, embeddings, embeddings).terms)
    features = [
        replace(task_features(toy_backbone, task, 8), name=f"{task.name}-{row}") for row, task in enumerate(tasks)
    ]
    initial = layout.flatten(toy_zoo.initial.tensors)
    encoded = EncodedTasks(
        backbone=toy_backbone,
        features=None,
        tasks=(),
        conditions=encoder,
        embeddings=embeddings,
        sampler=encoder.sampler(described),
        codec=codec,
        normalized=own,
        task_of=torch.arange(len(tasks)),
        moved=moved_values(raw, initial, layout.sizes),
        start=codec.encode(initial[None])[0],
        centering=None,
    )
    return World(kernel, encoded, features)


def test_it_is_a_function_of_the_seed_and_of_nothing_else(world: World) -> None:
    short = replace(SHORT, steps=10)
    first, second, other = world.fit(short, 1), world.fit(short, 1), world.fit(short, 2)
    assert [(member.basis, member.fold) for member in first.members] == [
        (basis, fold) for fold in range(3) for basis in ("regression", "nothing")
    ]
    assert all(torch.equal(first.held_out[basis], second.held_out[basis]) for basis in SHORT.bases)
    assert torch.equal(first.losses, second.losses)
    assert not torch.equal(first.losses, other.losses)


def test_it_only_moves_what_fine_tuning_moves(world: World) -> None:
    still = torch.arange(world.encoded.codec.size) < 10
    fitted = replace(world, encoded=replace(world.encoded, moved=~still)).fit(SHORT)
    predicted = torch.stack([member.network.normalized(world.kernel.seen) for member in fitted.members])
    assert bool((predicted[..., still] == 0).all())
    assert bool((predicted[..., ~still] != 0).any())


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_hidden_units_start_as_sharp_as_configured(sharpness: float) -> None:
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
    with refused(TrainingError, bad.get("folds", 0)):
        replace(SHORT, **bad)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_is_named(world: World) -> None:
    dark = [
        replace(task, train={**task.train, toys.KEPT: torch.full_like(task.train[toys.KEPT], torch.nan)})
        for task in world.features
    ]
    broken = replace(world, features=dark)
    with refused(TrainingError, "conditional mean", "step 1"):
        broken.fit(SHORT)


def test_the_mean_is_restored_to_the_same_bytes_and_leads_seen_tasks_to_their_own(world: World) -> None:
    mean = mean_of(world, world.fit(SHORT))
    again = ConditionalMean.from_state(
        mean.config, mean.tensors, world.encoder.sizes, codec=world.encoded.codec, backbone=world.encoded.backbone
    )
    query = torch.cat([mean.seen[:3], mean.seen[3:6] + 3.0])
    assert torch.equal(again(query), mean(query))
    assert torch.allclose(mean(mean.seen)[:4], mean.adapters[:4], atol=0.05 * float(mean.adapters.std()) + 0.02)
    far = mean.seen[3:6] + torch.where(torch.arange(mean.seen.shape[1]) < mean.seen.shape[1] - 2, 3.0, 0.0)
    assert torch.allclose(mean(far), mean.predict(far), atol=1e-4)
    loose = replace(mean, anchor=0.0)
    assert torch.equal(loose(mean.seen), mean.predict(mean.seen))


def test_hidden_parts_are_read_by_nothing_so_that_seen_tasks_are_theirs_however_they_are_described(
    world: World,
) -> None:
    mean = mean_of(world, world.fit(SHORT))
    tasks = list(toys.ToySuite().tasks("seen"))[:4]
    for hidden in world.encoder.parts:
        described = [replace(task.description, **{hidden: None}) for task in tasks]
        query = torch.stack([world.encoder.encode(entry).values for entry in described])
        mask = int(mean.kernel.presence_masks(query)[0])
        assert torch.equal(mean.kernel.masked_embeddings(mask)[:4], query)
        assert torch.allclose(mean(mean.kernel.masked_embeddings(mask))[:4], mean(query), atol=1e-6)
    nothing = mean(world.encoder.null[None])
    assert torch.allclose(mean(mean.kernel.masked_embeddings(0)), nothing.expand(len(mean.seen), -1), atol=1e-6)


def test_without_a_part_there_are_its_networks_on_the_regression_of_the_rest(world: World) -> None:
    mean = mean_of(world, world.fit(SHORT))
    query = mean.seen[:4] + 0.3
    assert mean.folds == 3
    for fold in range(mean.folds):
        kept = mean.fold != fold
        left = mean.without(fold)
        assert torch.equal(left.seen, mean.seen[kept])
        first, second = (member.network.normalized(query) for member in mean.members if member.fold == fold)
        expected = (world.kernel.without(~kept).predict(query) + first + second) / 2
        assert torch.allclose(left.predict(query), expected, atol=1e-5)


def test_networks_of_one_basis_can_be_trained(world: World) -> None:
    fitted = world.fit(replace(SHORT, bases=("nothing",)))
    assert {member.basis for member in fitted.members} == {"nothing"}
    mean = mean_of(world, fitted)
    predicted = torch.stack([member.network.normalized(mean.seen) for member in mean.members]).mean(0)
    assert torch.allclose(mean.predict(mean.seen), predicted, atol=1e-6)


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


def test_a_member_has_the_weights_of_its_best_evaluation_and_not_the_last() -> None:
    config = NetworkTraining(steps=200, tasks=8, evaluate_every=2, patience=50, averaging=0.0)
    fitted = fit_ensemble([Shift(1.0)], folds(NAMES, 2, 0, "shift"), config, seed=0, what="shift")  # type: ignore[arg-type]
    for network, steps in zip(fitted.networks, fitted.steps, strict=True):
        assert abs(float(network.weight) - 0.5) < 0.06
        assert steps < 200
    # Three evaluations, two updates apart, with a higher loss than before each, end a training.
    assert len(fitted.losses) == sum(fitted.steps) + 2 * 6


def test_the_first_evaluations_are_closer_together() -> None:
    assert NetworkTraining(steps=60, evaluate_every=25).evaluation_steps == (0, 3, 6, 12, 25, 50)
    assert NetworkTraining(steps=5, evaluate_every=25).evaluation_steps == (0, 3)
    assert NetworkTraining(steps=3, evaluate_every=1).evaluation_steps == (0, 1, 2, 3)


def test_tensors_that_fine_tuning_leaves_alone_have_no_gradient_to_compute(world: World) -> None:
    layout = world.encoded.codec.layout
    batch = TaskExamples(tuple(world.features), 0).fixed(torch.arange(3), 4)
    vectors = world.kernel.targets[:3].clone().requires_grad_()
    still = layout.names[0]
    grads = []
    for constant in ((), (still,)):
        losses = task_losses(world.encoded.backbone, world.encoded.codec, vectors, batch=batch, constant=constant)
        grads.append(layout.unflatten(torch.autograd.grad(losses.sum(), vectors)[0]))
    assert bool(grads[0][still].any())
    assert not bool(grads[1][still].any())
    for name in layout.names[1:]:
        assert torch.allclose(grads[0][name], grads[1][name], atol=1e-6)


def test_every_problem_is_trained_without_every_part() -> None:
    config = NetworkTraining(steps=100, tasks=8, evaluate_every=5, patience=50, averaging=0.0)
    low = Shift(-9.0)
    low.held_out_loss = lambda network, tasks: (network(torch.ones(1, 1))[0, 0] + 2).square()  # type: ignore
    fitted = fit_ensemble([Shift(1.0), low], folds(NAMES, 2, 0, "shift"), config, seed=0, what="shift")  # type: ignore[list-item]
    found = [float(network.weight) for network in fitted.networks]
    assert [abs(value + 2) < 0.3 for value in found] == [False, True, False, True]
    fold = torch.where(folds(NAMES, 2, 0, "shift") < 1, 0, -1)
    some = fit_ensemble([Shift(1.0), low], fold, config, seed=0, what="shift")  # type: ignore[list-item]
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
    batch = TaskExamples(tuple(world.features), 0).draw(torch.tensor([0, 2]), 5, torch.Generator().manual_seed(0))
    assert batch["targets"].shape == (2, 5)
    for index, task in enumerate((0, 2)):
        own = world.features[task]
        for image, label in zip(batch[toys.KEPT][index], batch["targets"][index], strict=True):
            rows = (own.train[toys.KEPT] == image).flatten(1).all(1)
            assert label in own.train["targets"][rows]
