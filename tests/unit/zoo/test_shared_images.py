"""Which labelled images of a task nothing was trained on that was trained on the other tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.task_images import TaskExamples
from wildpdiff.errors import DataError
from wildpdiff.tasks.task import LabelledImages, SplitName
from wildpdiff.zoo.features import ExampleRows, TaskFeatures, task_features

letters = st.text("abcdefghij", min_size=1, max_size=6)


def keyed(name: str, train: str, validation: str) -> TaskFeatures:
    """A task whose images are letters; equal letters are equal images."""
    codes = [torch.tensor([[float(ord(letter))] for letter in split]).reshape(-1, 1) for split in (train, validation)]
    labels = [torch.arange(len(split)) for split in (train, validation)]
    keys = tuple(letter.encode() for letter in train + validation)
    return TaskFeatures(name, toys.batch(codes[0], labels[0]), toys.batch(codes[1], labels[1]), keys)


def shown(task: TaskFeatures, rows: torch.Tensor) -> str:
    return "".join(chr(int(value)) for value in task.labelled(rows)["inputs"][:, 0])


@pytest.mark.parametrize(
    ("first", "second", "trained", "leak_free"),
    [
        (("abcd", "xy"), ("efgh", "zw"), "abcdxy", "abcdxy"),
        (("abcd", "xy"), ("cdef", "xy"), "abcd", "abxy"),
        (("abcd", "xy"), ("cdef", "xz"), "abcdy", "abxy"),
        (("abcd", "xy"), ("abcd", "zw"), "abcdxy", "xy"),
        (("abcd", "xy"), ("abcdx", "zw"), "abcdy", "xy"),
        (("abcd", "x"), ("abcd", "z"), "abcdx", "abcdx"),
        (("aabc", "bx"), ("cd", "x"), "aabcb", "aabbx"),
    ],
)
def test_what_is_learned_from_and_what_is_judged_by(
    first: tuple[str, str], second: tuple[str, str], trained: str, leak_free: str
) -> None:
    tasks = [keyed("first", *first), keyed("second", *second)]
    rows = ExampleRows.of(tasks)[0]
    assert (shown(tasks[0], rows.trained), shown(tasks[0], rows.leak_free)) == (trained, leak_free)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no fault
@given(st.lists(st.tuples(letters, letters), min_size=1, max_size=5))
def test_nothing_that_a_task_is_judged_by_is_learned_from_in_another(drawn: list[tuple[str, str]]) -> None:
    tasks = [keyed(str(number), *splits) for number, splits in enumerate(drawn)]
    found = ExampleRows.of(tasks)
    learned = [set(shown(task, rows.trained)) for task, rows in zip(tasks, found, strict=True)]
    for index, (task, rows) in enumerate(zip(tasks, found, strict=True)):
        assert set(drawn[index][0]) <= learned[index]
        judged = set(shown(task, rows.leak_free))
        others = set().union(*(entry for number, entry in enumerate(learned) if number != index))
        enough = len([letter for letter in "".join(drawn[index]) if letter not in others]) > 1
        assert not enough or not judged & others


@settings(suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no fault
@given(st.lists(st.tuples(letters, letters), min_size=2, max_size=5), st.integers(1, 4))
def test_what_held_out_tasks_are_judged_by_does_not_teach_the_others_either(
    drawn: list[tuple[str, str]], count: int
) -> None:
    """The others alone no longer share their validation images with what was held out."""
    tasks = [keyed(str(number), *splits) for number, splits in enumerate(drawn)]
    together = ExampleRows.of(tasks)
    count = min(count, len(tasks) - 1)
    keys = {key for task in tasks[:count] for key in task.keys}
    rest = [task.without_validation(keys) for task in tasks[count:]]
    taught = set().union(*(shown(task, rows.trained) for task, rows in zip(rest, ExampleRows.of(rest), strict=True)))
    for index, (train, validation) in enumerate(drawn[:count]):
        others = set().union(*(set(splits[0]) for number, splits in enumerate(drawn) if number != index))
        if len([letter for letter in train + validation if letter not in others]) > 1:
            assert not set(shown(tasks[index], together[index].leak_free)) & taught


def test_validation_images_are_left_out_by_their_keys_alone() -> None:
    task = keyed("t", "abc", "bxy")
    left = task.without_validation({b"x", b"a", b"c"})
    assert [shown(left, torch.arange(count)) for count in (3, 5)] == ["abc", "abcby"]
    assert left.validation["targets"].tolist() == [0, 2]
    assert left.keys == (b"a", b"b", b"c", b"b", b"y")
    assert task.without_validation({b"a"}) is task


def test_without_keys_all_images_are_a_task_s_own() -> None:
    plain = [
        TaskFeatures("t", toys.batch(torch.zeros(3, 1), torch.arange(3)), toys.batch(torch.ones(2, 1), torch.arange(2)))
        for _ in "ab"
    ]
    for rows in ExampleRows.of(plain):
        assert rows.trained.tolist() == rows.leak_free.tolist() == [0, 1, 2, 3, 4]


def test_keys_are_given_for_all_images_or_for_none() -> None:
    with refused(DataError, "'t'", 1, 2):
        TaskFeatures(
            "t", toys.batch(torch.zeros(1, 1), torch.arange(1)), toys.batch(torch.ones(1, 1), torch.arange(1)), (b"a",)
        )


def test_labelled_images_keep_their_labels_in_any_order() -> None:
    task, rows = keyed("t", "abc", "xy"), torch.tensor([4, 0, 3, 2])
    assert shown(task, rows) == "yaxc"
    assert task.labelled(rows)["targets"].tolist() == [1, 0, 0, 2]


@dataclass(frozen=True)
class PooledTask(toys.FixedTask):
    """Trains on twenty of some images, is validated on others of them."""

    offset: int = 0

    def data(self, split: SplitName) -> LabelledImages:
        first = {"train": self.offset, "validation": 40, "test": 45}[split]
        rows = slice(first, first + (20 if split == "train" else 5))
        return LabelledImages(self.images[rows], self.labels[rows])


def test_the_images_themselves_decide_which_are_shared(toy_backbone: Backbone) -> None:
    images, labels = toys.random_images(50), np.arange(50, dtype=np.int64) % 3
    pooled = [PooledTask(f"t{offset}", images, labels, offset=offset) for offset in (0, 15)]
    tasks = [task_features(toy_backbone, task, 8) for task in pooled]
    first, second = (rows.leak_free.tolist() for rows in ExampleRows.of(tasks))
    assert first == [*range(15), *range(20, 25)]
    assert second == [*range(5, 20), *range(20, 25)]


def test_a_held_out_task_is_looked_at_through_images_that_no_other_task_trains_on() -> None:
    images = TaskExamples((keyed("first", "abcd", "xyz"), keyed("second", "abcd", "xyw")), 0)
    batch = images.fixed(torch.tensor([0, 1]), 9)
    for row, wanted in enumerate(("xyz", "wxy")):
        letters = [chr(int(value)) for value in batch["inputs"][row, :, 0]]
        assert sorted(letters) == sorted(wanted * 3)
        assert [{"x": 0, "y": 1, "z": 2, "w": 2}[letter] for letter in letters] == batch["targets"][row].tolist()
