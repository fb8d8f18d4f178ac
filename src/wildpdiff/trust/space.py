"""Seen descriptions as points, factor by factor, and the novelty of a new one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wildpdiff.conditions.base import Featuriser
from wildpdiff.conditions.metadata import angle_columns, unit_vectors
from wildpdiff.conditions.text import packaged_sentences, without_numbers
from wildpdiff.errors import DescriptionError
from wildpdiff.records import decode, encode
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description, MetadataSchema

IMAGE_PARTS = ("backgrounds", "examples")
FEATURES = ("images", "text")
"""Kinds of factors whose coordinates are features of a frozen model, and standardised."""

NEIGHBOURS = 5
"""The distance to the seen descriptions is that to the fifth nearest: one stray neighbour supports nothing."""
MOST_DISTANCE = 10.0
"""Bound of distances, reached where a description has nothing in common with the seen ones."""
FAR = 0.97
"""Percentile among the seen tasks from which a description counts as far from them."""
OUTSIDE = 3.0
"""Distance in a site or a number, in root mean square differences between seen tasks, from which no held-out task is
evidence: by then it is rather a slip of the pen than a new site."""
SATURATION = 2.0
"""Squared distance in one factor, in units of the mean over seen pairs, beyond which farther counts no more."""
OVERALL = "overall"


@dataclass(frozen=True)
class Factor:
    """One factor of a description: the site, one field of the metadata, one set of images, or the words.

    Attributes:
        name: ``place`` for the site, the field's name, or the part's.
        kind: ``place`` (latitude and longitude as a point on the sphere), a kind of field, ``images`` or ``text``.
        fields: names of the metadata fields; none for images and words.
    """

    name: str
    kind: Literal["place", "number", "cyclic", "category", "images", "text"]
    fields: tuple[str, ...] = ()

    def coordinates(self, schema: MetadataSchema, description: Description, featurise: Featuriser) -> Tensor | None:
        """Coordinates ``float64``, or None where the description lacks the factor."""
        if self.kind == "images":
            images = getattr(description, self.name)
            return featurise(images).double().mean(0) if images is not None and count(images) else None
        if self.kind == "text":
            words = (description.text or "").strip()
            return packaged_sentences([without_numbers(words)])[0].double() if words else None
        metadata = description.metadata or {}
        if not all(name in metadata for name in self.fields):
            return None
        values = [metadata[name] for name in self.fields]
        field = next(entry for entry in schema.fields if entry.name == self.fields[0])
        if self.kind == "category":
            found = [float(field.categories.index(str(values[0]))) if values[0] in field.categories else -1.0]
        elif self.kind == "cyclic":
            found = angle_columns(float(values[0]), field.period or 1.0)
        else:
            found = [float(value) for value in values]
        if self.kind == "place":
            found = unit_vectors(np.array(found[:1]), np.array(found[1:]), 0.0)[0, ::-1].tolist()
        return torch.tensor(found, dtype=torch.float64)

    def squared(self, left: Float[Tensor, "n c"], right: Float[Tensor, "m c"]) -> Float[Tensor, "n m"]:
        """Squared distances, nan where either lacks the factor; of categories 0 or 1."""
        differences = left[:, None] - right[None]
        if self.kind != "category":
            return differences.square().mean(2)
        unlike = (differences.abs() > 0.5).double()
        return torch.where(differences.isnan(), torch.nan, unlike)[..., 0]


@dataclass(frozen=True, eq=False)
class SeenFactor:
    """Coordinates of the seen tasks in one factor.

    Attributes:
        points: standardised coordinates of the seen tasks, nan where a task lacks the factor.
        center, scale: standardisation; of features only.
        unit: mean squared distance between seen tasks.
        weight: relevance to the adapters; all sum to 1.
        reference: each seen task's distance to the other seen ones, ascending.
    """

    factor: Factor
    points: Float[Tensor, "t c"]
    center: Float[Tensor, " c"]
    scale: Float[Tensor, " c"]
    unit: float
    weight: float
    reference: Float[Tensor, " r"]

    @classmethod
    def of(cls, factor: Factor, rows: Sequence[Tensor | None]) -> SeenFactor | None:
        """From the seen tasks' coordinates, without relevance yet; None where fewer than two tasks have any."""
        known = [row for row in rows if row is not None]
        if len(known) < 2:
            return None
        nothing = torch.full_like(known[0], torch.nan)
        table = torch.stack([nothing if row is None else row for row in rows])
        present = torch.tensor([row is not None for row in rows])
        center, scale = torch.zeros_like(nothing), torch.ones_like(nothing)
        if factor.kind in FEATURES:
            center = table[present].nanmean(0).nan_to_num(0.0)
            spread = (table[present] - center).square().nanmean(0).nan_to_num(0.0).sqrt()
            scale = torch.where(spread > 1e-6 * (1 + center.abs()), spread, torch.inf)
        table = (table - center) / scale
        if factor.kind in FEATURES:
            table[present] = table[present].nan_to_num(0.0)
        pairs = factor.squared(table, table).fill_diagonal_(torch.nan)
        unit = float(pairs.nanmean().nan_to_num(0.0))
        return cls(factor, table, center, scale, unit if unit > 1e-12 else 1.0, 0.0, nothing[:0])

    @property
    def between(self) -> Float[Tensor, "t t"]:
        """Squared distances between the seen tasks in units of their mean, nan on the diagonal."""
        return (self.factor.squared(self.points, self.points) / self.unit).fill_diagonal_(torch.nan)

    @property
    def varies(self) -> bool:
        """Whether it is a site or a number in which seen tasks differ."""
        known = self.points[~self.points.isnan().any(1)]
        return self.factor.kind in ("place", "number") and bool((known != known[:1]).any())

    def squared_from(self, coordinates: Tensor) -> Float[Tensor, " t"]:
        """Squared distances from a description to the seen tasks."""
        row = (coordinates - self.center) / self.scale
        if self.factor.kind == "images":  # unknown features (nan: the light by night) count as the average
            row = row.nan_to_num(0.0)
        return self.factor.squared(row[None], self.points)[0] / self.unit


@dataclass(frozen=True)
class Novelty:
    """Distance of a description from the seen ones.

    Attributes:
        percentiles: by factor, share of the seen tasks that lie nearer to the other seen ones, 0 to 1.
        unknown: fields of which no seen task had the description's category, with that category.
        missing: factors that seen tasks have and the description lacks.
        outside: sites and numbers beyond the range of all seen ones.
    """

    evidence: Mapping[str, float]
    percentiles: Mapping[str, float]
    unknown: Mapping[str, str]
    missing: tuple[str, ...]
    outside: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DescriptionSpace:
    """Seen descriptions as points, one set of coordinates a factor.

    Attributes:
        seen: factors that at least two seen tasks have.
        reference: each seen task's distance to the other seen ones over all factors, ascending.
    """

    schema: MetadataSchema
    seen: tuple[SeenFactor, ...]
    reference: Float[Tensor, " r"]

    @classmethod
    def fit(
        cls,
        descriptions: Sequence[Description],
        schema: MetadataSchema,
        featurise: Featuriser,
        *,
        adapters: Float[Tensor, "t d"],
        parts: Sequence[str] = ("metadata", "backgrounds"),
    ) -> DescriptionSpace:
        """Coordinates of the seen descriptions, and weights of the factors by their relevance to the adapters.

        The weights are those of a non-negative least squares regression of squared distances between adapters on
        saturated squared distances between descriptions.

        Args:
            descriptions: of the seen tasks; any may lack any part.
            adapters: one flat vector a seen task.

        Raises:
            DescriptionError: no two tasks have a factor in common.
        """
        found = []
        for factor in _factors(schema, parts):
            rows = [factor.coordinates(schema, entry, featurise) for entry in descriptions]
            found.append(SeenFactor.of(factor, rows))
        seen = [entry for entry in found if entry is not None]
        if not seen:
            raise DescriptionError("No two seen tasks share a part of the description; trust needs at least one.")
        between = [entry.between for entry in seen]
        weights = _relevance(between, adapters)
        weighed = [
            replace(entry, weight=weight, reference=_to_others(squared))
            for entry, weight, squared in zip(seen, weights, between, strict=True)
        ]
        return cls(schema, tuple(weighed), _to_others(_overall(between, weights)))

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Names, kinds and fields."""
        return tuple(entry.factor for entry in self.seen)

    @property
    def weights(self) -> dict[str, float]:
        """Relevance to the adapters by factor; the sum is 1."""
        return {entry.factor.name: entry.weight for entry in self.seen}

    def novelty(self, description: Description, featurise: Featuriser) -> Novelty:
        """Novelty of a description; a category that the schema does not know counts as one that no seen task has."""
        present: list[SeenFactor] = []
        squared: list[Tensor] = []
        missing: list[SeenFactor] = []
        unknown: dict[str, str] = {}
        for entry in self.seen:
            coordinates = entry.factor.coordinates(self.schema, description, featurise)
            if coordinates is None:
                missing.append(entry)
                continue
            present.append(entry)
            squared.append(entry.squared_from(coordinates))
            if entry.factor.kind == "category" and not bool((squared[-1] == 0).any()):
                unknown[entry.factor.name] = str((description.metadata or {})[entry.factor.name])
        distances = [_nearest(values) for values in squared]
        pairs = list(zip(present, distances, strict=True))
        overall = _nearest(_overall(squared, [entry.weight for entry in present])) if present else math.inf
        percentiles = {entry.factor.name: _percentile(entry.reference, value) for entry, value in pairs}
        percentiles[OVERALL] = _percentile(self.reference, overall)
        # Factors that are more relevant to the adapters than their share.
        relevant = [entry.factor.name for entry in present if entry.weight >= 1 / len(self.seen)]
        numbers = [value for entry, value in pairs if entry.factor.kind != "category"]
        evidence = {
            "distance": min(overall / max(float(self.reference.median()), 1e-6), MOST_DISTANCE),
            "farthest_factor": min(max(numbers, default=0.0), MOST_DISTANCE),
            "unknown_categories": float(len(unknown)),
            "missing_weight": sum(entry.weight for entry in missing),
            "far": float(bool(unknown) or any(percentiles[name] >= FAR for name in (*relevant, OVERALL))),
        }
        outside = tuple(entry.factor.name for entry, value in pairs if value >= OUTSIDE and entry.varies)
        return Novelty(evidence, percentiles, unknown, tuple(entry.factor.name for entry in missing), outside)

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON values of the state."""
        return {
            "schema": self.schema.to_json(),
            "factors": encode(self.factors),
            "units": {entry.factor.name: entry.unit for entry in self.seen},
            "weights": self.weights,
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the state, by kind and factor."""
        kinds = ("points", "center", "scale", "reference")
        found = {f"{kind}.{entry.factor.name}": getattr(entry, kind) for entry in self.seen for kind in kinds}
        return {**found, f"reference.{OVERALL}": self.reference}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DescriptionSpace:
        """Inverse of :attr:`config` and :attr:`tensors`."""
        seen = []
        for factor in decode(tuple[Factor, ...], config["factors"], "factors"):
            points, center, scale, reference = (
                tensors[f"{kind}.{factor.name}"] for kind in ("points", "center", "scale", "reference")
            )
            unit, weight = config["units"][factor.name], config["weights"][factor.name]
            seen.append(SeenFactor(factor, points, center, scale, unit, weight, reference))
        return cls(MetadataSchema.from_json(config["schema"]), tuple(seen), tensors[f"reference.{OVERALL}"])


def _factors(schema: MetadataSchema, parts: Sequence[str]) -> list[Factor]:
    found: list[Factor] = []
    if "metadata" in parts:
        names = {entry.geographic: entry.name for entry in schema.fields if entry.geographic}
        site = tuple(names[key] for key in ("latitude", "longitude")) if len(names) == 2 else ()
        found += [Factor("place", "place", site)] if site else []
        found += [Factor(entry.name, entry.kind, (entry.name,)) for entry in schema.fields if entry.name not in site]
    found += [Factor(part, "images") for part in IMAGE_PARTS if part in parts]
    return found + ([Factor("text", "text")] if "text" in parts else [])


def _overall(squared: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted mean of saturated squared distances over the factors that both have; nan where they share none."""
    total, shared = torch.zeros(()).double(), torch.zeros(()).double()
    for values, weight in zip(squared, weights, strict=True):
        known = ~values.isnan()
        total = total + weight * torch.where(known, values.clamp_max(SATURATION), 0.0)
        shared = shared + weight * known
    return torch.where(shared > 0, total / shared, torch.nan)


def _nearest(squared: Tensor) -> float:
    """Distance to the fifth nearest (or the farthest there is)."""
    known = squared[~squared.isnan()].sort().values
    return float(known[min(NEIGHBOURS, len(known)) - 1].sqrt()) if len(known) else math.inf


def _percentile(reference: Tensor, distance: float) -> float:
    return float((reference < distance).double().mean())


def _to_others(squared: Tensor) -> Tensor:
    """Ascending distances of the seen tasks to the other seen ones; rows without any are left out."""
    own = torch.tensor([_nearest(row) for row in squared]).double()
    return own[own.isfinite()].sort().values


def _relevance(between: Sequence[Tensor], adapters: Tensor) -> list[float]:
    """Weights of the factors, by non-negative least squares; all share a tenth, so that none is ignored."""
    from scipy.optimize import nnls  # late: reading a model of trust needs no scipy

    rows, columns = np.triu_indices(len(adapters), 1)
    values = adapters.double()
    target = torch.cdist(values, values).square()[rows, columns].numpy()
    design = np.stack(
        [squared[rows, columns].clamp_max(SATURATION).nan_to_num(1.0).numpy() for squared in between], axis=1
    )
    found, _ = nnls(np.column_stack([design, np.ones(len(rows))]), target / max(target.mean(), 1e-30))
    found = found[:-1] * design.std(0)
    share = found / found.sum() if found.sum() > 0 else np.full(len(between), 1 / len(between))
    return [float(0.9 * own + 0.1 / len(between)) for own in share]
