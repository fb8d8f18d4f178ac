"""Rules of the field on top of the pretrained model, on planted outputs and on a table of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from refusals import refused
from wildbench.methods.camera_traps import (
    FIELD_NAMES,
    CropFirstSource,
    EventSmoothingSource,
    SpeciesMaskSource,
    field_candidates,
)
from wildpdiff.backbones.backbone import Backbone, LoraSpec
from wildpdiff.camera_traps.records import Box, Picture, PictureTable
from wildpdiff.camera_traps.suite_options import TableOptions
from wildpdiff.camera_traps.table_suite import TableSuite
from wildpdiff.errors import DataError
from wildpdiff.evaluate.methods import MethodInputs
from wildpdiff.evaluate.score import TestSet, outputs_by, outputs_of, test_set
from wildpdiff.tasks.description import Description
from wildpdiff.tasks.objective import TARGETS
from wildpdiff.zoo.features import TaskFeatures

CLASSES = ("empty", "lion", "zebra")
SIZE = 8


class Means(nn.Module):
    """The mean colour as logits, so that an image says what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, 3)
        nn.init.eye_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.classifier(1.5 * images.mean((2, 3)))
        return found


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    lora = LoraSpec(1, 1.0, ("classifier",), ())
    return Backbone.wrap(Means(), name="means", classes=CLASSES, image_size=SIZE, lora=lora)


def of_colours(backbone: Backbone, *shares: tuple[float, float, float]) -> TestSet:
    images = (255 * np.array(shares)).astype(np.uint8)[:, None, None].repeat(SIZE, 1).repeat(SIZE, 2)
    batch = {**backbone.stem(images), TARGETS: torch.zeros(len(shares), dtype=torch.int64)}
    return TestSet("A", Description(task_id="A"), batch)


def test_a_mask_leaves_what_labels_show_and_blanks(backbone: Backbone) -> None:
    test = of_colours(backbone, (0.2, 0.3, 0.9), (0.2, 0.9, 0.3), (0.9, 0.2, 0.8))
    features = TaskFeatures.of_few("A", {**test.batch, TARGETS: torch.tensor([1, 1, 1])})
    initial = backbone.initial_adapter(0)
    source = SpeciesMaskSource(initial, lambda name: {"A": features}[name])
    adapters = source.sample(test.description, 1, 0)
    assert outputs_of(backbone, test, adapters).argmax(-1).tolist() == [[2, 1, 0]]
    found = outputs_by(source, backbone, test, adapters)
    assert found.argmax(-1).tolist() == [[1, 1, 0]]
    assert bool(torch.isfinite(found).all())


def test_frames_of_a_burst_share_the_mean_of_their_log_probabilities(backbone: Backbone) -> None:
    test = of_colours(backbone, (0.5, 0.55, 0.1), (0.5, 0.55, 0.1), (0.9, 0.1, 0.1), (0.1, 0.1, 0.9))
    source = EventSmoothingSource(backbone.initial_adapter(0))
    adapters = source.sample(test.description, 2, 0)
    with refused(DataError, "A"):
        source.outputs(backbone, test, adapters)
    plain = outputs_of(backbone, test, adapters)
    found = outputs_by(source, backbone, replace(test, bursts=("a", "a", "a", "b")), adapters)
    assert plain.argmax(-1).tolist() == [[1, 1, 0, 2]] * 2
    assert found.argmax(-1).tolist() == [[0, 0, 0, 2]] * 2
    mean = plain.double().log_softmax(-1)[0, :3].mean(0).log_softmax(-1)
    assert torch.allclose(found[0, 0].double(), mean, atol=1e-4)


@pytest.fixture
def suite(tmp_path: Path) -> TableSuite:
    """One camera: grey frames with a small blue animal, in bursts of two."""
    pictures = []
    for number in range(16):
        pixels = np.full((48, 64, 3), 60, dtype=np.uint8)
        pixels[:, :, number % 2] = 120
        pixels[20:28, 10:18] = (0, 0, 255)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = ("train", "train", "validation", "test")[number // 4]
        box = Box(10 / 64, 20 / 48, 8 / 64, 8 / 48, confidence=0.9)
        label = CLASSES[1 + number % 2]
        pictures.append(
            Picture(f"{number}.png", number, "A", (label,), None, f"s{number // 2}", split=split, boxes=(box,))
        )
    table = PictureTable(tmp_path / "t.csv", "CSV", tmp_path, tuple(pictures))
    (tmp_path / "t.csv").touch()
    return TableSuite(table, TableOptions(image_size=SIZE, classes=CLASSES, framing="square", minimum=4, unseen=0))


def test_a_table_gives_bursts_and_crops(backbone: Backbone, suite: TableSuite) -> None:
    (task,) = suite.all_tasks
    assert len(set(task.bursts("test"))) == 2
    assert len(task.bursts("test")) == len(task.data("test")) == 4
    crops = task.crops("test")
    assert crops is not None
    assert crops.labels.tolist() == task.data("test").labels.tolist()
    test = test_set(backbone, task, crops=True)
    assert test.bursts is not None
    adapters = CropFirstSource(backbone.initial_adapter(0)).sample(test.description, 1, 0)
    source = CropFirstSource(backbone.initial_adapter(0))
    assert outputs_by(source, backbone, test, adapters).argmax(-1).tolist() == [[2, 2, 2, 2]]
    assert outputs_of(backbone, test, adapters).argmax(-1).tolist() != [[2, 2, 2, 2]]
    whole = test_set(backbone, task)
    assert torch.equal(source.outputs(backbone, whole, adapters), outputs_of(backbone, whole, adapters))


def test_rules_without_what_they_need_are_left_out(backbone: Backbone, suite: TableSuite) -> None:
    (task,) = suite.all_tasks
    zoo = SimpleNamespace(initial=backbone.initial_adapter(0))

    def names(labelled: Any, *tests: TestSet, model: Backbone = backbone) -> list[str]:
        seen = SimpleNamespace(zoo=zoo, backbone=model)
        inputs = Mock(spec=MethodInputs, seen=seen, labelled=labelled, tests=tests)
        return [candidate.make().name for candidate in field_candidates(inputs)]

    plain, full = of_colours(backbone, (1.0, 0.0, 0.0)), test_set(backbone, task, crops=True)
    assert names(lambda name: None, full) == list(FIELD_NAMES)
    assert names(None, full, plain) == [FIELD_NAMES[2]]
    assert names(None, plain) == []
    assert names(None, replace(full, bursts=tuple("abcd"), crops=None)) == []
    assert names(None, test_set(backbone, task)) == [FIELD_NAMES[1]]
    assert names(lambda name: None, full, model=cast(Backbone, SimpleNamespace(classes=()))) == []
