from dataclasses import dataclass, field

import pytest

import toys
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.run import Method, RoundTripSource, derangement, evaluate
from wildpdiff.evaluate.score import TestSet, test_set
from wildpdiff.fit import FittedGenerator
from wildpdiff.source import Source
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.store import Zoo


@dataclass
class Recorder:
    """A source that records its requests."""

    backbone: Backbone
    name: str = "recorder"
    stochastic: bool = True
    requests: list[tuple[Description, int, int]] = field(default_factory=list)

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        self.requests.append((description, n, seed))
        return [toys.random_adapter(self.backbone, seed % 1000 + sample) for sample in range(n)]


@pytest.fixture(scope="module")
def tests(toy_backbone: Backbone) -> list[TestSet]:
    return [test_set(toy_backbone, task) for task in toys.ToySuite().tasks("unseen")]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 20])
def test_no_index_is_a_fixed_point(count: int) -> None:
    for seed in range(20):
        order = derangement(count, seed)
        assert sorted(order) == list(range(count))
        assert all(index != value for index, value in enumerate(order))
    assert len({derangement(7, seed) for seed in range(20)}) > 5
    assert derangement(count, 3) == derangement(count, 3)


def test_a_single_task_has_no_other() -> None:
    assert derangement(1, 0) == (0,)
    assert derangement(0, 0) == ()


def test_shuffled_gives_another_tasks_description_without_its_name(
    toy_backbone: Backbone, tests: list[TestSet]
) -> None:
    source = Recorder(toy_backbone)
    evaluate("toy", {"unseen": tests}, toy_backbone, [Method(source, "shuffled")], samples=2)
    own = [test.description.metadata for test in tests]
    given = [description.metadata for description, _, _ in source.requests]
    assert all(one != two for one, two in zip(own, given, strict=True))
    assert sorted(map(str, own)) == sorted(map(str, given))
    assert all(description.task_id is None for description, _, _ in source.requests)


def test_own_gives_the_tasks_description_and_every_task_its_own_seed(
    toy_backbone: Backbone, tests: list[TestSet]
) -> None:
    source = Recorder(toy_backbone)
    evaluate("toy", {"unseen": tests}, toy_backbone, [Method(source)], samples=3, seed=5)
    assert [description.task_id for description, _, _ in source.requests] == [test.task for test in tests]
    assert {n for _, n, _ in source.requests} == {3}
    assert len({seed for _, _, seed in source.requests}) == len(tests)


def test_every_source_gets_the_same_seeds(toy_backbone: Backbone, tests: list[TestSet]) -> None:
    one, two = Recorder(toy_backbone), Recorder(toy_backbone, name="other")
    evaluate("toy", {"unseen": tests}, toy_backbone, [Method(one), Method(two, "shuffled")])
    assert [seed for _, _, seed in one.requests] == [seed for _, _, seed in two.requests]


def test_a_source_without_randomness_is_sampled_once(toy_backbone: Backbone, tests: list[TestSet]) -> None:
    source = Recorder(toy_backbone, stochastic=False)
    found = evaluate("toy", {"unseen": tests}, toy_backbone, [Method(source, "none")], samples=4)
    assert [n for _, n, _ in source.requests] == [1] * len(tests)
    assert [(row.task, row.sample) for row in found.rows] == [(test.task, 0) for test in tests]


def test_rows_are_complete(toy_backbone: Backbone, tests: list[TestSet]) -> None:
    methods = [
        Method(Recorder(toy_backbone), "own", 7),
        Method(Recorder(toy_backbone), "shuffled", 7),
        Method(Recorder(toy_backbone, "fixed", False), "none"),
    ]
    calls: list[tuple[int, int]] = []
    splits = {"seen": tests[:2], "unseen": tests}
    found = evaluate(
        "toy", splits, toy_backbone, methods, samples=3, progress=lambda done, total: calls.append((done, total))
    )
    keys = {(r.split, r.source, r.condition, r.generator_seed, r.task, r.sample) for r in found.rows}
    assert keys == {
        (split, method.source.name, method.condition, method.generator_seed, test.task, sample)
        for split, part in splits.items()
        for method in methods
        for test in part
        for sample in range(3 if method.source.stochastic else 1)
    }
    assert len(keys) == len(found.rows) == 5 * (3 + 3 + 1)
    assert {(row.suite, row.images) for row in found.rows} == {("toy", 24)}
    assert all(0 <= row.accuracy <= 1 for row in found.rows)
    assert set(found.seconds) == {"recorder", "fixed"}
    assert all(value >= 0 for value in found.seconds.values())
    assert calls == [(done, 15) for done in range(1, 16)]


def test_a_round_trip_is_the_projection_on_what_can_be_generated(
    toy_fit: FittedGenerator, toy_zoo: Zoo, toy_backbone: Backbone
) -> None:
    final = toy_zoo.task_adapters()

    class Fixed:
        name = "fine-tuned"
        stochastic = False

        def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
            return [final[str(description.task_id)]] * n

    source = RoundTripSource(Fixed(), toy_fit.generator)
    assert isinstance(source, Source)
    assert (source.name, source.stochastic) == ("autoencoder round trip", False)
    there = source.sample(Description(task_id="seen-1"), 1, 0)[0]
    toy_backbone.check(there)
    # 25 checkpoints span what the autoencoder keeps, so one of them comes back nearly as it was.
    assert there.distance(final["seen-1"]) < 0.05 * final["seen-1"].distance(final["seen-4"])
    outside = toys.random_adapter(toy_backbone, 0, scale=3.0)
    final["odd"] = outside
    assert source.sample(Description(task_id="odd"), 1, 0)[0].distance(outside) > 1.0
