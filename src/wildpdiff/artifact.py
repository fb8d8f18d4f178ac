"""A stage on disk: safetensors and ``manifest.json``, written atomically, hashed and schema-versioned. Never pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from wildpdiff.errors import ArtifactError, SchemaVersionError

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "Artifact",
    "content_hash",
    "disk_errors",
    "file_hash",
    "json_bytes",
    "read_artifact",
    "read_json",
    "read_safetensors",
    "safetensors_bytes",
    "tensors_hash",
    "write_artifact",
    "write_file",
    "write_folder",
]

SCHEMA_VERSION = 1
"""Version of the on-disk layout. Raised when an older package could not read what a newer one writes."""

MANIFEST = "manifest.json"


def json_bytes(value: Any) -> bytes:
    """JSON with sorted keys and a final newline: the same value always gives the same bytes."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def content_hash(data: bytes) -> str:
    """SHA-256 of the bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with disk_errors(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one clear :class:`ArtifactError` sentence."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ArtifactError(
                f"The disk is full while writing {path}; nothing half-written was left. Free some space and run again."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise ArtifactError(f"{error.filename or path} does not exist. Check the path.") from error
        raise ArtifactError(f"{path}: {error.strerror or error}.") from error


def _write_bytes(path: Path, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            _write_bytes(temporary, data)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder(folder: Path, fill: Callable[[Path], None], *, overwrite: bool = True) -> None:
    """Fill a temporary sibling with ``fill(temporary)`` and rename it to ``folder``: all of it appears, or nothing.

    Raises:
        ArtifactError: the target is a file, exists where ``overwrite`` is false, or the disk refuses.
    """
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder} is a file; a folder is to be written there. Choose another path.")
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise ArtifactError(f"{folder} exists and is not empty. Choose another path or remove it.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            temporary.chmod(0o755)
            fill(temporary)
            if folder.exists():
                # A rename cannot replace a full folder: move the old one aside, so that a kill leaves one whole copy.
                previous = temporary.with_suffix(".previous")
                folder.rename(previous)
                temporary.rename(folder)
                shutil.rmtree(previous, ignore_errors=True)
            else:
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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
        raise ArtifactError(
            f"{path} is not a whole safetensors file ({error}). It may be truncated: copy or build it again."
        ) from error
    return tensors


def read_json(path: Path) -> Any:
    """Read a JSON file; raises :class:`ArtifactError` where it is missing or not JSON."""
    with disk_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{path} is not readable as JSON ({error}). Copy or build it again.") from error


@dataclass(frozen=True)
class Artifact:
    """A stage that was read from disk.

    Attributes:
        folder: where it lies.
        kind: what it is, for example ``generator``.
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
        "config": dict(config),
        "files": {name: {"sha256": content_hash(data), "bytes": len(data)} for name, data in contents.items()},
    }
    fingerprint = content_hash(json_bytes(body))
    manifest = json_bytes({**body, "fingerprint": fingerprint})

    def fill(temporary: Path) -> None:
        for name, data in contents.items():
            _write_bytes(temporary / name, data)
        _write_bytes(temporary / MANIFEST, manifest)

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
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not {"schema_version", "kind", "config", "files"} <= set(manifest):
        raise ArtifactError(f"{folder / MANIFEST} is not a manifest of this package. Check the path.")
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{folder} has schema version {manifest['schema_version']}; this package reads up to {SCHEMA_VERSION}. "
            "Update wildpdiff, or write it again with this version."
        )
    if manifest["kind"] != kind:
        raise ArtifactError(f"{folder} holds a {manifest['kind']}; a {kind} is needed. Check the path.")
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
    body = {key: manifest[key] for key in ("schema_version", "kind", "config", "files")}
    return Artifact(folder, kind, manifest["config"], tensors, content_hash(json_bytes(body)))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors: what identifies a set of weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
