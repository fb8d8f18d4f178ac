from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

import toys
from refusals import refused
from wildbench.observers.checkpoint_geometry import CheckpointGeometry, nearest_average_distances
from wildbench.observers.novelty import NoveltyObserver, largest_overlap
from wildbench.observers.verdict import verdict
from wildbench.sections import Memorisation, NoveltyPoint
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import DataError
from wildpdiff.evaluate.run import Method, evaluate
from wildpdiff.evaluate.score import TestSet, test_set
from wildpdiff.rng import torch_generator
from wildpdiff.tasks.batch import take
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.store import Zoo

SUITE = toys.ToySuite()


@cache
def geometry_of(folder: Path) -> CheckpointGeometry:
    return CheckpointGeometry(Zoo.open(folder))


@dataclass(frozen=True)
class Planted:
    """A source whose adapters are made from the stored checkpoints in a known way."""

    name: str
    zoo: Zoo
    make: Callable[[CheckpointGeometry, Description, torch.Generator], Tensor]
    stochastic: bool = True

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        geometry, draws = geometry_of(self.zoo.folder), torch_generator(seed, "planted")
        vectors = [self.make(geometry, description, draws) for _ in range(n)]
        return [Adapter(geometry.layout.unflatten(vector), self.zoo.plan.adapter) for vector in vectors]


def pick(geometry: CheckpointGeometry, draws: torch.Generator, count: int = 1) -> Tensor:
    return geometry.vectors[torch.randint(len(geometry.vectors), (count,), generator=draws)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> Zoo:
    folder: Path = tmp_path_factory.mktemp("unseen") / "zoo"
    return build_zoo(folder, toy_backbone, SUITE.tasks("unseen"), SUITE.fingerprint, config=toys.FINETUNE)


@pytest.fixture(scope="module")
def tests(toy_backbone: Backbone) -> dict[str, list[TestSet]]:
    return {split: [test_set(toy_backbone, task) for task in SUITE.tasks(split)] for split in ("seen", "unseen")}


def measured(
    backbone: Backbone,
    observer: NoveltyObserver,
    tests: dict[str, list[TestSet]],
    *methods: Method,
    seed: int = 0,
) -> Memorisation:
    evaluate("toy", tests, backbone, methods, samples=2, seed=seed, observers=[observer])
    return observer.result()


def slow_overlap(first: Tensor, second: Tensor) -> float:
    mine = {index for index, value in enumerate(first.tolist()) if value}
    theirs = {index for index, value in enumerate(second.tolist()) if value}
    return len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0


def test_overlap_is_intersection_over_union_of_the_most_alike() -> None:
    draws = torch_generator(0, "masks")
    stored = torch.rand(6, 30, generator=draws) < 0.3
    for _ in range(5):
        wrong = torch.rand(30, generator=draws) < 0.3
        assert largest_overlap(wrong, stored) == pytest.approx(max(slow_overlap(wrong, entry) for entry in stored))
    none = torch.zeros(30, dtype=torch.bool)
    assert largest_overlap(none, none[None]) == 1.0
    assert largest_overlap(none, stored) == 0.0


def test_the_nearest_checkpoint_is_that_of_a_search_through_all(toy_zoo: Zoo) -> None:
    geometry = geometry_of(toy_zoo.folder)
    draws = torch_generator(1, "points")
    owners = toy_zoo.column("task")
    for scale in (0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0):
        for without in (None, *toy_zoo.tasks):
            point = pick(geometry, draws)[0]
            point = point + scale * torch.randn(point.shape, generator=draws)
            distances = [
                float(np.linalg.norm(point.double().numpy() - stored.double().numpy())) if task != without else np.inf
                for stored, task in zip(geometry.vectors, owners, strict=True)
            ]
            found = geometry.locate(point, without)
            assert found.row == int(np.argmin(distances))
            assert found.distance == pytest.approx(min(distances), rel=1e-12)


def test_a_tiny_distance_is_not_lost_beside_large_values(toy_zoo: Zoo) -> None:
    geometry = geometry_of(toy_zoo.folder)
    point = geometry.vectors[7].clone()
    assert geometry.locate(point).distance == 0.0
    # One value moved by one unit in its last digit: |x|² − 2xy + |y|² would round this away.
    moved = torch.nextafter(point[3], torch.tensor(torch.inf))
    step = float(moved.double() - point[3].double())
    point[3] = moved
    assert geometry.locate(point).distance == pytest.approx(step, rel=1e-6)


def test_distances_to_averages_and_to_sums_are_those_of_least_squares(toy_zoo: Zoo) -> None:
    geometry = geometry_of(toy_zoo.folder)
    draws = torch_generator(2, "points")
    runs = geometry.runs.numpy()
    between = torch.tensor([0.5, 0.5, 0, 0, 0], dtype=torch.float64) @ geometry.runs
    beyond = torch.tensor([1.5, -0.5, 0, 0, 0], dtype=torch.float64) @ geometry.runs
    noise = torch.randn(3, geometry.runs.shape[1], generator=draws, dtype=torch.float64)
    points = torch.cat([between[None], beyond[None], geometry.runs[:1] + 0.1 * noise, 0.01 * noise[:1]])
    products, squares = points @ geometry.runs.T, points.square().sum(1)
    averages = nearest_average_distances(products, squares, geometry.gram, tolerance=1e-6)
    spans = geometry.span_distances(products, squares)
    for index, point in enumerate(points.numpy()):
        heavy = 1e5
        weights, _ = nnls(np.vstack([runs.T, np.full((1, 5), heavy)]), np.append(point, heavy))
        assert float(averages[index]) == pytest.approx(np.linalg.norm(point - weights @ runs), abs=1e-4)
        solution = np.linalg.lstsq((runs[1:] - runs[0]).T, point - runs[0], rcond=None)[0]
        rest = point - runs[0] - solution @ (runs[1:] - runs[0])
        assert float(spans[index]) == pytest.approx(np.linalg.norm(rest), abs=1e-5)
    assert float(averages[0]) < 1e-4 < float(averages[1])
    assert float(spans[1]) < 1e-5
    assert geometry.directions == 4


def test_within_a_run_is_the_root_mean_square_over_pairs(toy_zoo: Zoo) -> None:
    geometry = geometry_of(toy_zoo.folder)
    squares = []
    for rows in geometry.rows.values():
        points = geometry.vectors[rows].double()
        squares += [
            float((points[i] - points[j]).square().sum()) for i in range(len(rows)) for j in range(len(rows)) if i != j
        ]
    assert geometry.within_run == pytest.approx(np.sqrt(np.mean(squares)))


def test_a_stored_checkpoint_is_a_copy_and_a_fine_tuned_one_of_an_unseen_task_is_not(
    toy_backbone: Backbone, toy_zoo: Zoo, reference: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    means, last = toy_zoo.task_adapters(), {task: max(toy_zoo.rows_of(task)) for task in toy_zoo.tasks}
    stored = {
        task: Adapter({name: value[0] for name, value in toy_zoo.tensors([row]).items()}, toy_zoo.plan.adapter)
        for task, row in last.items()
    }
    finals = {**stored, **reference.task_adapters()}
    observer = NoveltyObserver(toy_backbone, toy_zoo, finetuned=reference.task_adapters())

    def make(geometry: CheckpointGeometry, description: Description, draws: torch.Generator) -> Tensor:
        return geometry.layout.flatten(finals[str(description.task_id)].tensors)

    found = measured(toy_backbone, observer, tests, Method(Planted("own", toy_zoo, make)))
    by_split: dict[str, list[NoveltyPoint]] = {}
    for point in found.points:
        by_split.setdefault(point.split, []).append(point)
    for point in by_split["seen"]:
        assert (point.distance, point.overlap, point.nearest_own) == (0.0, 1.0, True)
        apart = stored[point.task].distance(means[point.task]) / found.unit
        assert point.finetuned_distance == pytest.approx(apart, rel=1e-3)
        assert point.accuracy == point.nearest_accuracy
    for point in by_split["unseen"]:
        assert point.distance > 0.1
        assert (point.nearest_own, point.finetuned_distance) == (False, 0.0)
        assert point.span_distance <= point.average_distance + 1e-6 <= point.distance + found.within_run
    assert np.mean(found.checkpoint_distance) == pytest.approx(1.0)
    assert len(found.checkpoint_distance) == len(found.checkpoint_overlap) == len(found.checkpoint_mean_distance) == 5
    assert found.directions == 4


def test_the_numbers_of_one_point_are_those_of_a_slow_calculation(
    toy_backbone: Backbone, toy_zoo: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    geometry = geometry_of(toy_zoo.folder)
    adapter = toys.random_adapter(toy_backbone, 5, scale=0.3)
    source = Planted("random", toy_zoo, lambda *_: geometry.layout.flatten(adapter.tensors))
    test = tests["seen"][2]
    found = measured(toy_backbone, NoveltyObserver(toy_backbone, toy_zoo), {"seen": [test]}, Method(source))
    stored = [Adapter(geometry.layout.unflatten(vector), adapter.config) for vector in geometry.vectors]
    distances = [adapter.distance(other) for other in stored]
    wrong = [toy_backbone.predict(test.batch, entry.tensors).argmax(-1) != test.labels for entry in stored]
    mine = toy_backbone.predict(test.batch, adapter.tensors).argmax(-1) != test.labels
    names, last = toy_zoo.column("task"), {task: max(toy_zoo.rows_of(task)) for task in toy_zoo.tasks}
    compared = [row for row, task in enumerate(names) if row == last[task] or task == test.task]
    units = [
        min(stored[last[task]].distance(other) for other, owner in zip(stored, names, strict=True) if owner != task)
        for task in toy_zoo.tasks
    ]
    point = found.points[0]
    assert found.unit == pytest.approx(np.mean(units))
    assert point.distance == pytest.approx(min(distances) / found.unit)
    assert point.nearest_accuracy == pytest.approx(1 - float(wrong[int(np.argmin(distances))].double().mean()))
    assert point.overlap == pytest.approx(max(slow_overlap(mine, wrong[row]) for row in compared))
    assert point.accuracy == pytest.approx(1 - float(mine.double().mean()))
    assert found.checkpoint_distance == pytest.approx((units[2] / found.unit,))
    others = [wrong[row] for task, row in last.items() if task != test.task]
    assert found.checkpoint_overlap[0] == pytest.approx(
        max(slow_overlap(wrong[last[test.task]], entry) for entry in others)
    )
    centre = geometry.vectors.double().mean(0)
    away = (geometry.layout.flatten(adapter.tensors).double() - centre).norm()
    assert point.mean_distance == pytest.approx(float(away) / found.unit)
    middle = toy_backbone.predict(test.batch, geometry.layout.unflatten(centre.float())).argmax(-1) == test.labels
    assert point.mean_accuracy == pytest.approx(float(middle.double().mean()))


@pytest.mark.parametrize("seed", range(3))
def test_planted_generators_are_recognised(
    seed: int, toy_backbone: Backbone, toy_zoo: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    def neighbour(geometry: CheckpointGeometry, draws: torch.Generator) -> Tensor:
        vector = pick(geometry, draws)[0]
        return vector + 0.3 * torch.randn(vector.shape, generator=draws)

    planted = {
        "copies": Planted("copies", toy_zoo, lambda geometry, _, draws: pick(geometry, draws)[0]),
        "averages": Planted("averages", toy_zoo, lambda geometry, _, draws: pick(geometry, draws, 16).mean(0)),
        "adds noise": Planted("adds noise", toy_zoo, lambda geometry, _, draws: neighbour(geometry, draws)),
    }
    methods = [Method(source) for source in planted.values()]
    found = measured(toy_backbone, NoveltyObserver(toy_backbone, toy_zoo), tests, *methods, seed=seed)
    for kind in planted:
        found_verdict = verdict(found, source=kind)
        assert found_verdict.kind == kind, found_verdict.sentence


def test_errors_may_be_compared_on_some_of_the_images(
    toy_backbone: Backbone, toy_zoo: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    test = tests["unseen"][1]
    half = TestSet(test.task, test.description, take(test.batch, slice(None, None, 2)))
    vector = geometry_of(toy_zoo.folder).layout.flatten(toys.random_tensors(toy_backbone, 5, scale=0.3))
    method = Method(Planted("random", toy_zoo, lambda *_: vector))
    some = measured(toy_backbone, NoveltyObserver(toy_backbone, toy_zoo, most_images=12), {"unseen": [test]}, method)
    every = NoveltyObserver(toy_backbone, toy_zoo, most_images=None)
    alone = measured(toy_backbone, every, {"unseen": [half]}, method)
    whole = measured(toy_backbone, NoveltyObserver(toy_backbone, toy_zoo), {"unseen": [test]}, method)
    assert [point.overlap for point in some.points] == [point.overlap for point in alone.points]
    assert [point.overlap for point in some.points] != [point.overlap for point in whole.points]
    assert [replace(point, overlap=0.0) for point in some.points] == [
        replace(point, overlap=0.0) for point in whole.points
    ]


def test_only_what_is_asked_for_is_measured(
    toy_backbone: Backbone, toy_zoo: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    source = Planted("copies", toy_zoo, lambda geometry, _, draws: pick(geometry, draws)[0])
    observer = NoveltyObserver(toy_backbone, toy_zoo, splits=("unseen",), most_tasks=2)
    found = measured(toy_backbone, observer, tests, Method(source), Method(source, "shuffled"), Method(source, "none"))
    assert {point.split for point in found.points} == {"unseen"}
    assert {point.task for point in found.points} == {"unseen-0", "unseen-1"}
    assert {point.condition for point in found.points} == {"own", "none"}
    assert len(found.points) == 2 * 2 * 2
    assert found.checkpoint_distance == ()


def test_what_cannot_be_measured_is_refused(toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    with refused(DataError):
        NoveltyObserver(toy_backbone, toy_zoo.only(["seen-0"]))
    with refused(DataError):
        NoveltyObserver(toy_backbone, toy_zoo).result()
