"""A stage on disk: safetensors and ``manifest.json``, written atomically, hashed and schema-versioned. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from wildpdiff.disk import (
    content_hash,
    disk_errors,
    file_hash,
    json_bytes,
    read_json,
    write_bytes,
    write_folder,
)
from wildpdiff.errors import ArtifactError
from wildpdiff.records import check_version

SCHEMA_VERSION = 1
"""Version of the on-disk layout. Raised when an older package could not read what a newer one writes."""

MANIFEST = "manifest.json"


def safetensors_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors in the safetensors format; the same tensors always give the same bytes."""
    data: bytes = save_tensors({name: tensors[name].detach().contiguous().cpu() for name in sorted(tensors)})
    return data


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; raises :class:`ArtifactError` where it is missing, truncated or no such file."""
    with disk_errors(path):
        data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except SafetensorError as error:
        if data.startswith(b"version https://git-lfs"):
            raise ArtifactError(f"{path} is a pointer of Git LFS. Fetch the file itself: git lfs pull.") from None
        raise ArtifactError(f"{path} is not a whole safetensors file ({error}). Copy or build it again.") from error
    return tensors


@dataclass(frozen=True)
class Artifact:
    """A stage that was read from disk.

    Attributes:
        folder: on disk.
        kind: for example ``generator``.
        config: plain JSON values.
        tensors: named groups of tensors, one group a file.
        fingerprint: SHA-256 over kind, configuration and file hashes.
    """

    folder: Path
    kind: str
    config: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    fingerprint: str


def write_artifact(
    folder: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
) -> str:
    """Write a stage atomically and return its fingerprint.

    Each entry of ``tensors`` becomes ``NAME.safetensors``; the manifest holds the schema version, the configuration
    and the SHA-256 of every file. Nothing in it depends on time or machine: equal input gives equal bytes.
    """
    contents = {f"{name}.safetensors": safetensors_bytes(group) for name, group in sorted(tensors.items())}
    body = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        # As it is read again: keys that are numbers become texts, which are sorted otherwise.
        "config": json.loads(json_bytes(dict(config))),
        "files": {name: {"sha256": content_hash(data), "bytes": len(data)} for name, data in contents.items()},
    }
    fingerprint = content_hash(json_bytes(body))
    manifest = json_bytes({**body, "fingerprint": fingerprint})

    def fill(temporary: Path) -> None:
        for name, data in contents.items():
            write_bytes(temporary / name, data)
        write_bytes(temporary / MANIFEST, manifest)

    write_folder(folder, fill)
    return fingerprint


def read_artifact(folder: Path, kind: str) -> Artifact:
    """Read a stage and check it.

    Raises:
        ArtifactError: missing, of another kind, truncated or altered (a hash differs).
        SchemaVersionError: written by a newer version of the package.
    """
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{folder} holds no {kind}: {MANIFEST} is missing. Check the path.")
    manifest = read_json(folder / MANIFEST, finite=True)
    if not _is_manifest(manifest):
        raise ArtifactError(f"{folder / MANIFEST} is not a manifest of this package. Check the path.")
    check_version(manifest.get("schema_version"), SCHEMA_VERSION, folder / MANIFEST)
    if manifest["kind"] != kind:
        raise ArtifactError(f"{folder} holds a {manifest['kind']}; a {kind} is needed. Check the path.")
    body = {key: manifest[key] for key in ("schema_version", "kind", "config", "files")}
    if manifest.get("fingerprint") != content_hash(json_bytes(body)):
        raise ArtifactError(f"{folder / MANIFEST} is altered: its fingerprint differs. Copy or build the {kind} again.")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, entry in manifest["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else -1
        if found != entry["bytes"] or file_hash(path) != entry["sha256"]:
            state = "missing" if found < 0 else f"{found} bytes, {entry['bytes']} expected"
            if found == entry["bytes"]:
                state = "altered: its hash differs from the manifest"
            raise ArtifactError(f"{path} is {state}. Copy or build the {kind} again.")
        tensors[name.removesuffix(".safetensors")] = read_safetensors(path)
    return Artifact(folder, kind, manifest["config"], tensors, manifest["fingerprint"])


def _is_manifest(value: Any) -> bool:
    """Whether it has the form of one; files lie in the folder itself."""
    if not isinstance(value, dict) or not {"kind", "config"} <= set(value):
        return False
    files = value.get("files")
    return (
        isinstance(files, dict)
        and all(Path(name).name == name for name in files)
        and all(isinstance(entry, dict) and {"bytes", "sha256"} <= set(entry) for entry in files.values())
    )


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors: the identity of a set of weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
