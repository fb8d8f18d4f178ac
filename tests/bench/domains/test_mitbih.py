"""Heart beats: the published split, no beat of a test patient in training, refusals of bad files, and a run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from beats import LEARNED, UNSEEN, write_beats
from tiny_domain import FINETUNE, TINY

from refusals import refused
from wildbench.datasets.heartbeats import (
    BEATS,
    DS1,
    DS2,
    PATIENTS,
    RHYTHM,
    SAMPLES,
    HeartbeatsConfig,
    heartbeats,
    read_records,
)
from wildbench.domains.mitbih import DOMAIN, TRAINING, open_mitbih
from wildbench.domains.run import domain_config, run_domain
from wildpdiff.errors import DataError
from wildpdiff.tasks.batch import example_keys
from wildpdiff.tasks.dataset import PlainSuite

CONFIG = HeartbeatsConfig(
    pretraining=2, minutes=(0.8, 1.2), unseen_minutes=(0.4, 0.7), train=60, validation=20, common=3, examples=12
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beats(tmp_path_factory.mktemp("beats"))


@pytest.fixture(scope="module")
def suite(data: Path) -> PlainSuite:
    return heartbeats(data, CONFIG)


def test_the_published_sets_do_not_overlap_and_lack_paced_patients_and_201() -> None:
    assert len(DS1) == 21
    assert len(DS2) == 22
    assert not set(DS1) & set(DS2)
    assert not {102, 104, 107, 217, 201} & (set(DS1) | set(DS2))


def test_no_beat_of_a_test_patient_is_learned_from(suite: PlainSuite) -> None:
    groups = {group: [int(task.name.removeprefix("patient-")) for task in suite.tasks(group)]  # type: ignore[arg-type]
              for group in ("pretraining", "seen", "unseen")}  # fmt: skip
    assert sorted(groups["pretraining"] + groups["seen"]) == [one for one in LEARNED if one != 201]
    assert groups["unseen"] == list(UNSEEN)
    assert len(groups["pretraining"]) == 2
    tests = {key for task in suite.tasks("unseen") for key in example_keys(task.data("test").inputs)}
    learned = {
        key
        for group in ("pretraining", "seen")
        for task in suite.tasks(group)  # type: ignore[arg-type]
        for split in ("train", "validation")
        for key in example_keys(task.data(split).inputs)  # type: ignore[arg-type]
    }
    assert tests
    assert not tests & learned
    for task in suite.tasks("unseen"):
        parts = [set(example_keys(task.data(split).inputs)) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
        parts.append(set(example_keys(task.description.examples)))
        assert not parts[2] & (parts[0] | parts[1] | parts[3])
        assert not parts[0] & parts[1]


def test_every_task_trains_on_beats_of_every_class_and_is_told_by_table_and_beats(suite: PlainSuite) -> None:
    for task in (*suite.tasks("seen"), *suite.tasks("unseen")):
        assert set(np.unique(task.data("train").targets)) == {0, 1, 2, 3}
        assert task.description.examples.shape == (12, SAMPLES + RHYTHM)
    about = {task.name: task.description.metadata or {} for group in ("seen", "unseen") for task in suite.tasks(group)}  # type: ignore[arg-type]
    assert about["patient-100"] == {"sex": "M", "lead": "MLII", "age": 50.0, "digoxin": "no", "lasix": "no"}
    kinds = {field.name: field.kind for field in suite.metadata_schema.fields}
    assert kinds == {"sex": "category", "lead": "category", "age": "number", "digoxin": "category", "lasix": "category"}


def test_rhythm_is_finite_and_in_units_of_the_last_ten_intervals(data: Path) -> None:
    records = read_records(data / BEATS)
    assert np.isfinite(records.inputs).all()
    own = np.flatnonzero(np.load(data / BEATS)["patients"] == 106)
    seconds = np.exp(records.inputs[own, SAMPLES])
    assert records.inputs[own[40], SAMPLES + 2] == pytest.approx(np.log(seconds[40] / seconds[30:40].mean()), abs=1e-5)
    assert (np.diff(records.minutes[own]) > 0).all()


def test_an_unknown_age_is_missing(tmp_path: Path) -> None:
    folder = write_beats(tmp_path / "beats", (103, 101, 106, 108, 109, 112))
    (unseen,) = heartbeats(folder, replace(CONFIG, pretraining=2)).unseen
    assert set(unseen.description.metadata or {}) == {"sex", "lead", "digoxin", "lasix"}


def test_bad_files_are_refused(tmp_path: Path, data: Path) -> None:
    few = write_beats(tmp_path / "few", (101, 106, 100))
    with refused(DataError, "DS1", 4):
        heartbeats(few, CONFIG)
    arrays = dict(np.load(few / BEATS))
    np.savez(few / BEATS, **{**arrays, "beats": arrays["beats"][:, :50]})
    with refused(DataError, "beats", "50"):
        heartbeats(few, CONFIG)
    np.savez(few / BEATS, **{**arrays, "pre_rr": np.full_like(arrays["pre_rr"], np.nan)})
    with refused(DataError, "pre_rr", "100"):
        heartbeats(few, CONFIG)
    table = tmp_path / "table"
    table.mkdir()
    (table / BEATS).symlink_to(data / BEATS)
    for text, value in (("patient,age,sex\n101,3,M\n", "lead"), ("name,age\na,3\n", "patient")):
        (table / PATIENTS).write_text(text)
        with refused(DataError, PATIENTS, value):
            heartbeats(table, CONFIG)


def test_the_domain_runs_and_states_both_f1_and_accuracy(data: Path, tmp_path: Path) -> None:
    def opened(*given: object) -> object:
        made = partial(open_mitbih, config=CONFIG, training=replace(TRAINING, steps=30))(*given)  # type: ignore[arg-type]
        return replace(made, finetune=FINETUNE)

    tiny = replace(DOMAIN, open=opened, generator=replace(TINY.generator, parts=DOMAIN.generator.parts), seen_tasks=2)  # type: ignore[arg-type]
    table = run_domain(tiny, data, tmp_path / "out", domain_config(tiny, trained=False), command="c")
    assert table.groups == {"seen": 2, "unseen": 3}
    cell = table.cell("generated", "unseen")
    assert set(cell.pooled) == {"macro-F1", "F1 of S", "F1 of V"}
    assert 0 <= cell.score.value <= 1
    weights = (tmp_path / "out" / "backbone" / "manifest.json").read_bytes()
    tiny.open(data, tmp_path / "out", 0, lambda done, of: pytest.fail("trained again"))
    assert (tmp_path / "out" / "backbone" / "manifest.json").read_bytes() == weights
