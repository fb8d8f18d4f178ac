"""Places on the sphere: the ground's distances, wherever the seen tasks lie and however far apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wildpdiff.conditions.metadata import SphereCoordinates


def great_circle(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Angle between two sites by the haversine formula, in radians."""
    (lat1, lon1), (lat2, lon2) = np.deg2rad(first), np.deg2rad(second)
    half = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return float(2 * np.arcsin(np.sqrt(half)))


def region(latitude: float, longitude: float, count: int, kilometres: float, seed: int) -> list[tuple[float, float]]:
    """Places within a square on the ground, the longitudes brought within ±180."""
    rng = np.random.default_rng(seed)
    north, east = rng.uniform(-1, 1, (2, count)) * kilometres / 111.2
    latitudes = np.clip(latitude + north, -90, 90)
    longitudes = (longitude + east / np.cos(np.deg2rad(latitude)) + 180) % 360 - 180
    return list(zip(latitudes.tolist(), longitudes.tolist(), strict=True))


def fitted(sites: list[tuple[float, float]]) -> SphereCoordinates:
    return SphereCoordinates.fit(np.array([site[0] for site in sites]), np.array([site[1] for site in sites]))


def distance(frame: SphereCoordinates, first: tuple[float, float], second: tuple[float, float]) -> float:
    return float(np.linalg.norm(np.subtract(frame.encode(*first), frame.encode(*second))))


@given(
    st.floats(-80, 80),
    st.floats(-180, 180),
    st.sampled_from([1.0, 30.0, 300.0]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_in_a_small_region_distances_are_those_on_the_ground(
    latitude: float, longitude: float, kilometres: float, seed: int
) -> None:
    sites = region(latitude, longitude, 12, kilometres, seed)
    frame = fitted(sites)
    for other in sites[1:]:
        assert distance(frame, sites[0], other) * frame.scale == pytest.approx(
            great_circle(sites[0], other), rel=0.01, abs=1e-9
        )


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_over_the_whole_earth_distances_are_chords_up_to_one_factor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    latitudes = np.rad2deg(np.arcsin(rng.uniform(-1, 1, 10))).tolist()
    sites = list(zip(latitudes, rng.uniform(-180, 180, 10).tolist(), strict=True))
    frame = fitted(sites)
    for other in sites[1:]:
        chord = 2 * np.sin(great_circle(sites[0], other) / 2)
        assert distance(frame, sites[0], other) * frame.scale == pytest.approx(chord, rel=1e-6)


@pytest.mark.parametrize("latitude", [0.0, 51.0, -78.0])
def test_the_date_line_is_no_border(latitude: float) -> None:
    sites = [(latitude, longitude) for longitude in (178.0, 179.0, -179.0, -178.0)]
    frame = fitted(sites)
    across = distance(frame, (latitude, 179.9), (latitude, -179.9))
    inside = distance(frame, (latitude, 178.6), (latitude, 178.8))
    assert across == pytest.approx(inside, rel=1e-3)
    assert frame.encode(latitude, 180.0) == pytest.approx(frame.encode(latitude, -180.0), abs=1e-6)


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_at_a_pole_every_longitude_is_the_same_place(pole: float) -> None:
    rng = np.random.default_rng(1)
    sites = [(pole * (1 - 0.02 * share), longitude) for share, longitude in rng.uniform(0, 1, (9, 2)) * (1, 360)]
    frame = fitted([(latitude, longitude - 180) for latitude, longitude in sites])
    assert frame.encode(pole, 10.0) == pytest.approx(frame.encode(pole, -130.0), abs=1e-6)
    # Two sites on both sides of the pole are as far apart as the way over it.
    near = np.sign(pole) * 89.5
    assert distance(frame, (near, 0.0), (near, 180.0)) * frame.scale == pytest.approx(np.deg2rad(1.0), rel=0.01)


def test_turning_all_longitudes_changes_nothing() -> None:
    sites = region(-2.0, 35.0, 10, 400.0, 0)
    turned = [(latitude, (longitude + 150 + 180) % 360 - 180) for latitude, longitude in sites]
    first, second = fitted(sites), fitted(turned)
    for site, moved in zip(sites, turned, strict=True):
        assert first.encode(*site) == pytest.approx(second.encode(*moved), abs=1e-6)


@pytest.mark.parametrize("kilometres", [2.0, 500.0])
def test_the_seen_places_have_unit_variance_in_each_of_two_dimensions(kilometres: float) -> None:
    sites = region(20.0, 10.0, 50, kilometres, 2)
    frame = fitted(sites)
    embedded = np.array([frame.encode(*site) for site in sites])
    assert np.allclose(embedded.mean(0), 0.0, atol=1e-6)
    assert (embedded**2).sum(1).mean() == pytest.approx(2.0, rel=1e-6)


def test_north_is_a_function_of_latitude_alone_and_east_of_the_way_round() -> None:
    frame = fitted(region(-2.0, 35.0, 10, 400.0, 0))
    assert frame.encode(-1.0, 34.0)[0] == pytest.approx(frame.encode(-1.0, 36.0)[0], abs=1e-9)
    assert frame.encode(-1.0, 34.0)[0] < frame.encode(-0.5, 34.0)[0]
    assert frame.encode(-1.0, 34.0)[1] < frame.encode(-1.0, 36.0)[1]


def test_far_away_places_keep_their_direction_and_are_limited_in_length() -> None:
    frame = fitted(region(0.0, 0.0, 10, 10.0, 0))
    north = frame.encode(45.0, 0.0)
    assert np.linalg.norm(north) == pytest.approx(4.0)
    assert north[0] > 3.0 > abs(north[1])


def test_a_single_place_divides_by_one() -> None:
    frame = fitted([(5.0, 5.0)] * 3)
    assert frame.scale == 1.0
    assert frame.encode(5.0, 5.0) == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_one_coordinate_alone_takes_the_other_from_the_seen_mean() -> None:
    sites = region(40.0, 170.0, 12, 300.0, 3)
    frame = fitted(sites)
    assert frame.encode(41.0, None)[1] == pytest.approx(0.0, abs=0.05)
    assert frame.encode(None, 172.0)[0] == pytest.approx(0.0, abs=0.05)
    assert frame.encode(None, 172.0)[1] > 0.3


def test_it_survives_its_tensor() -> None:
    frame = fitted(region(-30.0, 140.0, 5, 100.0, 1))
    assert SphereCoordinates.from_tensor(frame.tensor) == frame
