"""Variants of labels under one spelling."""

from __future__ import annotations

import pytest

from wildpdiff.camera_traps.labels import CellLabels, joined_labels, spelling_key
from wildpdiff.camera_traps.records import EMPTY


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("deer; fox", ("deer", "fox")),
        ("deer|fox", ("deer", "fox")),
        ("deer\nfox", ("deer", "fox")),
        ("deer; Deer ;", ("deer",)),
        ("NA; deer", ("deer",)),
        (";", ()),
        ("deer, fox", ("deer", "fox")),
        ("deer & fox", ("deer", "fox")),
        ("Fox, red", ("Fox, red",)),
        ("roe/red deer", ("roe/red deer",)),
        ("u;mammalia;c;canidae;vulpes;vulpes;red fox", ("u;mammalia;c;canidae;vulpes;vulpes;red fox",)),
    ],
)
def test_several_labels_in_a_cell(cell: str, labels: tuple[str, ...]) -> None:
    assert CellLabels(["deer", "Fox", "red deer", cell]).of(cell) == labels


def test_variants_join_under_the_most_frequent_spelling() -> None:
    joined = joined_labels(["Red_Fox", "red_fox", "red_fox", "Red_fox ", "RED-FOX", "wolf"])
    assert set(joined.canonical.values()) == {"red_fox", "wolf"}
    assert len(joined.remarks) == 1
    assert all(repr(spelling) in joined.remarks[0] for spelling in ("Red_Fox", "Red_fox ", "RED-FOX", "red_fox"))


def test_many_labels_with_variants_are_one_remark() -> None:
    joined = joined_labels([word for number in range(9) for word in (f"Art {number}", f"art_{number}")])
    assert len(set(joined.canonical.values())) == 9
    (told,) = joined.remarks
    assert told.startswith("9 ")
    assert "'art_0'" in told


def test_equally_frequent_spellings_do_not_depend_on_their_order() -> None:
    spellings = ["red fox", "Red_Fox", "RED FOX"]
    assert joined_labels(spellings).canonical == joined_labels(spellings[::-1]).canonical


def test_unicode_forms_are_one_name_and_other_scripts_stay_apart() -> None:
    joined = joined_labels(["Cafe\u0301", "Caf\u00e9", "Caf\u00e9", "Thomson\u2019s gazelle", "Thomson's gazelle"])
    assert set(joined.canonical.values()) == {"Caf\u00e9", "Thomson's gazelle"}
    names = ["лиса", "волк", "狐狸", "狼", "?", "-"]
    assert len({spelling_key(name) for name in names}) == len(names)
    assert joined_labels(names).remarks == ()


@pytest.mark.parametrize("word", ["NOTHINGHERE", "No_animals", "false trigger", "Misfire"])
def test_words_of_platforms_for_blanks(word: str) -> None:
    assert set(joined_labels([word, "fox", EMPTY]).canonical.values()) == {EMPTY, "fox"}


def test_blanks_are_words_of_the_format_or_plain_english() -> None:
    assert joined_labels(["Blank", "nothing", "-1", "1"], None).remarks == ()
    joined = joined_labels(["Blank", "no_animal", "vacío", "none", "fox", EMPTY], blanks=["VACÍO"])
    assert {label for label, name in joined.canonical.items() if name == EMPTY} == {
        "Blank",
        "no_animal",
        "vacío",
        EMPTY,
    }
    assert len(joined.remarks) == 1
    assert joined_labels([EMPTY]).remarks == ()


def test_a_models_classes_stand_whatever_their_frequency() -> None:
    joined = joined_labels(["Red Fox", "Red Fox", "blank"], known=["red_fox", "blank"])
    assert joined.canonical == {"Red Fox": "red_fox", "blank": "blank"}
    own = joined_labels([EMPTY, "nothing", "fox"], known=["fox", "Blank"])
    assert own.canonical == {EMPTY: "Blank", "nothing": "Blank", "fox": "fox"}
    assert own.of([EMPTY, "fox"]) == ("fox",)


def test_a_picture_has_each_name_once_and_is_blank_only_without_others() -> None:
    joined = joined_labels(["fox", "Fox", "empty"])
    assert joined.of(["fox", "Fox"]) in (("fox",), ("Fox",))
    assert joined.of(["empty", "fox"]) == joined.of(["fox"])
    assert joined.of(["empty"]) == (EMPTY,)
