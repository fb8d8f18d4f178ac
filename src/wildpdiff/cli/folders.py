"""Folders of adapters to read, and folders that a verb may write: new, empty, or with an older result of its kind."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path

from wildpdiff.disk import disk_errors, read_json
from wildpdiff.errors import ArtifactError

__all__ = ["adapter_folders", "may_write_adapters", "may_write_artifact", "may_write_file"]

ADAPTER_FILES = ("README.md", "adapter_config.json", "adapter_model.safetensors", "provenance.json")
SUBFOLDERS = {"generator": ("trust",)}


def adapter_folders(given: Sequence[Path]) -> list[Path]:
    """The adapters' folders: those given, and in the place of a folder of several (``generate -n``) those inside."""
    found: list[Path] = []
    for folder in given:
        inside: list[Path] = []
        if folder.is_dir() and not (folder / "adapter_config.json").exists():
            with disk_errors(folder):
                inside = sorted(entry.parent for entry in folder.glob("[!.]*/adapter_config.json"))
        found += inside or [folder]
    return found


def may_write_artifact(folder: Path, kind: str) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or an artifact of this kind and nothing else."""
    if not _holds_something(folder):
        return
    manifest = folder / "manifest.json"
    found = read_json(manifest) if manifest.is_file() else None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise ArtifactError(f"{folder} is not empty and holds no {kind}. Choose another --out, or empty it.")
    _refuse_others(folder, {"manifest.json", *(found.get("files") or ()), *SUBFOLDERS.get(kind, ())}, kind)


def may_write_adapters(folder: Path, n: int) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or holds nothing but generated adapters."""
    if not _holds_something(folder):
        return
    inside = [folder] if n == 1 else list(folder.iterdir())
    if not all((entry / "provenance.json").is_file() for entry in inside):
        what = "adapter" if n == 1 else "set of adapters"
        raise ArtifactError(f"{folder} is not empty and holds no {what}. Choose another --out, or empty it.")
    for entry in inside:
        _refuse_others(entry, ADAPTER_FILES, "adapter")


def may_write_file(path: Path, read: Container[Path]) -> None:
    """Raise :class:`ArtifactError` where the file that is to be written is one of those that are read."""
    if path.resolve() in read:
        raise ArtifactError(f"{path} is one of the files that are read; it would be replaced. Choose another --out.")


def _refuse_others(folder: Path, own: Container[str], what: str) -> None:
    """A result is replaced as a whole; what somebody put beside it would be lost."""
    with disk_errors(folder):
        others = sorted(entry.name for entry in folder.iterdir() if entry.name not in own)
    if others:
        raise ArtifactError(
            f"{folder} holds {others[0]!r}, which is no part of the {what} there and would be lost. Choose another "
            "--out, or move it."
        )


def _holds_something(folder: Path) -> bool:
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not os.access(above if above != folder.absolute() else above.parent, os.W_OK):
        raise ArtifactError(f"{folder} cannot be written: {above} is read-only for you. Choose another --out.")
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder} is a file; a folder is to be written there. Choose another --out.")
        return folder.is_dir() and any(folder.iterdir())
