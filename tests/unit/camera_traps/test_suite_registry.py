from pathlib import Path

import pytest

from refusals import refused
from wildpdiff.camera_traps.registry import load_suite, parse_options
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import GROUPS, Suite

OPTIONS = {"seen": 2, "unseen": 1, "pretraining": 1, "train": 4, "image_size": 24}


def test_texts_become_values() -> None:
    kinds = {"seen": int, "similarity": float, "name": str}
    assert parse_options({"seen": "3", "similarity": "0.5"}, kinds) == {"seen": 3, "similarity": 0.5}
    assert parse_options({}, kinds) == {}


@pytest.mark.parametrize(
    ("pairs", "values"),
    [
        ({"sean": "3"}, ["'sean'", "seen, similarity"]),
        ({"seen": "three"}, ["'seen'", "'three'"]),
        ({"seen": "3.5"}, ["'seen'", "'3.5'"]),
        ({"similarity": "much"}, ["'similarity'", "'much'"]),
    ],
)
def test_bad_texts_are_named(pairs: dict[str, str], values: list[str]) -> None:
    with refused(DataError, *values):
        parse_options(pairs, {"seen": int, "similarity": float})


def test_savanna_takes_its_options_and_seed() -> None:
    suite = load_suite("savanna", seed=1, **OPTIONS)
    assert isinstance(suite, Suite)
    assert [len(suite.tasks(group)) for group in GROUPS] == [1, 2, 1]
    assert suite.image_size == 24
    assert suite.fingerprint == load_suite("savanna", seed=1, **OPTIONS).fingerprint
    assert suite.fingerprint != load_suite("savanna", seed=2, **OPTIONS).fingerprint


def test_an_unknown_option_of_savanna_is_named() -> None:
    with refused(DataError, "'trees'", "background_shift"):
        load_suite("savanna", trees=3)


def test_a_backbone_of_other_classes_is_refused() -> None:
    suite = load_suite("savanna", classes=load_suite("savanna").classes)
    assert len(suite.classes) == 17
    with refused(DataError, 17, 2, "cat, dog"):
        load_suite("savanna", classes=("cat", "dog"))


def test_what_is_neither_name_nor_path_is_refused(tmp_path: Path) -> None:
    with refused(DataError, "nowhere", "savanna"):
        load_suite(tmp_path / "nowhere")


def test_a_folder_and_a_table_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_suite(tmp_path, image_size=8)
    table = tmp_path / "images.csv"
    table.write_text("file,species\na.jpg,cat\n")
    with refused(DataError, "images.csv"):
        load_suite(table, image_size=8)


def test_an_unknown_option_of_a_table_is_named(tmp_path: Path) -> None:
    with refused(DataError, "'trees'"):
        load_suite(tmp_path, image_size=8, trees=3)
