import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch

import toys
from refusals import refused
from wildpdiff.artifact import SCHEMA_VERSION, read_safetensors
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError, SchemaVersionError
from wildpdiff.zoo.store import Zoo, ZooPlan, read_rows, shard_path

CHECKPOINTS = toys.FINETUNE.checkpoints


@pytest.fixture
def copy(toy_zoo: Zoo, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_zoo.folder, tmp_path / "zoo"))


def test_the_index_has_a_row_for_every_checkpoint(toy_zoo: Zoo) -> None:
    names = [f"seen-{i}" for i in range(5)]
    assert toy_zoo.index.column_names == [
        "row",
        "shard",
        "row_in_shard",
        "task",
        "step",
        "seed",
        "train_loss",
        "validation_accuracy",
    ]
    assert len(toy_zoo) == 5 * CHECKPOINTS
    assert toy_zoo.column("row") == list(range(25))
    assert toy_zoo.column("task") == [name for name in names for _ in range(CHECKPOINTS)]
    assert toy_zoo.column("step") == list(toys.FINETUNE.saved_steps) * 5
    assert toy_zoo.column("shard") == [0] * 10 + [1] * 10 + [2] * 5
    assert toy_zoo.column("row_in_shard") == [*range(10), *range(10), *range(5)]
    assert set(toy_zoo.column("seed")) == {0}
    assert all(0 <= value <= 1 for value in toy_zoo.column("validation_accuracy"))
    assert all(0 < value < 5 for value in toy_zoo.column("train_loss"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux lists them")
def test_reading_starts_no_thread_that_would_abort_a_process_that_ends_at_once(toy_zoo: Zoo) -> None:
    count = "len(os.listdir('/proc/self/task'))"
    code = (
        f"import os, wildpdiff.zoo.store as s, pathlib; n = {count}; s.Zoo.open(pathlib.Path({str(toy_zoo.folder)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; print({count} - n)"], capture_output=True, check=True)
    assert int(done.stdout) == 0


def test_rows_in_any_order_are_those_of_the_whole_file(toy_zoo: Zoo) -> None:
    whole = [read_safetensors(shard_path(toy_zoo.folder, number)) for number in range(3)]
    full = {name: torch.cat([shard[name] for shard in whole]) for name in whole[0]}
    for rows in ([24, 0, 11, 3, 3, 19], [7], list(range(25)), list(reversed(range(25)))):
        found = toy_zoo.tensors(rows)
        assert set(found) == set(full)
        assert all(torch.equal(value, full[name][rows]) for name, value in found.items())


def test_some_rows_of_a_shard(toy_zoo: Zoo) -> None:
    path = shard_path(toy_zoo.folder, 1)
    whole = read_safetensors(path)
    assert all(torch.equal(value, whole[name][[8, 2, 2]]) for name, value in read_rows(path, [8, 2, 2]).items())
    assert read_rows(path, []) == {}


def test_adapters_of_the_zoo_fit_the_backbone_and_know_their_task(toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    final = toy_zoo.task_adapters()
    assert tuple(final) == toy_zoo.tasks
    for task, adapter in final.items():
        toy_backbone.check(adapter)
        assert (adapter.provenance["task"], adapter.provenance["zoo"]) == (task, toy_zoo.plan.fingerprint)
        rows = [row for row, name in enumerate(toy_zoo.column("task")) if name == task]
        assert rows == toy_zoo.rows_of(task)
        kept = toy_zoo.tensors(rows)
        assert len(rows) == CHECKPOINTS
        assert all(torch.equal(value, kept[name].mean(0)) for name, value in adapter.tensors.items())


def test_the_fine_tuned_adapter_is_better_on_its_task_than_the_initial_one(
    toy_zoo: Zoo, toy_backbone: Backbone
) -> None:
    def accuracy(task: toys.ToyTask, tensors: object) -> float:
        data = task.data("test")
        logits = toy_backbone.predict(toy_backbone.stem(data.images), tensors)  # type: ignore[arg-type]
        return float((logits.argmax(1) == torch.from_numpy(data.labels)).float().mean())

    tasks = toys.ToySuite().tasks("seen")
    final = toy_zoo.task_adapters()
    gains = [accuracy(t, final[t.name].tensors) - accuracy(t, toy_zoo.initial.tensors) for t in tasks]
    assert sum(gains) / len(gains) > 0.1


def test_only_some_tasks(toy_zoo: Zoo) -> None:
    part = toy_zoo.only(["seen-4", "seen-1"])
    assert part.tasks == ("seen-1", "seen-4")
    assert len(part) == 2 * CHECKPOINTS
    assert part.rows_of("seen-4") == list(range(CHECKPOINTS, 2 * CHECKPOINTS))
    assert part.plan.fingerprint != toy_zoo.plan.fingerprint
    for task in part.tasks:
        assert part.task_adapters()[task].distance(toy_zoo.task_adapters()[task]) == 0.0
    assert len(toy_zoo) == 5 * CHECKPOINTS


@pytest.mark.parametrize(("tasks", "name"), [(["seen-1", "nowhere"], "'nowhere'"), ([], "'(none named)'")])
def test_only_unknown_tasks_are_refused(toy_zoo: Zoo, tasks: list[str], name: str) -> None:
    with refused(ArtifactError, name):
        toy_zoo.only(tasks)


def test_only_the_last_checkpoints(toy_zoo: Zoo) -> None:
    part = toy_zoo.only(["seen-1", "seen-4"]).last(2)
    assert part.tasks == ("seen-1", "seen-4")
    assert part.column("step") == 2 * list(toys.FINETUNE.saved_steps[-2:])
    assert part.column("task") == ["seen-1", "seen-1", "seen-4", "seen-4"]
    assert part.plan.finetune["checkpoints"] == 2
    for task in part.tasks:
        two = toy_zoo.tensors(toy_zoo.rows_of(task)[-2:])
        assert all(torch.equal(v, two[name].mean(0)) for name, v in part.task_adapters()[task].tensors.items())
    stacked, whole = part.tensors(part.rows_of("seen-4")), toy_zoo.tensors(toy_zoo.rows_of("seen-4")[-2:])
    assert all(torch.equal(value, whole[name]) for name, value in stacked.items())
    assert toy_zoo.last(CHECKPOINTS).index.equals(toy_zoo.index)


@pytest.mark.parametrize("checkpoints", [0, CHECKPOINTS + 1])
def test_more_checkpoints_than_there_are_or_none_are_refused(toy_zoo: Zoo, checkpoints: int) -> None:
    with refused(ArtifactError, checkpoints, CHECKPOINTS):
        toy_zoo.last(checkpoints)


def test_a_moved_zoo_is_the_same_zoo(toy_zoo: Zoo, copy: Path) -> None:
    moved = Zoo.open(copy)
    assert moved.plan == toy_zoo.plan
    assert moved.index.equals(toy_zoo.index)
    assert moved.initial.distance(toy_zoo.initial) == 0.0


def test_a_folder_without_a_zoo_is_refused(tmp_path: Path) -> None:
    with refused(ArtifactError, tmp_path, "plan.json"):
        Zoo.open(tmp_path)


def test_an_unfinished_zoo_is_refused(copy: Path) -> None:
    (copy / "index.parquet").unlink()
    with refused(ArtifactError, copy, "wildpdiff zoo build"):
        Zoo.open(copy)


def test_a_truncated_index_is_refused(copy: Path) -> None:
    path = copy / "index.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with refused(ArtifactError, copy / "index.parquet", "wildpdiff zoo build"):
        Zoo.open(copy)


def test_a_truncated_shard_is_refused(copy: Path) -> None:
    path = shard_path(copy, 1)
    path.write_bytes(path.read_bytes()[:-20])
    with refused(ArtifactError, shard_path(copy, 1), "wildpdiff zoo build"):
        Zoo.open(copy).tensors([12])


def test_a_missing_shard_is_refused(copy: Path) -> None:
    shard_path(copy, 1).unlink()
    with refused(ArtifactError, shard_path(copy, 1)):
        Zoo.open(copy).tensors([12])


def rewrite(folder: Path, **changes: object) -> None:
    plan = json.loads((folder / "plan.json").read_bytes())
    (folder / "plan.json").write_text(json.dumps({**plan, **changes}))


def test_a_newer_zoo_is_refused(copy: Path) -> None:
    rewrite(copy, schema_version=99)
    with refused(SchemaVersionError, copy / "plan.json", 99, SCHEMA_VERSION):
        Zoo.open(copy)


def test_the_plan_of_something_else_is_refused(copy: Path) -> None:
    rewrite(copy, kind="generator")
    with refused(ArtifactError, copy / "plan.json"):
        Zoo.open(copy)


def test_the_plan_survives_json(toy_zoo: Zoo) -> None:
    plan = toy_zoo.plan
    assert ZooPlan.read(toy_zoo.folder) == plan
    assert json.loads((toy_zoo.folder / "plan.json").read_bytes()) == plan.to_json()
    assert plan.shards == (("seen-0", "seen-1"), ("seen-2", "seen-3"), ("seen-4",))


def test_the_index_is_ordinary_parquet(toy_zoo: Zoo) -> None:
    assert parquet.read_table(toy_zoo.folder / "index.parquet").num_rows == 25
