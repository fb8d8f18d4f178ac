"""The fixed world: species, geography and habitats. Nothing here depends on a seed given by the user.

A backbone is pretrained once on this world and serves every configuration seed, so every table below is part of
the contract: raise :data:`WORLD_VERSION` whenever a change alters a single pixel or probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import MetadataField, MetadataSchema

Floats = npt.NDArray[np.float64]

WORLD_VERSION = 1
WORLD_SEED = 20250617
"""Fixes the tables of affinities and ranges; also the root of the pretraining locations' streams."""

# --- difficulty: what a calibration turns -------------------------------------------------------------------
CLINE_SHARPNESS = 8.0  # how fast a cline saturates across its border; higher: fewer ambiguous sites
COAT_NOISE = 0.22  # individual spread along a pair's coat axis (the species sit at +c and -c, |c| <= 1)
PAIR_SHAPE_DIFFERENCE = 0.05  # relative difference of the body plans within a pair; higher: readable by shape
LIGHT_COAT = 0.15  # half distance of a light pair's coats, in log reflectance
CAST_STRENGTH = 1.05  # a site's cast along the warm and the bright axis, in units of LIGHT_COAT (times 0.6-1.4)
AMBIENT_JITTER = 0.8  # per-image light on the scene but not on the animal, in units of LIGHT_COAT: one picture's
# own background is a noisy witness of the cast, the mean of several backgrounds is a good one
PRIOR_TEMPERATURE = 0.85  # divides all log priors; higher: more even sites
HABITAT_AFFINITY = 1.0  # spread of log prior by habitat
RANGE_STRENGTH = 1.1  # spread of log prior by the smooth geographic ranges
SCENE_AFFINITY = 0.8  # spread of log prior by the two factors that only backgrounds show
PAIR_SHARING = 0.97  # correlation of the affinities of the two of a pair
SITE_NOISE = 0.2  # spread of log prior that the description does not explain
BLANK_LOGIT = (-1.75, 0.75)  # mean and spread of the logit of the blank share, before clipping
BLANK_RANGE = (0.03, 0.40)  # the blank share is clipped to this
NIGHT_BETA = (1.5, 3.6)  # the infrared share of a site is drawn from this beta distribution
DISTANCE_RANGE = (0.46, 1.45)  # relative size by distance; lower start: more truly hard, small animals
OCCLUSION = 1.0  # scales the density of the vegetation in front of the animals
SENSOR_NOISE = 0.018  # standard deviation of the noise by day, before the camera model's factor
NIGHT_NOISE = 1.7  # factor on the sensor noise by night

REGION = ((-6.0, 2.0), (31.0, 39.0))
"""Latitudes and longitudes of the region, degrees."""

Degrees = float | int
CoatAxis = Literal["none", "band", "stripes", "spots", "mantle", "warm", "tone"]
Pattern = Literal["plain", "band", "stripes", "spots", "mantle", "patches", "quills", "scales"]


@dataclass(frozen=True)
class BodyPlan:
    """Proportions in units of the trunk's length; angles in degrees above the direction of walking.

    ``length`` alone is the trunk's length as a share of the image's width at distance 1.
    """

    length: float
    rear: float
    front: float
    leg: float
    leg_radius: float
    neck: float
    neck_angle: Degrees
    neck_radius: float
    head: float
    head_radius: float
    snout: float
    slope: float = 0.0
    head_angle: Degrees = -25.0
    ear: float = 0.1
    horn: float = 0.0
    horn_angle: Degrees = 110.0
    horn_curve: Degrees = 30.0
    tail: float = 0.35
    tail_angle: Degrees = 250.0
    tail_radius: float = 0.02
    proboscis: float = 0.0
    crest: float = 0.0
    bird: bool = False


@dataclass(frozen=True)
class Coat:
    """Two colours and the pattern that mixes them; ``axis`` names what a look-alike pair differs in."""

    primary: tuple[float, float, float]
    secondary: tuple[float, float, float]
    pattern: Pattern = "plain"
    strength: float = 0.0
    axis: CoatAxis = "none"


@dataclass(frozen=True)
class Species:
    """One species: body, coat, world-wide log rate, and how much it prefers the night (logit)."""

    name: str
    plan: BodyPlan
    coat: Coat
    rate: float
    nocturnal: float = 0.0


def _twin(species: Species, name: str, rate: float) -> Species:
    """The look-alike of a species: nearly the same body, the same coat up to its axis."""
    d, plan = PAIR_SHAPE_DIFFERENCE, species.plan
    changed = replace(
        plan,
        length=plan.length * (1 + d),
        leg=plan.leg * (1 - 1.5 * d),
        neck=plan.neck * (1 - 1.5 * d),
        tail=plan.tail * (1 + 2 * d),
        ear=plan.ear * (1 + 3 * d),
        horn=plan.horn * (1 + 3 * d),
    )
    return replace(species, name=name, plan=changed, rate=rate)


_GAZELLE = Species(
    "gazelle",
    BodyPlan(0.34, 0.17, 0.16, 0.55, 0.045, 0.42, 58, 0.075, 0.24, 0.085, 0.045, 0.02, horn=0.34, tail=0.25),
    Coat((0.66, 0.47, 0.27), (0.12, 0.09, 0.07), "band", 1.0, "band"),
    0.75,
)
_ZEBRA = Species(
    "plains_zebra",
    BodyPlan(0.42, 0.22, 0.21, 0.46, 0.06, 0.40, 48, 0.12, 0.30, 0.10, 0.065, 0.02, ear=0.13, tail=0.42, crest=0.05),
    Coat((0.80, 0.76, 0.70), (0.10, 0.09, 0.09), "stripes", 1.0, "stripes"),
    0.65,
)
_HYENA = Species(
    "spotted_hyena",
    BodyPlan(0.36, 0.16, 0.20, 0.38, 0.06, 0.26, 32, 0.12, 0.24, 0.11, 0.06, 0.10, ear=0.13, tail=0.28),
    Coat((0.62, 0.53, 0.38), (0.13, 0.10, 0.08), "spots", 1.0, "spots"),
    0.35,
    1.0,
)
_BUSTARD = Species(
    "kori_bustard",
    BodyPlan(0.29, 0.23, 0.19, 0.62, 0.035, 0.62, 76, 0.055, 0.15, 0.07, 0.02, 0.08, tail=0.38, bird=True),
    Coat((0.48, 0.42, 0.35), (0.10, 0.09, 0.08), "mantle", 1.0, "mantle"),
    0.15,
    -1.5,
)
_WARTHOG = Species(
    "warthog",
    BodyPlan(0.33, 0.20, 0.22, 0.24, 0.05, 0.12, 5, 0.17, 0.34, 0.14, 0.085, 0.03, head_angle=-30, ear=0.1, tail=0.3),
    Coat((0.42, 0.36, 0.31), (0.20, 0.16, 0.13), "plain", 0.0, "warm"),
    0.35,
)
_DUIKER = Species(
    "duiker",
    BodyPlan(0.27, 0.19, 0.16, 0.40, 0.04, 0.26, 42, 0.08, 0.22, 0.085, 0.04, -0.05, horn=0.1, ear=0.15, tail=0.12),
    Coat((0.46, 0.37, 0.27), (0.75, 0.68, 0.58), "plain", 0.0, "tone"),
    0.30,
    0.4,
)

_CROCODILE_BODY = replace(
    BodyPlan(0.46, 0.12, 0.13, 0.1, 0.045, 0.12, 0, 0.1, 0.4, 0.075, 0.035, 0.0, 0, 0.0),
    tail=0.75,
    tail_angle=186,
    tail_radius=0.07,
)
SPECIES: tuple[Species, ...] = (
    _GAZELLE,
    _twin(_GAZELLE, "impala", 0.65),
    _ZEBRA,
    _twin(_ZEBRA, "mountain_zebra", 0.45),
    _HYENA,
    _twin(_HYENA, "wild_dog", 0.05),
    _BUSTARD,
    _twin(_BUSTARD, "secretary_bird", 0.0),
    _WARTHOG,
    _twin(_WARTHOG, "bushpig", 0.15),
    _DUIKER,
    _twin(_DUIKER, "steenbok", 0.1),
    Species(
        "elephant",
        BodyPlan(
            0.60, 0.30, 0.32, 0.34, 0.105, 0.12, 20, 0.22, 0.26, 0.20, 0.12, 0.04, ear=0.34, tail=0.3, proboscis=0.62
        ),
        Coat((0.40, 0.37, 0.35), (0.85, 0.82, 0.74), "plain", 0.0),
        1.1,
    ),
    Species(
        "giraffe",
        BodyPlan(
            0.32, 0.24, 0.27, 0.88, 0.065, 1.15, 64, 0.09, 0.30, 0.09, 0.05, 0.16, horn=0.1, horn_angle=80, tail=0.5
        ),
        Coat((0.84, 0.70, 0.44), (0.42, 0.24, 0.11), "patches", 1.0),
        1.0,
    ),
    Species(
        "porcupine",
        BodyPlan(0.28, 0.26, 0.16, 0.12, 0.045, 0.08, 0, 0.12, 0.20, 0.11, 0.06, -0.04, ear=0.05, tail=0.2, crest=0.30),
        Coat((0.14, 0.12, 0.11), (0.86, 0.83, 0.76), "quills", 1.0),
        0.7,
        2.0,
    ),
    Species(
        "crocodile",
        _CROCODILE_BODY,
        Coat((0.30, 0.33, 0.20), (0.14, 0.16, 0.09), "scales", 0.8),
        1.2,
        0.5,
    ),
)
CLASSES: tuple[str, ...] = (*(entry.name for entry in SPECIES), "blank")
BLANK = len(SPECIES)
CLINE_PAIRS: tuple[tuple[int, int], ...] = ((0, 1), (2, 3), (4, 5), (6, 7))
"""Pairs whose coats swap along a geographic cline: distinguishable only with the site's coordinates."""
LIGHT_PAIRS: tuple[tuple[int, int], ...] = ((8, 9), (10, 11))
"""Pairs distinguished by hue and tone, which the site's colour cast and exposure shift."""


@dataclass(frozen=True)
class Habitat:
    """Appearance of a habitat, and its usual canopy cover in percent."""

    name: str
    canopy: float
    trees: float
    bushes: float
    grass: float
    boulders: float = 0.0
    water: float = 0.0


HABITATS: tuple[Habitat, ...] = (
    Habitat("grassland", 6.0, 1.0, 1.0, 1.0),
    Habitat("woodland", 45.0, 7.0, 3.0, 0.5),
    Habitat("thicket", 62.0, 3.0, 10.0, 0.5),
    Habitat("riverine", 52.0, 4.0, 4.0, 0.7, water=1.0),
    Habitat("rocky", 18.0, 2.0, 3.0, 0.3, boulders=5.0),
)


@dataclass(frozen=True)
class CameraModel:
    """A make of camera: noise factor, blur (0 to 1) and vignette (0 to 1)."""

    name: str
    noise: float
    blur: float
    vignette: float


CAMERA_MODELS: tuple[CameraModel, ...] = (
    CameraModel("Akida", 0.8, 0.0, 0.10),
    CameraModel("Bundu", 1.0, 0.25, 0.20),
    CameraModel("Chui", 1.3, 0.15, 0.35),
    CameraModel("Duma", 1.1, 0.4, 0.05),
)

METADATA_SCHEMA = MetadataSchema(
    (
        MetadataField("latitude", "number", "degrees", geographic="latitude"),
        MetadataField("longitude", "number", "degrees", geographic="longitude"),
        MetadataField("elevation", "number", "m"),
        MetadataField("habitat", "category", categories=tuple(entry.name for entry in HABITATS)),
        MetadataField("canopy_cover", "number", "%"),
        MetadataField("camera_height", "number", "m"),
        MetadataField("camera_model", "category", categories=tuple(entry.name for entry in CAMERA_MODELS)),
        MetadataField("season", "cyclic", "day of year", period=365.25),
    )
)

# One border per cline pair: weights of the scaled latitude, longitude and elevation, and an offset. The coats of two
# pairs change from south to north and those of the other two from west to east, as clines of real animals often do.
_CLINES = np.array([[1.0, 0.0, 0.0, 0.08], [1.0, 0.0, 0.0, -0.08], [0.0, 1.0, 0.0, -0.08], [0.0, 1.0, 0.0, 0.08]])


def cline_position(north: float, east: float, height: float) -> Floats:
    """Position of a site across each pair's cline, ``float64 [4]``: the sign decides, 0 is the border.

    Args:
        north: latitude, scaled to [-1, 1] over the region.
        east: longitude, scaled to [-1, 1] over the region.
        height: elevation, scaled to mean 0 and spread about 0.6.
    """
    return np.asarray(_CLINES @ np.array([north, east, height, 1.0]))


def _affinities(name: str, *shape: int) -> Floats:
    """A fixed table of the world, standard normal; the two of a pair live in nearly the same sites."""
    table = numpy_generator(WORLD_SEED, "savanna", "world", name).standard_normal((*shape, len(SPECIES)))
    for first, second in CLINE_PAIRS + LIGHT_PAIRS:
        table[..., second] = PAIR_SHARING * table[..., first] + (1 - PAIR_SHARING**2) ** 0.5 * table[..., second]
    return table


_BY_HABITAT = _affinities("habitat", len(HABITATS))
_BY_HABITAT[:, CLASSES.index("crocodile")] = [-1.5, -1.5, -1.0, 1.6, -1.5]
_BY_HABITAT[:, CLASSES.index("giraffe")] = [0.3, 1.4, -0.6, 0.2, -1.2]
_BY_HABITAT[:, CLASSES.index("porcupine")] = [-0.6, 0.0, 0.6, 0.0, 1.4]
_RANGE_WAVES = _affinities("range waves", 3)
_BY_CANOPY = _affinities("canopy")
_BY_HEIGHT = _affinities("height")
_BY_SEASON = _affinities("season", 2)
_BY_LUSHNESS = _affinities("lushness")
_BY_STONES = _affinities("stones")


def metadata_log_prior(
    north: float, east: float, height: float, habitat: int, *, canopy: float, season: float
) -> Floats:
    """The part of the species' log prior that the metadata explain, ``float64 [16]``.

    Ranges are half-waves over the region, so that neighbours a degree apart are alike. ``canopy`` is scaled to
    about [-1, 1] and ``season`` is an angle in radians; the others are as in :func:`cline_position`.
    """
    angle = 1.2 * (_RANGE_WAVES[0] * north + _RANGE_WAVES[1] * east) + np.pi * _RANGE_WAVES[2]
    ranges = np.sqrt(2.0) * np.sin(angle)
    return np.asarray(
        HABITAT_AFFINITY * _BY_HABITAT[habitat]
        + RANGE_STRENGTH * ranges
        + 0.4 * _BY_CANOPY * canopy
        + 0.4 * _BY_HEIGHT * height
        + 0.2 * (_BY_SEASON[0] * np.cos(season) + _BY_SEASON[1] * np.sin(season))
    )


def scene_log_prior(lushness: float, stones: float) -> Floats:
    """The part of the species' log prior that only the appearance of the scene explains, ``float64 [16]``."""
    return np.asarray(SCENE_AFFINITY * (_BY_LUSHNESS * lushness + _BY_STONES * stones))
