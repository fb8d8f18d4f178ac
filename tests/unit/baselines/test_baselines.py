import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from refusals import refused
from wildpdiff.adapters.adapter import Adapter, AdapterConfig
from wildpdiff.baselines.constant import FinetunedSource, MeanSource, PretrainedSource
from wildpdiff.baselines.regression import KernelRegressionSource, NearestTaskSource
from wildpdiff.conditions.fusion import FusionEncoder, fit_fusion
from wildpdiff.conditions.images import ImageFeatures, ImageSetEncoder
from wildpdiff.conditions.metadata import MetadataEncoder
from wildpdiff.errors import AdapterMismatchError, DataError, DescriptionError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, Images, MetadataField, MetadataSchema

SCHEMA = MetadataSchema((MetadataField("x", "number"), MetadataField("y", "number")))
CONFIG = AdapterConfig("toy", "0" * 64, ("a", "b"), 1, 1.0, (), ())
TASKS = 30
# A coarser grid than the default one keeps the tests fast.
GRID = {"length_scales": (0.7, 2.0, 8.0), "ridges": (1e-5, 1e-3, 0.1, 30.0)}


def featurise(images: Images) -> Float[Tensor, "n f"]:
    return torch.from_numpy(images).float().mean((1, 2)) / 255.0


def adapter(*values: float, rank: int = 1) -> Adapter:
    config = AdapterConfig("toy", "0" * 64, ("a", "b"), rank, 1.0, (), ())
    return Adapter({"w": torch.tensor(values)}, config)


def describe(rng: np.random.Generator) -> Description:
    """Two numbers and a few images with a colour each; both known for every task and independent of each other."""
    colour = rng.integers(40, 200, 3)
    images = np.clip(colour + rng.integers(-5, 6, (6, 4, 4, 3)), 0, 255).astype(np.uint8)
    return Description(metadata={"x": float(rng.normal()), "y": float(rng.normal())}, backgrounds=images)


def describes(count: int) -> tuple[Description, ...]:
    rng = numpy_generator(0, "descriptions")
    return tuple(describe(rng) for _ in range(count))


def from_metadata(description: Description) -> Adapter:
    assert description.metadata is not None
    x, y = (float(description.metadata[name]) for name in "xy")
    return adapter(x - 0.5 * y, float(np.tanh(x)), 2.0 + y, 7.0)


def from_colour(description: Description) -> Adapter:
    assert description.backgrounds is not None
    red, green, blue = description.backgrounds.mean((0, 1, 2)) / 100.0
    return adapter(float(red), float(green - blue), float(np.sin(blue)), 7.0)


@pytest.fixture(scope="module")
def descriptions() -> tuple[Description, ...]:
    return describes(TASKS + 10)


@pytest.fixture(scope="module")
def encoder(descriptions: tuple[Description, ...]) -> FusionEncoder:
    return FusionEncoder(
        (
            MetadataEncoder.fit(descriptions[:TASKS], SCHEMA),
            ImageSetEncoder.fit(descriptions[:TASKS], "backgrounds", featurise, components=4, spread=False),
        )
    )


def regression(encoder: FusionEncoder, descriptions: tuple[Description, ...], truth: object) -> KernelRegressionSource:
    seen = descriptions[:TASKS]
    assert callable(truth)
    return KernelRegressionSource(encoder, seen, [truth(entry) for entry in seen], **GRID)


@pytest.mark.parametrize(("truth", "parts"), [(from_metadata, ("metadata",)), (from_colour, ("backgrounds",))])
def test_regression_finds_the_relevant_part_and_recovers_the_map(
    encoder: FusionEncoder, descriptions: tuple[Description, ...], truth: object, parts: tuple[str, ...]
) -> None:
    assert callable(truth)
    source = regression(encoder, descriptions, truth)
    assert source.choices[0].parts == parts
    assert source.choices[0].relative_error < 0.05
    unseen = descriptions[TASKS:]
    mean = MeanSource([truth(entry) for entry in descriptions[:TASKS]])
    error = sum(source.sample(entry, 1, 0)[0].distance(truth(entry)) ** 2 for entry in unseen)
    baseline = sum(mean.sample(entry, 1, 0)[0].distance(truth(entry)) ** 2 for entry in unseen)
    assert error < 0.1 * baseline


def test_regression_reads_both_parts_where_both_tell(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    def truth(description: Description) -> Adapter:
        return adapter(*(from_metadata(description).tensors["w"] + from_colour(description).tensors["w"]).tolist())

    source = regression(encoder, descriptions, truth)
    assert source.choices[0].parts == ("metadata", "backgrounds")
    assert source.sample(descriptions[-1], 1, 0)[0].provenance["parts_read"] == ["metadata", "backgrounds"]


def test_regression_on_noise_falls_back_to_the_mean(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    rng = numpy_generator(1, "noise")
    adapters = [adapter(*rng.normal(size=200).tolist()) for _ in range(TASKS)]
    source = KernelRegressionSource(encoder, descriptions[:TASKS], adapters, **GRID)
    assert source.choices[0].relative_error == pytest.approx(1.0, abs=0.03)
    assert source.weights(descriptions[-1]).numpy() == pytest.approx(np.full(TASKS, 1 / TASKS), abs=0.02)


def test_regression_weights_sum_to_one(encoder: FusionEncoder, descriptions: tuple[Description, ...]) -> None:
    source = regression(encoder, descriptions, from_metadata)
    for query in (descriptions[-1], Description(backgrounds=descriptions[-1].backgrounds)):
        assert float(source.weights(query).sum()) == pytest.approx(1.0, abs=1e-9)


def test_regression_reads_what_is_left_where_the_best_part_is_missing(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    source = regression(encoder, descriptions, from_metadata)
    query = Description(backgrounds=descriptions[-1].backgrounds)
    assert source.sample(query, 1, 0)[0].provenance["parts_read"] == ["backgrounds"]


def test_regression_on_too_few_tasks_is_refused(encoder: FusionEncoder, descriptions: tuple[Description, ...]) -> None:
    with refused(DataError, 3, 2):
        KernelRegressionSource(encoder, descriptions[:2], [adapter(1.0), adapter(2.0)])


def test_known_features_give_the_same_as_the_images(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    seen = descriptions[:TASKS]
    features = {"backgrounds": ImageFeatures.of(seen, "backgrounds", featurise)}
    adapters = [from_colour(entry) for entry in seen]
    first = KernelRegressionSource(encoder, seen, adapters, **GRID)
    second = KernelRegressionSource(encoder, seen, adapters, features, **GRID)
    assert first.choices == second.choices


def test_nearest_is_the_task_itself_whatever_part_is_known(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    seen = descriptions[:TASKS]
    source = NearestTaskSource(encoder, seen, [adapter(float(index)) for index in range(TASKS)])
    for query in (
        seen[5],
        Description(metadata=seen[5].metadata),
        Description(backgrounds=seen[5].backgrounds),
    ):
        assert source.nearest(query) == 5
        assert float(source.sample(query, 1, 0)[0].tensors["w"]) == 5.0


def test_nearest_weighs_parts_alike_and_skips_tasks_without_a_shared_part() -> None:
    rng = numpy_generator(2, "nearest")
    seen = [
        Description(metadata={"x": 0.0, "y": 0.0}),
        Description(metadata={"x": 9.0, "y": 9.0}),
        *(Description(backgrounds=describe(rng).backgrounds) for _ in range(3)),
    ]
    encoder = fit_fusion(seen, SCHEMA, featurise)
    source = NearestTaskSource(encoder, seen, [adapter(float(index)) for index in range(5)])
    assert source.nearest(Description(metadata={"x": 8.0, "y": 8.0})) == 1
    assert source.nearest(Description(backgrounds=seen[3].backgrounds)) == 3


def test_nearest_without_any_shared_part_is_refused(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    seen = [Description(metadata=entry.metadata) for entry in descriptions[:3]]
    source = NearestTaskSource(encoder, seen, [adapter(1.0)] * 3)
    with refused(DescriptionError, "backgrounds"):
        source.nearest(Description(backgrounds=descriptions[0].backgrounds))


def test_mean_is_the_mean() -> None:
    source = MeanSource([adapter(1.0, -2.0), adapter(2.0, 6.0)])
    assert source.sample(Description(), 1, 0)[0].tensors["w"].tolist() == [1.5, 2.0]


def test_pretrained_gives_the_initial_adapter() -> None:
    initial = adapter(0.0, 3.0)
    assert PretrainedSource(initial).sample(Description(), 1, 0)[0].distance(initial) == 0.0


def test_fine_tuned_is_found_by_name() -> None:
    source = FinetunedSource({"t1": adapter(1.0), "t2": adapter(2.0)})
    assert source.sample(Description(task_id="t2"), 1, 0)[0].tensors["w"].tolist() == [2.0]
    with refused(DescriptionError, "'t3'", "'t1'", 2):
        source.sample(Description(task_id="t3"), 1, 0)


def test_adapters_of_different_zoos_or_numbers_are_refused(
    encoder: FusionEncoder, descriptions: tuple[Description, ...]
) -> None:
    with refused(AdapterMismatchError, "toy", "rank 2", "Adapter 1"):
        MeanSource([adapter(1.0), adapter(1.0, rank=2)])
    with refused(DataError):
        MeanSource([])
    with refused(DataError, 1, 3):
        NearestTaskSource(encoder, descriptions[:3], [adapter(1.0)])
