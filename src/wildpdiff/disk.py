"""Files and folders that appear whole or not at all, JSON of one form, and clear errors where the disk refuses."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from wildpdiff.errors import ArtifactError

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
LIMITED = (errno.EFBIG, errno.EDQUOT)

Content = bytes | Callable[[BinaryIO], object]
"""A file's content, or a function that writes it into a stream."""

UNMOVABLE = (errno.EBUSY, errno.EXDEV, errno.EINVAL, *REFUSED)
"""Errors of renaming a folder that is a mount point, or that may be written but not moved."""

HASHED = ("manifest.json", "provenance.json")
"""Files that hold the hashes of those next to them."""

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]+\.(partial|previous)", re.DOTALL)
_LONGEST_NAME = 200
UNFINISHED = ".unfinished"
"""Folder of unfinished work, inside one that cannot be renamed."""

_RESERVED = ("lost+found", UNFINISHED)
"""Entries of a file system's own root, and :data:`UNFINISHED`: never taken for a result, never removed."""

COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that command a terminal or turn the direction of writing; names of files and classes may hold them."""


def visible(text: str) -> str:
    """The text with every character that would command a terminal written out, as ``\\x1b``; lines and tabs stay."""
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_bytes(value: Any) -> bytes:
    """JSON with sorted keys and a final newline: the same value always gives the same bytes.

    Bytes of a file name that are no text are escaped, and read as they were.
    """
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


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
    if "\0" in str(path):
        raise ArtifactError(f"{str(path)!r} holds the byte 0, which no path can. Correct it.")
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ArtifactError(
                f"The disk is full while writing {path}; nothing half-written is left. Free some space and run again."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise ArtifactError(f"{error.filename or path} does not exist. Check the path.") from error
        advice = " Choose another path, or change its permissions." if error.errno in REFUSED else ""
        if error.errno in LIMITED:
            advice = " A quota or a limit on the size of files is reached: raise it, or choose another path."
        raise ArtifactError(f"{path}: {error.strerror or error}.{advice}") from error


def write_bytes(path: Path, data: Content) -> None:
    """Write a file in place and wait until the disk has it; for files in a folder that is renamed afterwards."""
    with open(path, "wb") as stream:
        _fill(stream, data)
        stream.flush()
        os.fsync(stream.fileno())


def _fill(stream: BinaryIO, data: Content) -> None:
    if callable(data):
        data(stream)
    else:
        stream.write(data)


def write_file(path: Path, data: Content) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    A device, a pipe, a file that is mounted, and a file in a folder that cannot be written are written to directly: a
    rename would replace them by an ordinary file, or is not allowed.

    Args:
        path: of the file.
        data: its content, or a function that writes it part by part into the stream that it is given.
    """
    with disk_errors(path):
        special = path.exists() and not path.is_file() and not path.is_dir()
        if special or (path.is_file() and not os.access(path.parent, os.W_OK)):
            _write_directly(path, data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        with _temporary(path.parent, path.name, folder=False) as temporary:
            write_bytes(temporary, data)
            temporary.chmod(0o644)
            try:
                temporary.replace(path)
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.EXDEV):
                    raise
                _write_directly(path, temporary.read_bytes())


def _write_directly(path: Path, data: Content) -> None:
    """Write into a file or device as it is, when the whole content is known."""
    with tempfile.TemporaryFile() as whole:
        _fill(whole, data)
        whole.seek(0)
        with open(path, "wb") as stream:
            shutil.copyfileobj(whole, stream)
            if path.is_file():
                stream.flush()
                os.fsync(stream.fileno())


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary sibling with ``fill(temporary)`` and rename it to ``folder``: all of it appears, or nothing.

    Through a symbolic link the folder that it points to is written. A folder that exists and cannot be renamed (a
    mount point, the working folder, one in a folder that is read-only) is written as it is: filled inside, then moved
    up file by file, the file with the hashes first, so that a half-moved folder is refused by its readers.

    Raises:
        ArtifactError: the target is a file, or the disk refuses.
    """
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder} is a file; a folder is to be written there. Choose another path.")
        folder = folder.resolve() if folder.is_symlink() or folder.name in ("", "..") else folder
        if written_in_place(folder):
            remove_leftovers(folder)
            with _temporary(folder, folder.name, folder=True) as temporary:
                fill(temporary)
                _move_up(temporary, folder)
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent, folder.name)
        with _temporary(folder.parent, folder.name, folder=True) as temporary:
            temporary.chmod(0o755)
            fill(temporary)
            if folder.exists():
                _exchange(temporary, folder)
            else:
                temporary.rename(folder)


def written_in_place(folder: Path) -> bool:
    """Whether a folder exists that can be written but not renamed, as far as that is known before it is tried."""
    if not folder.is_dir():
        return False
    real = folder.resolve()
    with suppress(OSError):  # the working folder may have been removed
        if real in (Path.cwd(), *Path.cwd().parents):
            return True
    return os.path.ismount(real) or not os.access(real.parent, os.W_OK)


def own_entries(folder: Path) -> list[Path]:
    """The entries of a folder by name, without those of interrupted writing and of the file system."""
    entries = (entry for entry in folder.iterdir() if not _LEFTOVER.fullmatch(entry.name))
    return sorted(entry for entry in entries if entry.name not in _RESERVED)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files and folders that dead processes left in a folder.

    Files of a living process are locked and stay. A folder that was moved aside to be replaced, and whose replacement
    never came, is moved back.

    Args:
        folder: in which they lie; it need not exist.
        name: only those of the file or folder of this name.
    """
    if not folder.is_dir():
        return
    for entry in sorted(folder.glob(".*")):
        found = _LEFTOVER.fullmatch(entry.name)
        if found is None or (name is not None and found["name"] != _stem(name)) or not _abandoned(entry):
            continue
        if entry.suffix == ".previous" and entry.is_dir() and not (folder / found["name"]).exists():
            entry.rename(folder / found["name"])
        elif entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _stem(name: str) -> str:
    """A name in that of its temporary file, which must not be longer than file systems allow."""
    data = os.fsencode(name)
    return name if len(data) <= _LONGEST_NAME else content_hash(data)[:32]


def _abandoned(path: Path) -> bool:
    """Whether no process holds the lock of a temporary file or folder; where there are no locks, nobody can know."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(path: Path) -> int:
    """Open a file or folder and lock it, so that nobody takes it for a leftover; any death of the process frees it."""
    descriptor = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


@contextmanager
def _temporary(parent: Path, name: str, *, folder: bool) -> Iterator[Path]:
    """A new temporary file or folder, locked while it is in use, and removed at the end where it is still there."""
    prefix, suffix, lock = f".{_stem(name)}.", ".partial", -1
    while lock < 0:
        if folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        else:
            handle, made = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=parent)
            os.close(handle)
            path = Path(made)
        with suppress(FileNotFoundError):
            lock = _lock(path)
            if not path.exists():  # taken for a leftover before it was locked
                os.close(lock)
                lock = -1
    try:
        yield path
    finally:
        if folder:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        os.close(lock)


def _exchange(temporary: Path, folder: Path) -> None:
    """Replace an older folder by a filled one.

    A rename cannot replace a full folder: the old one is moved aside, so that a kill leaves one whole copy.
    """
    previous = temporary.with_suffix(".previous")
    lock = _lock(folder)
    try:
        folder.rename(previous)
    except OSError as error:
        if error.errno not in UNMOVABLE:
            raise
        with _temporary(folder, folder.name, folder=True) as inside:
            shutil.copytree(temporary, inside, dirs_exist_ok=True)
            _move_up(inside, folder)
    else:
        temporary.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        os.close(lock)


def _move_up(source: Path, folder: Path) -> None:
    """Move everything from a folder inside into a folder, and remove all older entries."""
    entries = sorted(source.iterdir(), key=lambda entry: (entry.name not in HASHED, entry.name))
    names = {entry.name for entry in entries}
    for entry in entries:
        goal = folder / entry.name
        if entry.is_dir() and goal.is_dir() and not goal.is_symlink():
            _move_up(entry, goal)
            continue
        if goal.is_dir() and not goal.is_symlink():
            shutil.rmtree(goal)
        elif entry.is_dir():
            goal.unlink(missing_ok=True)
        os.replace(entry, goal)
    for old in own_entries(folder):
        if old.name not in names:
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def read_json(path: Path, *, finite: bool = False) -> Any:
    """Read a JSON file; raises :class:`ArtifactError` where it is missing or not JSON.

    Python's reader takes NaN and infinities, which are not JSON; with ``finite`` they are refused here already.
    """
    with disk_errors(path):
        data = path.read_bytes()
    try:
        return json.loads(data, parse_constant=_no_constant if finite else None)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not readable as JSON ({error}). Copy or build it again.") from error
