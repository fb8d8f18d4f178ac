from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import toys
from wildbench.observers.pictures import PictureObserver
from wildpdiff.adapters.adapter import Adapter
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.evaluate.run import Method, Scored
from wildpdiff.evaluate.score import TestSet
from wildpdiff.tasks.description import Description

LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
PIXELS = {f"task-{number}": toys.random_images(8, seed=number) for number in range(8)}


class Named:
    """A source that is only a name: the observer reads nothing else of it."""

    stochastic = True

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, description: Description, n: int, seed: int) -> list[Adapter]:
        raise AssertionError("a picture needs no further adapter")


def shown(
    backbone: Backbone, source: str, task: str, answers: list[list[int]], split: str = "unseen", condition: str = "own"
) -> Scored:
    logits = torch.nn.functional.one_hot(torch.tensor(answers), 3).float()
    test = TestSet(task, Description(), toys.batch(torch.zeros(8, 1), LABELS))
    adapters = [toys.random_adapter(backbone, 0)] * len(answers)
    return Scored(split, Method(Named(source), condition), test, adapters, logits)  # type: ignore[arg-type]


def right_on(count: int) -> list[int]:
    """Answers that are right on the first images and wrong on the rest."""
    return [int(label) if index < count else (int(label) + 1) % 3 for index, label in enumerate(LABELS)]


def observed(backbone: Backbone, rights: dict[str, int], each: int = 6, split: str = "unseen") -> PictureObserver:
    observer = PictureObserver(toys.CLASSES, PIXELS.__getitem__, each=each)
    for task, count in rights.items():
        observer.observe(shown(backbone, "pretrained", task, [right_on(4)], split, "none"))
        observer.observe(shown(backbone, "generated", task, [right_on(count), right_on(count)], split))
    return observer


def test_the_best_three_and_the_worst_three_tasks_are_shown(toy_backbone: Backbone) -> None:
    rights = {"task-0": 4, "task-1": 8, "task-2": 1, "task-3": 6, "task-4": 3, "task-5": 7, "task-6": 5, "task-7": 0}
    found = observed(toy_backbone, rights).result()
    assert list(dict.fromkeys((picture.role, picture.task) for picture in found)) == [
        ("best", "task-1"),
        ("best", "task-5"),
        ("best", "task-3"),
        ("worst", "task-7"),
        ("worst", "task-2"),
        ("worst", "task-4"),
    ]
    assert len(found) == 6 * 6
    assert {picture.split for picture in found} == {"unseen"}


def test_images_on_which_the_models_differ_come_first_and_the_pixels_are_the_originals(toy_backbone: Backbone) -> None:
    found = observed(toy_backbone, {"task-0": 6, "task-1": 4}, each=3).result()
    best = [picture for picture in found if picture.role == "best"]
    # They differ on the images 4 and 5; image 0 fills the row, in the order of the test set.
    for picture, image in zip(best, (0, 4, 5), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.png))))
        assert (pixels == PIXELS["task-0"][image]).all()
        assert picture.label == toys.CLASSES[int(LABELS[image])]
        assert picture.generated == picture.label
        assert (picture.pretrained == picture.label) is (image == 0)


@pytest.mark.parametrize(("tasks", "roles"), [(1, ["best"]), (2, ["best", "worst"]), (3, ["best", "best", "worst"])])
def test_of_few_tasks_none_is_shown_as_best_and_worst(tasks: int, roles: list[str], toy_backbone: Backbone) -> None:
    found = observed(toy_backbone, {f"task-{number}": 8 - number for number in range(tasks)}, each=1).result()
    assert [picture.role for picture in found] == roles
    assert len({picture.task for picture in found}) == tasks


def test_seen_tasks_are_shown_only_where_there_are_no_unseen_ones(toy_backbone: Backbone) -> None:
    observer = observed(toy_backbone, {"task-0": 5}, split="seen")
    assert {picture.split for picture in observer.result()} == {"seen"}
    observer.observe(shown(toy_backbone, "pretrained", "task-1", [right_on(4)], condition="none"))
    observer.observe(shown(toy_backbone, "generated", "task-1", [right_on(5)]))
    assert {picture.split for picture in observer.result()} == {"unseen"}


def test_gain_is_over_all_samples_and_seeds_and_answers_are_the_first(toy_backbone: Backbone) -> None:
    observer = observed(toy_backbone, {"task-0": 8, "task-1": 7}, each=8)
    # A second generator that fails on the first task turns the order round.
    observer.observe(shown(toy_backbone, "generated", "task-0", [right_on(0), right_on(0)]))
    observer.observe(shown(toy_backbone, "generated", "task-1", [right_on(0)], condition="shuffled"))
    observer.observe(shown(toy_backbone, "mean adapter", "task-1", [right_on(0)], condition="none"))
    found = observer.result()
    assert list(dict.fromkeys((picture.role, picture.task) for picture in found)) == [
        ("best", "task-1"),
        ("worst", "task-0"),
    ]
    assert all(picture.generated == picture.label for picture in found if picture.task == "task-0")


def test_without_both_models_there_is_no_picture(toy_backbone: Backbone) -> None:
    observer = PictureObserver(toys.CLASSES, PIXELS.__getitem__)
    assert observer.result() == ()
    observer.observe(shown(toy_backbone, "generated", "task-0", [right_on(5)]))
    assert observer.result() == ()
