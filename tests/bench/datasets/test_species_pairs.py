"""Pairs of species: sequences in one split, held-out species, balanced classes, framings, and tables that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refusals import refused
from species_frames import SPECIES, colours, write_frames
from wildbench.datasets.species_pairs import (
    BETWEEN,
    COLUMNS,
    NEW_SPECIES,
    SpeciesPairsConfig,
    new_species,
    read_frames,
    species_pairs,
)
from wildbench.datasets.species_traits import TRAITS, species_name
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import GROUPS, SPLITS

CONFIG = SpeciesPairsConfig(image_size=16, held_out=2, unseen=3, pretraining=3, one_new=5, most=4, examples=4)
MISSOURI = Path(__file__).parents[3].parent / "shared" / "data" / "missouri"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames") / "missouri")


def test_no_sequence_lies_in_two_splits_and_no_frame_without_a_box_is_read(folder: Path) -> None:
    frames = read_frames(folder)
    assert len(frames) == len(SPECIES) * 4 * 2
    numbered = species_pairs(folder, lambda images: np.arange(len(images), dtype=np.float32)[:, None], CONFIG)
    split_of: dict[str, str] = {}
    for group in GROUPS:
        for task in numbered.tasks(group):
            for split in SPLITS:
                for row in task.data(split).inputs[:, 0].astype(int):
                    assert split_of.setdefault(frames[row].sequence, split) == split
    assert set(split_of.values()) == set(SPLITS)


def test_the_larger_species_is_the_first_class_and_both_have_as_many_crops(folder: Path) -> None:
    suite = species_pairs(folder, lambda images: np.arange(len(images), dtype=np.float32)[:, None], CONFIG)
    frames = read_frames(folder)
    for task in (*suite.seen, *suite.unseen):
        larger, smaller = task.name.replace("_", " ").split(BETWEEN)
        assert TRAITS[larger].mass >= TRAITS[smaller].mass
        for split in SPLITS:
            data = task.data(split)
            own = [frames[int(row)].species for row in data.inputs[:, 0]]
            assert own == [(larger, smaller)[target] for target in data.targets]
            assert own.count(larger) == own.count(smaller) > 0


def test_held_out_species_are_in_unseen_tasks_alone(folder: Path) -> None:
    suite = species_pairs(folder, colours, CONFIG)
    groups = new_species(suite)
    assert (len(suite.seen), len(suite.pretraining), len(suite.unseen)) == (9, 3, 3 + 5 + 1)
    assert sorted(groups.values()) == sorted([NEW_SPECIES[1]] * 5 + [NEW_SPECIES[2]])
    both = next(name for name, group in groups.items() if group == NEW_SPECIES[2])
    known = {one for task in (*suite.seen, *suite.pretraining) for one in task.name.split(BETWEEN)}
    assert not known & set(both.split(BETWEEN))


def test_a_description_has_words_traits_and_unlabelled_crops_of_training_sequences(folder: Path) -> None:
    suite = species_pairs(folder, colours, CONFIG)
    task = suite.seen[0]
    larger, smaller = task.name.replace("_", " ").split(BETWEEN)
    described = task.description
    assert described.text is not None
    assert described.text.index(larger) < described.text.index(smaller)
    assert described.metadata is not None
    assert described.metadata["smaller family"] == TRAITS[smaller].family
    assert suite.metadata_schema.check(described.metadata) == dict(described.metadata)
    train = {row.tobytes() for row in task.data("train").inputs}
    assert {row.tobytes() for row in described.examples} <= train
    named = species_pairs(folder, colours, replace(CONFIG, named=True))
    assert (named.seen[0].description.metadata or {})["larger species"] == larger
    assert "larger species" not in described.metadata


def test_framings_cut_the_same_frames_differently_and_the_same_folder_gives_the_same_suite(folder: Path) -> None:
    cut, whole = (species_pairs(folder, colours, replace(CONFIG, framing=kind)) for kind in ("box", "whole"))
    assert [task.name for task in cut.seen] == [task.name for task in whole.seen]
    assert cut.seen[0].data("test").inputs.shape == whole.seen[0].data("test").inputs.shape
    assert not np.allclose(cut.seen[0].data("test").inputs, whole.seen[0].data("test").inputs)
    assert species_pairs(folder, colours, CONFIG).fingerprint == cut.fingerprint != whole.fingerprint
    assert species_pairs(folder, colours, replace(CONFIG, seed=1)).fingerprint != cut.fingerprint


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("a.png,S,Red_Deer,0.5 0.5 0.2",), "line 2"),
        (("a.png,S,Red_Deer,", "b.png,S,Red_Deer,0.5 0.5 nan 0.2"), "line 3"),
        (("a.png,S,Red_Deer,0.5 0.5 0 0.2",), "0.5 0.5 0 0.2"),
        (("a.png,S,Red_Deer,0.5 0.5 0.2 0.2", "b.png,S,Red_Fox,0.5 0.5 0.2 0.2"), "'S'"),
        ((), "0 species"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, lines: tuple[str, ...], named: str) -> None:
    (tmp_path / "index.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    with refused(DataError, named):
        species_pairs(tmp_path, colours, CONFIG)


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("file,sequence\n1.png,S\n")
    with refused(DataError, "species"):
        read_frames(tmp_path)


def test_species_without_traits_or_with_too_few_sequences_are_left_out(tmp_path: Path) -> None:
    write_frames(tmp_path / "m", (*SPECIES, "Bird_spec"))
    with (tmp_path / "m" / "index.csv").open("a", encoding="utf-8") as table:
        table.write("S00_0.png,other,Great_Tinamou,0.4 0.5 0.2 0.2\n")
    suite = species_pairs(tmp_path / "m", colours, CONFIG)
    names = {one for group in GROUPS for task in suite.tasks(group) for one in task.name.split(BETWEEN)}
    assert names == {species_name(name).replace(" ", "_") for name in SPECIES}
    with refused(DataError, "Give more species"):
        species_pairs(tmp_path / "m", colours, replace(CONFIG, unseen=40))


@pytest.mark.skipif(not MISSOURI.is_dir(), reason="needs a local copy of the Missouri frames in ../shared/data")
def test_real_frames_have_nineteen_species_of_five_sequences() -> None:
    frames = read_frames(MISSOURI)
    by_species = {name: {one.sequence for one in frames if one.species == name} for name in TRAITS}
    assert {len(sequences) for sequences in by_species.values()} == {5}
    assert len(frames) == 942 - 29, "frames with a box, but for those of birds"
