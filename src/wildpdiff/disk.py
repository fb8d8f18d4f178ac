"""Files and folders that appear whole or not at all, JSON of one form, and clear sentences where the disk refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wildpdiff.errors import ArtifactError

__all__ = [
    "content_hash",
    "disk_errors",
    "file_hash",
    "json_bytes",
    "read_json",
    "write_bytes",
    "write_file",
    "write_folder",
]


REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


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
        advice = " Choose another place, or change its permissions." if error.errno in REFUSED else ""
        raise ArtifactError(f"{path}: {error.strerror or error}.{advice}") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in place and wait until the disk has it; for files in a folder that is renamed afterwards."""
    with open(path, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    A device or a pipe is written to directly: a rename would replace it by an ordinary file.
    """
    with disk_errors(path):
        if path.exists() and not path.is_file() and not path.is_dir():
            with open(path, "wb") as stream:
                stream.write(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write_bytes(temporary, data)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_folder(folder: Path, fill: Callable[[Path], None], *, overwrite: bool = True) -> None:
    """Fill a temporary sibling with ``fill(temporary)`` and rename it to ``folder``: all of it appears, or nothing.

    Through a symbolic link the folder that it points to is written.

    Raises:
        ArtifactError: the target is a file, exists where ``overwrite`` is false, or the disk refuses.
    """
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder} is a file; a folder is to be written there. Choose another path.")
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise ArtifactError(f"{folder} exists and is not empty. Choose another path or remove it.")
        folder = folder.resolve() if folder.is_symlink() else folder
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


def read_json(path: Path) -> Any:
    """Read a JSON file; raises :class:`ArtifactError` where it is missing or not JSON."""
    with disk_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not readable as JSON ({error}). Copy or build it again.") from error
