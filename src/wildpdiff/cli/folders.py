"""Folders that a verb may write: new, empty, or holding an older result of the same kind. Anything else is kept."""

from __future__ import annotations

from pathlib import Path

from wildpdiff.disk import disk_errors, read_json
from wildpdiff.errors import ArtifactError

__all__ = ["may_write_adapters", "may_write_artifact"]


def may_write_artifact(folder: Path, kind: str) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or an artifact of this kind, to be replaced."""
    if not _holds_something(folder):
        return
    manifest = folder / "manifest.json"
    found = read_json(manifest) if manifest.is_file() else None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise ArtifactError(f"{folder} is not empty and holds no {kind}. Choose another --out, or empty it.")


def may_write_adapters(folder: Path, n: int) -> None:
    """Raise :class:`ArtifactError` unless the folder is new, empty, or holds nothing but generated adapters."""
    if not _holds_something(folder):
        return
    inside = [folder] if n == 1 else list(folder.iterdir())
    if not all((entry / "provenance.json").is_file() for entry in inside):
        what = "adapter" if n == 1 else "set of adapters"
        raise ArtifactError(f"{folder} is not empty and holds no {what}. Choose another --out, or empty it.")


def _holds_something(folder: Path) -> bool:
    with disk_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder} is a file; a folder is to be written there. Choose another --out.")
        return folder.is_dir() and any(folder.iterdir())
