"""Folders of adapters to read, and checks of outputs: new, empty, or with an older result of the same kind."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wildpdiff.disk import REFUSED, disk_errors, own_entries, read_json, remove_leftovers
from wildpdiff.errors import ArtifactError

ADAPTER_FILES = ("README.md", "adapter_config.json", "adapter_model.safetensors", "provenance.json")
SUBFOLDERS = {"generator": ("trust", "backbone")}


def adapter_folders(given: Sequence[Path]) -> list[Path]:
    """The adapters' folders: those given, and instead of a folder of several (``generate -n``) those inside.

    Where there are none inside, those one level deeper, as trainers and named adapters of PEFT have them.
    """
    found: list[Path] = []
    for folder in given:
        inside: list[Path] = []
        if folder.is_dir() and not (folder / "adapter_config.json").exists():
            with disk_errors(folder):
                for pattern in ("[!.]*", "[!.]*/[!.]*"):
                    inside = inside or sorted(entry.parent for entry in folder.glob(f"{pattern}/adapter_config.json"))
        found += inside or [folder]
    return found


def check_output_artifact(folder: Path, kind: str) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or an artifact of this kind and nothing else."""
    check_output_folder(folder)
    if _entries(folder):
        manifest = folder / "manifest.json"
        found = read_json(manifest) if manifest.is_file() else None
        if not isinstance(found, dict) or found.get("kind") != kind:
            raise ArtifactError(f"{folder} is not empty and holds no {kind}. Choose another --out, or empty it.")
        _refuse_others(folder, {"manifest.json", *(found.get("files") or ()), *SUBFOLDERS.get(kind, ())}, kind)
    remove_leftovers(folder)


def check_output_adapters(folder: Path, n: int) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or holds nothing but generated adapters."""
    check_output_folder(folder)
    inside = _entries(folder)
    if inside and n == 1:
        inside = [folder]
    if not all((entry / "provenance.json").is_file() for entry in inside):
        what = "adapter" if n == 1 else "set of adapters"
        raise ArtifactError(f"{folder} is not empty and holds no {what}. Choose another --out, or empty it.")
    for entry in inside:
        _refuse_others(entry, ADAPTER_FILES, "adapter")
    remove_leftovers(folder)


def check_output_package(folder: Path, files: Container[str], read: Iterable[Path]) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or an older package of these files alone.

    Args:
        read: files that are read; the folder of none is written over.
    """
    check_output_folder(folder)
    if _is_among(folder, {file.parent for file in read}):
        raise ArtifactError(f"{folder} is the folder that is read. Choose another --out.")
    if _entries(folder):
        if not (folder / "datapackage.json").is_file():
            raise ArtifactError(f"{folder} is not empty and holds no Camtrap DP package. Choose another --out.")
        _refuse_others(folder, files, "package")
    remove_leftovers(folder)


def check_output_file(path: Path, read: Iterable[Path] = ()) -> None:
    """Raise :class:`ArtifactError` unless the file can be written and is none of those that are read."""
    if _is_among(path, read):
        raise ArtifactError(f"{path} is one of the files that are read; it would be replaced. Choose another --out.")
    with disk_errors(path):
        if path.is_dir():
            raise ArtifactError(f"{path} is a folder; a file is to be written there. Choose another --out.")
        if path.exists() and os.access(path, os.W_OK):
            return
        _refuse_lost_link(path)
    check_output_folder(path.parent)
    with disk_errors(path):
        if path.parent.is_dir() and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            path.unlink()


def _is_among(path: Path, others: Iterable[Path]) -> bool:
    """Whether a file or folder is one of others, under whatever name or link."""
    own = _identity(path)
    return own is not None and any(_identity(other) == own for other in others)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def check_output_folder(folder: Path) -> None:
    """Raise :class:`ArtifactError` unless files can be made in the folder, or the folder itself, where it is missing.

    It is tried, and nothing is left of the attempt.
    """
    with disk_errors(folder):
        if folder.is_dir():
            with _named(folder, folder), tempfile.TemporaryFile(dir=folder):
                return
        _refuse_lost_link(folder)
        if folder.exists():
            raise ArtifactError(f"{folder} is a file; a folder is to be written there. Choose another --out.")
        missing = [folder.absolute()]
        while not os.path.lexists(missing[-1].parent):
            missing.append(missing[-1].parent)
        above = missing[-1].parent
        _refuse_lost_link(above)
        if not above.is_dir():
            raise ArtifactError(f"{folder} cannot be written: {above} is a file. Choose another --out.")
        made: list[Path] = []
        try:
            with _named(folder, above):
                for part in reversed(missing):
                    part.mkdir()
                    made.append(part)
        finally:
            for part in reversed(made):
                part.rmdir()


@contextmanager
def _named(folder: Path, above: Path) -> Iterator[None]:
    """Name the folder that is read-only, where that is why another one cannot be written."""
    try:
        if not os.access(above, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))
        yield
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise ArtifactError(f"{folder} cannot be written: {above} is read-only. Choose another --out.") from error


def _refuse_lost_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ArtifactError(f"{path} is a link that leads nowhere. Choose another --out, or remove it.")


def _refuse_others(folder: Path, own: Container[str], what: str) -> None:
    """Refuse a folder with foreign files: a result is replaced as a whole, and they would be lost."""
    others = [entry.name for entry in _entries(folder) if entry.name not in own]
    if others:
        raise ArtifactError(f"{folder} holds {others[0]!r}, no part of the {what} there. Choose another --out.")


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder, if it exists."""
    with disk_errors(folder):
        return own_entries(folder) if folder.is_dir() else []
