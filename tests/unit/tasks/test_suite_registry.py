from pathlib import Path

import pytest

from wildpdiff.errors import DataError
from wildpdiff.tasks.registry import load_suite, parse_options
from wildpdiff.tasks.task import GROUPS, Suite

OPTIONS = {"seen": 2, "unseen": 1, "pretraining": 1, "train": 4, "image_size": 24}


def test_texts_become_values() -> None:
    kinds = {"seen": int, "similarity": float, "name": str}
    assert parse_options({"seen": "3", "similarity": "0.5"}, kinds) == {"seen": 3, "similarity": 0.5}
    assert parse_options({}, kinds) == {}


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ({"sean": "3"}, r"There is no option 'sean'; options are seen, similarity"),
        ({"seen": "three"}, r"Option 'seen' is 'three'; a whole number is needed"),
        ({"seen": "3.5"}, r"Option 'seen' is '3.5'; a whole number is needed"),
        ({"similarity": "much"}, r"Option 'similarity' is 'much'; a number is needed"),
    ],
)
def test_bad_texts_are_named(pairs: dict[str, str], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        parse_options(pairs, {"seen": int, "similarity": float})


def test_savanna_takes_its_options_and_seed() -> None:
    suite = load_suite("savanna", seed=1, **OPTIONS)
    assert isinstance(suite, Suite)
    assert [len(suite.tasks(group)) for group in GROUPS] == [1, 2, 1]
    assert suite.image_size == 24
    assert suite.fingerprint == load_suite("savanna", seed=1, **OPTIONS).fingerprint
    assert suite.fingerprint != load_suite("savanna", seed=2, **OPTIONS).fingerprint


def test_an_unknown_option_of_savanna_is_named() -> None:
    with pytest.raises(DataError, match=r"savanna has no option 'trees'; options are background_shift"):
        load_suite("savanna", trees=3)


def test_a_backbone_of_other_classes_is_refused() -> None:
    suite = load_suite("savanna", classes=load_suite("savanna").classes)
    assert len(suite.classes) == 17
    with pytest.raises(DataError, match=r"savanna has 17 classes, others than the 2 of the backbone \(cat, dog"):
        load_suite("savanna", classes=("cat", "dog"))


def test_what_is_neither_name_nor_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no suite '.*nowhere': neither savanna, nor a CSV file"):
        load_suite(tmp_path / "nowhere")


def test_a_folder_and_a_table_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_suite(tmp_path, image_size=8)
    table = tmp_path / "images.csv"
    table.write_text("file,species\na.jpg,cat\n")
    with pytest.raises(DataError, match=r"images.csv"):
        load_suite(table, image_size=8)


def test_an_unknown_option_of_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unexpected keyword argument 'trees'"):
        load_suite(tmp_path, image_size=8, trees=3)
