"""Engines: the same results in the same order, whatever runs them and whatever dies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.engine import Engine, Job, ProcessEngine, RayEngine, SerialEngine
from wildpdiff.errors import DataError, TrainingError
from wildpdiff.tasks.task import LabelledImages, SplitName
from wildpdiff.zoo.build import build_zoo


def product() -> Job:
    """A large matrix product, whose order of summation depends on the number of threads."""

    def multiply(seed: int, tick: Callable[[float], None]) -> Tensor:  # nested, so that it travels by value
        import torch

        from wildpdiff.errors import DataError

        if seed < 0:
            raise DataError(f"There is no item {seed}.")
        draws = torch.Generator().manual_seed(seed)
        tick(0.5)
        return torch.randn(200, 300, generator=draws) @ torch.randn(300, 50, generator=draws)

    return multiply


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[RayEngine]:
    ray = pytest.importorskip("ray")
    yield RayEngine("local", workers=2)
    ray.shutdown()


@pytest.fixture(params=["serial", "processes", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "ray":
        found: Engine = request.getfixturevalue("ray_engine")
        return found
    return SerialEngine() if request.param == "serial" else ProcessEngine()


def test_results_come_in_order_and_equal_to_the_byte(engine: Engine) -> None:
    torch.set_num_threads(2)
    shares: list[float] = []
    found = list(engine.map(product(), list(range(7)), shares.append))
    expected = list(SerialEngine().map(product(), list(range(7))))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_an_error_of_a_job_is_raised_as_it_is(engine: Engine) -> None:
    with refused(DataError, "-1"):
        list(engine.map(product(), [1, -1, 3]))


def test_no_items_give_no_results(engine: Engine) -> None:
    assert list(engine.map(product(), [])) == []


class DyingTask(toys.ToyTask):
    """A task whose data kills the process that reads them, the first time."""

    marker: Path

    def data(self, split: SplitName) -> LabelledImages:
        import os
        import signal

        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().data(split)


def test_a_zoo_on_ray_with_a_killed_worker_is_the_serial_zoo(
    ray_engine: RayEngine, toy_backbone: Backbone, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(toys)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    tasks = [toys.ToyTask(f"task-{level}", float(level)) for level in (60, 80, 100, 120)]
    dying = DyingTask("task-120", 120.0)
    object.__setattr__(dying, "marker", tmp_path / "killed")
    folders = {}
    for name, engine, chosen in (("serial", SerialEngine(), tasks), ("ray", ray_engine, [*tasks[:3], dying])):
        folders[name] = tmp_path / name
        build_zoo(folders[name], toy_backbone, chosen, "suite", config=toys.FINETUNE, per_shard=1, engine=engine)
    assert (tmp_path / "killed").exists()
    serial = {path.relative_to(folders["serial"]): path.read_bytes() for path in folders["serial"].rglob("*.*")}
    assert len(serial) > 8
    assert serial == {path.relative_to(folders["ray"]): path.read_bytes() for path in folders["ray"].rglob("*.*")}


def test_an_address_without_a_cluster_is_named(ray_engine: RayEngine) -> None:
    import ray

    ray.shutdown()
    with refused(TrainingError, "127.0.0.1:1"):
        list(RayEngine("127.0.0.1:1").map(product(), [1]))
