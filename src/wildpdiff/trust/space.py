"""Where the seen descriptions lie, factor by factor, and how far from them a new one is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from wildpdiff.conditions.base import Featuriser
from wildpdiff.errors import DescriptionError
from wildpdiff.tasks.description import Description, MetadataField, MetadataSchema

IMAGE_PARTS = ("backgrounds", "examples")
NEIGHBOURS = 5
"""A description is as far from the seen ones as from the fifth nearest: one stray neighbour supports nothing."""
MOST_DISTANCE = 10.0
"""Distances are cut off here, where a description has nothing in common with the seen ones."""
FAR = 0.97
"""Percentile among the seen tasks from which a description counts as far from them."""
OUTSIDE = 3.0
"""Distance in a place or a number, in root mean square differences between seen tasks, from which nothing that was
held out says anything of a description: by then it is rather a slip of the pen than a new place."""
SATURATION = 2.0
"""Squared distance in one factor, in units of the mean over seen pairs, beyond which farther counts no more."""


@dataclass(frozen=True)
class Factor:
    """One thing that a description tells: the place, one field of the metadata, or one set of images.

    Attributes:
        name: ``place``, the field's name, or the part's.
        kind: ``place`` (latitude and longitude as a point on the sphere), a kind of field, or ``images``.
        fields: names of the fields that it reads; none for images.
    """

    name: str
    kind: Literal["place", "number", "cyclic", "category", "images"]
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Novelty:
    """How far a description lies from the seen ones.

    Attributes:
        evidence: named numbers for the prediction of the gain.
        percentiles: by factor, which share of the seen tasks lies nearer to the other seen ones, 0 to 1.
        unknown: fields of which no seen task had the description's category, with that category.
        missing: factors that seen tasks have and the description lacks.
        outside: places and numbers so far from all seen ones that no held-out task tells anything of them.
    """

    evidence: Mapping[str, float]
    percentiles: Mapping[str, float]
    unknown: Mapping[str, str]
    missing: tuple[str, ...]
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class DescriptionSpace:
    """The seen descriptions as points, one set of coordinates a factor.

    Attributes:
        schema: of the metadata.
        factors: those that at least two seen tasks have.
        points: by factor, coordinates of the seen tasks, nan where a task lacks the factor.
        center, scale: by factor, what images' features are standardised by.
        units: by factor, the mean squared distance between seen tasks.
        weights: by factor, how much it tells about the adapters; their sum is 1.
        reference: by factor and ``overall``, each seen task's distance to the other seen ones, ascending.
    """

    schema: MetadataSchema
    factors: tuple[Factor, ...]
    points: Mapping[str, Float[Tensor, "t _"]]
    center: Mapping[str, Float[Tensor, " _"]]
    scale: Mapping[str, Float[Tensor, " _"]]
    units: Mapping[str, float]
    weights: Mapping[str, float]
    reference: Mapping[str, Float[Tensor, " _"]]

    @classmethod
    def fit(
        cls,
        descriptions: Sequence[Description],
        schema: MetadataSchema,
        featurise: Featuriser,
        adapters: Float[Tensor, "t d"],
        parts: Sequence[str] = ("metadata", "backgrounds"),
    ) -> DescriptionSpace:
        """Place the seen descriptions and weigh the factors by what they tell about the adapters.

        The weights are those of a non-negative least squares regression of squared distances between adapters on
        saturated squared distances between descriptions.

        Args:
            descriptions: of the seen tasks; any may lack any part.
            schema: of the metadata.
            featurise: images to features.
            adapters: one flat vector a seen task.
            parts: that the generator reads.

        Raises:
            DescriptionError: no factor is told of two tasks.
        """
        factors, points, center, scale, units = [], {}, {}, {}, {}
        for factor in _factors(schema, parts):
            rows = [_coordinates(factor, schema, entry, featurise) for entry in descriptions]
            known = [row for row in rows if row is not None]
            if len(known) < 2:
                continue
            width = len(known[0])
            table = torch.stack([row if row is not None else torch.full((width,), torch.nan).double() for row in rows])
            present = torch.tensor([row is not None for row in rows])
            center[factor.name], scale[factor.name] = torch.zeros(width).double(), torch.ones(width).double()
            if factor.kind == "images":
                average = table[present].nanmean(0).nan_to_num(0.0)
                spread = (table[present] - average).square().nanmean(0).nan_to_num(0.0).sqrt()
                center[factor.name] = average
                scale[factor.name] = torch.where(spread > 1e-6 * (1 + average.abs()), spread, torch.inf)
            table = (table - center[factor.name]) / scale[factor.name]
            table[present] = _known(factor, table[present])
            unit = _mean_of_pairs(_squared(factor, table, table))
            factors.append(factor)
            points[factor.name], units[factor.name] = table, unit if unit > 1e-12 else 1.0
        if not factors:
            raise DescriptionError("No part of the description is told of two seen tasks; trust needs at least one.")
        space = cls(schema, tuple(factors), points, center, scale, units, {}, {})
        between = {factor.name: space._between(factor) for factor in factors}
        weights = _relevance(between, adapters)
        reference = {name: _to_others(squared) for name, squared in between.items()}
        reference["overall"] = _to_others(_overall(between, weights))
        return cls(schema, tuple(factors), points, center, scale, units, weights, reference)

    def novelty(self, description: Description, featurise: Featuriser) -> Novelty:
        """How far a description lies from the seen ones.

        A category that the schema does not know counts as one that no seen task has.
        """
        squared: dict[str, Tensor] = {}
        unknown: dict[str, str] = {}
        for factor in self.factors:
            found = _coordinates(factor, self.schema, description, featurise)
            if found is None:
                continue
            point = _known(factor, (found - self.center[factor.name]) / self.scale[factor.name])[None]
            squared[factor.name] = _squared(factor, point, self.points[factor.name])[0] / self.units[factor.name]
            if factor.kind == "category" and not bool((squared[factor.name] == 0).any()):
                unknown[factor.name] = str((description.metadata or {})[factor.name])
        kinds = {factor.name: factor.kind for factor in self.factors}
        missing = tuple(name for name in kinds if name not in squared)
        distances = {name: _nearest(values) for name, values in squared.items()}
        overall = _nearest(_overall(squared, self.weights)) if squared else math.inf
        percentiles = {name: self._percentile(name, value) for name, value in distances.items()}
        percentiles["overall"] = self._percentile("overall", overall)
        usual = max(float(self.reference["overall"].median()), 1e-6)
        numbers = [value for name, value in distances.items() if kinds[name] != "category"]
        evidence = {
            "distance": min(overall / usual, MOST_DISTANCE),
            "farthest_factor": min(max(numbers, default=0.0), MOST_DISTANCE),
            "unknown_categories": float(len(unknown)),
            "missing_weight": sum(self.weights[name] for name in missing),
            "far": float(bool(unknown) or any(share >= FAR for share in self._telling(percentiles).values())),
        }
        outside = tuple(name for name, value in distances.items() if value >= OUTSIDE and self._measurable(name))
        return Novelty(evidence, percentiles, unknown, missing, outside)

    def _measurable(self, name: str) -> bool:
        """Whether it is a place or a number in which seen tasks differ."""
        kind = next(factor.kind for factor in self.factors if factor.name == name)
        known = self.points[name][~self.points[name].isnan().any(1)]
        return kind in ("place", "number") and bool((known != known[:1]).any())

    def _telling(self, percentiles: Mapping[str, float]) -> dict[str, float]:
        """Percentiles of the whole description, and of the factors that tell more of the adapters than their share."""
        least = 1 / len(self.factors)
        return {name: share for name, share in percentiles.items() if name == "overall" or self.weights[name] >= least}

    def _between(self, factor: Factor) -> Tensor:
        table = self.points[factor.name]
        squared = _squared(factor, table, table) / self.units[factor.name]
        return squared.fill_diagonal_(torch.nan)

    def _percentile(self, name: str, distance: float) -> float:
        return float((self.reference[name] < distance).double().mean())

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values that, with :attr:`tensors`, restore the space."""
        return {
            "schema": self.schema.to_json(),
            "factors": [{**factor.__dict__, "fields": list(factor.fields)} for factor in self.factors],
            "units": dict(self.units),
            "weights": dict(self.weights),
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Points, standardisation and reference distances, by kind and factor."""
        groups = {"points": self.points, "center": self.center, "scale": self.scale, "reference": self.reference}
        return {f"{kind}.{name}": value for kind, group in groups.items() for name, value in group.items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DescriptionSpace:
        """Restore from :attr:`config` and :attr:`tensors`."""
        groups: dict[str, dict[str, Tensor]] = {"points": {}, "center": {}, "scale": {}, "reference": {}}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            groups[kind][name] = value
        factors = tuple(Factor(entry["name"], entry["kind"], tuple(entry["fields"])) for entry in config["factors"])
        schema = MetadataSchema.from_json(config["schema"])
        return cls(schema, factors, units=config["units"], weights=config["weights"], **groups)


def _factors(schema: MetadataSchema, parts: Sequence[str]) -> list[Factor]:
    found: list[Factor] = []
    if "metadata" in parts:
        place = {entry.geographic: entry.name for entry in schema.fields if entry.geographic}
        together = tuple(place[key] for key in ("latitude", "longitude")) if len(place) == 2 else ()
        if together:
            found.append(Factor("place", "place", together))
        found += [
            Factor(entry.name, entry.kind, (entry.name,)) for entry in schema.fields if entry.name not in together
        ]
    return found + [Factor(part, "images") for part in IMAGE_PARTS if part in parts]


def _coordinates(
    factor: Factor, schema: MetadataSchema, description: Description, featurise: Featuriser
) -> Tensor | None:
    """The factor's coordinates, or None where the description lacks it."""
    if factor.kind == "images":
        images = getattr(description, factor.name)
        return featurise(images).double().mean(0) if images is not None and len(images) else None
    metadata = description.metadata or {}
    if not all(name in metadata for name in factor.fields):
        return None
    fields: dict[str, MetadataField] = {entry.name: entry for entry in schema.fields}
    if factor.kind == "category":
        categories = fields[factor.fields[0]].categories
        value = metadata[factor.fields[0]]
        return torch.tensor([float(categories.index(str(value))) if value in categories else -1.0]).double()
    numbers = [float(metadata[name]) for name in factor.fields]
    if factor.kind == "place":
        north, east = (math.radians(value) for value in numbers)
        point = (math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north))
        return torch.tensor(point).double()
    if factor.kind == "cyclic":
        period = fields[factor.fields[0]].period or 1.0
        angle = 2 * math.pi * math.fmod(numbers[0], period) / period
        return torch.tensor([math.sin(angle), math.cos(angle)]).double()
    return torch.tensor(numbers).double()


def _known(factor: Factor, standardised: Tensor) -> Tensor:
    """What images do not tell (nan: the light of a place by night) counts as the average, as in the conditions."""
    return standardised.nan_to_num(0.0) if factor.kind == "images" else standardised


def _squared(factor: Factor, left: Tensor, right: Tensor) -> Tensor:
    """Squared distances in one factor, nan where either lacks it; categories are alike or not."""
    differences = left[:, None] - right[None]
    if factor.kind == "category":
        unlike = (differences.abs() > 0.5).double()
        return torch.where(differences.isnan(), torch.nan, unlike)[..., 0]
    return differences.square().mean(2)


def _mean_of_pairs(squared: Tensor) -> float:
    return float(squared.clone().fill_diagonal_(torch.nan).nanmean().nan_to_num(0.0))


def _overall(squared: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted mean of saturated squared distances over the factors that both have; nan where they share none."""
    total, shared = torch.zeros(()).double(), torch.zeros(()).double()
    for name, values in squared.items():
        known = ~values.isnan()
        total = total + weights[name] * torch.where(known, values.clamp_max(SATURATION), 0.0)
        shared = shared + weights[name] * known
    return torch.where(shared > 0, total / shared, torch.nan)


def _nearest(squared: Tensor) -> float:
    """Distance to the fifth nearest (or the farthest there is)."""
    known = squared[~squared.isnan()].sort().values
    return float(known[min(NEIGHBOURS, len(known)) - 1].sqrt()) if len(known) else math.inf


def _to_others(squared: Tensor) -> Tensor:
    """Ascending distances of the seen tasks to the other seen ones; rows without any are left out."""
    own = torch.tensor([_nearest(row) for row in squared]).double()
    return own[own.isfinite()].sort().values


def _relevance(between: Mapping[str, Tensor], adapters: Tensor) -> dict[str, float]:
    """Weights of the factors, by non-negative least squares; a tenth is shared by all, so that none is forgotten."""
    count = len(adapters)
    rows, columns = np.triu_indices(count, 1)
    values = adapters.double()
    target = torch.cdist(values, values).square()[rows, columns].numpy()
    design = np.stack(
        [squared[rows, columns].clamp_max(SATURATION).nan_to_num(1.0).numpy() for squared in between.values()], axis=1
    )
    found, _ = nnls(np.column_stack([design, np.ones(len(rows))]), target / max(target.mean(), 1e-30))
    found = found[:-1] * design.std(0)
    share = found / found.sum() if found.sum() > 0 else np.full(len(between), 1 / len(between))
    return {name: float(0.9 * own + 0.1 / len(between)) for name, own in zip(between, share, strict=True)}
