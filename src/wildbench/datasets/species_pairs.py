"""Pairs of species in real camera-trap frames: "the larger or the smaller of these two?", described in words.

A sequence is of one camera and one species, and lies in one split as a whole, the same in every task. Some species are
held out: unseen tasks have none, one or both of their species held out. Examples are the features of a frozen network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from wildbench.datasets.species_traits import TRAITS, Traits, species_name
from wildpdiff.errors import DataError
from wildpdiff.rng import numpy_generator
from wildpdiff.tables.delimited import read_delimited
from wildpdiff.tasks.dataset import Dataset, PlainSuite, PlainTask
from wildpdiff.tasks.description import Description, Images, MetadataField, MetadataSchema
from wildpdiff.tasks.framing import Fractions, Framing, View
from wildpdiff.tasks.image_files import read_views
from wildpdiff.tasks.task import SPLITS, Group, SplitName

Featurise = Callable[[Images], Float32[ndarray, "n f"]]

INDEX, PICTURES = "index.csv", "images"
BOX = "yolo_box_cx_cy_w_h"
COLUMNS = ("file", "sequence", "species", BOX)
CLASSES = ("the larger species", "the smaller species")
SIDES, BETWEEN = ("larger", "smaller"), "-or-"
NEW_SPECIES = ("", "one new species", "two new species")
"""Groups of unseen tasks, by the number of their species that are held out."""


@dataclass(frozen=True)
class SpeciesPairsConfig:
    """Size of the suite, and how pictures are cut.

    Attributes:
        seed: of all draws.
        framing: ``box`` crops to the animal; ``whole`` gives the same frames uncut.
        image_size: pixels a side.
        held_out: species.
        unseen, pretraining: pairs of the other species; what is left is seen.
        one_new: unseen pairs with one species that is held out.
        most: crops of a species in each split of a task.
        examples: unlabelled crops in a description, of training sequences of both species.
        named: whether the species' names are categories of the metadata too.
    """

    seed: int = 0
    framing: Framing = "box"
    image_size: int = 128
    held_out: int = 4
    unseen: int = 20
    pretraining: int = 15
    one_new: int = 30
    most: int = 16
    examples: int = 16
    named: bool = False


@dataclass(frozen=True)
class Frame:
    """A frame with an animal in a known box."""

    file: str
    sequence: str
    species: str
    box: Fractions


@dataclass(frozen=True)
class _Crops:
    """All crops, and the indices of each species' crops by split."""

    features: Float32[ndarray, "n f"]
    rows: Mapping[str, Mapping[SplitName, Sequence[int]]]


def read_frames(folder: Path) -> tuple[Frame, ...]:
    """Frames of ``index.csv`` whose box is known and whose species has :data:`TRAITS`.

    Raises:
        DataError: the table lacks a column, a box is none, or a sequence has two species.
    """
    table = read_delimited(folder / INDEX)
    missing = [name for name in COLUMNS if name not in table.header]
    if missing:
        raise DataError(f"{folder / INDEX} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}.")
    frames: list[Frame] = []
    species_of: dict[str, str] = {}
    for line, cells in table.records(COLUMNS):
        species = species_name(cells["species"])
        if species_of.setdefault(cells["sequence"], species) != species:
            raise DataError(
                f"{folder / INDEX}, line {line}: sequence {cells['sequence']!r} is of {species!r} and, above, of "
                f"{species_of[cells['sequence']]!r}. Give every sequence one species."
            )
        if cells[BOX] and species in TRAITS:
            box = _box(cells[BOX], f"{folder / INDEX}, line {line}")
            frames.append(Frame(cells["file"], cells["sequence"], species, box))
    return tuple(frames)


def _box(text: str, where: str) -> Fractions:
    """Left, top, width and height; numbers of classes after a bar are left out."""
    try:
        x, y, width, height = (float(part) for part in text.split("|")[0].split())
    except ValueError:
        x = y = width = height = math.nan
    if not all(map(math.isfinite, (x, y, width, height))) or min(width, height) <= 0:
        raise DataError(f"{where}: the box is {text!r}; give centre x, centre y, width and height as fractions.")
    return x - width / 2, y - height / 2, width, height


def species_pairs(folder: Path, featurise: Featurise, config: SpeciesPairsConfig = SpeciesPairsConfig()) -> PlainSuite:
    """The suite.

    Args:
        folder: with ``index.csv`` and ``images``.
        featurise: crops to the features that are the tasks' inputs.
        config: sizes.

    Raises:
        DataError: a file is missing or cannot be read, or there are too few species with three sequences.
    """
    frames = read_frames(folder)
    splits = _splits(frames, config.seed)
    names = sorted(splits, key=lambda name: (-TRAITS[name].mass, name))
    pairs = _grouped(names, config)
    images = read_views(
        [View(folder / PICTURES / frame.file, frame.box) for frame in frames], config.image_size, config.framing
    )
    rows: dict[str, dict[SplitName, list[int]]] = {name: {split: [] for split in SPLITS} for name in names}
    for number, frame in enumerate(frames):
        if frame.species in rows:
            rows[frame.species][splits[frame.species][frame.sequence]].append(number)
    crops = _Crops(featurise(images), rows)
    by_group: dict[Group, list[PlainTask]] = {"pretraining": [], "seen": [], "unseen": []}
    for pair, group in pairs.items():
        data = {split: _data(config, crops, pair, split) for split in SPLITS}
        by_group[group].append(PlainTask(task_name(pair), data, _describe(config, crops, pair)))
    return PlainSuite("missouri", **by_group, metadata_schema=_schema(names, config))


def task_name(pair: Sequence[str]) -> str:
    """The name of a pair's task."""
    return BETWEEN.join(species.replace(" ", "_") for species in pair)


def new_species(suite: PlainSuite) -> dict[str, str]:
    """The group of each unseen task with species that are held out."""
    known = {species for task in (*suite.seen, *suite.pretraining) for species in task.name.split(BETWEEN)}
    found = {task.name: sum(one not in known for one in task.name.split(BETWEEN)) for task in suite.unseen}
    return {name: NEW_SPECIES[number] for name, number in found.items() if number}


def _splits(frames: Sequence[Frame], seed: int) -> dict[str, dict[str, SplitName]]:
    """The split of each sequence, by species: one validates, one tests, the others train."""
    own: dict[str, set[str]] = {}
    for frame in frames:
        own.setdefault(frame.species, set()).add(frame.sequence)
    found: dict[str, dict[str, SplitName]] = {}
    for species, sequences in own.items():
        if len(sequences) >= len(SPLITS):
            order = numpy_generator(seed, "sequences", species).permutation(np.array(sorted(sequences)))
            first: list[SplitName] = ["test", "validation"]
            found[species] = {str(name): first[at] if at < 2 else "train" for at, name in enumerate(order)}
    return found


def _grouped(names: Sequence[str], config: SpeciesPairsConfig) -> dict[tuple[str, str], Group]:
    """Pairs with their groups; the larger species first."""
    draws = numpy_generator(config.seed, "species")
    held_out = set(draws.permutation(np.array(names))[: config.held_out].tolist()) if names else set()
    by_new: dict[int, list[tuple[str, str]]] = {0: [], 1: [], 2: []}
    for pair in combinations(names, 2):
        by_new[len(held_out & set(pair))].append(pair)
    mixed = {number: [own[at] for at in draws.permutation(len(own))] for number, own in by_new.items()}
    spent = config.unseen + config.pretraining
    if len(mixed[0]) <= spent:
        raise DataError(
            f"{len(names)} species of known traits have {len(SPLITS)} sequences or more. With {config.held_out} held "
            f"out they make {len(mixed[0])} pairs, of which {spent} are unseen or pretrain. Give more species."
        )
    groups: dict[tuple[str, str], Group] = dict.fromkeys(mixed[0][spent:], "seen")
    groups |= dict.fromkeys(mixed[0][: config.pretraining], "pretraining")
    unseen = [*mixed[0][config.pretraining : spent], *mixed[1][: config.one_new], *mixed[2]]
    return groups | dict.fromkeys(unseen, "unseen")


def _data(config: SpeciesPairsConfig, crops: _Crops, pair: tuple[str, str], split: SplitName) -> Dataset:
    """As many crops of the one species as of the other."""
    mixed = [_mixed(config, crops, species, split) for species in pair]
    size = min(*map(len, mixed), config.most)
    chosen = [row for rows in mixed for row in rows[:size]]
    return Dataset(crops.features[chosen], np.repeat(np.arange(2, dtype=np.int64), size))


def _mixed(config: SpeciesPairsConfig, crops: _Crops, species: str, split: SplitName) -> list[int]:
    """A species' crops of a split in an order of its own, the same in every task."""
    rows = crops.rows[species][split]
    return [rows[at] for at in numpy_generator(config.seed, "crops", species, split).permutation(len(rows))]


def _describe(config: SpeciesPairsConfig, crops: _Crops, pair: tuple[str, str]) -> Description:
    rows = [row for species in pair for row in _mixed(config, crops, species, "train")[: config.examples // 2]]
    mixed = numpy_generator(config.seed, "examples", *pair).permutation(np.array(rows))  # the order holds no label
    larger, smaller = pair
    metadata = {
        f"{side} {name}": value
        for side, species in zip(SIDES, pair, strict=True)
        for name, value in _values(species, TRAITS[species], config).items()
    }
    text = f"Is it a {larger}, which is larger, or a {smaller}, which is smaller?"
    return Description(metadata=metadata, examples=crops.features[mixed], text=text)


def _values(species: str, traits: Traits, config: SpeciesPairsConfig) -> dict[str, Any]:
    """The metadata of one of a pair; mass as a logarithm, for a mouse and a deer differ by thousands."""
    about = {
        "order": traits.order,
        "family": traits.family,
        "log10 kg": math.log10(traits.mass),
        "active": traits.active,
        "region": traits.region,
    }
    return {"species": species, **about} if config.named else about


def _schema(names: Sequence[str], config: SpeciesPairsConfig) -> MetadataSchema:
    """Fields of the larger and the smaller species."""
    values = [_values(name, TRAITS[name], config) for name in names]
    return MetadataSchema(
        tuple(
            MetadataField.of_values(f"{side} {name}", [own[name] for own in values])
            for side in SIDES
            for name in values[0]
        )
    )
