from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from planted_priors import UNSEEN, accuracy, planted, with_seed

import toys
from refusals import refused
from wildbench.methods.column_merge import ColumnMergeConfig, ColumnMergeNetwork, ColumnMergeSource, Columns, bank_of
from wildpdiff.adapters.layout import Layout
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.conditional_mean.training import NetworkTraining
from wildpdiff.errors import DataError, DescriptionError, TrainingError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description

Factors = Literal["softmax", "affine"]
FACTORS: tuple[Factors, ...] = ("softmax", "affine")
TRAINING = NetworkTraining(steps=60, tasks=6, warmup=5, evaluate_every=12, averaging=0.9)
CONFIG = ColumnMergeConfig(TRAINING, bank=6, hidden=16, learning_rate=2e-2, images=8)
SHORT = replace(CONFIG, training=replace(TRAINING, steps=4, evaluate_every=4))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> SeenTasks:
    return planted(tmp_path_factory.mktemp("column merge") / "zoo")


@pytest.fixture(scope="module")
def columns() -> Columns:
    return Columns.of(Layout.of(toys.random_tensors(toys.backbone(), 0)))


def network(columns: Columns, factors: Factors = "softmax", members: int = 4, scale: float = 1.0) -> ColumnMergeNetwork:
    """A network of random weights over random adapters of the tasks 10, 11, …"""
    draws = torch_generator(3, "column merge")
    bank = torch.randn(members, columns.layout.size, generator=draws)
    reads = torch.ones(5, 3, dtype=torch.bool)
    made = ColumnMergeNetwork(
        columns, bank, 10 + torch.arange(members), reads=reads, config=ColumnMergeConfig(factors=factors)
    )
    for parameter in made.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=draws)
    return made


def slow_merge(columns: Columns, factors: torch.Tensor, bank: torch.Tensor) -> dict[str, torch.Tensor]:
    """Value by value: the number of its module's first column, plus its index along the axis of the columns."""
    members = [columns.layout.unflatten(row) for row in bank]
    merged = {name: torch.zeros(len(factors), *shape) for name, shape in columns.layout.entries}
    for (name, shape), (_, first) in zip(columns.layout.entries, columns.offsets, strict=True):
        for index in torch.cartesian_prod(*(torch.arange(size) for size in shape)).reshape(-1, len(shape)).tolist():
            column = first + index[1 if ".lora_B." in name else 0]
            for task in range(len(factors)):
                merged[name][(task, *index)] = sum(
                    float(factors[task, k, column] * members[k][name][tuple(index)]) for k in range(len(bank))
                )
    return merged


def test_a_column_is_a_component_of_a_layer_or_an_output_of_the_classifier(columns: Columns) -> None:
    # Rank 2 in three layers, and three classes.
    assert columns.count == 3 * 2 + 3
    offsets = {name: offset for (name, _), offset in zip(columns.layout.entries, columns.offsets, strict=True)}
    prefix = "base_model.model."
    for module in ("conv3", "conv1", "body"):
        (axis_a, first_a), (axis_b, first_b) = (offsets[f"{prefix}{module}.lora_{x}.weight"] for x in "AB")
        assert (axis_a, axis_b) == (0, 1)
        assert first_a == first_b
    assert offsets[f"{prefix}classifier.weight"] == offsets[f"{prefix}classifier.bias"]
    firsts = {first for _, first in columns.offsets}
    assert len(firsts) == 4


def test_merging_is_the_sum_over_the_bank_column_by_column(columns: Columns) -> None:
    draws = torch_generator(1, "merge")
    bank = torch.randn(3, columns.layout.size, generator=draws)
    factors = torch.randn(2, 3, columns.count, generator=draws)
    found, expected = columns.merge(factors, bank), slow_merge(columns, factors, bank)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", FACTORS)
def test_a_task_is_merged_without_its_own_adapter(columns: Columns, kind: Factors) -> None:
    made = network(columns, kind)
    cond = torch.randn(3, 3, generator=torch_generator(2, "cond"))
    tasks = torch.tensor([11, 13, 99])
    before = made(cond, tasks)
    made.bank[1] += 100.0  # the adapter of task 11
    after = made(cond, tasks)
    for name in before:
        torch.testing.assert_close(before[name][0], after[name][0])
        assert not torch.allclose(before[name][1], after[name][1])
        assert not torch.allclose(before[name][2], after[name][2])


@pytest.mark.parametrize("kind", FACTORS)
def test_factors_sum_to_one_and_are_zero_for_those_left_out(columns: Columns, kind: Factors) -> None:
    made = network(columns, kind)
    excluded = torch.tensor([[False, True, False, False], [False, False, False, False]])
    factors = made.factors(torch.randn(2, 3, generator=torch_generator(2, "cond")), excluded)
    torch.testing.assert_close(factors.sum(1), torch.ones(2, columns.count))
    assert bool((factors[0, 1] == 0).all())
    assert bool((factors < 0).any()) is (kind == "affine")


@pytest.mark.parametrize("kind", FACTORS)
def test_at_first_all_of_the_bank_count_alike(columns: Columns, kind: Factors) -> None:
    made = network(columns, kind, scale=0.0)
    mean = columns.layout.unflatten(made.bank.mean(0))
    for name, value in made(torch.ones(1, 3)).items():
        torch.testing.assert_close(value[0], mean[name])


def test_the_bank_has_one_task_of_every_cluster() -> None:
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    offsets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    embeddings = (centres[:, None] + offsets).flatten(0, 1)
    assert bank_of(embeddings, 3).tolist() == [1, 5, 9]
    assert bank_of(embeddings, 12).tolist() == bank_of(embeddings, 99).tolist() == list(range(12))
    assert len(set(bank_of(torch.zeros(5, 2), 3).tolist())) == 3


@pytest.mark.parametrize("kind", FACTORS)
def test_it_learns_from_the_description(seen: SeenTasks, kind: Factors) -> None:
    source = ColumnMergeSource(seen, replace(CONFIG, factors=kind))
    assert accuracy(seen, source) > max(0.8, accuracy(seen, MeanSource(seen.adapters)) + 0.1)
    losses, held_out = source.fit.losses, source.fit.held_out_losses
    assert len(losses) == source.fit.steps == TRAINING.evaluation_steps[int(held_out.argmin())] > 0
    assert held_out.min() < 0.9 * held_out[0]


def test_provenance_names_the_bank(seen: SeenTasks) -> None:
    provenance: dict[str, Any] = dict(ColumnMergeSource(seen, SHORT).sample(UNSEEN[0].description, 1, 0)[0].provenance)
    assert len(set(provenance["merged_tasks"])) == SHORT.bank
    assert set(provenance["merged_tasks"]) <= set(seen.zoo.tasks)


def test_the_seed_decides_the_bytes(seen: SeenTasks) -> None:
    first, again, other = (
        safetensors_bytes(
            ColumnMergeSource(with_seed(seen, seed), SHORT).sample(UNSEEN[0].description, 1, 0)[0].tensors
        )
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_bad_input_is_refused(seen: SeenTasks) -> None:
    one = replace(seen, zoo=seen.zoo.only(seen.zoo.tasks[:1]), descriptions=seen.descriptions[:1])
    with refused(DataError, 1):
        ColumnMergeSource(one, SHORT)
    with refused(TrainingError, 1):
        replace(SHORT, bank=1)
    with refused(TrainingError, "column-wise merge"):
        ColumnMergeSource(seen, replace(CONFIG, learning_rate=1e25))
    with refused(DescriptionError):
        ColumnMergeSource(seen, SHORT).sample(Description(), 1, 0)
