"""What is done to predictions before they are written: lists of species, bursts, taxa."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refusals import refused
from wildpdiff.camera_traps.answers import ANIMAL, UNKNOWN, Kind, kind_of
from wildpdiff.camera_traps.records import EMPTY
from wildpdiff.camera_traps.smoothing import smoothed
from wildpdiff.camera_traps.species_lists import SpeciesLists, masked, read_species_lists
from wildpdiff.camera_traps.taxonomy import Taxonomy, read_taxonomy
from wildpdiff.errors import DataError

CLASSES = ("caracal", "lion", "Grant's gazelle", "human", EMPTY)


@pytest.mark.parametrize(
    ("label", "kind"),
    [("empty", "blank"), ("Blank", "blank"), ("no_animal", "blank"), ("Homo sapiens", "human"), ("Person", "human"),
     ("vehicle", "vehicle"), ("unknown", "unknown"), ("none-such bird", "animal")],
)  # fmt: skip
def test_kinds_of_classes(label: str, kind: Kind) -> None:
    assert kind_of(label) == kind


rows = arrays(np.float64, (4, 3), elements=st.floats(0.0, 1.0, width=32)).map(
    lambda values: (values + 1e-3) / (values + 1e-3).sum(1, keepdims=True)
)


@given(rows)
def test_frames_of_a_burst_have_one_answer(probabilities: np.ndarray) -> None:
    found = smoothed(probabilities, ["a", "b", "a", "a"])
    assert np.allclose(found.sum(1), 1.0)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], probabilities[1])
    mean = np.exp(np.log(probabilities[[0, 2, 3]]).mean(0))
    assert np.allclose(found[0], mean / mean.sum())


def test_a_sure_frame_outdoes_unsure_ones_and_excludes_nothing() -> None:
    found = smoothed(np.array([[0.4, 0.6, 0.0], [0.45, 0.55, 0.0], [0.99, 0.01, 0.0]]), [1, 1, 1])
    assert found.argmax(1).tolist() == [0, 0, 0]
    assert found[0, 2] == 0
    zero = smoothed(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [1, 1, 1])
    assert zero.argmax(1).tolist() == [1, 1, 1]


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def names(mask: np.ndarray) -> set[str]:
    return {name for name, allowed in zip(CLASSES, mask, strict=True) if allowed}


def test_a_mask_leaves_listed_species_labels_people_and_blanks(tmp_path: Path) -> None:
    path = table(tmp_path / "lists.csv", "Camera;Species", "A;Lion", "A;grants gazelle", "B;dodo|moa", ";caracal")
    lists = read_species_lists(path, ["A", "B", "C"])
    assert names(lists.allowed("A", CLASSES, [])) == {"lion", "human", EMPTY}
    assert names(lists.allowed("A", CLASSES, ["Caracal"])) == {"lion", "caracal", "human", EMPTY}
    assert names(lists.allowed("B", CLASSES, [])) == set(CLASSES)  # names that the model does not know
    assert names(lists.allowed("C", CLASSES, [])) == {"caracal", "human", EMPTY}
    assert lists.unknown(CLASSES) == ["dodo", "grants gazelle", "moa"]


def test_a_plain_list_is_for_all_cameras(tmp_path: Path) -> None:
    lists = read_species_lists(table(tmp_path / "list.txt", "lion", "caracal"), ["A"])
    assert names(lists.allowed("A", CLASSES, [])) == {"lion", "caracal", "human", EMPTY}


def test_a_list_may_be_a_value_of_the_metadata() -> None:
    cameras: Mapping[str, Mapping[str, object]] = {"A": {"fauna": "lion, caracal"}, "B": {"fauna": ""}}
    lists = SpeciesLists.of_column("fauna", cameras)
    assert names(lists.allowed("A", CLASSES, [])) == {"lion", "caracal", "human", EMPTY}
    assert names(lists.allowed("B", CLASSES, [])) == set(CLASSES)
    with refused(DataError, "flora"):
        SpeciesLists.of_column("flora", cameras)


def test_lists_of_other_cameras_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "lists.csv", "camera,species", "X,lion")
    with refused(DataError, path, "X"):
        read_species_lists(path, ["A"])
    for lines in (("camera,kind", "A,lion"), ("camera,species",), ("a,a", "1,2"), ("species,camera", '"lion,A')):
        with refused(DataError, path):
            read_species_lists(table(path, *lines), ["A"])
    with refused(DataError, tmp_path / "missing.csv"):
        read_species_lists(tmp_path / "missing.csv", ["A"])


def test_a_mask_makes_no_picture_without_classes() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    found = masked(probabilities, np.array([True, True, False]))
    assert np.allclose(found, [[0.625, 0.375, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture
def cats(tmp_path: Path) -> Taxonomy:
    path = table(
        tmp_path / "taxa.csv",
        "class,order,family,name,scientific_name",
        "Mammalia,Carnivora,Felidae,Caracal,Caracal caracal",
        "Mammalia,Carnivora,Felidae,lion,Panthera leo",
        "Mammalia,Artiodactyla,Bovidae,grant’s_gazelle,Nanger granti",
    )
    return read_taxonomy(path, CLASSES)


@pytest.mark.parametrize(
    ("probabilities", "answer"),
    [
        ([0.7, 0.1, 0.1, 0.0, 0.1], ("caracal", 0.7)),
        ([0.4, 0.4, 0.1, 0.0, 0.1], ("Felidae", 0.8)),
        ([0.3, 0.3, 0.3, 0.0, 0.1], ("Mammalia", 0.9)),
        ([0.3, 0.1, 0.0, 0.0, 0.6], (UNKNOWN, 0.6)),
        ([0.1, 0.1, 0.1, 0.0, 0.7], (EMPTY, 0.7)),
        ([0.1, 0.1, 0.1, 0.7, 0.0], ("human", 0.7)),
    ],
)
def test_the_lowest_taxon_that_is_probable_enough(
    cats: Taxonomy, probabilities: list[float], answer: tuple[str, float]
) -> None:
    ((label, probability),) = cats.decide(np.array([probabilities]), 0.65)
    assert (label, round(probability, 9)) == answer
    assert cats.scientific["lion"] == "Panthera leo"


def test_without_ranks_all_animals_are_the_taxon() -> None:
    plain = Taxonomy(CLASSES)
    probabilities = np.array([[0.4, 0.3, 0.0, 0.0, 0.3], [0.2, 0.2, 0.0, 0.0, 0.6]])
    assert [label for label, _ in plain.decide(probabilities, 0.65)] == [ANIMAL, UNKNOWN]
    assert [label for label, _ in plain.decide(probabilities)] == ["caracal", EMPTY]


def test_taxonomies_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for lines in (("name,family", "dodo,Columbidae"), ("name", "lion")):
        path = table(tmp_path / "taxa.csv", *lines)
        with refused(DataError, path):
            read_taxonomy(path, CLASSES)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
def test_taxa_are_those_of_a_slow_twin(seed: int, threshold: float) -> None:
    draws = np.random.default_rng(seed)
    classes = (*(f"s{number}" for number in range(9)), "blank")
    ranks = tuple(tuple(draws.choice(["a", "b", "c", None], size=10).tolist()) for _ in range(2))
    rows = draws.dirichlet(np.full(10, 0.3), size=5)
    for row, (name, probability) in zip(rows, Taxonomy(classes, ranks).decide(rows, threshold), strict=True):
        sums = [{classes[number]: row[number] for number in range(10)}]
        for rank in (*ranks, (*(["animal"] * 9), None)):
            sums.append({taxon: sum(row[number] for number in range(10) if rank[number] == taxon) for taxon in rank})
        found = (level for level in sums if max((v for k, v in level.items() if k), default=0.0) >= threshold)
        level = next(found, None)
        if level is None:
            assert (name, probability) == ("unknown", row.max())
        else:
            assert probability == pytest.approx(level[name])
            assert probability == pytest.approx(max(value for taxon, value in level.items() if taxon))


def test_lists_are_found_in_any_spelling_of_a_camera(tmp_path: Path) -> None:
    (tmp_path / "lists.csv").write_text("camera,species\nnorth_1,genet\nSouth,lion\n")
    lists = read_species_lists(tmp_path / "lists.csv", ["North 1", "South", "south", "West"])
    assert dict(lists.cameras) == {"North 1": {"genet"}, "South": {"lion"}}
    assert lists.without(["North 1", "South", "West"]) == ["West"]
