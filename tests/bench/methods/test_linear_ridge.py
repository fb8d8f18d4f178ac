from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from refusals import refused
from wildbench.methods.linear_ridge import LinearRidgeSource
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.conditions.fusion import FusionEncoder
from wildpdiff.conditions.images import ImageSetEncoder
from wildpdiff.conditions.metadata import MetadataEncoder
from wildpdiff.errors import DataError, DescriptionError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema(tuple(MetadataField(name, "number") for name in "xyz"))
CONFIG = AdapterConfig("toy", "0" * 64, ("a", "b"), 1, 1.0, (), ())
TASKS = 20
RIDGES = (0.01, 0.3, 3.0, 30.0)

Numbers = npt.NDArray[np.float64]


def describe(number: int) -> Description:
    rng = numpy_generator(number, "linear")
    images = np.clip(rng.integers(40, 200, 3) + rng.integers(-9, 10, (3, 4, 4, 3)), 0, 255).astype(np.uint8)
    return Description({name: float(rng.normal()) for name in "xyz"}, backgrounds=images)


def from_metadata(description: Description) -> Numbers:
    assert description.metadata is not None
    x, y, z = (float(description.metadata[name]) for name in "xyz")
    return np.array([2 * x - y, 5 + z, x + y + z, 1.0, -y])


def from_images(description: Description) -> Numbers:
    assert description.backgrounds is not None
    return np.array([*description.backgrounds.mean((0, 1, 2)) / 50, 1.0, 2.0])


def adapters(values: Numbers) -> list[Adapter]:
    return [Adapter({"w": torch.from_numpy(row).float()}, CONFIG) for row in values]


SEEN = [describe(number) for number in range(TASKS)]
NEW = [describe(number) for number in range(100, 110)]
NOISE = 0.4 * numpy_generator(0, "linear noise").normal(size=(TASKS, 5))


@pytest.fixture(scope="module")
def encoder() -> FusionEncoder:
    def featurise(images: npt.NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(images).float().mean((1, 2)) / 255

    return FusionEncoder(
        (
            MetadataEncoder.fit(SEEN, SCHEMA),
            ImageSetEncoder.fit(SEEN, "backgrounds", featurise, components=3, spread=False),
        )
    )


def closed_form(inputs: Numbers, targets: Numbers, query: Numbers, ridge: float) -> Numbers:
    centre, mean = inputs.mean(0), targets.mean(0)
    normal = (inputs - centre).T @ (inputs - centre) + ridge * np.eye(inputs.shape[1])
    return np.asarray(mean + (query - centre) @ np.linalg.solve(normal, (inputs - centre).T @ (targets - mean)))


@pytest.mark.parametrize("parts", [("metadata",), ("backgrounds",), ("metadata", "backgrounds")])
def test_choice_error_and_prediction_equal_the_closed_form_refitted_without_each_task(
    encoder: FusionEncoder, parts: tuple[str, ...]
) -> None:
    targets = np.stack([from_metadata(entry) for entry in SEEN]) + NOISE
    single = FusionEncoder(tuple(entry for entry in encoder.encoders if entry.part in parts))
    source = LinearRidgeSource(single, SEEN, adapters(targets), ridges=RIDGES)
    choice = next(entry for entry in source.choices if entry.parts == parts)

    def row(description: Description) -> Numbers:
        known = single.encode_parts(description)
        return np.concatenate([known[part].double().numpy() for part in parts])

    inputs = np.stack([row(entry) for entry in SEEN])
    rest = [[j for j in range(TASKS) if j != i] for i in range(TASKS)]
    errors = {
        ridge: sum(
            float(((targets[i] - closed_form(inputs[own], targets[own], inputs[i], ridge)) ** 2).sum())
            for i, own in enumerate(rest)
        )
        for ridge in RIDGES
    }
    best = min(errors, key=lambda ridge: errors[ridge])
    mean = sum(float(((targets[i] - targets[own].mean(0)) ** 2).sum()) for i, own in enumerate(rest))
    assert choice.ridge == pytest.approx(best)
    assert choice.relative_error == pytest.approx(errors[best] / mean, rel=1e-5)
    if source.choices[0] is choice:
        found = source.sample(NEW[0], 1, 0)[0].tensors["w"].double().numpy()
        assert found == pytest.approx(closed_form(inputs, targets, row(NEW[0]), best), abs=1e-5)


@pytest.mark.parametrize(("truth", "part"), [(from_metadata, "metadata"), (from_images, "backgrounds")])
def test_a_linear_map_is_recovered_from_the_informative_part(encoder: FusionEncoder, truth: object, part: str) -> None:
    assert callable(truth)
    targets = np.stack([truth(entry) for entry in SEEN])
    source = LinearRidgeSource(encoder, SEEN, adapters(targets))
    assert part in source.choices[0].parts
    error = sum(((source.sample(e, 1, 0)[0].tensors["w"].numpy() - truth(e)) ** 2).sum() for e in NEW)
    assert error < 0.01 * sum(((targets.mean(0) - truth(entry)) ** 2).sum() for entry in NEW)


def test_weights_sum_to_one_for_every_set_of_parts(encoder: FusionEncoder) -> None:
    source = LinearRidgeSource(encoder, SEEN, adapters(np.stack([from_metadata(entry) for entry in SEEN]) + NOISE))
    query = NEW[0]
    for entry in (query, Description(metadata=query.metadata), Description(backgrounds=query.backgrounds)):
        assert float(source.weights(entry).sum()) == pytest.approx(1.0, abs=1e-9)


def test_without_the_informative_part_the_other_is_read(encoder: FusionEncoder) -> None:
    source = LinearRidgeSource(encoder, SEEN, adapters(np.stack([from_metadata(entry) for entry in SEEN])))
    found = source.sample(Description(backgrounds=NEW[0].backgrounds), 1, 0)[0]
    assert found.provenance["parts_read"] == ["backgrounds"]


def test_tasks_that_lack_a_part_do_not_bend_its_line(encoder: FusionEncoder) -> None:
    targets = np.stack([from_metadata(entry) for entry in SEEN])
    blind = [Description(backgrounds=entry.backgrounds) for entry in SEEN[:6]]
    whole = LinearRidgeSource(encoder, SEEN[6:], adapters(targets[6:]))
    partly = LinearRidgeSource(encoder, [*blind, *SEEN[6:]], adapters(targets))
    query = Description(metadata=NEW[0].metadata)
    assert bool((partly.weights(query)[:6] == 0).all())
    assert partly.sample(query, 1, 0)[0].distance(whole.sample(query, 1, 0)[0]) < 1e-5


def test_noise_is_answered_by_about_the_mean(encoder: FusionEncoder) -> None:
    noise = numpy_generator(2, "nothing to learn").normal(size=(TASKS, 300))
    source = LinearRidgeSource(encoder, SEEN, adapters(noise))
    assert source.choices[0].relative_error == pytest.approx(1.0, abs=0.02)
    assert source.weights(NEW[0]).numpy() == pytest.approx(np.full(TASKS, 1 / TASKS), abs=0.02)


def test_refusals(encoder: FusionEncoder) -> None:
    blind = [Description(metadata=entry.metadata) for entry in SEEN]
    values = adapters(np.stack([from_metadata(entry) for entry in SEEN]))
    with refused(DescriptionError, "backgrounds", 3, "metadata"):
        LinearRidgeSource(encoder, blind, values).sample(Description(backgrounds=NEW[0].backgrounds), 1, 0)
    with refused(DataError, 3, 2):
        LinearRidgeSource(encoder, SEEN[:2], values[:2])
