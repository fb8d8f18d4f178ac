"""Zoos whose files were altered, exchanged or copied over each other: refused by readers, made again by a build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_world import SUITE, Run, World, refused_run

import toys
from refusals import refused
from wildpdiff.backbones.backbone import Backbone
from wildpdiff.errors import ArtifactError
from wildpdiff.zoo.build import build_zoo
from wildpdiff.zoo.store import KEY, Zoo, shard_path

Attack = Callable[[Path], None]
SUITE_OF_TOYS = toys.ToySuite()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def negate(path: Path) -> None:
    save_file({name: -value for name, value in load_file(path).items()}, path)


def turn_signs(folder: Path) -> None:
    negate(shard_path(folder, 1))


def turn_signs_of_the_initialisation(folder: Path) -> None:
    negate(folder / "initial.safetensors")


def exchange_tensors(folder: Path) -> None:
    first, second = shard_path(folder, 0), shard_path(folder, 1)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def exchange_shards(folder: Path) -> None:
    exchange_tensors(folder)
    first, second = shard_path(folder, 0, "parquet"), shard_path(folder, 1, "parquet")
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def copy_one_over_another(folder: Path) -> None:
    for suffix in ("safetensors", "parquet"):
        shutil.copy(shard_path(folder, 0, suffix), shard_path(folder, 1, suffix))


def one_bit(folder: Path) -> None:
    path = shard_path(folder, 2)
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x40
    path.write_bytes(data)


def rename_a_task_in_the_index(folder: Path) -> None:
    table = parquet.read_table(folder / "index.parquet")
    names = table.column("task").to_pylist()
    swapped = [{"seen-0": "seen-1", "seen-1": "seen-0"}.get(name, name) for name in names]
    index = table.schema.get_field_index("task")
    parquet.write_table(table.set_column(index, table.schema.field(index), [swapped]), folder / "index.parquet")


def lose_the_index_hashes_of_a_shard(folder: Path) -> None:
    table = parquet.read_table(folder / "index.parquet")
    hashes = json.loads(table.schema.metadata[KEY])
    hashes["shards"] = hashes["shards"][:1]
    parquet.write_table(table.replace_schema_metadata({KEY: json.dumps(hashes)}), folder / "index.parquet")


ATTACKS = [
    turn_signs,
    turn_signs_of_the_initialisation,
    exchange_tensors,
    exchange_shards,
    copy_one_over_another,
    one_bit,
    rename_a_task_in_the_index,
    lose_the_index_hashes_of_a_shard,
]


def build(folder: Path, backbone: Backbone, seed: int = 0) -> Zoo:
    tasks = SUITE_OF_TOYS.tasks("seen")
    return build_zoo(folder, backbone, tasks, SUITE_OF_TOYS.fingerprint, config=toys.FINETUNE, per_shard=2, seed=seed)


@pytest.fixture
def zoo(toy_zoo: Zoo, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_zoo.folder, tmp_path / "zoo"))


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_altered_is_refused_and_made_again(
    zoo: Path, toy_zoo: Zoo, toy_backbone: Backbone, attack: Attack
) -> None:
    attack(zoo)
    with refused(ArtifactError, "wildpdiff zoo build"):
        Zoo.open(zoo)
    build(zoo, toy_backbone)
    assert files_of(zoo) == files_of(toy_zoo.folder)


def test_a_plan_of_another_seed_is_refused_and_restored(zoo: Path, toy_zoo: Zoo, toy_backbone: Backbone) -> None:
    path = zoo / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "seed": 1}))
    with refused(ArtifactError, zoo / "plan.json"):
        Zoo.open(zoo)
    build(zoo, toy_backbone)
    assert files_of(zoo) == files_of(toy_zoo.folder)


def test_a_build_by_the_altered_plan_takes_no_shard_of_the_old_one(zoo: Path, toy_backbone: Backbone) -> None:
    path = zoo / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "seed": 1}))
    with refused(ArtifactError, zoo):
        build(zoo, toy_backbone, seed=2)
    built = build(zoo, toy_backbone, seed=1)
    assert set(built.column("seed")) == {1}
    assert Zoo.open(zoo).initial.distance(build(zoo.parent / "fresh", toy_backbone, seed=1).initial) == 0


@pytest.mark.parametrize("key", ["suite", "finetune", "adapter", "per_shard", "tasks", "seed", "schema_version"])
def test_a_plan_that_lacks_a_key_is_refused_in_a_sentence(zoo: Path, key: str) -> None:
    path = zoo / "plan.json"
    plan = json.loads(path.read_bytes())
    for value in (None, [], "x", -1, True, 10**400, [[]]):
        path.write_text(json.dumps({**plan, key: value}))
        with pytest.raises(ArtifactError):
            Zoo.open(zoo)
    path.write_text(json.dumps({name: entry for name, entry in plan.items() if name != key}))
    with refused(ArtifactError, zoo / "plan.json"):
        Zoo.open(zoo)


def test_a_zoo_from_before_the_hashes_is_read_and_known_as_such(zoo: Path, toy_zoo: Zoo) -> None:
    for path in zoo.rglob("*.parquet"):
        parquet.write_table(parquet.read_table(path).replace_schema_metadata(None), path)
    old = Zoo.open(zoo)
    assert not old.hashed
    assert toy_zoo.hashed
    assert torch.equal(
        next(iter(old.task_adapters()["seen-0"].tensors.values())),
        next(iter(toy_zoo.task_adapters()["seen-0"].tensors.values())),
    )


def test_the_verbs_refuse(world: World, run: Run, copy: Callable[[Path], Path], tmp_path: Path) -> None:
    broken = copy(world.zoo)
    negate(shard_path(broken, 0))
    refused_run(run("inspect", broken), "shard-00000.safetensors", "altered")
    common = [*SUITE, "--backbone", world.backbone, "--out", tmp_path / "out"]
    refused_run(run("fit", "--zoo", broken, *common), "altered")
    refused_run(run("evaluate", "--zoo", broken, "--generator", world.generator, *common), "altered")
    assert not (tmp_path / "out").exists()


def test_fit_on_a_zoo_from_before_the_hashes_has_a_remark(
    world: World, run: Run, copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    old = copy(world.zoo)
    for path in old.rglob("*.parquet"):
        parquet.write_table(parquet.read_table(path).replace_schema_metadata(None), path)
    assert "earlier version" in run("inspect", old).out
    words = ["fit", "--zoo", old, "-o", "seen=7", "--backbone", world.backbone, "--out", tmp_path / "out"]
    assert "earlier version" in run(*words).err
