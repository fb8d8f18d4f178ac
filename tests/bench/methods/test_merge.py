from __future__ import annotations

import numpy as np
import pytest
import torch

from refusals import refused
from wildbench.methods.merge import COUNTS, TopKMergeSource
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.baselines.constant import MeanSource
from wildpdiff.baselines.regression import NearestTaskSource, SeenDistances
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema((MetadataField("x", "number"), MetadataField("y", "number")))
CONFIG = AdapterConfig("toy", "0" * 64, ("a", "b"), 1, 1.0, (), ())
TASKS = 14


def adapter(*values: float) -> Adapter:
    return Adapter({"w": torch.tensor(values)}, CONFIG)


def describe(number: int) -> Description:
    rng = numpy_generator(number, "merge")
    grey = int(rng.integers(40, 200))
    images = np.clip(grey + rng.integers(-9, 10, (3, 4, 4, 3)), 0, 255).astype(np.uint8)
    return Description({"x": float(rng.normal()), "y": float(rng.normal())}, backgrounds=images, task_id=f"t{number}")


def truth(description: Description, noise: float = 0.0) -> Adapter:
    assert description.metadata is not None
    assert description.backgrounds is not None
    rng = numpy_generator(1, "merge noise", str(description.task_id))
    x, y = (float(description.metadata[name]) for name in "xy")
    values = np.array([x, np.tanh(y), x - y, description.backgrounds.mean() / 100]) + noise * rng.normal(size=4)
    return adapter(*values.tolist())


SEEN = [describe(number) for number in range(TASKS)]
NEW = [describe(number) for number in range(100, 112)]


@pytest.fixture(scope="module")
def encoder() -> FusionEncoder:
    return fit_fusion(SEEN, SCHEMA, lambda images: torch.from_numpy(images).float().mean((1, 2)), components=2)


@pytest.fixture(scope="module")
def merge(encoder: FusionEncoder) -> TopKMergeSource:
    return TopKMergeSource(encoder, SEEN, [truth(entry, 0.3) for entry in SEEN])


def without(description: Description, part: str) -> Description:
    known = {"metadata": description.metadata, "backgrounds": description.backgrounds}
    return Description(**{name: value for name, value in known.items() if name != part})


@pytest.mark.parametrize("missing", ["nothing", "metadata", "backgrounds"])
def test_merging_one_adapter_is_retrieval_of_the_nearest(encoder: FusionEncoder, missing: str) -> None:
    adapters = [truth(entry) for entry in SEEN]
    one = TopKMergeSource(encoder, SEEN, adapters, counts=(1,))
    nearest = NearestTaskSource(encoder, SEEN, adapters)
    for query in (without(entry, missing) for entry in (*NEW, *SEEN[:3])):
        first, second = one.sample(query, 1, 0)[0], nearest.sample(query, 1, 0)[0]
        assert torch.equal(first.tensors["w"], second.tensors["w"])
        assert first.provenance["merged_tasks"] == [second.provenance["nearest_task"]]


def test_weights_sum_to_one_and_fall_with_the_distance(encoder: FusionEncoder) -> None:
    adapters = [truth(entry) for entry in SEEN]
    source = TopKMergeSource(encoder, SEEN, adapters, counts=(5,), temperatures=(0.7,))
    nearest = NearestTaskSource(encoder, SEEN, adapters)
    for query in NEW:
        weights = source.weights(query)
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
        assert int((weights > 0).sum()) == 5
        assert int(weights.argmax()) == nearest.nearest(query)


def test_all_adapters_at_a_high_temperature_are_the_mean_adapter(encoder: FusionEncoder) -> None:
    adapters = [truth(entry) for entry in SEEN]
    # No seen task can be merged from all of them but itself, so nothing is left to choose here.
    found = TopKMergeSource(encoder, SEEN, adapters, counts=(TASKS,), temperatures=(1e12,)).sample(NEW[0], 1, 0)[0]
    assert found.distance(MeanSource(adapters).sample(NEW[0], 1, 0)[0]) < 1e-6


def test_the_choice_is_the_best_of_merging_each_task_from_the_others(encoder: FusionEncoder) -> None:
    adapters = [truth(entry, 0.3) for entry in SEEN]
    counts, temperatures = (1, 2, 4, 9, 13), (0.05, 0.5, 5.0)
    source = TopKMergeSource(encoder, SEEN, adapters, counts=counts, temperatures=temperatures)
    distances = SeenDistances.of(encoder, SEEN)
    squared = (distances.between("metadata") + distances.between("backgrounds")).numpy() / 2
    values = np.stack([entry.tensors["w"].double().numpy() for entry in adapters])

    def error(count: int, temperature: float) -> float:
        total = 0.0
        for i in range(TASKS):
            others = sorted((squared[i, j], j) for j in range(TASKS) if j != i)[:count]
            raw = [np.exp(-distance / temperature) for distance, _ in others]
            merged = sum(weight * values[j] for weight, (_, j) in zip(raw, others, strict=True)) / sum(raw)
            total += float(((values[i] - merged) ** 2).sum())
        return total

    errors = {(count, temperature): error(count, temperature) for count in counts for temperature in temperatures}
    best = min(errors, key=lambda key: errors[key])
    mean = sum(float(((values[i] - np.delete(values, i, 0).mean(0)) ** 2).sum()) for i in range(TASKS))
    choice = source.choice(("metadata", "backgrounds"))
    assert (choice.count, choice.temperature) == best
    assert choice.relative_error == pytest.approx(errors[best] / mean, rel=1e-9)


def test_with_noisy_adapters_several_are_merged_and_that_beats_the_nearest(
    encoder: FusionEncoder, merge: TopKMergeSource
) -> None:
    nearest = NearestTaskSource(encoder, SEEN, [truth(entry, 0.3) for entry in SEEN])
    errors = [
        sum(source.sample(query, 1, 0)[0].distance(truth(query)) ** 2 for query in NEW) for source in (merge, nearest)
    ]
    assert merge.choice(("metadata", "backgrounds")).count > 1
    assert errors[0] < errors[1]


def test_each_set_of_parts_has_its_own_choice(merge: TopKMergeSource) -> None:
    both, images = merge.choice(("backgrounds", "metadata")), merge.choice(("backgrounds", "text"))
    assert (both.parts, images.parts) == (("metadata", "backgrounds"), ("backgrounds",))
    assert images.relative_error > both.relative_error


def test_seen_tasks_without_a_shared_part_get_no_weight() -> None:
    seen = [without(entry, "metadata" if number < 4 else "backgrounds") for number, entry in enumerate(SEEN)]
    encoder = fit_fusion(seen, SCHEMA, lambda images: torch.from_numpy(images).float().mean((1, 2)), components=2)
    source = TopKMergeSource(encoder, seen, [truth(entry) for entry in SEEN], temperatures=(1e3,))
    weights = source.weights(without(NEW[0], "metadata"))
    assert bool((weights[4:] == 0).all())
    assert float(weights[:4].sum()) == pytest.approx(1.0)


def test_a_lone_seen_task_is_the_answer(encoder: FusionEncoder) -> None:
    found = TopKMergeSource(encoder, SEEN[:1], [adapter(3.0)]).sample(NEW[0], 1, 0)[0]
    assert found.tensors["w"].tolist() == [3.0]


def test_refusals(encoder: FusionEncoder) -> None:
    seen = [without(entry, "backgrounds") for entry in SEEN]
    source = TopKMergeSource(encoder, seen, [truth(entry) for entry in SEEN])
    with refused(DescriptionError, "backgrounds"):
        source.sample(without(NEW[0], "metadata"), 1, 0)
    with refused(DataError, 0):
        TopKMergeSource(encoder, SEEN, [truth(entry) for entry in SEEN], counts=(0, *COUNTS))
    with refused(DataError, 0.0):
        TopKMergeSource(encoder, SEEN, [truth(entry) for entry in SEEN], temperatures=(0.0,))
