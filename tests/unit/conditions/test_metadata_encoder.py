import math

import pytest
import torch

from wildpdiff.conditions.metadata import MetadataEncoder
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

SCHEMA = MetadataSchema(
    (
        MetadataField("elevation", "number", "m"),
        MetadataField("heading", "cyclic", "degrees", period=360.0),
        MetadataField("habitat", "category", categories=("grass", "woodland", "river")),
    )
)
PLACES = MetadataSchema(
    (
        MetadataField("latitude", "number", "degrees", geographic="latitude"),
        MetadataField("longitude", "number", "degrees", geographic="longitude"),
    )
)
SEEN = [
    Description(metadata={"elevation": 1000.0, "heading": 0.0, "habitat": "grass"}),
    Description(metadata={"elevation": 1200.0, "heading": 90.0, "habitat": "river"}),
    Description(metadata={"elevation": 1400.0, "heading": 180.0}),
    Description(text="nothing known"),
]


def values(encoder: MetadataEncoder, **metadata: float | str) -> list[float]:
    return encoder.encode(Description(metadata=metadata)).values.tolist()


def test_columns_and_flags() -> None:
    encoder = MetadataEncoder.fit(SEEN, SCHEMA)
    assert encoder.size == 1 + 2 + 3 + 3
    found = values(encoder, elevation=1400.0, heading=90.0, habitat="river")
    deviation = math.sqrt(200.0**2 * 2 / 3)
    assert found == pytest.approx([200 / deviation, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], abs=1e-6)


def test_missing_values_are_zero_with_flag_zero() -> None:
    found = values(MetadataEncoder.fit(SEEN, SCHEMA), heading=180.0)
    assert found == pytest.approx([0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0], abs=1e-6)


def test_no_metadata_is_absent() -> None:
    encoder = MetadataEncoder.fit(SEEN, SCHEMA)
    for description in (Description(task_id="a"), Description(metadata={})):
        embedding = encoder.encode(description)
        assert not embedding.present
        assert torch.equal(embedding.values, torch.zeros(encoder.size))


def test_numbers_far_outside_are_clipped() -> None:
    encoder = MetadataEncoder.fit(SEEN, SCHEMA)
    assert values(encoder, elevation=1e9)[0] == 4.0
    assert values(encoder, elevation=-1e9)[0] == -4.0


def test_constant_numbers_do_not_divide_by_zero() -> None:
    encoder = MetadataEncoder.fit([Description(metadata={"elevation": 7.0})] * 3, SCHEMA)
    assert values(encoder, elevation=7.0)[0] == 0.0
    assert values(encoder, elevation=8.0)[0] == 1.0


def test_cyclic_values_meet_at_the_seam() -> None:
    encoder = MetadataEncoder.fit(SEEN, SCHEMA)
    before, after = values(encoder, heading=359.5), values(encoder, heading=0.5)
    assert math.dist(before, after) < 0.02


def test_places_keep_their_proportions_on_the_ground() -> None:
    # At 60 degrees north a degree of longitude is half as long as one of latitude.
    corners = [(59.0, 20.0), (61.0, 20.0), (60.0, 18.0), (60.0, 22.0)]
    seen = [Description(metadata={"latitude": lat, "longitude": lon}) for lat, lon in corners]
    encoder = MetadataEncoder.fit(seen, PLACES)
    center = values(encoder, latitude=60.0, longitude=20.0)
    north = math.dist(center, values(encoder, latitude=60.1, longitude=20.0))
    east = math.dist(center, values(encoder, latitude=60.0, longitude=20.2))
    assert north == pytest.approx(east, rel=1e-4)
    assert north == pytest.approx(0.1 / math.sqrt(0.5), rel=1e-4)


def test_longitudes_across_the_date_line_are_neighbours() -> None:
    seen = [Description(metadata={"latitude": 0.0, "longitude": lon}) for lon in (179.0, 179.5, -179.5, -179.0)]
    encoder = MetadataEncoder.fit(seen, PLACES)
    west, east = values(encoder, longitude=179.5), values(encoder, longitude=-179.5)
    assert west[1] == pytest.approx(-east[1], abs=1e-5)
    assert 0.5 < math.dist(west, east) < 2.0


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"altitude": 3.0}, "Unknown metadata key 'altitude'; known keys are elevation, heading, habitat"),
        ({"habitat": "desert"}, "Metadata 'habitat' is 'desert'; known categories are grass, woodland, river"),
        ({"elevation": float("nan")}, "a finite number is needed"),
    ],
)
def test_bad_metadata_is_refused(metadata: dict[str, float | str], sentence: str) -> None:
    with pytest.raises(DescriptionError, match=sentence):
        MetadataEncoder.fit(SEEN, SCHEMA).encode(Description(metadata=metadata))


def test_cyclic_field_without_period_is_refused() -> None:
    schema = MetadataSchema((MetadataField("hour", "cyclic"),))
    encoder = MetadataEncoder.fit([Description(metadata={"hour": 3.0})], schema)
    with pytest.raises(DescriptionError, match="'hour' is cyclic and has no period"):
        values(encoder, hour=3.0)
