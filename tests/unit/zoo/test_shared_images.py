"""Which labelled images of a task nothing was trained on that was trained on the other tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import toys
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.conditional_mean.training import TaskImages
from wildpdiff.tasks.task import LabelledImages, SplitName
from wildpdiff.zoo.features import TaskFeatures, task_features, unshared_rows


def keyed(name: str, train: str, validation: str) -> TaskFeatures:
    """A task whose images are letters; equal letters are equal images."""
    codes = [torch.tensor([[float(ord(letter))] for letter in split]).reshape(-1, 1) for split in (train, validation)]
    labels = [torch.arange(len(split)) for split in (train, validation)]
    keys = tuple(letter.encode() for letter in train + validation)
    return TaskFeatures(name, codes[0], labels[0], codes[1], labels[1], keys)


def shown(task: TaskFeatures, rows: torch.Tensor) -> str:
    inputs, _ = task.labelled(rows)
    return "".join(chr(int(value)) for value in inputs[:, 0])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("abcd", "xy"), ("efgh", "zw"), "abcdxy"),
        (("abcd", "xy"), ("cdef", "xy"), "abxy"),
        (("abcd", "xy"), ("abcd", "zw"), "xy"),
        (("abcd", "xy"), ("abcdx", "zw"), "xy"),
        (("abcd", "x"), ("abcd", "z"), "abcdx"),
        (("aabc", "bx"), ("cd", "x"), "aabbx"),
    ],
)
def test_images_that_another_task_trains_on_are_left_out(
    first: tuple[str, str], second: tuple[str, str], expected: str
) -> None:
    tasks = [keyed("first", *first), keyed("second", *second)]
    assert shown(tasks[0], unshared_rows(tasks)[0]) == expected


def test_without_keys_all_images_are_a_task_s_own() -> None:
    plain = [TaskFeatures("t", torch.zeros(3, 1), torch.arange(3), torch.ones(2, 1), torch.arange(2)) for _ in "ab"]
    assert [rows.tolist() for rows in unshared_rows(plain)] == [[0, 1, 2, 3, 4]] * 2


def test_labelled_images_keep_their_labels_in_any_order() -> None:
    inputs, labels = keyed("t", "abc", "xy").labelled(torch.tensor([4, 0, 3, 2]))
    assert [chr(int(value)) for value in inputs[:, 0]] == ["y", "a", "x", "c"]
    assert labels.tolist() == [1, 0, 0, 2]


@dataclass(frozen=True)
class PooledTask(toys.FixedTask):
    """Trains on twenty of some images, is validated on others of them."""

    offset: int = 0

    def data(self, split: SplitName) -> LabelledImages:
        rows = {"train": slice(self.offset, self.offset + 20), "validation": slice(40, 45), "test": slice(45, 50)}[
            split
        ]
        return LabelledImages(self.images[rows], self.labels[rows])


def test_the_images_themselves_tell_which_are_shared(toy_backbone: Backbone) -> None:
    images, labels = toys.random_images(50), np.arange(50, dtype=np.int64) % 3
    pooled = [PooledTask(f"t{offset}", images, labels, offset=offset) for offset in (0, 15)]
    tasks = [task_features(toy_backbone, task, 8) for task in pooled]
    first, second = (rows.tolist() for rows in unshared_rows(tasks))
    assert first == [*range(15), *range(20, 25)]
    assert second == [*range(5, 20), *range(20, 25)]


def test_a_held_out_task_is_looked_at_through_images_that_no_other_task_trains_on() -> None:
    images = TaskImages((keyed("first", "abcd", "xyz"), keyed("second", "abcd", "xyw")), 0)
    batch = images.fixed(torch.tensor([0, 1]), 9)
    for row, wanted in enumerate(("xyz", "wxy")):
        letters = [chr(int(value)) for value in batch.inputs[row, :, 0]]
        assert sorted(letters) == sorted(wanted * 3)
        assert [{"x": 0, "y": 1, "z": 2, "w": 2}[letter] for letter in letters] == batch.labels[row].tolist()
