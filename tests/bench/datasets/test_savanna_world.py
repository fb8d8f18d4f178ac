"""The shift of the locations: its causes, its strength, and its likeness to the statistics of real networks."""

from __future__ import annotations

import numpy as np
import pytest

from wildbench.datasets.savanna import world
from wildbench.datasets.savanna.frames import draw_frames
from wildbench.datasets.savanna.locations import Location, ShiftStrengths, draw_location
from wildpdiff.rng import numpy_generator

FULL = ShiftStrengths(1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def locations() -> list[Location]:
    return [draw_location(0, "seen", i, FULL) for i in range(300)]


def causes(location: Location) -> np.ndarray:
    hidden = [location.lushness, location.stones, location.scale]
    return np.concatenate([location.cline, location.cast, location.prior, hidden])


def test_without_shift_all_locations_are_alike() -> None:
    same = [causes(draw_location(0, "seen", i, ShiftStrengths(0.0, 0.0, 0.0))) for i in range(5)]
    assert np.ptp(np.array(same), axis=0).max() < 1e-12


def test_shrinking_the_shift_draws_locations_together() -> None:
    spread = []
    for strength in (0.0, 0.3, 0.7, 1.0):
        strengths = ShiftStrengths(strength, strength, strength)
        spread.append(np.array([causes(draw_location(0, "seen", i, strengths)) for i in range(80)]).std(axis=0).mean())
    assert spread == sorted(spread)


def test_each_part_of_the_shift_has_its_own_knob() -> None:
    flat = draw_location(0, "seen", 3, ShiftStrengths(0.0, 0.0, 0.0))
    metadata = draw_location(0, "seen", 3, ShiftStrengths(1.0, 0.0, 0.0))
    background = draw_location(0, "seen", 3, ShiftStrengths(0.0, 1.0, 0.0))
    hidden = draw_location(0, "seen", 3, ShiftStrengths(0.0, 0.0, 1.0))
    assert not np.allclose(metadata.cline, flat.cline)
    assert np.array_equal(background.cline, flat.cline)
    assert np.abs(background.cast).min() > 0.05
    assert not metadata.cast.any()
    assert not hidden.cast.any()
    for location in (metadata, background, hidden):
        assert not np.allclose(location.prior, flat.prior)


def test_statistics_of_a_site_are_like_the_real_ones(locations: list[Location]) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(160, location.prior) for location in locations])
    shares = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    animals = counts[:, : world.BLANK]
    top = animals.max(axis=1) / animals.sum(axis=1)
    blank = np.array([location.prior[world.BLANK] for location in locations])
    assert 8 <= np.median((counts > 0).sum(axis=1)) <= 13
    assert 4.5 <= np.median(np.exp(entropy)) <= 7.0
    assert 0.40 <= np.median(top) <= 0.60
    assert 0.12 <= np.median(blank) <= 0.20
    assert world.BLANK_RANGE[0] <= blank.min()
    assert blank.max() <= world.BLANK_RANGE[1]
    assert 0.22 <= np.mean([location.night_share for location in locations]) <= 0.36


def test_every_species_lives_somewhere(locations: list[Location]) -> None:
    best = np.array([location.prior for location in locations]).max(axis=0)
    assert best.min() > 0.02


def test_metadata_are_independent_of_the_light_and_of_the_scene(locations: list[Location]) -> None:
    numbers = np.array(
        [
            [location.latitude, location.longitude, location.elevation, location.canopy_cover, location.camera_height]
            + [location.habitat == habitat for habitat in range(5)]
            + [location.camera_model == model for model in range(4)]
            for location in locations
        ],
        dtype=float,
    )
    hidden = np.array([[*location.cast, location.lushness, location.stones] for location in locations])
    correlation = np.corrcoef(numbers.T, hidden.T)[: numbers.shape[1], numbers.shape[1] :]
    # 56 correlations of 300 independent draws: the largest is expected near 0.15.
    assert np.abs(correlation).max() < 0.2


def test_clines_run_both_ways_and_few_sites_lie_on_the_border(locations: list[Location]) -> None:
    cline = np.array([location.cline for location in locations])
    share = (cline > 0).mean(axis=0)
    assert share.min() > 0.35
    assert share.max() < 0.65
    assert (np.abs(cline) < 0.5).mean() < 0.22


@pytest.mark.parametrize("pair", range(4))
def test_a_cline_swaps_the_coats_of_its_pair(locations: list[Location], pair: int) -> None:
    first, second = world.CLINE_PAIRS[pair]
    labels = np.repeat([first, second], 200)
    means = []
    for location in (max(locations, key=lambda p: p.cline[pair]), min(locations, key=lambda p: p.cline[pair])):
        coat = draw_frames(location, numpy_generator(0, "coats"), 400, labels).coat
        means.append((coat[:200].mean(), coat[200:].mean()))
    (here_first, here_second), (there_first, there_second) = means
    assert here_first > 0.8 > -0.8 > here_second
    assert there_first < -0.8 < 0.8 < there_second


def test_a_light_pairs_coats_overlap_under_other_casts(locations: list[Location]) -> None:
    """Coat plus cast, the light that reaches the sensor: one species here is as the other one there."""
    casts = np.array([location.cast for location in locations])
    for axis in range(2):
        light = casts[:, axis]
        first_in_the_dark = world.LIGHT_COAT + light[light < 0].mean()
        second_in_the_light = -world.LIGHT_COAT + light[light > 0].mean()
        assert abs(first_in_the_dark - second_in_the_light) < 0.5 * world.LIGHT_COAT
