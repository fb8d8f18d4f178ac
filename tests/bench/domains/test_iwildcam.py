"""The domain iwildcam from frames in WILDS' layout to its table, and scores of all pictures against a slow twin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from refusals import refused
from wildbench.datasets.savanna.wilds import WildsConfig, write_wilds
from wildbench.domains.iwildcam import DOMAIN, SMALL, open_frames
from wildbench.domains.regret import regret
from wildbench.domains.run import domain_config, run_domain
from wildbench.domains.table import DomainTable, regret_table
from wildbench.presets import tiny_generator
from wildpdiff.conditional_mean.correction import TaskLossConfig
from wildpdiff.errors import ArtifactError, DataError
from wildpdiff.records import truth
from wildpdiff.tasks.task import SPLITS

SMALLEST = replace(
    DOMAIN,
    generator=replace(tiny_generator(), parts=("examples",), task_loss=TaskLossConfig(steps=4, tasks=4, images=8)),
    samples=2,
    seen_tasks=3,
)
OPTIONS = {"backbone": SMALL, "image_size": 24, "epochs": 1}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = WildsConfig(seed=4, cameras=12, bursts=20, image_size=24)
    return write_wilds(tmp_path_factory.mktemp("iwildcam") / "frames", config)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "out"


@pytest.fixture(scope="module")
def table(frames: Path, out: Path) -> DomainTable:
    config = domain_config(SMALLEST, trained=False)
    return run_domain(SMALLEST, frames, out, config, command="wildbench domain iwildcam", options=OPTIONS)


def test_scores_of_all_pictures_are_those_of_a_slow_twin(table: DomainTable, frames: Path, out: Path) -> None:
    opened = open_frames(frames, out, 0, lambda *_: None, **OPTIONS)
    unchanged = opened.backbone.initial_adapter(0).tensors
    targets, predicted = [], []
    for task in opened.suite.tasks("unseen"):
        for split in SPLITS:
            data = task.data(split)
            for image, label in zip(data.inputs, data.targets, strict=True):
                logits = opened.backbone.predict(opened.backbone.stem(np.asarray(image)[None]), unchanged)
                targets.append(int(label))
                predicted.append(int(logits.argmax()))
    found = table.cell("pretrained", "unseen").pooled
    right = np.mean(np.array(targets) == np.array(predicted))
    assert found["accuracy of all pictures"].value == pytest.approx(right)
    expected = f1_score(targets, predicted, labels=np.unique(targets), average="macro", zero_division=0)
    assert found["macro-F1 of all pictures"].value == pytest.approx(expected, abs=1e-6)


def test_methods_of_the_test_pictures_have_no_scores_of_all_pictures(table: DomainTable) -> None:
    labelled = ("species mask", "event smoothing", "fine-tuned", "fine-tuned, classifier alone")
    assert set(labelled[:2]) < {row.method for row in table.rows}
    for row in table.rows:
        assert ("macro-F1 of all pictures" in row.cells["unseen"].pooled) == (row.method not in labelled)
        assert "macro-F1" in row.cells["unseen"].pooled


def test_the_table_names_published_numbers_and_the_regret(table: DomainTable, out: Path) -> None:
    assert any("Koh et al. 2021" in remark for remark in table.remarks)
    page = (out / "domain.md").read_text()
    assert "| regret | never adapt | always adapt | adapt where trusted |" in page
    assert regret_table(table).rows[0][-1] == "–"  # too few cameras for trust


def test_in_the_order_of_time_every_camera_tests_on_its_last_bursts(frames: Path, out: Path) -> None:
    opened = open_frames(frames, out, 0, lambda *_: None, by_time=True, **OPTIONS)
    for group in ("seen", "unseen"):
        for task in opened.suite.tasks(group):
            times = [[row.picture.time for row in task.rows(split)] for split in SPLITS]
            assert max(times[0]) < min(times[1])
            assert max(times[1]) < min(times[2])


def test_other_options_need_another_folder_and_too_few_cameras_are_refused(
    table: DomainTable, frames: Path, out: Path, tmp_path: Path
) -> None:
    with refused(ArtifactError, tmp_path):
        other = write_wilds(tmp_path / "other", WildsConfig(seed=5, cameras=10, bursts=1, image_size=24))
        run_domain(SMALLEST, other, out, domain_config(SMALLEST, trained=False), command="x", options=OPTIONS)
    with refused(DataError, "no cameras"):
        lines = (frames / "metadata.csv").read_text().splitlines()
        few = tmp_path / "few" / "metadata.csv"
        few.parent.mkdir()
        (few.parent / "train").symlink_to(frames / "train")
        few.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split(",")[1] == "test")]) + "\n")
        open_frames(few.parent, tmp_path, 0, lambda *_: None, **OPTIONS)


def test_regret_is_the_distance_to_the_better_model() -> None:
    pretrained, generated = {"a": 0.5, "b": 0.8}, {"a": 0.9, "b": 0.6}
    found = regret(["a", "b"], pretrained, generated, {"a": 0.9, "b": 0.8})
    assert found.never.value == pytest.approx(0.2)
    assert found.always.value == pytest.approx(0.1)
    assert found.trusted is not None
    assert found.trusted.value == 0.0
    errors = regret(["a", "b"], pretrained, generated, None, sign=-1.0)  # lower is better
    assert errors.never.value == pytest.approx(0.1)
    assert errors.trusted is None


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_truth(text: str, value: bool) -> None:
    assert truth(text) is value
    with pytest.raises(ValueError):  # noqa: PT011
        truth("maybe")
