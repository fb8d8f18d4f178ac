"""Locations: where a camera stands, what it sees there, and how it sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wildbench.datasets.savanna import world
from wildpdiff.rng import numpy_generator, sub_seed
from wildpdiff.tasks.description import MetadataValue
from wildpdiff.tasks.task import Group

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ShiftStrengths:
    """Strengths of the parts of the shift between locations, 0 (all like the mean location) to 1.

    Attributes:
        metadata: covered by the metadata (clines, ranges, habitats, camera height).
        background: visible only in background images (colour cast, exposure, lushness, stones).
        hidden: covered by nothing (noise of the prior and of the animals' scale).
    """

    metadata: float
    background: float
    hidden: float


@dataclass(frozen=True)
class Location:
    """One camera: the facts of its metadata, and the parameters of its shift.

    Attributes:
        cline: the coats' position ``c`` of each cline pair, in [-1, 1], ``float64 [4]``.
        cast: the site's constant (warm, bright) deviation of the light in log units, ``float64 [2]``.
        lushness: how green the ground is, about [-1.5, 1.5]; only backgrounds show it.
        stones: rocks and termite mounds, about [-1.5, 1.5]; only backgrounds show it.
        prior: probabilities of the 17 classes, blank last.
        night_share: share of infrared frames.
        scale: factor on the animals' size.
        horizon: height of the horizon, 0 (top) to 1 (bottom).
        scene_seed: decides the scene's trees, rocks and textures.
    """

    name: str
    group: Group
    latitude: float
    longitude: float
    elevation: float
    habitat: int
    canopy_cover: float
    camera_height: float
    camera_model: int
    season: float
    cline: Floats
    cast: Floats
    lushness: float
    stones: float
    prior: Floats
    night_share: float
    scale: float
    horizon: float
    scene_seed: int

    @property
    def metadata(self) -> dict[str, MetadataValue]:
        """The metadata, rounded as a field sheet would have it."""
        return {
            "latitude": round(self.latitude, 4),
            "longitude": round(self.longitude, 4),
            "elevation": float(round(self.elevation)),
            "habitat": world.HABITATS[self.habitat].name,
            "canopy_cover": float(round(self.canopy_cover)),
            "camera_height": round(self.camera_height, 2),
            "camera_model": world.CAMERA_MODELS[self.camera_model].name,
            "season": float(round(self.season)),
        }

    @property
    def text(self) -> str:
        """The metadata in words."""
        facts = self.metadata
        north = "south" if self.latitude < 0 else "north"
        return (
            f"A {facts['camera_model']} camera trap {facts['camera_height']} m above the ground in {facts['habitat']} "
            f"with {facts['canopy_cover']:.0f} % canopy cover, at {abs(self.latitude):.2f} degrees {north} and "
            f"{self.longitude:.2f} degrees east, {facts['elevation']:.0f} m above the sea. "
            f"It stood there around day {facts['season']:.0f} of the year."
        )


def _softmax(values: Floats) -> Floats:
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def draw_location(seed: int, group: Group, index: int, strengths: ShiftStrengths, *, foreign: bool = False) -> Location:
    """The location ``group-index`` of a seed. The draws do not depend on the strengths, only their effect does.

    Args:
        seed: the configuration's seed; ignored for pretraining locations, which are the same for every seed.
        group: ``pretraining``, ``seen`` or ``unseen``.
        index: the number within the group.
        strengths: how far the location's parameters lie from the mean location's.
        foreign: another location, that has nothing to do with the one of this name and number: drawn from a stream of
            its own, as one more of the same world.
    """
    root = world.WORLD_SEED if group == "pretraining" else seed
    stream = "foreign " if foreign else ""
    rng = numpy_generator(root, "savanna", group, index, f"{stream}location")
    (south, top), (west, right) = world.REGION
    north, east = rng.uniform(-1, 1, 2)
    height = 0.45 * np.sin(1.7 * north + 1.1 * east) + 0.45 * rng.standard_normal()
    weights = np.array(
        [1.2 - 0.4 * north, 1.1 + 0.4 * height, 0.7 - 0.3 * east, 0.6 - 0.4 * height, 0.6 + 0.5 * height]
    )
    habitat = int(rng.choice(len(world.HABITATS), p=np.clip(weights, 0.1, None) / np.clip(weights, 0.1, None).sum()))
    canopy = float(np.clip(world.HABITATS[habitat].canopy + 9 * rng.standard_normal(), 0, 95))
    camera_height = float(rng.uniform(0.4, 1.6))
    camera_model = int(rng.integers(len(world.CAMERA_MODELS)))
    season = float(rng.uniform(0, 365))
    cast = rng.choice([-1.0, 1.0], 2) * rng.uniform(0.6, 1.4, 2) * world.CAST_STRENGTH * world.LIGHT_COAT
    lushness, stones = (float(value) for value in rng.uniform(-1.5, 1.5, 2))
    noise = rng.standard_normal(world.BLANK)
    blank_noise, scale_noise = rng.standard_normal(2)
    night_share = float(rng.beta(*world.NIGHT_BETA))
    horizon = float(rng.uniform(0.26, 0.44))

    position = world.cline_position(north, east, height)
    # Shrinking moves the cline's border out of the region instead of fading the coats: sites flip one by one.
    cline = np.tanh(world.CLINE_SHARPNESS * (strengths.metadata * position + (1 - strengths.metadata)))
    rates = np.array([entry.rate for entry in world.SPECIES])
    from_metadata = world.metadata_log_prior(
        north, east, height, habitat, canopy=canopy / 40 - 1, season=season / 365.25 * 2 * np.pi
    )
    shown = world.scene_log_prior(lushness, stones)
    logits = (
        rates
        + strengths.metadata * from_metadata
        + strengths.background * shown
        + strengths.hidden * world.SITE_NOISE * noise
    ) / world.PRIOR_TEMPERATURE
    mean, spread = world.BLANK_LOGIT
    blank = 1 / (1 + np.exp(-(mean + strengths.hidden * spread * blank_noise)))
    blank = float(np.clip(blank, *world.BLANK_RANGE))
    prior = np.append((1 - blank) * _softmax(logits), blank)
    scale = np.exp(-0.22 * strengths.metadata * (camera_height - 1.0) + 0.06 * strengths.hidden * scale_noise)
    return Location(
        name=f"{group}-{index:03d}",
        group=group,
        latitude=float(south + (north + 1) / 2 * (top - south)),
        longitude=float(west + (east + 1) / 2 * (right - west)),
        elevation=float(max(50.0, 1250 + 520 * height)),
        habitat=habitat,
        canopy_cover=canopy,
        camera_height=camera_height,
        camera_model=camera_model,
        season=season,
        cline=cline,
        cast=strengths.background * cast,
        lushness=strengths.background * lushness,
        stones=strengths.background * stones,
        prior=prior,
        night_share=night_share,
        scale=float(scale),
        horizon=horizon,
        scene_seed=sub_seed(root, "savanna", group, index, f"{stream}scene"),
    )
