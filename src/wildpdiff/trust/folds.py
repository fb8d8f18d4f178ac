"""Folds of seen tasks: random ones for interpolation, groups of like ones for extrapolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wildpdiff.conditions.base import Featuriser
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.batch import count
from wildpdiff.tasks.description import Description, MetadataSchema

SLAB = 0.2
"""Share of the tasks at one end of a number, of a direction on the map or among the images."""
FEWEST_KEPT = 3
FEWEST_IN_GROUP = 4
EDGE_OF_MAP = "edge of the map"

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """Seen tasks that are held out together.

    Attributes:
        name: common property, for example ``habitat woodland`` or ``random 2``.
        extrapolation: whether they were chosen for being alike.
    """

    name: str
    held_out: tuple[str, ...]
    extrapolation: bool


def calibration_folds(
    tasks: Sequence[str],
    descriptions: Mapping[str, Description],
    schema: MetadataSchema,
    featurise: Featuriser,
    *,
    random: int = 3,
    groups: int = 3,
    seed: int = 0,
) -> tuple[Fold, ...]:
    """Random folds, each task in one of them, and groups: a whole category, an edge of the map, an end of a number.

    Groups are drawn by the seed: first one category of a field of categories, then the outer fifth in some direction
    of the map, then ends of numbers or of the images' strongest component, as far as the descriptions have these.

    Raises:
        DataError: too few tasks, so that hardly any would be left to fit.
    """
    if random < 2 or len(tasks) - -(-len(tasks) // max(random, 1)) < FEWEST_KEPT:
        raise DataError(f"{len(tasks)} seen tasks cannot be held out in {random} folds. Use more seen tasks or folds.")
    draws = numpy_generator(seed, "trust", "folds")
    order = [tasks[index] for index in draws.permutation(len(tasks))]
    folds = [Fold(f"random {number}", tuple(order[number::random]), False) for number in range(random)]
    rows = [descriptions[name] for name in tasks]
    edges = _edges(tasks, rows, schema, featurise, draws=draws)
    map_edges = [fold for fold in edges if fold.name == EDGE_OF_MAP]
    others = [fold for fold in edges if fold.name != EDGE_OF_MAP]
    others = [others[index] for index in draws.permutation(len(others))]
    categories = _categories(tasks, rows, schema)
    categories = [categories[index] for index in draws.permutation(len(categories))]
    found = categories[:1] + map_edges + others + categories[1:]
    return (*folds, *_with_unique_names(found[:groups]))


def _with_unique_names(folds: Sequence[Fold]) -> list[Fold]:
    """The folds, those of a repeated name with a number after it."""
    result: dict[str, Fold] = {}
    for fold in folds:
        name, number = fold.name, 1
        while name in result:
            number += 1
            name = f"{fold.name} ({number})"
        result[name] = replace(fold, name=name)
    return list(result.values())


def _categories(tasks: Sequence[str], descriptions: Sequence[Description], schema: MetadataSchema) -> list[Fold]:
    """One fold for every category that neither a handful of tasks nor most of them have."""
    found = []
    for entry in schema.fields:
        values = [(description.metadata or {}).get(entry.name) for description in descriptions]
        for category in entry.categories:
            members = tuple(name for name, value in zip(tasks, values, strict=True) if value == category)
            if FEWEST_IN_GROUP <= len(members) <= 0.4 * len(tasks):
                found.append(Fold(f"{entry.name}: {category}", members, True))
    return found


def _edges(
    tasks: Sequence[str],
    descriptions: Sequence[Description],
    schema: MetadataSchema,
    featurise: Featuriser,
    *,
    draws: np.random.Generator,
) -> list[Fold]:
    """The outer fifth of the map, of every number and of each kind of images."""
    along: dict[str, Numbers] = {}
    metadata = [description.metadata or {} for description in descriptions]

    def column(name: str) -> Numbers:
        return np.array([float(row[name]) if name in row else np.nan for row in metadata])

    coordinates = [entry.name for entry in schema.fields if entry.geographic]
    if len(coordinates) == 2:
        angle = draws.uniform(0, 2 * np.pi)
        north, east = (_standardised(column(name)) for name in coordinates)
        along[EDGE_OF_MAP] = np.cos(angle) * north + np.sin(angle) * east
    for entry in schema.fields:
        if entry.kind == "number" and not entry.geographic:
            along[f"end of {entry.name}"] = draws.choice([-1.0, 1.0]) * column(entry.name)
    for part in ("backgrounds", "examples"):
        sets = [getattr(description, part) for description in descriptions]
        if all(images is not None and count(images) for images in sets):
            means = np.stack([featurise(images).double().mean(0).numpy() for images in sets])
            along[f"end of {part}"] = _strongest_component(means)
    found = []
    for name, values in along.items():
        known = np.flatnonzero(~np.isnan(values))
        members = known[np.argsort(-values[known])][: round(SLAB * len(tasks))]
        if len(members) >= FEWEST_IN_GROUP and np.ptp(values[known]) > 0:
            found.append(Fold(name, tuple(tasks[index] for index in sorted(members)), True))
    return found


def _strongest_component(rows: Numbers) -> Numbers:
    """First left singular vector of the standardised rows; unknown values (nan) count as the average."""
    known = ~np.isnan(rows)
    average = np.where(known, rows, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    rows = np.where(known, rows, average)
    spread = rows.std(0)
    standardised = (rows - rows.mean(0)) / np.where(spread > 1e-9, spread, np.inf)
    return np.asarray(np.linalg.svd(standardised, full_matrices=False)[0][:, 0])


def _standardised(values: Numbers) -> Numbers:
    spread = np.nanstd(values)
    return np.asarray((values - np.nanmean(values)) / (spread if spread > 0 else 1.0))
