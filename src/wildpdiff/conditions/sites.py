"""Sites on Earth as points of the unit sphere, for a network of any extent: a valley or all continents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import CLIP

Numbers = npt.NDArray[np.float64]

COLUMNS = ("north", "east", "toward")
"""Meaning of the columns near the equator; everywhere they are a rotated and shifted Cartesian frame."""

SMALLEST = 1e-9
"""Six millimetres on the ground, in radians: nearer sites are one."""


@dataclass(frozen=True)
class SphereCoordinates:
    """Latitude and longitude as a unit vector, centred at the seen mean and divided by one common scale.

    Distances of vectors are chords: in a small region the embedding is the region's tangent plane, where they are
    proportional to great-circle distances; over the whole Earth nothing breaks at the date line or at a pole. The
    vector is turned about the Earth's axis so that the seen mean lies on the prime meridian, which leaves distances
    as they are: the column ``north`` is then a function of latitude alone, and ``east`` is what longitude changes.

    Attributes:
        meridian: longitude of the seen mean, in radians.
        center: mean of the turned unit vectors; inside the sphere.
        scale: root mean square distance of the seen sites from ``center``, divided by √2 because the ground has two
            dimensions: a site then weighs as much as two standardised numbers.
    """

    meridian: float
    center: tuple[float, float, float]
    scale: float

    @classmethod
    def fit(cls, latitudes: Numbers, longitudes: Numbers) -> SphereCoordinates:
        """Frame of the seen sites, one or more, in degrees."""
        mean = unit_vectors(latitudes, longitudes, 0.0).mean(0)
        # Rounding alone would decide the direction of a mean that lies on the axis.
        on_axis = math.hypot(mean[1], mean[2]) < SMALLEST
        meridian = 0.0 if on_axis else math.atan2(mean[1], mean[2])
        vectors = unit_vectors(latitudes, longitudes, meridian)
        center = vectors.mean(0)
        scale = math.sqrt(float(((vectors - center) ** 2).sum(1).mean()) / 2)
        north, east, toward = center.tolist()
        return cls(meridian, (north, east, toward), scale if scale > SMALLEST else 1.0)

    @classmethod
    def from_tensor(cls, values: Tensor) -> SphereCoordinates:
        """Inverse of :attr:`tensor`."""
        meridian, north, east, toward, scale = values.tolist()
        return cls(meridian, (north, east, toward), scale)

    @property
    def tensor(self) -> Float[Tensor, " values"]:
        """Meridian, center and scale: five values, ``float64``."""
        return torch.tensor([self.meridian, *self.center, self.scale], dtype=torch.float64)

    def encode(self, latitude: float | None, longitude: float | None) -> list[float]:
        """Columns of a site in degrees, in the order of :data:`COLUMNS`; the vector is at most ``CLIP`` long.

        Where only one coordinate is known the other is that of the seen mean.
        """
        north, _, toward = self.center
        if latitude is None:
            latitude = math.degrees(math.atan2(north, math.hypot(toward, self.center[1])))
        if longitude is None:
            longitude = math.degrees(self.meridian)
        vector = unit_vectors(np.array([latitude]), np.array([longitude]), self.meridian)[0]
        found = (vector - np.array(self.center)) / self.scale
        length = float(np.sqrt((found**2).sum()))
        # The length and not every column: a site far away keeps its direction.
        return [float(value) for value in found * min(1.0, CLIP / max(length, CLIP))]


def unit_vectors(latitudes: Numbers, longitudes: Numbers, meridian: float) -> Numbers:
    """Unit vectors ``float64 [n, 3]``, turned about the axis so that ``meridian`` (radians) is the prime one."""
    polar, around = np.deg2rad(latitudes), np.deg2rad(longitudes) - meridian
    return np.stack([np.sin(polar), np.cos(polar) * np.sin(around), np.cos(polar) * np.cos(around)], axis=1)
