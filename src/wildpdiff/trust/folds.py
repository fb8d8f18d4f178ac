"""Which seen tasks are held out together: random ones for interpolation, groups of like ones for extrapolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wildpdiff.conditions.base import Featuriser
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tasks.description import Description, MetadataSchema

SLAB = 0.2
"""Share of the tasks at one end of a number, of a direction on the map or among the images."""
FEWEST_KEPT = 3

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """Seen tasks that are held out together.

    Attributes:
        name: what they share, for example ``habitat woodland`` or ``random 2``.
        held_out: their names.
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

    What a group shares is drawn by the seed: first one category of a field of categories, then the outer fifth in some
    direction of the map, then an end of a number or of the images' strongest component, as far as tasks tell of these.

    Raises:
        DataError: too few tasks, so that hardly any would be left to fit.
    """
    if random < 2 or len(tasks) - -(-len(tasks) // max(random, 1)) < FEWEST_KEPT:
        raise DataError(f"{len(tasks)} seen tasks cannot be held out in {random} folds. Use more seen tasks or folds.")
    draws = numpy_generator(seed, "trust", "folds")
    order = [tasks[place] for place in draws.permutation(len(tasks))]
    folds = [Fold(f"random {number}", tuple(order[number::random]), False) for number in range(random)]
    edges = _edges(tasks, descriptions, schema, featurise, draws)
    place = [fold for fold in edges if fold.name == PLACE]
    others = [fold for fold in edges if fold.name != PLACE]
    others = [others[number] for number in draws.permutation(len(others))]
    categories = _categories(tasks, descriptions, schema)
    categories = [categories[number] for number in draws.permutation(len(categories))]
    found = categories[:1] + place + others + categories[1:]
    return (*folds, *_named_apart(found[:groups]))


def _named_apart(folds: Sequence[Fold]) -> list[Fold]:
    """The same folds, those of a name that another has too with a number after it: names tell rows apart."""
    taken: set[str] = set()
    result = []
    for fold in folds:
        name, number = fold.name, 1
        while name in taken:
            number += 1
            name = f"{fold.name} ({number})"
        taken.add(name)
        result.append(replace(fold, name=name))
    return result


PLACE = "edge of the map"


def _categories(tasks: Sequence[str], descriptions: Mapping[str, Description], schema: MetadataSchema) -> list[Fold]:
    """One fold for every category that neither a handful of tasks nor most of them have."""
    found = []
    for entry in schema.fields:
        for value in entry.categories:
            members = tuple(name for name in tasks if (descriptions[name].metadata or {}).get(entry.name) == value)
            if 4 <= len(members) <= 0.4 * len(tasks):
                found.append(Fold(f"{entry.name}: {value}", members, True))
    return found


def _edges(
    tasks: Sequence[str],
    descriptions: Mapping[str, Description],
    schema: MetadataSchema,
    featurise: Featuriser,
    draws: np.random.Generator,
) -> list[Fold]:
    """The outer fifth of the map, of every number and of each kind of images."""
    along: dict[str, Numbers] = {}
    told = [descriptions[name].metadata or {} for name in tasks]

    def column(name: str) -> Numbers:
        return np.array([float(row[name]) if name in row else np.nan for row in told])

    place = [entry.name for entry in schema.fields if entry.geographic]
    if len(place) == 2:
        angle = draws.uniform(0, 2 * np.pi)
        north, east = (_standardised(column(name)) for name in place)
        along[PLACE] = np.cos(angle) * north + np.sin(angle) * east
    for entry in schema.fields:
        if entry.kind == "number" and not entry.geographic:
            along[f"end of {entry.name}"] = draws.choice([-1.0, 1.0]) * column(entry.name)
    for part in ("backgrounds", "examples"):
        sets = [getattr(descriptions[name], part) for name in tasks]
        if all(images is not None and len(images) for images in sets):
            means = np.stack([featurise(images).double().mean(0).numpy() for images in sets])
            # What a set of images does not tell (nan: the light of a place by night) counts as the average.
            means = np.where(np.isnan(means), _known_mean(means), means)
            spread = means.std(0)
            standardised = (means - means.mean(0)) / np.where(spread > 1e-9, spread, np.inf)
            along[f"end of {part}"] = np.linalg.svd(standardised, full_matrices=False)[0][:, 0]
    found = []
    for name, values in along.items():
        known = np.flatnonzero(~np.isnan(values))
        members = known[np.argsort(-values[known])][: round(SLAB * len(tasks))]
        if len(members) >= 4 and np.ptp(values[known]) > 0:
            found.append(Fold(name, tuple(tasks[place] for place in sorted(members)), True))
    return found


def _known_mean(rows: Numbers) -> Numbers:
    """Mean of each column over the rows that know it; 0 where none does."""
    known = ~np.isnan(rows)
    return np.asarray(np.where(known, rows, 0.0).sum(0) / np.maximum(known.sum(0), 1))


def _standardised(values: Numbers) -> Numbers:
    spread = np.nanstd(values)
    return np.asarray((values - np.nanmean(values)) / (spread if spread > 0 else 1.0))
