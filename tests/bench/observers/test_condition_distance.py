from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from refusals import refused
from wildbench.observers.condition_distance import condition_distances
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.baselines.material import SeenTasks
from wildpdiff.baselines.regression import NearestTaskSource
from wildpdiff.conditions.fusion import fit_fusion
from wildpdiff.errors import DescriptionError
from wildpdiff.evaluate.score import TestSet
from wildpdiff.tasks.description import Description
from wildpdiff.zoo.features import TaskFeatures
from wildpdiff.zoo.store import Zoo

SUITE = toys.ToySuite()


def no_data(task: str) -> TaskFeatures:
    raise AssertionError(f"a distance needs no labelled images of {task}")


def described(task: str, description: Description) -> TestSet:
    return TestSet(
        task, replace(description, task_id=task), toys.batch(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
    )


def material(backbone: Backbone, zoo: Zoo, parts: tuple[str, ...]) -> SeenTasks:
    descriptions = [task.description for task in SUITE.tasks("seen")]
    encoder = fit_fusion(descriptions, toys.SCHEMA, backbone.image_features, parts, components=2)
    return SeenTasks(backbone, zoo, descriptions, encoder, {}, no_data, 0)


@pytest.fixture(scope="module")
def levels(toy_backbone: Backbone, toy_zoo: Zoo) -> SeenTasks:
    return material(toy_backbone, toy_zoo, ("metadata",))


@pytest.fixture(scope="module")
def tests() -> dict[str, list[TestSet]]:
    return {
        split: [described(task.name, task.description) for task in SUITE.tasks(split)] for split in ("seen", "unseen")
    }


def test_one_number_of_metadata_gives_its_distance_over_that_of_pairs(
    levels: SeenTasks, tests: dict[str, list[TestSet]]
) -> None:
    found = condition_distances(levels, tests)
    seen = [60.0, 90.0, 120.0, 150.0, 180.0]
    unit = np.sqrt(np.mean([(a - b) ** 2 for a in seen for b in seen if a != b]))
    assert [(entry.split, entry.task) for entry in found] == [
        *(("seen", f"seen-{number}") for number in range(5)),
        *(("unseen", f"unseen-{number}") for number in range(3)),
    ]
    # A seen task's distance is to its neighbour, 30 away, and not 0 to itself; the unseen lie half way between.
    assert [entry.distance for entry in found] == pytest.approx([30 / unit] * 5 + [15 / unit] * 3, rel=1e-5)


def test_several_parts_are_averaged_as_the_nearest_task_does(
    toy_backbone: Backbone, toy_zoo: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    seen = material(toy_backbone, toy_zoo, ("metadata", "backgrounds"))
    source = NearestTaskSource(seen.encoder, seen.descriptions, list(toy_zoo.task_adapters().values()))
    for entry, test in zip(condition_distances(seen, {"unseen": tests["unseen"]}), tests["unseen"], strict=True):
        nearest = source.nearest(test.description)
        squares = []
        for part, values in seen.encoder.encode_parts(test.description).items():
            table = seen.encoder.tables(seen.descriptions)[part].values.double()
            pairs = [float((a - b).square().sum()) for i, a in enumerate(table) for j, b in enumerate(table) if i != j]
            squares.append(float((values.double() - table[nearest]).square().sum()) / np.mean(pairs))
        assert entry.distance == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)


def test_a_name_that_no_seen_task_has_is_not_read(
    toy_backbone: Backbone, toy_zoo: Zoo, tests: dict[str, list[TestSet]]
) -> None:
    seen = material(toy_backbone, toy_zoo, ("metadata", "task_id"))
    found = condition_distances(seen, tests)
    assert len(found) == 8
    assert all(np.isfinite(entry.distance) and entry.distance > 0 for entry in found)


def test_missing_parts_are_left_out_of_the_mean(levels: SeenTasks, toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    both = material(toy_backbone, toy_zoo, ("metadata", "backgrounds"))
    bare = described("elsewhere", Description(metadata={"level": 75.0}))
    alone = condition_distances(levels, {"unseen": [bare]})[0].distance
    assert condition_distances(both, {"unseen": [bare]})[0].distance == pytest.approx(alone)


def test_without_a_shared_part_there_is_no_distance(toy_backbone: Backbone, toy_zoo: Zoo) -> None:
    seen = material(toy_backbone, toy_zoo, ("metadata", "backgrounds"))
    lonely = [replace(entry, backgrounds=None) for entry in seen.descriptions[1:]]
    first = replace(seen.descriptions[0], metadata=None)
    cut = replace(seen, descriptions=[first, *lonely])
    with refused(DescriptionError, "'seen-0'"):
        condition_distances(cut, {"seen": [described("seen-0", first)]})
