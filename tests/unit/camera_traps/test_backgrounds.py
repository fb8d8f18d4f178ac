"""The choice of a camera's backgrounds."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pytest

from wildpdiff.camera_traps.backgrounds import backgrounds_of
from wildpdiff.camera_traps.crops import Cropping
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.placement import PictureSplit, PlacedPicture
from wildpdiff.camera_traps.records import EMPTY, Box, Picture
from wildpdiff.camera_traps.sequences import bursts

START = datetime(2024, 5, 1)


def row(number: int, time: datetime | None = None, label: str = EMPTY, split: PictureSplit = "train") -> PlacedPicture:
    return PlacedPicture(Picture(f"{number:04}.jpg", number, labels=(label,) if label else (), time=time), label, split)


def is_blank(picture: Picture) -> bool:
    return picture.labels == (EMPTY,)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def test_only_blanks_that_may_be_shown_are_backgrounds() -> None:
    splits: list[PictureSplit] = ["train", "validation", "test", "unlabelled"]
    rows = [row(number, at(number), split=split) for number, split in enumerate(splits * 3)]
    rows += [row(100 + number, at(number), "fox") for number in range(5)]
    found = backgrounds_of(rows, is_blank)
    assert [entry.picture.line for entry in found] == [0, 3, 4, 7, 8, 11]
    assert backgrounds_of([], is_blank) == backgrounds_of(rows[12:], is_blank) == ()


def test_stated_backgrounds_are_taken_alone() -> None:
    rows = [row(number, at(number)) for number in range(30)]
    rows += [row(100 + number, label="", split="background") for number in range(40)]
    found = backgrounds_of(rows, is_blank)
    assert len(found) == 24
    assert {entry.split for entry in found} == {"background"}


@pytest.mark.parametrize("night", [4, 12, 20])
def test_night_and_day_are_mixed_as_they_were_taken(night: int) -> None:
    rows = [row(number, at(24 * number + (1 if number % 24 < night else 13))) for number in range(24 * 20)]
    found = backgrounds_of(rows, is_blank)
    assert Counter(entry.picture.time.hour for entry in found if entry.picture.time) == {1: night, 13: 24 - night}


def test_bursts_give_one_picture_before_any_gives_another() -> None:
    # Thirty bursts, of one to thirty frames.
    rows = [
        row(100 * burst + frame, at(burst * 0.09) + timedelta(seconds=frame))
        for burst in range(30)
        for frame in range(burst + 1)
    ]
    groups = bursts([entry.picture for entry in rows])
    assert len(groups) == 30
    burst_of = {rows[member].path: group.name for group in groups for member in group.members}
    found = backgrounds_of(rows, is_blank)
    assert len({burst_of[entry.path] for entry in found}) == 24
    few = backgrounds_of([entry for entry in rows if entry.picture.line >= 2500], is_blank)
    assert sorted(Counter(burst_of[entry.path] for entry in few).values()) in ([4, 5, 5, 5, 5], [4, 4, 5, 5, 6])


def test_order_changes_nothing_and_one_picture_more_few() -> None:
    generator = np.random.default_rng(0)
    rows = [row(number, at(float(generator.uniform(0, 2000)))) for number in range(300)]
    rows += [row(1000 + number) for number in range(30)]  # without a time
    found = backgrounds_of(rows, is_blank)
    assert backgrounds_of([rows[number] for number in generator.permutation(len(rows))], is_blank) == found
    assert any(entry.picture.time is None for entry in found)
    for number in range(0, 300, 10):
        fewer = backgrounds_of(rows[:number] + rows[number + 1 :], is_blank)
        assert len({entry.path for entry in found} - {entry.path for entry in fewer}) <= 2


@pytest.mark.parametrize("word", ["empty", "blank", "Blank", "no animal"])
def test_a_model_may_have_another_word_for_blanks(word: str) -> None:
    cropping = Cropping(joined_labels(["Blank", "fox"], known=[word, "fox"]), "box")
    seen = (Box(0.1, 0.1, 0.2, 0.2, confidence=0.9),)
    assert cropping.is_blank(Picture("a.jpg", 1, labels=("Blank",), boxes=seen))
    assert cropping.crops(Picture("a.jpg", 1, labels=("Blank",), boxes=seen))[0].box is None
    assert not cropping.is_blank(Picture("a.jpg", 1, labels=("fox",), boxes=()))
