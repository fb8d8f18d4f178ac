"""Bursts of a camera's pictures, and splits that never cut one nor move because of another."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from refusals import refused
from wildpdiff.camera_traps.camera_groups import drawn_groups
from wildpdiff.camera_traps.crops import Cropping
from wildpdiff.camera_traps.labels import joined_labels
from wildpdiff.camera_traps.placement import Placement, place
from wildpdiff.camera_traps.records import Box, Picture
from wildpdiff.camera_traps.sequences import BURST_SECONDS, bursts
from wildpdiff.camera_traps.splits import BOUNDS, hashed_splits, share_of, splits_by_time
from wildpdiff.camera_traps.task_names import LONGEST, same_name, task_names
from wildpdiff.errors import DataError

START = datetime(2024, 5, 1, 6)
LABELS = joined_labels(["fox", "hare", "empty"])


def taken(seconds: float, name: str = "", **values: object) -> Picture:
    time = START + timedelta(seconds=seconds)
    return Picture(f"{name or f'{seconds:09.1f}'}.jpg", 1, "ridge", ("fox",), time, **values)  # type: ignore[arg-type]


def groups(pictures: list[Picture]) -> set[frozenset[str]]:
    return {frozenset(pictures[member].path for member in burst.members) for burst in bursts(pictures)}


def test_pictures_less_than_a_minute_apart_are_one_burst_in_any_order() -> None:
    times = [0, 59, 118, 200, 259.9, 320, 1000]
    pictures = [taken(seconds) for seconds in times]
    expected = [[0, 59, 118], [200, 259.9], [320], [1000]]
    wanted = {frozenset(taken(seconds).path for seconds in burst) for burst in expected}
    random.Random(0).shuffle(pictures)
    assert groups(pictures) == wanted
    assert [burst.start for burst in bursts(pictures)] == [START + timedelta(seconds=b[0]) for b in expected]
    zoned = [taken(0), taken(30)]
    zoned = [Picture(p.path, 1, time=p.time and p.time.replace(tzinfo=UTC)) for p in zoned] + [taken(45)]
    assert len(groups(zoned)) == 1


def test_a_burst_agrees_with_a_slow_reading_of_its_rule() -> None:
    draw = random.Random(1)
    for _ in range(30):
        times = [draw.uniform(0, 1500) for _ in range(20)]
        pictures = [taken(t, f"{n}", sequence=draw.choice(["", "", "s1", "s2"])) for n, t in enumerate(times)]
        clusters = [{n} for n in range(20)]
        for one in range(20):
            for other in range(one):
                near = abs(times[one] - times[other]) < BURST_SECONDS
                same = pictures[one].sequence and pictures[one].sequence == pictures[other].sequence
                if near or same:
                    merged = [c for c in clusters if one in c or other in c]
                    clusters = [c for c in clusters if c not in merged] + [set().union(*merged)]
        assert groups(pictures) == {frozenset(pictures[n].path for n in cluster) for cluster in clusters}
        assert len({burst.name for burst in bursts(pictures)}) == len(clusters)


def test_without_times_only_names_and_equal_files_join() -> None:
    pictures = [Picture(f"IMG_{number}.jpg", 1, sequence="a" if number < 2 else "") for number in range(6)]
    assert len(bursts(pictures)) == 5
    assert len(bursts(pictures, [None, None, "x", None, "x", None])) == 4


def test_splits_follow_from_camera_and_burst_alone() -> None:
    pictures = [taken(3600.0 * hour + second) for hour in range(400) for second in (0, 2, 4)]
    found = bursts(pictures)
    splits = hashed_splits("ridge", found)
    assert {name: splits[name] for name in splits} == {
        burst.name: ("train", "validation", "test")[sum(share_of("ridge", burst.name) >= bound for bound in BOUNDS)]
        for burst in found
    }
    counts = Counter(splits.values())
    assert counts["train"] == pytest.approx(240, abs=40)
    assert counts["validation"] == pytest.approx(60, abs=30)
    assert hashed_splits("brook", found) != splits
    fewer = bursts(pictures[:300] + pictures[301:500])
    assert hashed_splits("ridge", fewer).items() <= splits.items()


@pytest.mark.parametrize("count", range(3, 12))
def test_no_split_is_empty_from_three_bursts_on(count: int) -> None:
    for camera in map(str, range(20)):
        found = bursts([taken(3600.0 * hour) for hour in range(count)])
        assert set(hashed_splits(camera, found).values()) == {"train", "validation", "test"}
        assert list(splits_by_time(found).values()) == sorted(
            splits_by_time(found).values(), key=["train", "validation", "test"].index
        )
        assert set(splits_by_time(found).values()) == {"train", "validation", "test"}


def placed(pictures: list[Picture], **options: bool) -> dict[str, str]:
    return {entry.path: entry.split for entry in place("ridge", pictures, Cropping(LABELS), {}, **options).pictures}


def test_by_time_the_past_trains_and_the_future_tests() -> None:
    pictures = [taken(7200.0 * hour + second) for hour in range(40) for second in (0, 1)]
    random.Random(0).shuffle(pictures)
    splits = placed(pictures, by_time=True)
    order = [splits[path] for path in sorted(splits)]
    assert order == ["train"] * 48 + ["validation"] * 12 + ["test"] * 20


def test_stated_splits_stand_and_the_rest_of_a_burst_follows() -> None:
    pictures = [taken(0, "a", split="test"), taken(1, "b"), taken(2, "c", split="test"), taken(3, "d", split="train")]
    result = place("ridge", pictures, Cropping(LABELS), {})
    assert {entry.path[0]: (entry.split, entry.drawn) for entry in result.pictures} == {
        "a": ("test", False),
        "b": ("test", True),
        "c": ("test", False),
        "d": ("train", False),
    }
    assert (result.bursts, result.cut) == (1, 1)
    with refused(DataError, "'sometimes'"):
        place("ridge", [taken(0, split="sometimes")], Cropping(LABELS), {})


def test_pictures_without_a_label_are_unlabelled_and_several_species_are_left_out() -> None:
    pictures = [
        Picture("none.jpg", 1, split="train"),
        Picture("two.jpg", 2, labels=("fox", "hare"), split="train"),
        Picture("site.jpg", 3, labels=("fox",), split="background"),
        Picture("one.jpg", 4, labels=("fox", "empty"), split="train"),
    ]
    result = place("ridge", pictures, Cropping(LABELS), {})
    assert [(entry.path, entry.label, entry.split) for entry in result.pictures] == [
        ("none.jpg", "", "unlabelled"),
        ("one.jpg", "fox", "train"),
        ("site.jpg", "", "background"),
    ]
    assert result.several == 1


def box(left: float, top: float, width: float, height: float, **values: Any) -> Box:
    return Box(float(left), float(top), float(width), float(height), **values)


def boxed(*boxes: Box, labels: tuple[str, ...] = ("fox",)) -> Picture:
    return Picture("a.jpg", 1, labels=labels, boxes=boxes, split="train")


def crops(picture: Picture, framing: str) -> list[tuple[str, object]]:
    cropping = Cropping(LABELS, framing)  # type: ignore[arg-type]
    result: Placement = place("ridge", [picture], cropping, {})
    return [(entry.label, entry.box) for entry in result.pictures]


def test_boxes_give_the_part_of_the_picture_and_its_class() -> None:
    small, large = box(0, 0, 0.1, 0.1, confidence=0.9), box(0.5, 0.5, 0.4, 0.4, confidence=0.5)
    doubtful, person = box(0, 0, 1, 1, confidence=0.05), box(0, 0, 1, 1, category="person", confidence=0.9)
    picture = boxed(small, large, doubtful, person)
    assert crops(picture, "whole") == crops(picture, "square") == [("fox", None)]
    assert crops(picture, "box") == [("fox", (0.5, 0.5, 0.4, 0.4))]
    assert crops(picture, "boxes") == [("fox", (0.5, 0.5, 0.4, 0.4)), ("fox", (0, 0, 0.1, 0.1))]
    assert crops(boxed(doubtful), "box") == crops(boxed(), "box") == [("fox", None)]
    assert crops(boxed(large, labels=("empty",)), "boxes") == [("empty", None)]


def test_boxes_that_people_labelled_tell_species_apart() -> None:
    fox, hare = box(0, 0, 0.2, 0.2, label="fox"), box(0.5, 0.5, 0.4, 0.4, label="hare")
    guess = box(0, 0, 0.9, 0.9, label="badger", label_confidence=0.9)
    both = boxed(fox, hare, guess, labels=("fox", "hare"))
    assert crops(both, "boxes") == [("hare", (0.5, 0.5, 0.4, 0.4)), ("fox", (0, 0, 0.2, 0.2))]
    assert crops(both, "box") == [("hare", (0.5, 0.5, 0.4, 0.4))]
    assert crops(both, "whole") == []


def test_blanks_are_what_people_or_else_a_detector_found_empty() -> None:
    cropping = Cropping(LABELS)
    sure, doubtful = box(0, 0, 1, 1, confidence=0.9), box(0, 0, 1, 1, confidence=0.1)
    for labels, boxes, blank in (
        (("empty",), None, True),
        (("empty",), (sure,), True),
        (("fox",), (), False),
        ((), None, False),
        ((), (), True),
        ((), (doubtful,), True),
        ((), (sure,), False),
    ):
        assert cropping.is_blank(Picture("a.jpg", 1, labels=labels, boxes=boxes)) == blank


def test_safe_names_are_unique_stable_and_ascii() -> None:
    cameras = ["C01", "cam 1", "cam-1", "cam/1", "cam  1", "ÄÖ", "äö", "カメラ7", "", "x" * 300, "-", "a\n"]
    names = task_names(cameras)
    assert names["C01"] == "C01"
    assert names["cam-1"] == "cam-1"
    assert len(set(names.values())) == len(cameras)
    assert all(name.isascii() and 0 < len(name) <= LONGEST and not set(name) & set(" /\n") for name in names.values())
    assert {camera: task_names([camera])[camera] for camera in cameras if camera != "cam 1"}.items() <= names.items()
    assert task_names(["cam 1"]) == {"cam 1": "cam-1"}
    assert same_name("Fo\u0308hr ", "Föhr")


def test_a_number_or_a_fraction_of_unseen_cameras_is_drawn() -> None:
    cameras = [f"c{number}" for number in range(20)]
    found = [name for name, group in drawn_groups(cameras, cameras[:10], 3, 0).items() if group == "unseen"]
    assert len(found) == 3
    assert set(found) <= set(cameras[:10])
    assert drawn_groups(cameras, cameras[:10], 0.3, 0) == drawn_groups(cameras, cameras[:10], 3, 0)
    assert drawn_groups(cameras, cameras[:10], 3, 1) != drawn_groups(cameras, cameras[:10], 3, 0)
    with refused(DataError, "10 of 10"):
        drawn_groups(cameras, cameras[:10], 10, 0)
    assert set(drawn_groups(cameras, (), 0, 0).values()) == {"seen"}
