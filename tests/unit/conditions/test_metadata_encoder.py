import json
import math

import pytest
import torch

from refusals import refused
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
SITES = MetadataSchema(
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


def test_sites_keep_their_proportions_on_the_ground() -> None:
    # At 60 degrees north a degree of longitude is half as long as one of latitude.
    corners = [(59.0, 20.0), (61.0, 20.0), (60.0, 18.0), (60.0, 22.0)]
    seen = [Description(metadata={"latitude": lat, "longitude": lon}) for lat, lon in corners]
    encoder = MetadataEncoder.fit(seen, SITES)
    center = values(encoder, latitude=60.0, longitude=20.0)
    north = math.dist(center, values(encoder, latitude=60.1, longitude=20.0))
    east = math.dist(center, values(encoder, latitude=60.0, longitude=20.2))
    assert north == pytest.approx(east, rel=1e-3)
    assert north == pytest.approx(0.1 / math.sqrt(0.5), rel=1e-3)


def test_longitudes_across_the_date_line_are_neighbours() -> None:
    seen = [Description(metadata={"latitude": 0.0, "longitude": lon}) for lon in (179.0, 179.5, -179.5, -179.0)]
    encoder = MetadataEncoder.fit(seen, SITES)
    west, east = values(encoder, longitude=179.5), values(encoder, longitude=-179.5)
    assert west[1] == pytest.approx(-east[1], abs=1e-5)  # columns: north, east, toward the seen mean
    assert 0.5 < math.dist(west, east) < 2.0


@pytest.mark.parametrize(
    ("metadata", "named"),
    [({"altitude": 3.0}, "elevation, heading, habitat"), ({"elevation": float("nan")}, "nan")],
)
def test_bad_metadata_is_refused(metadata: dict[str, float | str], named: str) -> None:
    with refused(DescriptionError, *metadata, named):
        MetadataEncoder.fit(SEEN, SCHEMA).encode(Description(metadata=metadata))


def test_cyclic_field_without_period_is_refused() -> None:
    schema = MetadataSchema((MetadataField("hour", "cyclic"),))
    encoder = MetadataEncoder.fit([Description(metadata={"hour": 3.0})], schema)
    with refused(DescriptionError, "'hour'"):
        values(encoder, hour=3.0)


def test_coordinates_of_a_site_are_factors_together_and_one_by_one() -> None:
    schema = MetadataSchema((*SCHEMA.fields, *SITES.fields))
    seen = [
        Description(metadata={"elevation": 1.0, "latitude": lat, "longitude": lon, "habitat": "grass"})
        for lat, lon in ((1.0, 2.0), (3.0, 4.0), (2.0, 0.0))
    ]
    encoder = MetadataEncoder.fit(seen, schema)
    assert encoder.size == 1 + 2 + 3 + 1 + 2 + 5
    assert encoder.groups == ((6, 7, 8), (0,), (1, 2), (3, 4, 5), (6,), (7,))
    assert values(encoder, elevation=1.0)[6:9] == [0.0, 0.0, 0.0]
    only = values(encoder, latitude=2.5)
    assert only[6] > 0.3
    assert only[7] == pytest.approx(0.0, abs=1e-4)
    assert only[-5:] == [0.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("field", SITES.fields)
def test_a_lone_coordinate_is_a_number(field: MetadataField) -> None:
    seen = [Description(metadata={field.name: value}) for value in (10.0, 20.0, 30.0)]
    encoder = MetadataEncoder.fit(seen, MetadataSchema((field,)))
    assert encoder.site is None
    assert values(encoder, **{field.name: 30.0}) == pytest.approx([math.sqrt(1.5), 1.0])


@pytest.mark.parametrize("habitat", ["desert", "woodland"])
def test_a_category_of_no_seen_task_is_as_if_it_were_missing(habitat: str) -> None:
    # The schema lists woodland, but no seen task has it; it does not know deserts at all.
    encoder = MetadataEncoder.fit(SEEN, SCHEMA)
    assert values(encoder, elevation=1000.0, habitat=habitat) == values(encoder, elevation=1000.0)
    far = [math.dist(values(encoder, habitat=habitat), values(encoder, habitat=known)) for known in ("grass", "river")]
    assert far[0] == far[1] > 0
    assert not encoder.encode(Description(metadata={"habitat": habitat})).present
    (unknown,) = encoder.unknown(Description(metadata={"elevation": 1000.0, "habitat": habitat}))
    assert f"habitat {habitat!r}" in unknown
    assert "grass, river" in unknown


@pytest.mark.parametrize("habitat", ["gras", "Grass", "RIVR"])
def test_a_slip_of_the_pen_gets_the_nearest_name(habitat: str) -> None:
    (unknown,) = MetadataEncoder.fit(SEEN, SCHEMA).unknown(Description(metadata={"habitat": habitat}))
    nearest = "river" if habitat == "RIVR" else "grass"
    assert f"habitat {habitat!r}" in unknown
    assert repr(nearest) in unknown


def test_known_values_are_not_reported() -> None:
    encoder = MetadataEncoder.fit(SEEN, SCHEMA)
    assert encoder.unknown(Description(metadata={"habitat": "river", "elevation": 5.0})) == ()
    assert encoder.unknown(Description(text="a river")) == ()


def test_its_state_restores_it() -> None:
    schema = MetadataSchema((*SCHEMA.fields, *SITES.fields))
    seen = [
        Description(metadata={"latitude": 1.0 + n, "longitude": 2.0 * n, "habitat": "grass", "heading": 10.0 * n})
        for n in range(4)
    ]
    encoder = MetadataEncoder.fit(seen, schema)
    again = MetadataEncoder.from_state(json.loads(json.dumps(encoder.config)), encoder.tensors)
    query = Description(metadata={"latitude": 3.0, "longitude": 3.0, "habitat": "woodland", "heading": 5.0})
    assert torch.equal(again.encode(query).values, encoder.encode(query).values)
    assert again.unknown(query) == encoder.unknown(query) != ()
    assert again.kind == "metadata-2"


def test_a_state_of_the_first_version_still_means_what_it_meant() -> None:
    """Sites on a plane, one column each, and every category that the schema lists is known."""
    schema = MetadataSchema((*SITES.fields, SCHEMA.fields[2]))
    tensors = {
        "mean": torch.tensor([60.0, 179.0, 0.0], dtype=torch.float64),
        "scale": torch.tensor([2.0, 4.0, 1.0], dtype=torch.float64),
    }
    old = MetadataEncoder.from_state({"schema": schema.to_json()}, tensors)
    assert old.kind == "metadata"
    assert old.size == 2 + 3 + 3
    assert old.groups == ((0, 1), (0,), (1,), (2, 3, 4))
    assert values(old, latitude=61.0, longitude=-179.0, habitat="woodland") == [0.5, 0.5, 0, 1, 0, 1, 1, 1]
    assert (old.config, set(old.tensors)) == ({"schema": schema.to_json()}, {"mean", "scale"})
