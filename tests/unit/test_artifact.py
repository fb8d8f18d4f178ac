import errno
import json
import os
from pathlib import Path

import pytest
import torch

from refusals import refused
from wildpdiff.artifact import (
    MANIFEST,
    SCHEMA_VERSION,
    read_artifact,
    read_safetensors,
    safetensors_bytes,
    tensors_hash,
    write_artifact,
)
from wildpdiff.disk import read_json, write_file
from wildpdiff.errors import ArtifactError, SchemaVersionError

TENSORS = {"weights": {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2, dtype=torch.int64)}}
CONFIG = {"size": 3, "name": "größe"}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "stage", "thing", CONFIG, TENSORS)
    return tmp_path / "stage"


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_is_written_is_read(folder: Path) -> None:
    artifact = read_artifact(folder, "thing")
    assert (artifact.folder, artifact.kind, artifact.config) == (folder, "thing", CONFIG)
    assert {n: v.tolist() for n, v in artifact.tensors["weights"].items()} == {
        "a": [1, 1],
        "b": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
    }


def test_keys_that_are_numbers_are_read_as_texts(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", "zoo", {"labels": dict.fromkeys(range(12), "x")}, {})
    assert list(read_artifact(tmp_path / "a", "zoo").config["labels"]) == sorted(map(str, range(12)))


def test_written_twice_the_bytes_are_equal(folder: Path, tmp_path: Path) -> None:
    reordered = {"weights": dict(reversed(TENSORS["weights"].items()))}
    fingerprint = write_artifact(tmp_path / "again", "thing", dict(reversed(CONFIG.items())), reordered)
    assert tree(folder) == tree(tmp_path / "again")
    assert fingerprint == read_artifact(folder, "thing").fingerprint


@pytest.mark.parametrize(
    ("kind", "config", "tensors"),
    [
        ("other", CONFIG, TENSORS),
        ("thing", {**CONFIG, "size": 4}, TENSORS),
        ("thing", CONFIG, {"weights": {**TENSORS["weights"], "a": torch.zeros(2)}}),
    ],
)
def test_every_part_decides_the_fingerprint(
    tmp_path: Path, folder: Path, kind: str, config: dict, tensors: dict
) -> None:
    assert write_artifact(tmp_path / "x", kind, config, tensors) != read_artifact(folder, "thing").fingerprint


@pytest.mark.parametrize("failure", [full_disk, broken])
def test_an_interrupted_folder_leaves_the_old_one_and_no_remains(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failure: object
) -> None:
    before = tree(folder)
    monkeypatch.setattr(os, "fsync", failure)
    with pytest.raises((ArtifactError, KeyboardInterrupt)):
        write_artifact(folder, "thing", {"size": 9}, TENSORS)
    assert tree(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["stage"]


@pytest.mark.parametrize("failure", [full_disk, broken])
def test_an_interrupted_file_leaves_the_old_one_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: object
) -> None:
    write_file(tmp_path / "note", b"old")
    monkeypatch.setattr(os, "fsync", failure)
    with pytest.raises((ArtifactError, KeyboardInterrupt)):
        write_file(tmp_path / "note", b"new")
    assert tree(tmp_path) == {"note": b"old"}


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with refused(ArtifactError, "disk is full", "new"):
        write_artifact(tmp_path / "new", "thing", CONFIG, TENSORS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_whole(folder: Path) -> None:
    (folder / "stray").write_text("of the old one")
    write_artifact(folder, "thing", {"size": 9}, {"other": TENSORS["weights"]})
    assert sorted(tree(folder)) == [MANIFEST, "other.safetensors"]
    assert read_artifact(folder, "thing").config == {"size": 9}
    assert [path.name for path in folder.parent.iterdir()] == ["stage"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with refused(ArtifactError, "file"):
        write_artifact(tmp_path / "file", "thing", CONFIG, TENSORS)
    assert tree(tmp_path) == {"file": b"mine"}


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / "weights.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-5])
    with refused(ArtifactError, "weights.safetensors", size - 5, size):
        read_artifact(folder, "thing")


def test_an_altered_file_is_named(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with refused(ArtifactError, "weights.safetensors", "altered"):
        read_artifact(folder, "thing")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with refused(ArtifactError, "weights.safetensors", "missing", "thing"):
        read_artifact(folder, "thing")


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, name: str) -> None:
    with refused(ArtifactError, "thing", "manifest.json"):
        read_artifact(tmp_path / name, "thing")


def test_another_kind_is_refused(folder: Path) -> None:
    with refused(ArtifactError, "thing", "generator"):
        read_artifact(folder, "generator")


def rewrite_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_a_newer_schema_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, schema_version=SCHEMA_VERSION + 1)
    with refused(SchemaVersionError, SCHEMA_VERSION + 1, SCHEMA_VERSION):
        read_artifact(folder, "thing")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"kind": "thing"}',
        '{"kind": "thing", "config": {}, "files": {}, "schema_version": "1"}',
        '{"kind": "thing", "config": {}, "files": ["a"], "schema_version": 1}',
        '{"kind": "thing", "config": {}, "files": {"a.safetensors": {"bytes": 1}}, "schema_version": 1}',
        '{"kind": "thing", "config": {}, "files": {"../a": {"bytes": 1, "sha256": ""}}, "schema_version": 1}',
    ],
)
def test_a_manifest_of_something_else_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with refused(ArtifactError, "manifest.json"):
        read_artifact(folder, "thing")


def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"kind": ')
    with refused(ArtifactError, "manifest.json", "JSON"):
        read_artifact(folder, "thing")


def test_an_edited_configuration_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, config={**CONFIG, "size": 4})
    with refused(ArtifactError, "altered"):
        read_artifact(folder, "thing")


def test_a_single_truncated_tensor_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors_bytes(TENSORS["weights"])[:-3])
    with refused(ArtifactError, tmp_path / "x"):
        read_safetensors(tmp_path / "x")


@pytest.mark.parametrize("read", [read_safetensors, read_json])
def test_a_missing_single_file_is_refused(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with refused(ArtifactError, tmp_path / "x"):
        read(tmp_path / "x")


def test_a_hash_of_tensors_depends_on_names_shapes_types_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3).int(), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) + 1e-6},
    ]
    hashes = [tensors_hash(entry) for entry in (base, *others)]
    assert len(set(hashes)) == len(hashes)
    assert tensors_hash(dict(reversed(base.items()))) == hashes[0]


def test_a_hash_takes_a_scalar_tensor() -> None:
    assert tensors_hash({"count": torch.tensor(3)}) != tensors_hash({"count": torch.tensor(4)})
