import json

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from refusals import refused
from wildpdiff.artifact import safetensors_bytes
from wildpdiff.conditions.base import ConditionEncoder
from wildpdiff.conditions.fusion import ENCODERS, FusionEncoder, fit_fusion
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, Images, MetadataField, MetadataSchema

SCHEMA = MetadataSchema((MetadataField("x", "number"), MetadataField("kind", "category", categories=("a", "b"))))
PARTS = ("metadata", "backgrounds", "task_id")


def featurise(images: Images) -> Float[Tensor, "n f"]:
    return torch.from_numpy(images).float().flatten(1) / 255.0


def describe(index: int, count: int = 5) -> Description:
    rng = np.random.default_rng(index)
    images = rng.integers(10 * index, 10 * index + 60, (count, 2, 2, 3)).astype(np.uint8)
    metadata: dict[str, float | str] = {"x": float(index), "kind": "ab"[index % 2]}
    return Description(metadata=metadata, backgrounds=images, task_id=f"t{index}")


SEEN = [describe(index, 4 + index % 3) for index in range(7)]


@pytest.fixture(scope="module")
def encoder() -> FusionEncoder:
    return fit_fusion(SEEN, SCHEMA, featurise, PARTS, components=3)


def test_layout_of_the_embedding(encoder: FusionEncoder) -> None:
    assert encoder.parts == PARTS
    assert encoder.size == 5 + 3 + 7 + 3
    full = encoder.encode(SEEN[2]).values
    expected = [entry.encode(SEEN[2]).values for entry in encoder.encoders]
    assert torch.equal(full, torch.cat([*expected, torch.ones(3)]))


def test_missing_part_is_zero_with_flag_zero(encoder: FusionEncoder) -> None:
    values = encoder.encode(Description(metadata=SEEN[2].metadata)).values
    assert torch.equal(values[:5], encoder.encode(SEEN[2]).values[:5])
    assert not values[5:-3].any()
    assert values[-3:].tolist() == [1.0, 0.0, 0.0]


def test_null_is_a_description_of_nothing(encoder: FusionEncoder) -> None:
    assert torch.equal(encoder.null, torch.zeros(encoder.size))


@pytest.mark.parametrize(
    ("description", "named"),
    [
        (Description(), "metadata, backgrounds, task_id"),
        (Description(text="a river"), "text"),
        (Description(metadata={}), "metadata"),
    ],
)
def test_nothing_readable_is_refused(encoder: FusionEncoder, description: Description, named: str) -> None:
    with refused(DescriptionError, named):
        encoder.encode(description)


def test_restored_from_bytes_it_encodes_the_same(encoder: FusionEncoder) -> None:
    safetensors_bytes(encoder.tensors)  # every tensor can be stored
    again = FusionEncoder.from_state(json.loads(json.dumps(encoder.config)), encoder.tensors, featurise)
    assert torch.equal(again.encode(SEEN[3]).values, encoder.encode(SEEN[3]).values)


def test_unknown_kind_is_refused(encoder: FusionEncoder) -> None:
    with refused(DescriptionError, "single task", "backgrounds, text", "metadata"):
        fit_fusion([describe(3)], SCHEMA, featurise, ("backgrounds", "text"))
    with refused(DescriptionError, "'smell'", "images"):
        FusionEncoder.from_state({"encoders": [{"kind": "smell", "config": {}}]}, {}, featurise)


def test_every_encoder_satisfies_the_seam(encoder: FusionEncoder) -> None:
    # States of the first version of metadata are read, not written; text has tests of its own.
    assert {entry.kind for entry in encoder.encoders} == set(ENCODERS) - {"metadata", "text"}
    for entry in encoder.encoders:
        assert isinstance(entry, ConditionEncoder)
        assert entry.encode(SEEN[0]).values.shape == (entry.size,)


def test_only_parts_of_two_or_more_seen_tasks_are_read() -> None:
    seen = [Description(metadata={"x": 1.0}), Description(metadata={"x": 2.0}), describe(3)]
    assert fit_fusion(seen, SCHEMA, featurise).parts == ("metadata",)
    with refused(DescriptionError, "backgrounds", 3):
        fit_fusion(seen, SCHEMA, featurise, ("backgrounds",))
    with refused(DescriptionError, "text", 3):
        fit_fusion(seen, SCHEMA, featurise, ("text",))
    with refused(DescriptionError, "'smell'", "metadata, backgrounds, examples"):
        fit_fusion(seen, SCHEMA, featurise, ("smell",))


def test_unknown_values_are_reported_and_left_out(encoder: FusionEncoder) -> None:
    (unknown,) = encoder.unknown(Description(metadata={"x": 1.0, "kind": "c"}, backgrounds=SEEN[0].backgrounds))
    assert "kind 'c'" in unknown
    assert "a, b" in unknown
    assert encoder.unknown(SEEN[0]) == ()
    alone = Description(metadata={"kind": "c"})
    with refused(DescriptionError, "'c'", "a, b"):
        encoder.encode(alone)
    known = encoder.encode(Description(metadata={"kind": "c"}, task_id="t1")).values
    assert torch.equal(known, encoder.encode(Description(task_id="t1")).values)
