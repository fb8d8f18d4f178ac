from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor

from refusals import refused
from wildbench.methods import checkpoints
from wildbench.methods.checkpoints import (
    CheckpointAverageSource,
    CheckpointNoiseSource,
    GaussianSource,
    pool_statistics,
)
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.disk import file_hash, json_bytes, write_file
from wildpdiff.errors import DataError
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.finetune import FinetuneRun
from wildpdiff.zoo.store import INITIAL, PLAN, Zoo, ZooPlan, write_index, write_shard

NAMES = ("t0", "t1", "t2")
STEPS = (5, 6, 7, 8)
SHAPES = {"wide": (60, 50), "bias": (40,), "frozen": (30, 20)}
SPREADS = {"wide": 0.5, "bias": 3.0, "frozen": 0.0}
NOWHERE = Description(task_id="unseen-3")


def planted_zoo(folder: Path) -> Zoo:
    """Three tasks of four checkpoints, written as a build writes them; ``frozen`` is the same in all of them."""
    draws = torch_generator(0, "planted zoo")
    initial = {name: torch.randn(shape, generator=draws) for name, shape in SHAPES.items()}
    tensors = {
        name: value + SPREADS[name] * torch.randn(len(NAMES), len(STEPS), *value.shape, generator=draws)
        for name, value in initial.items()
    }
    config = AdapterConfig("toy", "0" * 64, ("a", "b"), 1, 1.0, (), ())
    plan = ZooPlan(config, "planted", NAMES, 2, {}, 0)
    write_file(folder / PLAN, json_bytes(plan.to_json()))
    write_file(folder / INITIAL, safetensors_bytes(initial))
    for number, group in enumerate((slice(0, 2), slice(2, 3))):
        part = {name: value[group] for name, value in tensors.items()}
        scores = torch.zeros(len(NAMES[group]), len(STEPS))
        write_shard(folder, number, FinetuneRun(NAMES[group], STEPS, part, scores, scores), 0)
    write_index(folder, 2)
    return Zoo.open(folder)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return planted_zoo(tmp_path_factory.mktemp("planted") / "zoo")


def pool(zoo: Zoo) -> Mapping[str, Tensor]:
    return zoo.tensors(range(len(zoo)))


def noise_of(zoo: Zoo, sample: Adapter) -> dict[str, Tensor]:
    """Noise added to the checkpoint that the provenance names."""
    keys = list(zip(zoo.column("task"), zoo.column("step"), strict=True))
    row = keys.index((sample.provenance["checkpoint_task"], sample.provenance["checkpoint_step"]))
    return {name: sample.tensors[name] - value[0] for name, value in zoo.tensors([row]).items()}


def assert_normal(values: Tensor, std: float) -> None:
    """Mean 0 and the given standard deviation, both within five standard errors."""
    count = values.numel()
    assert abs(float(values.mean())) < 5 * std / count**0.5
    assert float(values.std()) == pytest.approx(std, abs=5 * std / (2 * count) ** 0.5)


def test_statistics_are_those_of_the_stacked_pool(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHUNK", 5)
    found = pool_statistics(zoo)
    for name, value in pool(zoo).items():
        values = value.double().numpy()
        assert found.mean[name].numpy() == pytest.approx(values.mean(0), abs=1e-6)
        assert found.std[name].numpy() == pytest.approx(values.std(0), abs=1e-6)
        assert found.spread[name] == pytest.approx(values.std(), rel=1e-9)
    assert found.trained == {"wide", "bias"}
    assert float(found.std["frozen"].max()) == 0.0


@pytest.mark.parametrize("scale", [0.06, 0.12])
def test_absolute_noise_has_the_standard_deviation_that_was_requested(zoo: Zoo, scale: float) -> None:
    samples = CheckpointNoiseSource(zoo, scale, relative=False).sample(NOWHERE, 4, seed=1)
    added = [noise_of(zoo, sample) for sample in samples]
    for name in ("wide", "bias"):
        assert_normal(torch.stack([entry[name] for entry in added]), scale)


@pytest.mark.parametrize("scale", [0.05, 0.15])
def test_relative_noise_is_a_share_of_each_tensors_spread(zoo: Zoo, scale: float) -> None:
    samples = CheckpointNoiseSource(zoo, scale, relative=True).sample(NOWHERE, 4, seed=1)
    added = [noise_of(zoo, sample) for sample in samples]
    for name in ("wide", "bias"):
        spread = float(np.std(pool(zoo)[name].double().numpy()))
        assert_normal(torch.stack([entry[name] for entry in added]), scale * spread)


def test_what_fine_tuning_never_changed_gets_no_noise(zoo: Zoo) -> None:
    frozen = zoo.initial.tensors["frozen"]
    for relative in (False, True):
        sample = CheckpointNoiseSource(zoo, 0.12, relative).sample(NOWHERE, 1, 0)[0]
        assert torch.equal(sample.tensors["frozen"], frozen)


def test_a_seen_task_gets_its_own_checkpoints_and_an_unseen_one_those_of_all(zoo: Zoo) -> None:
    source = CheckpointNoiseSource(zoo, 0.06, relative=False)
    own = source.sample(Description(task_id="t1"), 60, seed=0)
    assert {sample.provenance["checkpoint_task"] for sample in own} == {"t1"}
    assert {sample.provenance["checkpoint_step"] for sample in own} == set(STEPS)
    for query in (NOWHERE, Description()):
        drawn = {sample.provenance["checkpoint_task"] for sample in source.sample(query, 60, seed=0)}
        assert drawn == set(NAMES)


def test_no_noise_and_an_average_of_one_give_checkpoints(zoo: Zoo) -> None:
    sample = CheckpointNoiseSource(zoo, 0.0, relative=False).sample(NOWHERE, 1, 0)[0]
    assert all(float(value.abs().max()) == 0.0 for value in noise_of(zoo, sample).values())
    one = CheckpointAverageSource(zoo, count=1).sample(NOWHERE, 1, 0)[0].tensors["wide"]
    assert any(torch.equal(one, checkpoint) for checkpoint in pool(zoo)["wide"])


def test_averages_have_the_pools_mean_and_a_quarter_of_its_spread(zoo: Zoo) -> None:
    samples = CheckpointAverageSource(zoo, count=16).sample(NOWHERE, 200, seed=0)
    drawn = torch.stack([sample.tensors["wide"] for sample in samples]).double()
    known = pool_statistics(zoo)
    away = (drawn - known.mean["wide"]).flatten(1) / (known.std["wide"].flatten() / 4)
    # All coordinates of a sample share its checkpoints: 11 degrees of freedom a sample, not 3,000.
    assert float(away.square().mean()) == pytest.approx(1.0, abs=5 * (2 / (11 * 200)) ** 0.5)
    assert float(away.mean(0).abs().max()) < 6 / 200**0.5


def test_averaging_leaves_the_pool_as_it_was(zoo: Zoo) -> None:
    files = sorted(path for path in zoo.folder.rglob("*") if path.is_file())
    before, hashes = {name: value.clone() for name, value in pool(zoo).items()}, [file_hash(path) for path in files]
    source = CheckpointAverageSource(zoo)
    for sample in source.sample(NOWHERE, 5, seed=0):
        for value in sample.tensors.values():
            value.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in pool(zoo).items())
    assert [file_hash(path) for path in files] == hashes


def test_the_gaussian_has_the_pools_moments_and_no_correlation(zoo: Zoo) -> None:
    known = pool_statistics(zoo)
    samples = GaussianSource(zoo, known).sample(NOWHERE, 300, seed=0)
    drawn = torch.stack([sample.tensors["wide"].flatten() for sample in samples]).double()
    standard = (drawn - known.mean["wide"].flatten()) / known.std["wide"].flatten()
    assert_normal(standard, 1.0)
    assert float(standard.mean(0).abs().max()) < 6 / 300**0.5
    assert float((standard.std(0) - 1).abs().max()) < 6 / 600**0.5
    # In the pool neighbouring coordinates of a dozen checkpoints correlate by chance; independent draws do not.
    neighbours = (standard[:, 1:] * standard[:, :-1]).mean(0)
    assert float(neighbours.abs().max()) < 6 / 300**0.5
    assert torch.equal(samples[0].tensors["frozen"], zoo.initial.tensors["frozen"])


def test_a_sample_does_not_depend_on_how_many_are_drawn(zoo: Zoo) -> None:
    sources = (CheckpointNoiseSource(zoo, 0.06, False), CheckpointAverageSource(zoo), GaussianSource(zoo))
    for source in sources:
        few, many = source.sample(NOWHERE, 2, seed=5), source.sample(NOWHERE, 4, seed=5)
        assert few[1].distance(many[1]) == 0.0
        assert [sample.provenance["sample"] for sample in many] == [0, 1, 2, 3]


def test_names_are_those_of_the_table(zoo: Zoo) -> None:
    known = pool_statistics(zoo)
    found = [CheckpointNoiseSource(zoo, scale, False, known).name for scale in (0.06, 0.12, 1.5, 0.0)]
    found += [CheckpointNoiseSource(zoo, scale, True, known).name for scale in (0.05, 0.15)]
    assert found == [
        "checkpoint + noise .06",
        "checkpoint + noise .12",
        "checkpoint + noise 1.5",
        "checkpoint + noise 0",
        "checkpoint + relative noise .05",
        "checkpoint + relative noise .15",
    ]
    assert CheckpointAverageSource(zoo).name == "average of 16 checkpoints"


def test_refusals(zoo: Zoo) -> None:
    for scale in (-0.1, float("nan"), float("inf")):
        with refused(DataError, scale):
            CheckpointNoiseSource(zoo, scale, relative=False)
    with refused(DataError, 0):
        CheckpointAverageSource(zoo, count=0)


def test_a_part_of_the_zoo_is_a_pool_of_its_own(zoo: Zoo) -> None:
    part = zoo.only(["t1", "t2"])
    assert parquet.read_table(zoo.folder / "index.parquet").num_rows == 12
    drawn = CheckpointNoiseSource(part, 0.06, relative=False).sample(Description(task_id="t0"), 40, seed=0)
    assert {sample.provenance["checkpoint_task"] for sample in drawn} == {"t1", "t2"}
    values = zoo.tensors(range(4, 12))["bias"].double().numpy()
    assert pool_statistics(part).mean["bias"].numpy() == pytest.approx(values.mean(0), abs=1e-6)
