"""The field's own benchmark: WILDS iWildCam, or a LILA set in COCO Camera Traps format, in the same protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wildbench.backbones import pretrain_small_cnn
from wildbench.domains.domain import Domain
from wildbench.domains.protocol import ProtocolConfig, with_splits
from wildbench.methods.camera_traps import FIELD_NAMES, MASK
from wildbench.methods.classifier_alone import CLASSIFIER_ALONE
from wildbench.methods.few_label_methods import LABELLED_NAMES
from wildbench.pipeline import RunInputs
from wildbench.run_folder import Tick
from wildbench.studies.measuring import OpenBenchmark
from wildbench.studies.panel_page import ShownMethod
from wildbench.studies.pooled_scores import PooledObserver, PooledScore, macro_f1, pooled_accuracy, pooled_counts
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.backbones.efficientnet_lite import efficientnet_lite0, fit_head
from wildpdiff.backbones.pretrain import PretrainConfig
from wildpdiff.backbones.registry import load_backbone, save_backbone
from wildpdiff.camera_traps.formats import read_pictures
from wildpdiff.camera_traps.suite_options import TableOptions
from wildpdiff.camera_traps.table_suite import TableSuite, TableTask
from wildpdiff.disk import content_hash, json_bytes
from wildpdiff.errors import DataError
from wildpdiff.evaluate.run import Scored
from wildpdiff.evaluate.score import TestSet, outputs_of
from wildpdiff.evaluate.summary import FINETUNED
from wildpdiff.records import truth
from wildpdiff.tasks.task import SPLITS, LabelledImages

PUBLISHED = (
    "Published on iWildCam, 48 cameras out of distribution, accuracy and macro-F1 in percent, of other, larger "
    "backbones: ERM with ResNet-50 71.6 and 31.0 (Koh et al. 2021), Meta-DMoE with ResNet-50 77.2 and 34.0 (Zhong et "
    "al. 2022, table 1), VDPG with CLIP ViT-L/14 79.0 and 46.8 (README of Chi et al. 2024); L2C names +5.1 points of "
    "macro-F1 with ViT-B/16 in its abstract (2025). FLYP's numbers were not read again and are left out.",
    "Scores *of all pictures* are those of the published protocol: every picture of the unseen cameras, of methods "
    "that use no label of them. The others are of the cameras' test bursts, next to adapters fine-tuned on the rest.",
)
OF_TESTS = (macro_f1(),)
OF_ALL = (pooled_accuracy("accuracy of all pictures"), macro_f1(name="macro-F1 of all pictures"))
SMALL, EFFICIENTNET = "small-cnn", "efficientnet-lite0"
OF_TEST_PICTURES = frozenset({FINETUNED, CLASSIFIER_ALONE, *LABELLED_NAMES, *FIELD_NAMES})
"""Sources that use labels of the camera, or bursts or boxes of its test pictures."""


@dataclass(frozen=True)
class WholeCameraObserver(PooledObserver):
    """Scores of the test examples, and others of all pictures of the unseen cameras.

    Attributes:
        whole_scores: of all pictures.
        whole: all labelled pictures of a camera, or of a seen camera its test pictures, by task.
        backbone: of the adapters.
        tests_only: sources without scores of all pictures.
    """

    whole_scores: Sequence[PooledScore] = ()
    whole: Mapping[str, TestSet] = field(default_factory=dict)
    backbone: Backbone | None = None
    tests_only: frozenset[str] = OF_TEST_PICTURES

    def observe(self, scored: Scored) -> None:
        """Counts of a method's adapters on one camera."""
        super().observe(scored)
        method, name = scored.method, scored.test.task
        if self.backbone is None or method.source.name in self.tests_only:
            return
        test = self.whole.get(name, scored.test)
        outputs = scored.outputs if test is scored.test else outputs_of(self.backbone, test, scored.adapters)
        key = (scored.split, name, method.source.name, method.condition, method.generator_seed)
        self.found.extend(pooled_counts(self.whole_scores, key, outputs, test.batch))


@dataclass(frozen=True)
class FrameOptions:
    """Options of the domain.

    Attributes:
        by_time: every camera's earliest bursts train, and its latest test.
        backbone: ``small-cnn`` or ``efficientnet-lite0``, or the folder of a stored backbone of the data's classes.
        image_size: pixels a side of the first two.
        epochs: of the small network's pretraining.
        most: pictures of a training camera in each split.
    """

    by_time: bool = False
    backbone: str = EFFICIENTNET
    image_size: int = 96
    epochs: int = 12
    most: int = 400


def open_frames(data: Path, folder: Path, seed: int, tick: Tick, **options: Any) -> OpenBenchmark:
    """Suite and backbone of a data set in the layout of WILDS, or in another format with cameras and times.

    Args:
        data: the folder with ``metadata.csv``, or a file or folder of another format.
        folder: of the run; the backbone goes to ``backbone`` in it.
        seed: of the draws and of the pretraining.
        tick: informed of the pretraining.
        **options: those of :class:`FrameOptions`.

    Raises:
        DataError: the data cannot be read, or have too few cameras.
    """
    chosen = FrameOptions(**options)
    table = with_splits(read_pictures(data), ProtocolConfig(seed, chosen.by_time, most=chosen.most))
    path = folder / "backbone"
    if not path.is_dir() and chosen.backbone in (SMALL, EFFICIENTNET):
        suite = TableSuite(table, _options(chosen.image_size))
        if not suite.tasks("pretraining"):
            raise DataError(f"{data} has no cameras that can pretrain a backbone. Give more cameras, or a backbone.")
        model = _pretrained(suite, chosen, seed, tick)
        save_backbone(model.with_framing(suite.framing), path)
    model = load_backbone(path if path.is_dir() else chosen.backbone)
    as_model = replace(_options(model.image_size), classes=model.classes, framing=model.framing)
    suite = TableSuite(table, as_model)
    return OpenBenchmark(suite, model, observer=partial(_observer, suite))


def _options(image_size: int) -> TableOptions:
    # Images are not kept: of 200,000 they would fill the memory, and features of each are computed once anyway.
    return TableOptions(image_size, keep=False)


def _pretrained(suite: TableSuite, chosen: FrameOptions, seed: int, tick: Tick) -> Backbone:
    tasks = suite.tasks("pretraining")
    if chosen.backbone == SMALL:
        config = PretrainConfig(chosen.epochs, 64, seed=seed)
        return pretrain_small_cnn(
            tasks, suite.classes, suite.image_size, config, name="small-cnn-frames", progress=tick
        ).backbone
    return fit_head(efficientnet_lite0(suite.classes, seed, image_size=suite.image_size, rank=4), tasks, seed)


def _observer(suite: TableSuite, made: RunInputs) -> WholeCameraObserver:
    whole = {task.name: _whole(made.backbone, task, suite) for task in suite.tasks("unseen")}
    return WholeCameraObserver(OF_TESTS, whole_scores=OF_ALL, whole=whole, backbone=made.backbone)


def _whole(backbone: Backbone, task: TableTask, suite: TableSuite) -> TestSet:
    """All labelled pictures of a camera."""
    parts = [task.data(split) for split in SPLITS]
    images = np.concatenate([part.images for part in parts])
    data = LabelledImages(images, np.concatenate([part.labels for part in parts]))
    return TestSet(task.name, task.description, backbone.batch(data))


def _content(data: Path) -> str:
    """A hash of the pictures' records."""
    pictures = read_pictures(data).pictures
    rows = [[one.path, one.camera, one.labels, str(one.time), one.sequence, dict(one.values)] for one in pictures]
    return content_hash(json_bytes(rows))


DOMAIN = Domain(
    "iwildcam",
    "Camera traps by the protocol of WILDS iWildCam",
    (),
    open_frames,
    pooled=(*OF_TESTS, *OF_ALL),
    further=tuple(ShownMethod(name, name, "own" if name == MASK else "none") for name in FIELD_NAMES),
    remarks=PUBLISHED,
    layout="a folder in WILDS' layout, or a file or folder of another format with cameras and times",
    content=_content,
    options={"by_time": truth, "backbone": str, "image_size": int, "epochs": int, "most": int},
)
