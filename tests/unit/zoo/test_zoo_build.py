import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError, DataError, TrainingError
from wildpdiff.zoo import build, store
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.steps import FinetuneConfig
from wildpdiff.zoo.store import Zoo

CONFIG = FinetuneConfig(steps=4, batch=8, checkpoints=2, interval=1, warmup=1)
TASKS = toys.ToySuite().tasks("seen")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make(folder: Path, backbone: Backbone, **changes: object) -> Zoo:
    settings: dict = {"tasks": TASKS, "suite_fingerprint": "toy", "config": CONFIG, "per_shard": 2, **changes}
    return build_zoo(folder, backbone, **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, toy_backbone: Backbone) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("zoo") / "z"
    make(folder, toy_backbone)
    return tree(folder)


def test_what_lies_in_the_folder(undisturbed: dict[str, bytes]) -> None:
    named = [f"shards/shard-{n:05d}.{end}" for n in range(3) for end in ("parquet", "safetensors")]
    assert sorted(undisturbed) == ["index.parquet", "initial.safetensors", "plan.json", *named]


def test_a_second_build_has_the_same_bytes(
    tmp_path: Path, toy_backbone: Backbone, undisturbed: dict[str, bytes]
) -> None:
    make(tmp_path / "z", toy_backbone)
    assert tree(tmp_path / "z") == undisturbed


@pytest.mark.parametrize("shards_done", [0, 1, 2])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_interrupted_after_any_shard_and_called_again_it_ends_with_the_same_bytes(
    tmp_path: Path,
    toy_backbone: Backbone,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    shards_done: int,
    failure: BaseException,
) -> None:
    folder = tmp_path / "z"
    real = os.fsync
    written: list[int] = []

    def fsync(handle: int) -> None:
        written.append(handle)
        # plan, initial, then two files a shard: the tensors of the next shard are not finished.
        if len(written) == 2 + 2 * shards_done + 2:
            raise failure
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises((KeyboardInterrupt, ArtifactError)):
            make(folder, toy_backbone)
    assert sum(name.endswith(".safetensors") for name in tree(folder / "shards")) == shards_done
    assert not list(folder.rglob("*.partial"))
    with refused(ArtifactError, tmp_path):
        Zoo.open(folder)
    make(folder, toy_backbone)
    assert tree(folder) == undisturbed


def test_finished_shards_are_not_built_again(
    tmp_path: Path, toy_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "z", toy_backbone)
    (tmp_path / "z" / "shards" / "shard-00001.safetensors").unlink()
    (tmp_path / "z" / "index.parquet").unlink()
    tuned: list[str] = []
    real = build.finetune

    def finetune(backbone, features, *rest, **named):  # type: ignore[no-untyped-def]
        tuned.extend(entry.name for entry in features)
        return real(backbone, features, *rest, **named)

    monkeypatch.setattr(build, "finetune", finetune)
    make(tmp_path / "z", toy_backbone)
    assert tuned == ["seen-2", "seen-3"]
    make(tmp_path / "z", toy_backbone)
    assert tuned == ["seen-2", "seen-3"]


def test_remains_of_a_kill_are_swept_away(
    tmp_path: Path, toy_backbone: Backbone, undisturbed: dict[str, bytes]
) -> None:
    folder = tmp_path / "z"
    make(folder, toy_backbone)
    (folder / "index.parquet").unlink()
    for leftover in (folder / ".index.parquet.x.partial", folder / "shards" / ".shard-00002.safetensors.y.partial"):
        leftover.write_bytes(b"half")
    make(folder, toy_backbone)
    assert tree(folder) == undisturbed


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"config": replace(CONFIG, learning_rate=0.1)}, "finetune"),
        ({"tasks": TASKS[:4]}, "tasks"),
        ({"per_shard": 3}, "per_shard"),
    ],
)
def test_another_plan_in_the_folder_is_refused(
    tmp_path: Path, toy_backbone: Backbone, changes: dict[str, object], key: str
) -> None:
    folder = tmp_path / "z"
    make(folder, toy_backbone)
    before = tree(folder)
    with refused(ArtifactError, key):
        make(folder, toy_backbone, **changes)
    assert tree(folder) == before


def test_another_backbone_is_another_plan(tmp_path: Path, toy_backbone: Backbone) -> None:
    make(tmp_path / "z", toy_backbone)
    with refused(ArtifactError, "adapter"):
        make(tmp_path / "z", toys.backbone(seed=1))


def test_two_builders_at_once_are_refused(tmp_path: Path, toy_backbone: Backbone) -> None:
    folder = tmp_path / "z"
    steps: list[int] = []

    def second(done: int, total: int) -> None:
        if not steps:
            with refused(ArtifactError, "Another process", folder):
                make(folder, toy_backbone)
        steps.append(done)

    make(folder, toy_backbone, progress=second)
    assert steps
    assert len(make(folder, toy_backbone)) == 10


def test_a_folder_with_something_else_is_refused(tmp_path: Path, toy_backbone: Backbone) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with refused(ArtifactError, tmp_path):
        make(tmp_path, toy_backbone)
    assert tree(tmp_path) == {"photo.jpg": b"mine"}


@pytest.mark.parametrize(("tasks", "values"), [((), ("0 tasks", "0 names")), ((TASKS[0],) * 2, ("2 tasks", "1 names"))])
def test_no_tasks_or_equal_names_are_refused(
    tmp_path: Path, toy_backbone: Backbone, tasks: tuple[object, ...], values: tuple[str, ...]
) -> None:
    with refused(DataError, *values):
        make(tmp_path / "z", toy_backbone, tasks=tasks)
    assert not (tmp_path / "z").exists()


@pytest.mark.parametrize("labels", [np.zeros(20), np.array([1])])
def test_a_task_that_cannot_be_trained_on_leaves_whole_shards_only(
    tmp_path: Path, toy_backbone: Backbone, labels: np.ndarray
) -> None:
    bad = toys.FixedTask("bad", toys.random_images(len(labels)), labels)
    with refused(DataError, "'bad'"):
        make(tmp_path / "z", toy_backbone, tasks=(*TASKS[:3], bad))
    assert sorted(tree(tmp_path / "z" / "shards")) == ["shard-00000.parquet", "shard-00000.safetensors"]


def test_a_diverging_loss_leaves_whole_shards_only(tmp_path: Path, toy_backbone: Backbone) -> None:
    wild = replace(CONFIG, learning_rate=1e30)
    with refused(TrainingError, "seen-"):
        make(tmp_path / "z", toy_backbone, config=wild)
    assert sorted(tree(tmp_path / "z")) == ["initial.safetensors", "plan.json"]


def test_progress_reaches_the_end_and_never_goes_back(tmp_path: Path, toy_backbone: Backbone) -> None:
    seen: list[tuple[int, int]] = []
    make(tmp_path / "z", toy_backbone, progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {20}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (20, 20)


def test_the_plan_holds_all_that_decides_the_bytes(undisturbed: dict[str, bytes], toy_backbone: Backbone) -> None:
    plan = json.loads(undisturbed["plan.json"])
    assert plan["tasks"] == [task.name for task in TASKS]
    assert plan["adapter"]["backbone_hash"] == toy_backbone.backbone_hash
    assert plan["finetune"]["steps"] == 4


@pytest.mark.parametrize("name", ["index.parquet", "shards/shard-00001.safetensors", "shards/shard-00002.parquet"])
def test_a_truncated_file_is_made_again(
    tmp_path: Path, toy_backbone: Backbone, undisturbed: dict[str, bytes], name: str
) -> None:
    folder = tmp_path / "z"
    make(folder, toy_backbone)
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    make(folder, toy_backbone)
    assert tree(folder) == undisturbed


def test_a_plan_after_which_nothing_was_built_gives_way(
    tmp_path: Path, toy_backbone: Backbone, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "z"

    def refuse(*_: object) -> None:
        raise DataError("too small")

    with monkeypatch.context() as patch:
        patch.setattr(build, "task_features", refuse)
        with pytest.raises(DataError):
            make(folder, toy_backbone, seed=5)
    assert sorted(tree(folder)) == ["initial.safetensors", "plan.json"]
    make(folder, toy_backbone)
    assert tree(folder) == undisturbed


def test_a_full_disk_in_the_middle_of_a_shard_leaves_no_half_of_it(
    tmp_path: Path, toy_backbone: Backbone, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = tmp_path / "z", store.write_file

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".safetensors":
            raise ArtifactError("the disk is full")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_file", full)
        with refused(ArtifactError, "full"):
            make(folder, toy_backbone, seed=5)
    assert not list((folder / "shards").glob("*"))
    make(folder, toy_backbone)
    assert tree(folder) == undisturbed
