import json
import math

import numpy as np
import pytest

from refusals import refused
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import PARTS, Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema(
    (
        MetadataField("latitude", "number", "degrees", geographic="latitude"),
        MetadataField("longitude", "number", "degrees", geographic="longitude"),
        MetadataField("month", "cyclic", period=12.0),
        MetadataField("habitat", "category", categories=("woodland", "grassland")),
    )
)


def test_parts_are_listed_in_one_order() -> None:
    images = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    assert Description().parts == ()
    assert Description(task_id="a", metadata={}, backgrounds=images).parts == ("metadata", "backgrounds", "task_id")
    assert Description({}, images, images, "", "a").parts == PARTS


def test_one_usable_part_is_enough() -> None:
    Description(text="a river").require_any(["metadata", "text"])
    Description(metadata={"x": 1.0}, text="a river").require_any(["metadata"])


@pytest.mark.parametrize(("description", "found"), [(Description(), "nothing"), (Description(text="a"), "text")])
def test_no_usable_part_is_refused(description: Description, found: str) -> None:
    with refused(DescriptionError, found, "metadata, task_id"):
        description.require_any(["metadata", "task_id"])


def test_checked_metadata_is_of_plain_types_in_the_schemas_order() -> None:
    checked = SCHEMA.check({"habitat": "grassland", "month": 3, "latitude": "-2.5"})
    assert list(checked.items()) == [("latitude", -2.5), ("month", 3.0), ("habitat", "grassland")]
    assert [type(value) for value in checked.values()] == [float, float, str]
    assert SCHEMA.check({}) == {}


@pytest.mark.parametrize(
    ("metadata", "values"),
    [
        ({"altitude": 3.0, "biome": "x"}, ["'altitude', 'biome'", "latitude, longitude"]),
        ({"latitude": "north"}, ["'latitude'", "'north'"]),
        ({"latitude": math.nan}, ["'latitude'", "nan"]),
        ({"month": math.inf}, ["'month'", "inf"]),
        ({"latitude": 90.5}, ["'latitude'", 90.5, "±90"]),
        ({"longitude": -181}, ["'longitude'", -181, "±180"]),
        ({"habitat": "tundra"}, ["'habitat'", "'tundra'", "woodland, grassland"]),
        ({"habitat": 3}, ["'habitat'", 3]),
    ],
)
def test_bad_metadata_is_named(metadata: dict, values: list[object]) -> None:
    with refused(DescriptionError, *values):
        SCHEMA.check(metadata)


def test_a_category_that_is_not_listed_may_be_let_through() -> None:
    assert SCHEMA.check({"habitat": "tundra", "month": 3}, open_categories=True) == {"month": 3.0, "habitat": "tundra"}
    with refused(DescriptionError, "'biome'"):
        SCHEMA.check({"biome": "tundra"}, open_categories=True)
    with refused(DescriptionError, "number"):
        SCHEMA.check({"month": "march"}, open_categories=True)


def test_a_suite_without_metadata_refuses_any_key() -> None:
    with refused(DescriptionError, "'x'", "none"):
        MetadataSchema().check({"x": 1.0})


@pytest.mark.parametrize("metadata", [{"latitude": 90.0, "longitude": -180.0}, {"month": 13}])
def test_the_ends_of_ranges_are_inside(metadata: dict) -> None:
    assert SCHEMA.check(metadata) == metadata


def test_the_schema_survives_json() -> None:
    assert MetadataSchema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA
    assert SCHEMA.names == ("latitude", "longitude", "month", "habitat")
